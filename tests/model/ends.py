"""Ends in the model: tasks and runs that end, and everything that ends with them."""

from __future__ import annotations

from typing import Any

from tests.model.jobs import add_task, finish
from tests.model.judging import Turn
from tests.model.state import Name, State, failure, is_beneath, is_of, moment


def delete_tasks(s: State, turns: list[Turn]) -> None:
    """Delete ended tasks and all beneath them, except those that clean up."""
    gone: set[Name] = set()
    for turn in turns:
        for job, task in s.tasks:
            if job != turn.job or not is_of(task, turn.task):
                continue
            spared = task != turn.task and s.is_cleaning_up(job, task, turn.task)
            if turn.is_from_outside or not spared:
                gone.add((job, task))
    for name in gone:
        del s.tasks[name]


def children_to_end(s: State, job: str, task: str) -> list[str]:
    """Return the running children that end with a task."""
    alive = [name for name, _ in s.tasks_of(job) if is_beneath(name, task)]
    return [
        child
        for child, row in s.jobs.items()
        if row["parent"] == job
        and is_beneath(row["asked_as"], task)
        and row["status"] == "running"
        and row["on_parent_end"] in ("cancel", "terminate")
        and not any(is_beneath(row["asked_as"], name) for name in alive)
    ]


def leave_behind(s: State, turns: list[Turn]) -> None:
    """Drop conditions and items of deleted tasks, and leave a task that ends their children."""
    for turn in turns:
        if children_to_end(s, turn.job, turn.task):
            name = {"kind": "hook", "name": "$parent_end", "queue": "$sql", "detached": True}
            add_task(s, turn.job, f"$parent_end/{turn.task}", **name, priority=0, due_at=s.now)
    for turn in turns:
        for place in list(s.conditions):
            if is_left(s, turn, place[0], place[1]):
                del s.conditions[place]
        for number, item in list(s.items.items()):
            if item["resolved_at"] is None and is_left(s, turn, item["job_id"], item["task"]):
                del s.items[number]


def is_left(s: State, turn: Turn, job: str, task: str | None) -> bool:
    """Return whether a task was deleted with the task of a turn."""
    return (
        job == turn.job
        and task is not None
        and is_of(task, turn.task)
        and (job, task) not in s.tasks
    )


def forget_messages(s: State, turns: list[Turn]) -> None:
    """Drop the messages of deleted tasks."""
    for turn in turns:
        for number, message in list(s.inbox.items()):
            if message["key"] is not None and is_left(s, turn, message["job_id"], message["task"]):
                del s.inbox[number]


def forget_inbox(s: State, job: str) -> None:
    """Drop the messages of an ended job, except the keys of signals."""
    for number, message in list(s.inbox.items()):
        if message["job_id"] != job or message["dedupe_key"] is not None:
            continue
        has_reader = (
            s.user_tasks(job) if message["task"] is None else (job, message["task"]) in s.tasks
        )
        if not has_reader:
            del s.inbox[number]


def end_tasks(s: State, turns: list[Turn]) -> None:
    """End tasks; their answers reach the inboxes of their askers."""
    ended = sorted(turns, key=lambda turn: (turn.job, turn.task))
    runs = [turn for turn in ended if turn.kind == "coordinator"]
    others = [turn for turn in ended if turn.kind != "coordinator"]
    for turn in runs:
        finish(s, turn.job, turn.task, turn.state, turn.get("value"))
    delete_tasks(s, ended)
    leave_behind(s, ended)
    forget_messages(s, others)
    for turn in others:
        if turn.asker is None:
            seq = turn.position + len(turn.list("facts")) + 1
            end = {"name": turn.state, "ok": turn.state == "done", "value": turn.get("value")}
            s.tell(turn.job, turn.task, seq, "end", **end)
    for turn in runs:
        forget_inbox(s, turn.job)
    for turn in turns:
        if turn.asker and turn.asker[:2] in s.tasks:
            job, task, key = turn.asker
            answer = {"ok": turn.state == "done", "payload": turn.get("value")}
            answer |= {"sender": f"{turn.job} {turn.task}", "fingerprint": turn.fingerprint}
            s.leave(job, task=task, key=key, name=turn.signal, **answer)


def outside_turn(s: State, job: str, task: str, state: str, value: Any) -> Turn:
    """Return the last turn of a task that is ended from outside."""
    row = dict(s.tasks[job, task])
    said = {"state": state, "value": value, "position": row["position"]}
    return Turn(0, job, task, said, row, is_from_outside=True)


def end_run(s: State, job: str, state: str, value: Any) -> None:
    """End the run of a job at once, with tasks that still clean up after earlier runs."""
    task = f"{s.jobs[job]['run']}/main"
    ended = [outside_turn(s, job, task, state, value), *left_over(s, job, task)]
    end_tasks(s, ended)
    if ended[0].asker:
        s.wake(ended[0].asker[0])


def left_over(s: State, job: str, task: str) -> list[Turn]:
    """Return the last turns of tasks that still clean up after earlier runs."""
    run = task.split("/", maxsplit=1)[0]
    return [
        outside_turn(s, job, name, "cancelled", None)
        for name, _ in s.tasks_of(job)
        if name[0].isdigit() and name.split("/")[0] != run
    ]


def continue_runs(s: State, turns: list[Turn]) -> None:
    """End runs, and begin the next runs of the same jobs."""
    ended = sorted(turns, key=lambda turn: turn.job)
    for turn in ended:
        continue_coordinator(s, turn)
    delete_tasks(s, ended)
    leave_behind(s, ended)
    forget_messages(s, ended)
    for turn in ended:
        job, failed = s.jobs[turn.job], turn.get("failure")
        job |= {"run": job["run"] + 1, "updated_at": s.now}
        job["args"] = job["args"] if turn.get("value") is None else turn.get("value")
        told = {"status": "continued"} if failed is None else {"status": "failed", "error": failed}
        name = "continue" if failed is None else "retry"
        begun = {"name": name, "value": told, "argument": job["args"]}
        s.tell(turn.job, "$run", job["run"], "run", **begun)


def continue_coordinator(s: State, turn: Turn) -> None:
    """Make the coordinator of the next run, and its deadline; a task that is asked to cancel is
    due."""
    row, failed = s.tasks[turn.job, turn.task], turn.get("failure")
    following = f"{s.jobs[turn.job]['run'] + 1}/main"
    is_cancelled = s.cancel_is_open(turn.job, turn.task)
    until = moment(turn.get("until"))
    same = ("kind", "name", "queue", "priority", "paused", "limit_key", "pinned_version")
    add_task(
        s,
        turn.job,
        following,
        **{name: row[name] for name in (*same, "asker", "fingerprint")},
        due_at=s.now if is_cancelled or until is None else until,
        attempt=0 if failed is None else row["attempt"] + 1,
        awaits=[] if is_cancelled else None,
        failure=failed,
    )
    deadline = s.tasks.get((turn.job, f"{turn.task}/$deadline"))
    if deadline is not None:
        is_free = deadline["token"] is None and deadline["stuck_reason"] is None
        due_at = deadline["due_at"] if is_free else s.now
        its = {name: deadline[name] for name in ("kind", "name", "queue", "priority")}
        add_task(s, turn.job, f"{following}/$deadline", **its, due_at=due_at)
    if is_cancelled:
        s.message(turn.job, turn.task, "$cancel")["task"] = following


def terminate(s: State, id: str, reason: str | None = None) -> bool:
    if s.job(id)["status"] != "running":
        return False
    end_run(s, id, "cancelled", failure("PD602"))
    return True


def end_tasks_without_cleanup(s: State, job: str, tasks: list[str]) -> list[str]:
    """End those of these tasks that are hooks that have not begun or activities without a holder.

    Returns their names.
    """
    rows = {task: s.tasks[job, task] for task in tasks if (job, task) in s.tasks}
    ended = [
        task
        for task, row in sorted(rows.items())
        if (row["kind"] == "activity" and row["token"] is None)
        or (row["kind"] == "hook" and row["started_at"] is None)
    ]
    told = failure("PD602")
    end_tasks(s, [outside_turn(s, job, task, "cancelled", told) for task in ended])
    return ended


def cancel_hook(s: State, id: str, task: str, reason: str | None = None) -> bool:
    s.job(id)
    row = s.tasks.get((id, task))
    if row is None or row["kind"] == "coordinator" or row["name"].startswith("$"):
        return False
    if end_tasks_without_cleanup(s, id, [task]):
        s.wake(id)
        return True
    if not s.insert_cancel_requests(id, [task], reason):
        return False
    s.wake_cancelled(id, [task])
    return True
