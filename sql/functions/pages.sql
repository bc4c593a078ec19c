-- Pages: how many rows may be asked of a verb that returns, or does, a part of what there is. None are none, null is as many as
-- the verb gives at most. After null a page begins at the beginning.

create function @extschema@.check_rows(max_rows integer) returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if check_rows.max_rows < 0 then
        perform raise_failure(make_failure(
            'PD107', 'InvalidArgument', 'the number asked for must not be negative',
            format('It was asked for %s.', check_rows.max_rows),
            'Give the highest number that you want, or null.'));
    end if;
end
$$;
comment on function @extschema@.check_rows(integer) is 'Refuse a negative number of rows (PD107).';
