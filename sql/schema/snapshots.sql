-- Snapshots: the whole document at every hundredth version, so that any moment of its past is at most ninety-nine
-- commands away.

create table @extschema@.snapshots (
    job_id   text collate "C"  not null,
    version  bigint            not null,
    context  jsonb,

    constraint one_snapshot_per_version primary key (job_id, version)
);
comment on table @extschema@.snapshots is
    'The document of a memory at every hundredth version, from which earlier versions are read.';
comment on column @extschema@.snapshots.job_id is 'The job.';
comment on column @extschema@.snapshots.version is 'The version.';
comment on column @extschema@.snapshots.context is
    'The document at that version; null if it equals that of the snapshot before, or is empty.';
