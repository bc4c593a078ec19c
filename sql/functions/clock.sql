-- The clock: the only place where time is read. Callers read it after they have their locks, since a statement that waits
-- would see the time from before the wait. A test moves time by replacing this function, which only the owner can do.

create function @extschema@.clock() returns timestamptz
language plpgsql
volatile
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return clock_timestamp();
end
$$;
comment on function @extschema@.clock() is 'Return the present time of the app, by the database.';
