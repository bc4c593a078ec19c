"""A hook that was asked to cancel may outlive its run, and keeps all that it needs to clean up."""

from __future__ import annotations

import pytest

from tests.races.sessions import (
    Json,
    Session,
    Task,
    activity,
    child,
    hook,
    item,
    send,
    take,
    until,
)

LAST: dict[str, Json] = {"done": {"value": 1}, "continue": {"value": [2]}}


def cleaning_up(session: Session) -> tuple[Task, Task]:
    """Give a coordinator and its hook, both held; the hook has taken its request to cancel."""
    main = session.held("j")
    session.advance(main.keep(requests=[hook("h#1", signal="early")]))
    running = session.claim_one("hooks")
    session.advance(main.keep(cancels=["h#1"]))
    messages = session.advance(running.park()).messages
    assert [message["key"] for message in messages] == ["$cancel"]
    assert session.advance(running.keep(*map(take, messages))).state == "keep"
    return main, running.told()


def end_run(session: Session, main: Task, state: str) -> None:
    """End the run of a coordinator."""
    assert session.advance(main.turn(state, **LAST[state]), waiting=True).state == state


@pytest.mark.parametrize("state", LAST)
def test_item_of_hook_that_cleans_up_survives_run(a: Session, state: str) -> None:
    """[P8] The hook waits for the item, and gets its resolution."""
    main, running = cleaning_up(a)
    assert a.advance(running.park(requests=[item("i#1")])).state == "parked"
    end_run(a, main, state)

    a.resolve(a.item_of("j"), "yes")

    assert len(a.claim_one("hooks").messages) == 1


@pytest.mark.parametrize("state", LAST)
def test_condition_of_hook_that_cleans_up_survives_run(a: Session, state: str) -> None:
    """[P8] The hook waits for the condition, and is woken when it is met."""
    main, running = cleaning_up(a)
    assert a.advance(running.park(requests=[until("$.n == 1")])).state == "parked"
    end_run(a, main, state)

    a.call("entity_set", id="j", path="n", value=1)

    assert len(a.claim_one("hooks").messages) == 1


@pytest.mark.parametrize("how", ["commit", "rollback"])
def test_early_answer_after_end_of_its_asker_is_dropped(a: Session, b: Session, how: str) -> None:
    """[P8] The task that it is addressed to is gone, so it would stay in the inbox for ever."""
    main, running = cleaning_up(a)
    b.begin()
    end_run(b, main, "done")
    answering = a.later(a.advance, running.keep(send("early", 1)), waiting=True)
    assert answering.waits()
    b.end(how)

    assert answering.get().state == "keep"
    assert a.one("select count(*) from inbox where key = 'h#1'") == (how == "rollback")


def test_forgetting_old_runs_keeps_journal_of_hook_that_cleans_up(a: Session) -> None:
    """[P4] Without its journal the hook would repeat its activities."""
    main, running = cleaning_up(a)
    assert a.advance(running.keep(activity("x#1", 1))).state == "keep"
    end_run(a, main, "continue")

    assert a.call("forget_old_runs", id="j") == 0
    assert a.advance(running.told().done()).state == "done"
    assert a.call("forget_old_runs", id="j") == 2


@pytest.mark.parametrize("how", ["commit", "rollback"])
def test_terminating_job_ends_hooks_that_clean_up_after_earlier_run(
    a: Session, b: Session, how: str
) -> None:
    """[P6] Their items and requested hooks end too, and their children are terminated."""
    main, running = cleaning_up(a)
    requests = [hook("h#2"), item("i#1"), child("c#1", id="c", on_parent_end="terminate")]
    assert a.advance(running.keep(requests=requests)).state == "keep"
    end_run(a, main, "continue")
    b.begin()
    assert b.call("terminate", id="j") is True
    going_on = a.later(a.advance, running.keep(activity("x#1", 1), send("go")), waiting=True)
    assert going_on.waits()
    b.end(how)

    state = going_on.get().state
    if state == "busy":  # its task was deleted while it waited
        state = a.advance(running.keep(activity("x#1", 1), send("go")), waiting=True).state
    assert state == ("gone" if how == "commit" else "keep")
    if how == "commit":
        assert [name.split("/")[0] for name in a.tasks("j")] == ["$parent_end"]
        assert a.one("select count(*) from items") == 0
        assert a.call("run_task", **a.claim_one("$sql").lease) == "done"
        assert a.status("c") == "cancelled"
