"""The database beside the model: calls of its verbs, and its tables in the form of the model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg.types.json import set_json_dumps, set_json_loads

from tests.databases import SCHEMA
from tests.model.state import MAX_DELIVERIES, SUSPICIOUS, Name, Row, moment
from tests.races.memory_model import Refused, from_json

Connection = psycopg.Connection[Any]

BEGINS = "timestamptz '2030-01-01 00:00:00+00'"
WORDS = {"code", "type", "message", "detail", "hint"}
TIMES = re.compile(r"_at$|^until$|^since$|^at$")

COLUMNS = {
    "jobs": """id, entity, workflow, status, context, version, run, watched, paused, args, result,
        error, parent, asked_as, on_parent_end, headers, pinned_version, start_key, queue, priority,
        limit_key, (extract(epoch from timeout) * 1000000)::bigint as timeout, forked_from,
        started_at, created_at, updated_at, finished_at""",
    "tasks": """job_id, task, kind, name, queue, priority, due_at, token, last_token, worker,
        last_worker, position, asked, deliveries, attempt, paused, limit_key, in_line,
        pinned_version, args, awaits, until, signal, detached, accept_changes,
        case when asker_job is not null then array[asker_job, asker_task, asker_key] end as asker,
        progress, failure, stuck_reason, started_at, told_at, fingerprint""",
    "journal": """job_id, task, seq, kind, key, name, fingerprint is not null as fingerprint, ok,
        value, version, op, path, argument, at, is_answer""",
    "inbox": """job_id, id, task, key, name, ok, payload, sender, dedupe_key, sent_at,
        consumed_at, fingerprint""",
    "conditions": "job_id, task, key, asked_at, fingerprint",
    "items": """job_id, id, task, key, name, payload, assignee, priority, asked_at, expires_at,
        claimed_by, claimed_at, resolution, resolved_by, resolved_at, fingerprint""",
    "queues": """queue, paused, max_running, max_per_key, rate_per_second, burst, rate_per_key,
        burst_per_key, tokens, has_claimed, claimed_at, last_key""",
    "key_tokens": "queue, limit_key, tokens, counted_at, full_at",
    "lines": "queue, priority, limit_key, turn_at",
}
SNAPSHOT = """with ticking as (
    update settings set value = to_jsonb(value::numeric + %s::numeric) where name = 'clock_ahead')
select json_build_object({})""".format(
    ", ".join(
        f"'{table}', (select json_agg(r) from (select {columns} from {table}) as r)"
        for table, columns in COLUMNS.items()
    )
)
KEYS = {
    "jobs": ("id",),
    "tasks": ("job_id", "task"),
    "journal": ("job_id", "task", "seq"),
    "conditions": ("job_id", "task", "key"),
    "queues": ("queue",),
    "key_tokens": ("queue", "limit_key"),
    "lines": ("queue", "priority", "limit_key"),
}


class Real:
    """One connection to the test's own app, whose clock stops between calls."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        set_json_dumps(json.dumps, connection)
        set_json_loads(from_json, connection)
        connection.execute("set timezone = 'UTC'")
        connection.execute("set synchronous_commit = off")
        connection.execute("set client_min_messages = error")
        self._make_hooks()
        self._suspect_early()
        self._types = self._read_types()
        self._stop_clock()

    def _make_hooks(self) -> None:
        """Create the functions of the hooks in SQL: one adds to the memory, one fails."""
        self._connection.execute("create schema model")
        for name, does in {
            "adds": "return perdure.entity_increment(job, 'n');",
            "fails": "raise exception 'no';",
        }.items():
            create = f"""create function model.{name}(job text, args jsonb) returns jsonb
                         language plpgsql as 'begin {does.replace("'", "''")} end'"""
            self._connection.execute(create.encode())

    def _read_types(self) -> dict[str, dict[str, str]]:
        query = """
            select p.proname, p.proargnames[1:p.pronargs],
                   array(select t::regtype::text from unnest(p.proargtypes) as t),
                   p.prorettype = 'void'::regtype
              from pg_proc as p where p.pronamespace = 'perdure'::regnamespace"""
        rows = self._connection.execute(query).fetchall()
        self._void = {name for name, _, _, is_void in rows if is_void}
        return {name: dict(zip(names or (), types, strict=True)) for name, names, types, _ in rows}

    def _stop_clock(self) -> None:
        """Stop a moved clock where it was moved to: the owner may replace its function in tests."""
        self.change("set_clock", "clock_timestamp()", BEGINS)
        self._connection.execute("select lock_clock(), set_clock(clock())")

    def change(self, function: str, what: str, into: str) -> None:
        """Change the source of a function of the engine."""
        query = "select pg_get_functiondef(%s::regproc)"
        (definition,) = self._connection.execute(query, [function]).fetchone() or ("",)
        changed = definition.replace(what, into)
        assert changed != definition
        self._connection.execute(changed.encode())

    def call(self, verb: str, args: Row) -> list[Any]:
        """Call a verb with named arguments; return its rows as JSON. Errors are raised as
        Refused."""
        types = self._types[verb]
        given = ", ".join(f"{name} => %s::{types[name]}" for name in args)
        row = "null::jsonb" if verb in self._void else "to_jsonb(r)"
        query = f"select {row} from {verb}({given}) as r"
        values = [written(value, types[name]) for name, value in args.items()]
        try:
            return [plain(row[0]) for row in self._connection.execute(query.encode(), values)]
        except psycopg.Error as error:
            if (error.sqlstate or "").startswith("PD"):
                raise Refused(error.sqlstate) from error
            raise

    def tables(self, tick: str) -> dict[str, dict[Any, Row]]:
        """Read all tables, each row under its key; then move the clock by so many seconds."""
        (rows,) = self._connection.execute(SNAPSHOT, [tick]).fetchone() or ({},)
        tables: dict[str, dict[Any, Row]] = {}
        for table, listed in rows.items():
            read = [read_row(row) for row in listed or []]
            if table in KEYS:
                tables[table] = {key_of(row, KEYS[table]): row for row in read}
            elif table == "inbox":
                tables[table] = dict(enumerate(sorted(read, key=lambda row: row["id"])))
            else:
                read.sort(key=lambda row: (row["asked_at"], row["job_id"], row["task"], row["key"]))
                tables[table] = dict(enumerate(read))
        return tables

    def _suspect_early(self) -> None:
        """Lower the number of deliveries that make a suspect, so that short games have some."""
        self._connection.execute(
            f"""create or replace function {SCHEMA}.suspect_threshold() returns integer
                immutable language plpgsql as 'begin return {SUSPICIOUS}; end';
            alter table tasks drop column is_suspect;
            alter table tasks add column
                is_suspect boolean not null generated always as (deliveries >= {SUSPICIOUS}) stored;
            create index suspect_tasks on tasks (queue, priority, due_at) where is_suspect;
            """.encode()
        )

    def empty(self) -> None:
        """Delete all rows, and reset the clock."""
        others = COLUMNS.keys() - {"jobs"} | {"snapshots", "contracts", "sql_hooks"}
        for table in (*sorted(others), "listeners", "workers", "jobs"):  # a job goes last
            self._connection.execute(f"delete from {table}".encode())
        query = """insert into settings values ('max_deliveries', %s::jsonb), ('clock_ahead', '0')
                   on conflict (name) do update set value = excluded.value"""
        self._connection.execute(query, [str(MAX_DELIVERIES)])

    def broken(self) -> list[Any]:
        """Return the broken invariants."""
        query = "select * from assert_invariants() union all select * from assert_histories()"
        return self._connection.execute(query).fetchall()


def written(value: Any, type_: str) -> Any:
    """Convert an argument."""
    return json.dumps(value) if type_ == "jsonb" and value is not None else value


def key_of(row: Row, names: Iterable[str]) -> Any:
    """Take the key out of a row."""
    key = tuple(row.pop(name) for name in names)
    return key if len(key) > 1 else key[0]


def read_row(row: Row) -> Row:
    """Convert a row of a table: times to numbers, failures to their codes."""
    return {
        name: moment(value) if TIMES.search(name) and value is not None else plain(value)
        for name, value in row.items()
    }


def plain(value: Any) -> Any:
    """Convert a value to the form of the model."""
    if isinstance(value, dict):
        if value.keys() >= WORDS:
            return {"code": value["code"]}
        return {name: plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def given_to(tables: dict[str, dict[Any, Row]], token: str | None, now: int) -> set[Name]:
    """Return the tasks that a claim got, or found stuck; not those that an earlier claim under the
    same token got and lost."""
    return {
        name
        for name, row in tables["tasks"].items()
        if (token is not None and row["token"] == token and row["due_at"] > now)
        or (row["stuck_reason"] or {}).get("code") == "PD305"
    }
