-- Zones: what the clock of a time zone shows, and when. For a zone that is fit for a schedule the server can tell both
-- what its clock shows at a moment, and at which moment it shows a time. For a zone that counts leap seconds
-- (`right/UTC`, which some systems have, but pg_timezone_names has not) it can tell only the first.

create function @extschema@.zone_failure(time_zone text) returns jsonb
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    -- At one of them a clock may have been put back, and show what it has shown before.
    probes timestamptz[] := array['2000-01-15 12:00+00', '2000-07-15 12:00+00']::timestamptz[];
    hint text := 'Use one of pg_timezone_names.';
begin
    if (select bool_or(p at time zone zone_failure.time_zone at time zone zone_failure.time_zone = p)
          from unnest(probes) as p) then
        return null;
    end if;
    return make_failure(
        'PD110', 'InvalidSchedule', format('no schedule can follow the time zone %s', quote_nullable(left(zone_failure.time_zone, 200))),
        'It counts leap seconds, as the zones of right/ do, so it is not known when its clock shows a time.', hint);
exception
    when invalid_parameter_value then
        return make_failure('PD110', 'InvalidSchedule', format('there is no time zone %s', quote_literal(left(zone_failure.time_zone, 200))),
                            sqlerrm, hint);
end
$$;
comment on function @extschema@.zone_failure(text) is
    'Return why no schedule can follow the clock of a time zone (PD110), or null.';


create function @extschema@.moment_of(wall timestamp, time_zone text) returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, @extschema@, pg_temp
as $$
declare
    -- For a time that is shown twice, the server takes the second; for one that is skipped, it ignores the gap.
    moment timestamptz := moment_of.wall at time zone moment_of.time_zone;
    -- In seconds: a day would follow the clock of the caller.
    skipped interval := make_interval(secs => extract(epoch from moment at time zone moment_of.time_zone - moment_of.wall));
    day_before timestamptz := moment - interval '24 hours';
    first_moment timestamptz := moment_of.wall at time zone 'UTC'
                                - (day_before at time zone moment_of.time_zone - day_before at time zone 'UTC');
begin
    if skipped = '0 s' then
        return case when first_moment at time zone moment_of.time_zone = moment_of.wall then least(moment, first_moment)
                    else moment end;
    end if;
    return (
        select min(gap.moment)
          from generate_series(moment - skipped, moment, interval '1 min') as gap (moment)
         where gap.moment at time zone moment_of.time_zone > moment_of.wall);
end
$$;
comment on function @extschema@.moment_of(timestamp, text) is
    'Return when the clock of a time zone first shows a time; for a time that it skips, the end of the gap.';
