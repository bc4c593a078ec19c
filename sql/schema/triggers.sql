-- Triggers: what keeps history and contracts true whoever writes. They stand on tables, which are the app's, and rest on
-- functions, which may be the extension's: whoever drops that drops them, and migrate() makes them again.

-- An ordinary update of the memory is a command too: history and time travel stay true whoever writes. Triggers of one kind fire in
-- order of their names. This one comes last: what those of users make of the row is what it journals, and what they leave out is none.
create or replace trigger zzz_updates_are_commands
    before update of context on @extschema@.jobs
    for each row
    when (old.version = new.version and old.context::text is distinct from new.context::text)
    execute function @extschema@.record_update();
comment on trigger zzz_updates_are_commands on @extschema@.jobs is
    'Gives a plain UPDATE of the memory its version and its row in the journal.';

-- This one comes first: a trigger of users that gives the new job a command finds its document journalled.
create or replace trigger aaa_first_documents_are_commands
    after insert on @extschema@.jobs
    for each row
    when (new.context <> '{}')
    execute function @extschema@.record_insert();
comment on trigger aaa_first_documents_are_commands on @extschema@.jobs is 'Journals the document that a job begins with, as version 1.';

-- What belongs to a job is found by its id: it goes with the job, and only forget() takes it along.
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
