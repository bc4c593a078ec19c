"""Memories, items and tasks of the database in the model."""

from __future__ import annotations

from typing import Any

from tests.model.claims import end_held_task, give_back_task, held_task, lock_to_finish
from tests.model.ends import children_to_end, end_run, end_tasks, left_over, outside_turn
from tests.model.facts import log_items
from tests.model.jobs import NEW_JOB, check_document, insert_job, was_started_by
from tests.model.judging import Turn
from tests.model.state import (
    CONDITIONS,
    SECOND,
    Row,
    State,
    check_name,
    check_own_name,
    check_value,
    failure,
    is_of,
)
from tests.races.memory_model import MAX_KEYS, MISSING, Refused, as_json, found, split_path

ATTEMPTS = {"adds": 1, "fails": 2}  # of the hooks in SQL that the model knows
MAX_MEMORY = 8_388_608
SUSPICIOUS = 100_000  # bytes of one value from which the size of the document is checked

# Commands from outside


def run_command(
    s: State,
    id: str,
    op: str,
    keys: list[str],
    argument: Any = None,
    expected_version: int | None = None,
    key: str | None = None,
    source: str | None = None,
) -> Any:
    """Carry out a command from outside, once for each key."""
    job = s.job(id)
    check_value(argument)
    if key is not None:
        check_name(key)
        told = answers_by_key(s, id, key, [(op, keys, argument)], None)
        if told is not None:
            return told[0]
    s.check_version(id, expected_version)
    answer = s.check_and_apply(id, op, keys, argument)
    row = {"key": key, "op": op, "path": keys, "argument": argument, "value": answer}
    version = job["version"]
    s.tell(id, "$outside", version, "command", **row, version=version, name=source)
    return answer


def answers_by_key(
    s: State, id: str, key: str, commands: list[Any], fingerprint: str | None
) -> list[Any] | None:
    """Return the answers to the first call with a key."""
    for (owner, task, seq), row in s.journal.items():
        if (owner, task, row["key"]) == (id, "$outside", key):
            first = (row["op"], row["path"], row["argument"])
            if first != commands[0] or row["fingerprint"] != fingerprint:
                raise Refused("PD106")
            versions = range(seq, seq + len(commands))
            return [row["value"] for version, row in versions_of(s, id) if version in versions]
    return None


def versions_of(s: State, id: str) -> list[tuple[int, Row]]:
    """Return the rows of the journal that are versions of a memory, in order."""
    rows = [
        (row["version"], row)
        for (owner, _, _), row in s.journal.items()
        if owner == id and row["version"] is not None
    ]
    return sorted(rows, key=lambda row: row[0])


def items_of(value: Any) -> Any:
    """Return one value as a list of one; None stays None."""
    return value if value is None or isinstance(value, list) else [value]


def entity_set(s: State, id: str, value: Any, path: str = "", **how: Any) -> Any:
    return run_command(s, id, "set", split_path(path), value, **how)


def entity_merge(s: State, id: str, patch: Any, path: str = "", **how: Any) -> Any:
    return run_command(s, id, "merge", split_path(path), patch, **how)


def entity_append(s: State, id: str, path: str, items: Any, **how: Any) -> Any:
    return run_command(s, id, "append", split_path(path), items_of(items), **how)


def entity_prepend(s: State, id: str, path: str, items: Any, **how: Any) -> Any:
    return run_command(s, id, "prepend", split_path(path), items_of(items), **how)


def entity_remove(s: State, id: str, path: str, index: int, **how: Any) -> Any:
    return run_command(s, id, "remove", split_path(path), index, **how)


def entity_increment(s: State, id: str, path: str, by: Any = 1, **how: Any) -> Any:
    return run_command(s, id, "increment", split_path(path), by, **how)


def entity_toggle(s: State, id: str, path: str, **how: Any) -> Any:
    return run_command(s, id, "toggle", split_path(path), **how)


def entity_set_if_not_exists(s: State, id: str, path: str, value: Any, **how: Any) -> Any:
    return run_command(s, id, "set_if_not_exists", split_path(path), value, **how)


def entity_delete(s: State, id: str, path: str = "", **how: Any) -> Any:
    return run_command(s, id, "delete", split_path(path), **how)


def entity_log(s: State, id: str, path: str, items: Any, **how: Any) -> Any:
    return run_command(s, id, "log", split_path(path), items_of(items), **how)


def entity_apply(
    s: State,
    id: str,
    commands: Any,
    expected_version: int | None = None,
    key: str | None = None,
) -> list[Any]:
    if not isinstance(commands, list) or not commands:
        raise Refused("PD107")
    given = [read_command(command) for command in commands]
    for _, _, argument in given:
        check_value(argument)
    job, fingerprint = s.job(id), as_json(given) if key else None
    if key is not None:
        check_name(key)
        told = answers_by_key(s, id, key, given, fingerprint)
        if told is not None:
            return told
    s.check_version(id, expected_version)
    contracts, s.contracts = s.contracts, frozenset()
    answers = []
    for place, (op, keys, argument) in enumerate(given):
        answers.append(s.check_and_apply(id, op, keys, argument))
        if len(as_json(argument)) > SUSPICIOUS and len(as_json(job["context"])) > MAX_MEMORY:
            raise Refused("PD303")
        row = {"op": op, "path": keys, "argument": argument, "value": answers[-1]}
        row |= {"key": key, "fingerprint": fingerprint} if place == 0 else {}
        s.tell(id, "$outside", job["version"], "command", **row, version=job["version"])
    s.contracts = contracts
    if any(op != "log" for op, _, _ in given):
        s.check_contract(job["entity"], job["context"])
    return answers


def read_command(given: Row) -> tuple[str, list[str], Any]:
    """Convert a command of a client."""
    path, value = given.get("path", ""), given.get("value")
    keys = path if isinstance(path, list) else split_path(path)
    if len(keys) > MAX_KEYS:
        raise Refused("PD101")
    is_many = given["op"] in ("append", "prepend", "log")
    return given["op"], keys, items_of(value) if is_many else value


def entity_create(
    s: State, id: str, entity: str, context: Any = None, key: str | None = None
) -> bool:
    document = {} if context is None else context
    check_own_name(id)
    check_own_name(entity)
    check_name("none" if key is None else key)
    check_document(document)
    wanted = {"id": id, "entity": entity, "context": document, "key": key, "args": None}
    return insert_job(s, NEW_JOB | wanted) or was_started_by(s, id, key)


def entity_get(s: State, id: str, path: str = "") -> Any:
    keys = split_path(path)
    here = found(s.job(id)["context"], keys)
    return log_items(s, id, keys) or None if here is MISSING else here


def entity_at(s: State, id: str, version: int) -> Any:
    documents = s.past[id] if s.job(id) else []
    if not 0 <= version < len(documents):
        raise Refused("PD404")
    return documents[version]


def entity_restore(s: State, id: str, version: int, **how: Any) -> Any:
    if s.job(id) and not 0 <= version < len(s.past[id]):
        raise Refused("PD404")
    return run_command(s, id, "set", [], s.past[id][version], **how)


def entity_meets(s: State, id: str, condition: str) -> int | None:
    job = s.job(id)
    if condition not in CONDITIONS:
        raise Refused("PD108")
    return job["version"] if CONDITIONS[condition](job["context"]) else None


def define_contract(s: State, entity: str, schema: Any) -> None:
    check_name(entity)
    s.contracts |= {entity}


def drop_contract(s: State, entity: str) -> bool:
    was_there = entity in s.contracts
    s.contracts -= {entity}
    return was_there


def publish(
    s: State,
    job: str,
    task: str,
    token: str,
    stream: str,
    items: Any,
    key: str | None = None,
) -> Any:
    if held_task(s, {"job": job, "task": task, "token": token}) is None:
        raise Refused("PD001")
    return run_command(s, job, "log", split_path(stream), items_of(items), key=key, source=task)


# People


def lock_item(s: State, item: str) -> Row:
    """Return an item by its id."""
    for row in s.items.values():
        if row["id"] == item:
            return row
    raise Refused("PD411")


def shown(item: Row) -> Row:
    """Return an item as people see it."""
    names = ("id", "key", "assignee", "claimed_by", "claimed_at", "resolution", "resolved_by")
    status = "claimed" if item["claimed_at"] is not None else "unclaimed"
    status = status if item["resolved_at"] is None else "resolved"
    return {name: item[name] for name in names} | {"job": item["job_id"], "status": status}


def check_item(s: State, item: Row, by: str | None) -> None:
    """Refuse a person who may not work on an item."""
    is_late = item["expires_at"] is not None and item["expires_at"] < s.now
    if item["resolved_at"] is not None or is_late:
        raise Refused("PD411")
    if item["claimed_by"] is not None and item["claimed_by"] != by:
        raise Refused("PD112")


def read_item(s: State, item: str) -> Row:
    return shown(lock_item(s, item))


def claim_item(s: State, item: str, by: str) -> Row:
    held = lock_item(s, item)
    check_name(by)
    check_item(s, held, by)
    if held["claimed_by"] is None:
        held |= {"claimed_by": by, "claimed_at": s.now}
    return shown(held)


def release_item(s: State, item: str, by: str | None = None) -> Row:
    held = lock_item(s, item)
    is_its = held["claimed_by"] is not None and by in (None, held["claimed_by"])
    if is_its and held["resolved_at"] is None:
        held |= {"claimed_by": None, "claimed_at": None}
    return shown(held)


def assign_item(s: State, item: str, assignee: str | None = None) -> Row:
    held = lock_item(s, item)
    check_name("none" if assignee is None else assignee)
    check_item(s, held, held["claimed_by"])
    if held["assignee"] != assignee:
        held |= {"assignee": assignee, "claimed_by": None, "claimed_at": None}
    return shown(held)


def resolve_item(s: State, item: str, resolution: Any = None, by: str | None = None) -> Row:
    held = lock_item(s, item)
    check_name("none" if by is None else by)
    check_value(resolution)
    said = (resolution, by)
    if held["resolved_at"] is not None and (held["resolution"], held["resolved_by"]) == said:
        return shown(held)
    check_item(s, held, by)
    held |= {"resolution": resolution, "resolved_by": by, "resolved_at": s.now}
    answer = {"payload": resolution, "fingerprint": held["fingerprint"]}
    s.leave(held["job_id"], task=held["task"], key=held["key"], **answer)
    s.wake(held["job_id"])
    return shown(held)


# Tasks that the database runs


def run_task(s: State, job: str, task: str, token: str) -> str:
    row = s.tasks.get((job, task))
    name = row["name"] if row else None
    said = {"job": job, "task": task, "token": token}
    if held_task(s, said) is None:
        return "gone"
    if name == "$deadline":
        end_run(s, job, "failed", failure("PD601"))
        return "done"
    if name == "$schedule":
        from tests.model.schedules import run_schedule

        return run_schedule(s, job, row)
    if name == "$parent_end":
        return end_children(s, job, task, row)
    return run_sql_hook(s, said, row)


def end_children(s: State, job: str, task: str, row: Row) -> str:
    """End the children of a task that has ended."""
    parent = task.removeprefix("$parent_end/")
    children = sorted(children_to_end(s, job, parent))[:100]
    for child in children:
        row_ = s.jobs[child]
        if row_["on_parent_end"] == "cancel":
            coordinator = f"{row_['run']}/main"
            s.insert_cancel_requests(child, [coordinator], "the parent has ended")
            s.lift_pause(child)
            s.wake_cancelled(child, [coordinator])
            row_["on_parent_end"] = None
    ended: list[Turn] = []
    for child in children:
        if s.jobs[child]["on_parent_end"] == "terminate":
            coordinator = f"{s.jobs[child]['run']}/main"
            ended.append(outside_turn(s, child, coordinator, "cancelled", failure("PD602")))
            ended[-1].row["asker"] = None
            ended += left_over(s, child, coordinator)
    end_tasks(s, ended)
    if children_to_end(s, job, parent):
        give_back_task(row, s.now + (0 if children else SECOND))
        return "retry"
    for name, _ in s.tasks_of(job):
        if is_of(name, task):  # the children of tasks beneath have ended too
            del s.tasks[job, name]
    return "done"


def call_sql_hook(s: State, job: str, name: str) -> Any:
    """Call a hook that the model knows: one adds to the memory, one raises."""
    if name not in s.sql_hooks:
        raise Refused("PD406")
    if name == "fails":
        raise Refused("P0001")
    return run_command(s, job, "increment", ["n"], 1)


def run_sql_hook(s: State, said: Row, row: Row) -> str:
    """Run a hook in SQL; a failure undoes its changes."""
    held = lock_to_finish(s, said)
    if s.cancel_is_open(said["job"], said["task"]):
        return end_held_task(s, held, "cancelled", failure("PD602"))
    kept = s.saved()
    try:
        answer = call_sql_hook(s, said["job"], row["name"])
    except Refused as refused:
        s.restore(kept)
        return try_again(s, lock_to_finish(s, said), failure(refused.code))
    return end_held_task(s, held, "done", answer)


def try_again(s: State, held: Turn, failed: Row | None) -> str:
    """Delay a hook in SQL until its next attempt, if it has one left, or end it."""
    row = held.row
    if s.cancel_is_open(held.job, held.task):
        return end_held_task(s, held, "cancelled", failed)
    if row["name"] in s.sql_hooks and row["attempt"] + 1 < ATTEMPTS[row["name"]]:
        give_back_task(row, s.now + SECOND * 2 ** row["attempt"], failed)
        return "retry"
    return end_held_task(s, held, "failed", failed)


def time_out_task(s: State, **said: Any) -> str:
    row = held_task(s, said)
    if row is None:
        return "gone"
    held = Turn(0, said["job"], said["task"], {"position": row["position"]}, row)
    return try_again(s, held, failure("PD604") if row["name"] in s.sql_hooks else None)


def register_sql_hook(s: State, name: str, **_: Any) -> None:
    check_name(name)
    s.sql_hooks |= {name}


def drop_sql_hook(s: State, name: str) -> bool:
    was_there = name in s.sql_hooks
    s.sql_hooks -= {name}
    return was_there
