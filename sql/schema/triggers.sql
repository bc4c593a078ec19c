-- Triggers: they keep history and contracts true, whoever writes. They belong to tables, which are the app's, and depend
-- on functions, which may be the extension's: dropping those drops them, and migrate() creates them again.

-- An ordinary update of the memory is a command too: history and time travel stay true whoever writes. Triggers of one
-- kind fire in order of their names. This one comes last: it records the row as the triggers of users leave it, and an
-- update that they suppress is none.
create or replace trigger zzz_updates_are_commands
    before update of context on @extschema@.jobs
    for each row
    when (old.version = new.version and old.context::text is distinct from new.context::text)
    execute function @extschema@.record_update();
comment on trigger zzz_updates_are_commands on @extschema@.jobs is
    'Gives a plain UPDATE of the memory its version and its row in the journal.';

-- This one comes first: a trigger of a user that gives the new job a command finds its document in the journal.
create or replace trigger aaa_first_documents_are_commands
    after insert on @extschema@.jobs
    for each row
    when (new.context <> '{}')
    execute function @extschema@.record_insert();
comment on trigger aaa_first_documents_are_commands on @extschema@.jobs is 'Journals the document that a job begins with, as version 1.';

-- What belongs to a job is found by its id, and only forget() deletes it with the job.
create or replace trigger ids_stay
    before update of id on @extschema@.jobs
    for each row
    when (old.id <> new.id)
    execute function @extschema@.refuse_new_id();
comment on trigger ids_stay on @extschema@.jobs is 'Refuses a plain UPDATE of an id.';

create or replace trigger jobs_are_forgotten
    after delete on @extschema@.jobs
    referencing old table as deleted
    for each statement
    execute function @extschema@.refuse_delete();
comment on trigger jobs_are_forgotten on @extschema@.jobs is 'Refuses a plain DELETE of a job that has a past or a task.';
