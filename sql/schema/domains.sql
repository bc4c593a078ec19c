-- Domains: what a value of a column may be, whatever else its row holds. Checks of several columns are constraints of the
-- table. A constraint of a table is read anew by every statement that writes a row; a domain is read once a session, and
-- checked only if its column is written. They are created with the tables, outside of the extension, as all that holds
-- data.

create domain @extschema@.job_state as text
    constraint status_is_known check (value in ('running', 'completed', 'failed', 'cancelled'));
comment on domain @extschema@.job_state is 'The state of a run: running, completed, failed or cancelled.';

create domain @extschema@.task_kind as text
    constraint kind_is_known check (value in ('coordinator', 'hook', 'activity'));
comment on domain @extschema@.task_kind is 'What a task runs: a coordinator, a hook or an activity.';

create domain @extschema@.fate as text
    constraint fate_is_known check (value in ('continue', 'cancel', 'terminate'));
comment on domain @extschema@.fate is 'What happens to a child when the task that asked for it ends.';

create domain @extschema@.document as jsonb
    constraint context_is_an_object check (jsonb_typeof(value) = 'object');
comment on domain @extschema@.document is 'A memory: one JSON object.';

create domain @extschema@.priority as smallint
    constraint priority_is_0_to_9 check (value between 0 and 9);
comment on domain @extschema@.priority is '0 (first) to 9 (last).';

create domain @extschema@.counter as integer
    constraint counts_are_not_negative check (value >= 0);
comment on domain @extschema@.counter is 'How often something has happened.';

create domain @extschema@.version as bigint
    constraint version_counts_from_zero check (value >= 0);
comment on domain @extschema@.version is 'How many commands were applied to a memory.';

create domain @extschema@.timeout as interval
    constraint timeout_is_positive check (value > interval '0');
comment on domain @extschema@.timeout is 'How long something may take.';
