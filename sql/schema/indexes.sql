-- Which indexes on memories are wanted. Whether they exist is in the catalogue: the view indexes shows both.

create table @extschema@.wanted_indexes (
    name        text collate "C"    not null,
    entity      text collate "C"    not null,
    path        text[] collate "C"  not null,
    kind        text collate "C"    not null,
    created_at  timestamptz         not null,

    constraint one_row_per_index primary key (name),
    constraint one_index_per_path unique (entity, path, kind),
    constraint kind_is_known check (
        kind ~ '^(text|number|boolean|time|contains|search([(][a-z_]+[)])?|vector[(][0-9]+[)])$')
);
comment on table @extschema@.wanted_indexes is 'The indexes on memories that somebody asked for.';
comment on column @extschema@.wanted_indexes.name is 'The name in the catalogue, a hash.';
comment on column @extschema@.wanted_indexes.entity is 'The entity whose memories are indexed.';
comment on column @extschema@.wanted_indexes.path is 'The path that is indexed.';
comment on column @extschema@.wanted_indexes.kind is
    'How the value is read: text, number, boolean or time; contains for all that is in it, search for the words of its texts, vector(n) for n numbers.';
comment on column @extschema@.wanted_indexes.created_at is 'When it was asked for.';
