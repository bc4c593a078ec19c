-- Table of contents: what perdure installs, in the order of its layers. A file may use only what is above it.
-- `@extschema@` is the schema of the app. An upgrade replaces what exists (replacing.sql) and drops what no longer exists
-- (retired.sql).

-- Shapes that functions pass to each other.
\ir types/memories.sql
\ir types/jobs.sql
\ir types/tasks.sql

-- Verbs: replaced completely on every upgrade.
\ir functions/clock.sql
\ir functions/limits.sql
\ir functions/timeouts.sql
\ir functions/conditions/judging.sql
\ir functions/paths.sql
\ir functions/values.sql
\ir functions/calls.sql
\ir functions/pages.sql
\ir functions/commands.sql
\ir functions/contracts/rules.sql
\ir functions/contracts/checking.sql
\ir functions/contracts/schemas.sql
\ir functions/contracts/defining.sql
\ir functions/instances/builds.sql
\ir functions/instances/checking.sql
\ir functions/access/checking.sql
\ir functions/listeners.sql
\ir functions/instances/parts.sql
\ir functions/jobs.sql
\ir functions/jobs/locks.sql
\ir functions/jobs/children.sql
\ir functions/jobs/runs.sql
\ir functions/snapshots.sql
\ir functions/history.sql
\ir functions/journal.sql
\ir functions/journal/runs.sql
\ir functions/inbox.sql
\ir functions/inbox/taking.sql
\ir functions/inbox/forgetting.sql
\ir functions/tasks/pinning.sql
\ir functions/queues/limits.sql
\ir functions/tasks/suspects.sql
\ir functions/tasks/demand.sql
\ir functions/queues/lines.sql
\ir functions/queues/keys.sql
\ir functions/tasks/finding.sql
\ir functions/tasks/admitting.sql
\ir functions/inbox/runs.sql
\ir functions/tasks/due.sql
\ir functions/tasks/claiming.sql
\ir functions/tasks/fields.sql
\ir functions/tasks/naming.sql
\ir functions/tasks/judging.sql
\ir functions/tasks/comparing.sql
\ir functions/tasks/isolation.sql
\ir functions/tasks/holding.sql
\ir functions/tasks/turns.sql
\ir functions/tasks/waking.sql
\ir functions/tasks/newcomers.sql
\ir functions/tasks/pausing.sql
\ir functions/tasks/leasing.sql
\ir functions/tasks/requesting.sql
\ir functions/tasks/parent_ends.sql
\ir functions/queues/verbs.sql
\ir functions/tasks/continuing.sql
\ir functions/conditions.sql
\ir functions/items/requesting.sql
\ir functions/items/resolving.sql
\ir functions/items/listing.sql
\ir functions/items/checking.sql
\ir functions/entity/commands.sql
\ir functions/entity/lists.sql
\ir functions/entity/verbs.sql
\ir functions/entity/changes.sql
\ir functions/entity/logs.sql
\ir functions/entity/watching.sql
\ir functions/entity/past.sql
\ir functions/signals.sql
\ir functions/claim.sql
\ir functions/facts.sql
\ir functions/runs.sql
\ir functions/tasks/ending.sql
\ir functions/tasks/cancelling.sql
\ir functions/results.sql
\ir functions/advance.sql
\ir functions/leases.sql
\ir functions/finishing.sql
\ir functions/streams.sql
\ir functions/workers.sql
\ir functions/workflows.sql
\ir functions/workflows/many.sql
\ir functions/retrying.sql
\ir functions/forking.sql
\ir functions/hooks.sql
\ir functions/cancel.sql
\ir functions/versions.sql
\ir functions/family.sql
\ir functions/deadlines.sql
\ir functions/schedules/zones.sql
\ir functions/schedules/cron.sql
\ir functions/schedules/times.sql
\ir functions/schedules/starting.sql
\ir functions/sql_hooks/registering.sql
\ir functions/sql_hooks/attempts.sql
\ir functions/sql_hooks.sql
\ir functions/retention.sql
\ir functions/obstacles.sql
\ir functions/status.sql
\ir functions/timeline.sql
\ir functions/recordings.sql
\ir functions/schedules/verbs.sql
\ir functions/indexing/extracting.sql
\ir functions/indexing/conditions.sql
\ir functions/indexing/similarity.sql
\ir functions/indexing/operators.sql
\ir functions/indexing/ordering.sql
\ir functions/indexing/finding.sql
\ir functions/indexing/defining.sql
\ir functions/indexing/indexes.sql
\ir functions/many.sql
\ir functions/jobs/listing.sql
\ir functions/instances/adopting.sql
\ir functions/testing/clock.sql
\ir functions/testing/running.sql
\ir functions/invariants/relations.sql
\ir functions/invariants/tables.sql
\ir functions/invariants.sql
\ir functions/access/granting.sql

-- Nouns: the bodies of create_tables(), create_triggers() and create_views(), which migrate() calls. Created once per
-- app, outside the extension.
\ir schema/domains.sql
\ir schema/jobs.sql
\ir schema/tasks.sql
\ir schema/journal.sql
\ir schema/snapshots.sql
\ir schema/inbox.sql
\ir schema/conditions.sql
\ir schema/items.sql
\ir schema/workers.sql
\ir schema/contracts.sql
\ir schema/access.sql
\ir schema/settings.sql
\ir schema/queues.sql
\ir schema/sql_hooks.sql
\ir schema/indexes.sql
\ir schema/triggers.sql
\ir schema/views.sql

-- How tables of an earlier version become those above, one file for each version: the body of change_tables(), which
-- migrate() calls.
\ir migrations/0.1.0.sql

-- Assertions for tests: the body of create_test_helpers(), which a test calls.
\ir testing/helpers.sql

\ir functions/migrations.sql
\ir grants.sql
