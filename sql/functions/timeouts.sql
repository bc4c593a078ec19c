-- Times: how long work may take, and when it may begin.

create function @extschema@.timeout_failure(timeout interval) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case when not timeout_failure.timeout between interval '1 microsecond' and interval '1000 years' then make_failure(
        'PD107', 'InvalidArgument', 'a timeout must be between a microsecond and a thousand years',
        format('This is %s.', timeout_failure.timeout), 'Leave it out for work that may take any time.') end;
end
$$;
comment on function @extschema@.timeout_failure(interval) is 'Return that a timeout makes no sense (PD107), or null.';


-- The server adds days by the clock of the caller, which may be put forward in between.
create function @extschema@.time_after(moment timestamptz, by interval) returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return (time_after.moment at time zone 'UTC' + time_after.by) at time zone 'UTC';
end
$$;
comment on function @extschema@.time_after(timestamptz, interval) is
    'Return a time plus an interval, with days of 24 hours whatever the time zone of the caller is.';


-- If it comes as text, among others, it must not undo the others.
create function @extschema@.written_timeout_failure(timeout text) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return timeout_failure(written_timeout_failure.timeout::interval);
exception
    when data_exception then
        return make_failure(
            'PD107', 'InvalidArgument', 'a timeout is a length of time',
            format('This is %s.', quote_literal(left(written_timeout_failure.timeout, 200))), 'Write it as "90 s" or "2 h".');
end
$$;
comment on function @extschema@.written_timeout_failure(text) is 'Return that a text is no timeout (PD107), or null.';


create function @extschema@.due_failure(due_at timestamptz) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case
        when due_failure.due_at = 'infinity' then make_failure(
            'PD107', 'InvalidArgument', 'work that is due at infinity is never done', 'Nothing could make it due.',
            'Give a time; or let work that has begun wait for a signal.')
        when due_failure.due_at >= '10000-01-01 00:00:00+00' then make_failure(
            'PD107', 'InvalidArgument', 'work that is due after the year 9999 is never done', 'Its deadlines would have no date.',
            'Give an earlier time.') end;
end
$$;
comment on function @extschema@.due_failure(timestamptz) is 'Return that work would never be due (PD107), or null.';


-- Items are read in lists, and such a date would fail every reader of a list: not each language has a date for it.
create function @extschema@.expiry_failure(expires_at timestamptz) returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, @extschema@, pg_temp
as $$
begin
    return case when not expiry_failure.expires_at between '0001-01-02 00:00:00+00' and '9999-12-31 00:00:00+00' then make_failure(
        'PD107', 'InvalidArgument', 'an item must expire between the years 1 and 9999',
        'Not every language has dates beyond them.', 'Leave it out for an item that never expires.') end;
end
$$;
comment on function @extschema@.expiry_failure(timestamptz) is
    'Return that not everybody can read the time at which an item expires (PD107), or null.';
