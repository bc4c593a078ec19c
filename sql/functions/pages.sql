-- Pages: how many rows may be asked of a verb that returns a part of what there is. After null a page begins at the beginning.

create function @extschema@.check_rows(max_rows integer) returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    if check_rows.max_rows < 0 then
        perform raise_failure(make_failure(
            'PD107', 'InvalidArgument', 'a page has at least zero rows', format('It was asked for %s.', check_rows.max_rows),
            'Give the number of rows that you want at most.'));
    end if;
end
$$;
comment on function @extschema@.check_rows(integer) is 'Refuse a page of fewer than zero rows (PD107).';
