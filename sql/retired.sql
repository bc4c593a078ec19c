-- Retired: what earlier versions had and this one has not, as `drop routine if exists ...` and `drop type if exists ...`. An
-- upgrade ends with it. What a user has made in the schema of an app is not ours to drop, so it is said by name.

drop function if exists @extschema@.add_type(text, text);
drop function if exists @extschema@.extend_type(text, text);
drop function if exists @extschema@.attributes_of(regtype);
drop function if exists @extschema@.replace_routine(text, text);
drop function if exists @extschema@.routines_named(text);
drop function if exists @extschema@.drop_routines(regprocedure[]);
