-- Deadlines: a job with a timeout has a task beneath its coordinator that is due when the time is up. The database runs
-- it.

create function @extschema@.run_deadline(job text, task text, token uuid) returns text
language plpgsql
volatile
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    asker record := asker_of(run_deadline.job);
    ended turn;
begin
    perform lock_jobs(array_remove(array[run_deadline.job, asker.asker_job], null), waiting => true);
    -- The asker of a job does not change while its deadline is held.
    if lock_held_task(run_deadline.job, run_deadline.task, run_deadline.token) is null then
        return 'gone';
    end if;
    ended := terminated_turn(run_deadline.job, split_part(run_deadline.task, '/', 1)::integer, null);
    ended.state := 'failed';
    ended.value := make_failure(
        'PD601', 'TimeoutError',
        format('the job took longer than %s', (select j.timeout from jobs as j where j.id = run_deadline.job)),
        'It was ended at once, without cleaning up.', 'Give it more time, or retry() it.');
    perform end_run(ended, clock());
    return 'done';
end
$$;
comment on function @extschema@.run_deadline(text, text, uuid) is
    'Fail a job whose time is up: delete its tasks and fence their holders; return gone if the job has ended or was given another run. [P6] [P7] [P10]';
