"""The tour: one call of every verb, and one refusal of every code, in a sensible order.

Random games miss some of them. The tour meets them all in one game, and is compared with the model
call by call, as every game is.
"""

from __future__ import annotations

from typing import Any

from tests.model.game import Game
from tests.model.state import CONTRACT, MAX_DELIVERIES, SECOND, SUSPICIOUS, Row, stamp
from tests.model.workers import DEEP, FAILURE

UNMET = {
    "PD113": "raised by a codec in Python: tests/codec",
    "PD114": "raised by a codec in Python: tests/codec",
    "PD115": "the owner may serve every queue: tests/security",
    "PD116": "raised by a type in Python: tests/worker",
    "PD201": "raised by a replay in Python: tests/replay",
    "PD202": "raised by a coordinator in Python: tests/replay",
    "PD306": "indexes are not in the model: pgtap/indexing",
    "PD405": "raised when a client in Python stops waiting: tests/worker",
    "PD412": "answers of hooks are only read: pgtap/hooks.sql",
    "PD603": "raised by the Python package: tests/worker",
    "PD605": "raised by the Python package: tests/worker",
} | {f"PD50{number}": "about installation: tests/install" for number in range(1, 9)}

NOT_MODELLED = {
    "create_index": "an index changes no answer: tests/memory/test_find_oracle.py",
    "drop_index": "an index changes no answer: tests/memory/test_find_oracle.py",
    "entity_watch": "a hint: nothing depends on listeners",
    "stop_listening": "a hint: nothing depends on listeners",
    "register_worker": "resume() wakes the same tasks: pgtap/workers.sql",
    "forget_worker": "resume() wakes the same tasks: pgtap/workers.sql",
    "create_test_helpers": "assertions for tests of users: pgtap/testing",
    "grant_access": "about roles: tests/security",
    "revoke_access": "about roles: tests/security",
    "migrate": "about installation: tests/install",
    "reset_clock": "the model's clock is not the server's: pgtap/testing",
    "run_sql_hooks": "it commits, and is claim() and run_task() in turns: pgtap/sql_hooks.sql",
    "run_until_idle": "it is claim() and run_task() in turns: pgtap/testing",
}


def lease(reply: Any, job: str, task: str = "1/main") -> Row:
    """Return a lease from the answer of claim()."""
    (row,) = [row for row in reply["tasks"] if (row["job"], row["task"]) == (job, task)]
    return {"job": job, "task": task, "token": reply["token"]} | {"position": row["position"]}


def said(lease: Row) -> Row:
    """Return a lease without its position."""
    return {name: lease[name] for name in ("job", "task", "token")}


class Tour:
    """A walk through all verbs."""

    def __init__(self, game: Game) -> None:
        self.send = game.send
        self.game = game

    def claim(self, *queues: str, **more: Any) -> Any:
        """Claim all due tasks."""
        args: Row = {"worker": "w", "claim_id": self.game.token(), "max_tasks": 9}
        return self.send("claim", queues=list(queues), **args | more)

    def walk(self) -> None:
        """Make all calls."""
        self.start()
        self.command()
        self.ask()
        self.work_without_journal()
        self.steer()
        self.run_again()
        self.limit()
        self.suspect()
        self.schedule()
        self.exceed()
        self.forget()
        self.forget_keys()

    def start(self) -> None:
        self.send("start", workflow="w", id="a", context={"n": 1, "list": [1]}, entity="checked")
        for key in ("first", "first", "second"):
            self.send("start", workflow="w", id="k", queue="far", key=key)
        self.send("start", workflow="", id="b")
        self.send("start", workflow="w", id="b", context=5)
        self.send("start", workflow="w", id="b", args=DEEP)
        self.send("start_many", starts=[{"workflow": "w", "id": "b"}, {"workflow": "w", "id": "c"}])
        self.send("signal_with_start", workflow="w", id="d", name="go", entity="thing")
        self.send("signal", id="a", name="go")
        self.send("signal", id="nowhere", name="go")
        self.send("signal_found", entity="thing", conditions={}, name="go")
        self.send("entity_create", id="e", entity="thing", context={"n": 1})
        self.send("signal", id="e", name="go")

    def command(self) -> None:
        for value in (5, 4):
            self.send("entity_set", id="e", path="n", value=value, key="k")
        self.send("entity_set", id="e", path="n", value=2, expected_version=9)
        self.send("entity_merge", id="e", patch={"deep": {"a": 1}})
        self.send("entity_append", id="e", path="n", items=[1])
        self.send("entity_append", id="e", path="list", items=[1, 2, 3])
        self.send("entity_prepend", id="e", path="list", items=[0])
        self.send("entity_remove", id="e", path="list", index=0)
        for _ in range(2):
            self.send("entity_increment", id="e", path="huge", by=10**308)
        self.send("entity_toggle", id="e", path="on")
        self.send("entity_set_if_not_exists", id="e", path="n", value=1)
        self.send("entity_delete", id="e", path="huge")
        self.send("entity_log", id="e", path="told", items=[1])
        self.send("entity_apply", id="e", commands=[{"op": "increment", "path": "n", "value": 1}])
        self.send("entity_restore", id="e", version=1)
        self.send("entity_get", id="e", path="n")
        self.send("entity_get", id="e", path="..")
        self.send("entity_at", id="e", version=1)
        self.send("entity_at", id="e", version=99)
        self.send("entity_meets", id="e", condition="$.n > 2")
        self.send("entity_meets", id="e", condition="$.n >")
        self.send("define_contract", entity="checked", schema=CONTRACT)
        self.send("entity_increment", id="a", path="n", by=9)
        self.send("drop_contract", entity="checked")

    def ask(self) -> None:
        self.claim("default", instance=self.game.token())
        self.claim("default", protocol=2)
        it = lease(self.claim("default"), "a")
        keys = [f"i#{number}" for number in range(3)]
        requests = [{"key": key, "kind": "item", "name": "sign"} for key in keys]
        told = {"requests": requests, "awaits": ["stop"]}
        self.send("advance", turns=[it | {"state": "park"} | told])
        one, two, three = (self.item(key) for key in keys)
        self.send("read_item", item=one)
        self.send("read_item", item="none")
        self.send("claim_item", item=one, by="ann")
        self.send("resolve_item", item=one, resolution="yes", by="bob")
        self.send("resolve_item", item=one, resolution="yes", by="ann")
        self.send("claim_item", item=two, by="ann")
        self.send("release_item", item=two)
        self.send("assign_item", item=three, assignee="ann")
        self.claim("default")

    def item(self, key: str) -> str:
        """Return an item by its request."""
        items = self.game.state.items.values()
        return next(item["id"] for item in items if item["key"] == key)

    def work_without_journal(self) -> None:
        for name in ("finishes", "fails", "is released", "is cancelled"):
            self.send("hook", id="a", name="f", key=name, queue="far")
        claimed = self.claim("far")
        held = [said(lease(claimed, "a", f"$hook/{key}")) for key in ("finishes", "fails")]
        self.send("extend", tasks=held)
        self.send("publish", **held[0], stream="told", items=[1])
        self.send("finish_task", **held[0] | {"token": self.game.token()})
        self.send("finish_task", **held[0], value=1)
        self.send("fail_task", **held[1], failure=FAILURE)
        self.send("release", tasks=[said(lease(claimed, "a", "$hook/is released"))])
        self.send("cancel_hook", id="a", task="$hook/is cancelled")
        cancelled = lease(claimed, "a", "$hook/is cancelled")
        late = [{"key": key, "kind": "hook", "name": "f"} for key in ("z", "a")]
        self.send("advance", turns=[cancelled | {"state": "keep", "requests": late}])
        self.send("register_sql_hook", name="adds", function="model.adds")
        hooks = {"adds": "adds", "nobody": "nobody", "is slow": "adds", "is unwanted": "adds"}
        for key, name in hooks.items():
            self.send("hook", id="a", name=name, key=key, queue="$sql")
        claimed = self.claim("$sql")
        self.send("cancel_hook", id="a", task="$hook/is unwanted")
        for key in ("is slow", "is unwanted"):
            self.send("time_out_task", **said(lease(claimed, "a", f"$hook/{key}")))
        for name in ("adds", "nobody"):
            self.send("run_task", **said(lease(claimed, "a", f"$hook/{name}")))
        self.send("drop_sql_hook", name="adds")

    def steer(self) -> None:
        self.send("pause", id="b")
        self.send("resume", id="b")
        self.send("repin", id="b", version="2")
        self.send("cancel", id="b", reason="enough")
        self.send("cancel_found", entity="thing", conditions={})
        self.send("terminate", id="c")

    def run_again(self) -> None:
        self.send("retry", id="c")
        self.send("fork", id="c", new_id="f")
        self.send("fork", id="c", new_id="f2", seq=99)
        self.send("start", workflow="w", id="late", timeout="30 s", queue="far")
        self.send("move_clock", by="31 s")
        it = lease(self.claim("$sql"), "late", "1/main/$deadline")
        self.send("run_task", **said(it))

    def limit(self) -> None:
        self.send("set_queue", queue="few", max_running=1)
        self.send("start", workflow="w", id="x", queue="few")
        self.send("pause_queue", queue="few")
        self.claim("few")
        self.send("resume_queue", queue="few")
        for _ in range(MAX_DELIVERIES + 1):
            self.claim("few", lease_for="1 s")
            self.send("move_clock", by="2 s")
        self.send("skip_time", up_to="infinity")

    def suspect(self) -> None:
        for number in range(3):
            self.send("start", workflow="w", id=f"dark {number}", queue="dark")
        for _ in range(SUSPICIOUS):
            self.claim("dark", lease_for="1 s")
            self.send("move_clock", by="2 s")
        self.send("start", workflow="w", id="bright", queue="dark")
        for worker in ("one", "one", "other"):
            self.claim("dark", worker=worker, max_tasks=1)
        self.claim("dark", worker="one")

    def schedule(self) -> None:
        begin = {"workflow": "w", "starts_at": stamp(0)}
        self.send("create_schedule", name="s", cron="* *", **begin)
        self.send("create_schedule", name="s", every="20 s", **begin)
        self.send("pause_schedule", name="s")
        self.send("resume_schedule", name="s")
        self.send("trigger_schedule", name="s", key="k")
        self.send("backfill_schedule", name="s", since=stamp(0), until=stamp(90 * SECOND))
        self.send("drop_schedule", name="s")
        self.send("pause_schedule", name="s")

    def exceed(self) -> None:
        self.send("signal", id="d", name="go", payload="x" * 1_048_577)
        grow = [{"op": "set", "path": f"p{n}", "value": "x" * 1_000_000} for n in range(9)]
        self.send("entity_apply", id="e", commands=grow)

    def forget(self) -> None:
        self.send("forget", id="a")
        self.send("forget_old_runs", id="c")
        self.send("forget_finished", before=stamp(self.game.state.now + SECOND))
        self.send("forget", id="e")

    def forget_keys(self) -> None:
        self.send("start", workflow="w", id="keys", queue="keys")
        its = lease(self.claim("keys"), "keys")
        self.send("signal", id="keys", name="go", key="once")
        heard = self.send("advance", turns=[its | {"state": "keep", "awaits": ["go"]}])
        (message,) = heard["turns"][0]["messages"]
        self.send("advance", turns=[its | {"state": "keep", "facts": [{"message": message["id"]}]}])
        self.send("forget_old_runs", id="keys")
        self.send("move_clock", by="90000 s")
        self.send("forget_old_runs", id="keys")
