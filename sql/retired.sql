-- Retired: what earlier versions had and this one has not, as `drop routine if exists ...` and `drop type if exists ...`.
-- An upgrade ends with it. Each is named, since what a user has created in the schema of an app is not ours to drop.

drop function if exists @extschema@.add_type(text, text);
drop function if exists @extschema@.extend_type(text, text);
drop function if exists @extschema@.attributes_of(regtype);
drop function if exists @extschema@.replace_routine(text, text);
drop function if exists @extschema@.routines_named(text);
drop function if exists @extschema@.drop_routines(regprocedure[]);
