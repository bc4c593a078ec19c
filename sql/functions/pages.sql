-- Pages: how many rows may be asked of a verb that returns, or processes, a part of what there is. 0 means none; null
-- means as many as the verb allows. A null place is the beginning.

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
