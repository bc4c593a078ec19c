"""Negative controls: an engine that is broken on purpose makes a named test fail.

Each mutant is one change to one function, in a database of its own. The test is run there twice:
on the sound engine it passes, on the mutant it fails, or leaves invariants broken. A change whose
place is not found any more fails too: then the mutant has to be written anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.races import mail
from tests.races import test_asked_once as requests
from tests.races import test_claims as claims
from tests.races import test_conditions as conditions
from tests.races import test_deadlocks as deadlocks
from tests.races import test_families as families
from tests.races import test_lost_replies as replies
from tests.races import test_lost_updates as updates
from tests.races import test_open_transactions as transactions
from tests.races import test_park_and_mail as parks
from tests.races import test_starts as starts
from tests.races import test_two_takers as takers
from tests.races import test_zombies as zombies
from tests.races.theatre import Players, Theatre

Test = Callable[[Players], Any]


def two(test: Callable[..., Any], *more: Any) -> Test:
    """Run a test of two sessions."""
    return lambda it: test(it.a, it.b, *more)


def three(test: Callable[..., Any], *more: Any) -> Test:
    """Run a test of three sessions."""
    return lambda it: test(it.a, it.b, it.c, *more)


def signalled(test: Callable[..., Any], *more: Any) -> Test:
    """Run a test of a park and a signal."""
    return lambda it: test(it.a, it.b, mail.signal(it.a, it.b), *more)


def made(test: Callable[..., Any], deed: str, *more: Any) -> Test:
    """Run a test of a condition that a deed makes true."""
    return lambda it: test(it.a, conditions.DEEDS[deed](it.a, it.b), *more)


def stolen(test: Callable[..., Any], *more: Any) -> Test:
    """Run a test of a zombie whose lease was stolen."""
    return lambda it: test(it.a, zombies.dead(it.a, it.b, zombies.stolen), *more)


@dataclass(frozen=True)
class Mutant:
    """A change to a function of the engine, and the test that it must not pass."""

    function: str
    place: str  # a regular expression; a space stands for any white space
    change: str
    test: Test


READ_WITHOUT_LOCK = "read_job({})"

MUTANTS: dict[str, Mutant] = {
    # [P6] Fences.
    "turns are judged without their token": Mutant(
        "judge_turns",
        r"\(h\.token = g\.token\) is not true or",
        "",
        stolen(zombies.test_nothing_of_a_late_turn_has_any_effect, False),
    ),
    "heartbeats are accepted without a token": Mutant(
        "renew_leases",
        r"and g\.token = a\.token",
        "",
        stolen(zombies.test_a_late_heartbeat_renews_nothing),
    ),
    "claims wait for rows that are locked": Mutant(
        "find_due",
        r"for no key update skip locked",
        "for no key update",
        lambda it: claims.test_what_a_claimer_rolls_back_is_there_for_the_next(it.stage),
    ),
    # [P5] Wake-ups and mail.
    "advance reads the inbox without the lock of the job": Mutant(
        "apply_batch",
        r"lock_jobs\(touched, apply_batch\.waiting\)",
        "touched",
        signalled(parks.test_a_waiting_park_sees_mail_that_commits),
    ),
    "a signal wakes without the lock of the job": Mutant(
        "signal",
        r"lock_job\(signal\.id\)",
        READ_WITHOUT_LOCK.format("signal.id"),
        signalled(parks.test_mail_waits_for_an_open_park_and_wakes_it),
    ),
    "a turn is not busy when the job that it signals is locked": Mutant(
        "judge_turns",
        r"judge_turns\.missed <> '\{\}' and touches_any\(.*?\) as is_missed",
        "given.job = any(judge_turns.missed) as is_missed",
        two(parks.test_a_turn_that_leaves_mail_for_a_locked_job_is_busy),
    ),
    "waking moves tasks that are held": Mutant(
        "wake_tasks",
        r"and t\.token is null and t\.awaits is not null and t\.due_at > wake_tasks\.woken_at",
        "",
        signalled(
            parks.test_mail_that_comes_while_a_claim_is_open_is_found_by_the_holder, "commit"
        ),
    ),
    "the key of a signal is forgotten when it is consumed": Mutant(
        "signal_was_sent",
        r"i\.dedupe_key = signal_was_sent\.key",
        r"i.dedupe_key = signal_was_sent.key and i.consumed_at is null",
        two(parks.test_a_signal_with_a_key_is_accepted_once_also_after_it_was_consumed),
    ),
    "a message is taken without looking whether it is open": Mutant(
        "messages_are_open",
        r"and i\.consumed_at is null",
        "",
        two(takers.test_whoever_takes_a_signal_first_has_it_and_the_other_is_stale, (0, 1)),
    ),
    "one batch tells a message to two turns": Mutant(
        "apply_batch",
        r"or f\.message is not null",
        "",
        lambda it: takers.test_one_batch_tells_a_signal_to_one_task_only(it.a, (0, 1)),
    ),
    # [P5] [P8] Conditions on a memory.
    "a command looks for conditions before it has the lock of the job": Mutant(
        "run_command",
        r"lock_job\(run_command\.id\)",
        READ_WITHOUT_LOCK.format("run_command.id"),
        made(conditions.test_a_writer_waits_for_an_open_park_and_wakes_it, "a command", "commit"),
    ),
    "a command reads whether somebody waits before it has the lock of the job": Mutant(
        "run_command",
        r"held memory := lock_job\(run_command\.id\);(.*)if held\.watched or",
        r"""is_watched boolean := (select j.watched from jobs as j where j.id = run_command.id);
            held memory := lock_job(run_command.id);\1if is_watched or""",
        made(conditions.test_a_writer_waits_for_an_open_park_and_wakes_it, "a command", "commit"),
    ),
    "a batch reads whether somebody waits before it has the lock of the job": Mutant(
        "apply_batch",
        r"lock_jobs\(touched, apply_batch\.waiting\)",
        "touched",
        made(
            conditions.test_a_writer_waits_for_an_open_park_and_wakes_it,
            "a turn of a hook",
            "commit",
        ),
    ),
    "a plain UPDATE looks for nobody": Mutant(
        "record_update",
        r"if new\.watched or new\.version % 100 = 0",
        "if new.version % 100 = 0",
        made(conditions.test_a_writer_that_comes_after_the_park_wakes_the_task, "a plain UPDATE"),
    ),
    "several commands look when the last is done": Mutant(
        "run_commands",
        r"if held\.watched or held\.version % 100 = 0 then"
        r" held\.watched := mark_version\(held, run_at\); end if;(.*?end loop;)",
        r"\1 held.watched := mark_version(held, run_at);",
        made(
            conditions.test_a_writer_that_comes_after_the_park_wakes_the_task,
            "commands, true in the middle",
        ),
    ),
    "an answer is left without waking": Mutant(
        "meet_conditions",
        r"wake_tasks\(array\[held\.id\], meet_conditions\.met_at\)",
        "'{}'",
        made(conditions.test_a_writer_that_comes_after_the_park_wakes_the_task, "a command"),
    ),
    "a condition is met and met again": Mutant(
        "meet_conditions",
        r"delete from conditions as c where",
        "update conditions as c set asked_at = c.asked_at where",
        two(conditions.test_what_was_told_is_told_once),
    ),
    "who asks does not look": Mutant(
        "await_conditions",
        r"perform meet_conditions\(.*?\) from unnest\(waiting_jobs\) as job;",
        "",
        made(conditions.test_a_park_that_finds_it_true_goes_on, "a command"),
    ),
    "who asks tells no writer": Mutant(
        "await_conditions",
        r"perform watch_jobs\(waiting_jobs\);",
        "",
        made(conditions.test_a_writer_that_comes_after_the_park_wakes_the_task, "a command"),
    ),
    "a request looks for open answers only": Mutant(
        "await_conditions",
        r"i\.key = q\.key offset 0\)",
        "i.key = q.key and i.consumed_at is null offset 0)",
        two(conditions.test_what_was_told_is_told_once),
    ),
    "a condition that is withdrawn stands": Mutant(
        "withdraw_conditions",
        r"and r\.cancels \? c\.key",
        "and false",
        two(conditions.test_a_writer_that_waited_for_a_withdrawal_wakes_nobody, "commit"),
    ),
    "conditions outlive their tasks": Mutant(
        "end_tasks",
        r"perform forget_conditions\(ended\);",
        "",
        two(conditions.test_a_writer_that_waited_for_the_end_answers_nobody, "terminate", "commit"),
    ),
    "the last writer forgets that somebody listens": Mutant(
        "notify_watchers",
        r"or is_listened_for\(.*?'1 hour'\)",
        "",
        two(conditions.test_who_watches_is_told_of_every_change, "commit"),
    ),
    "an old snapshot looks for whom to wake": Mutant(
        "check_snapshot",
        r"= 'read committed'",
        "is not null",
        two(
            conditions.test_a_writer_with_an_old_snapshot_is_refused,
            "repeatable read",
            "a command",
        ),
    ),
    "a hook from outside writes no row that an old snapshot meets": Mutant(
        "hook",
        r"perform touch_job\(.*?\);",
        "",
        two(
            transactions.test_a_verb_that_does_not_see_a_hook_from_outside_is_refused,
            "a signal",
            "repeatable read",
        ),
    ),
    "an old snapshot looks whether a hook has ended": Mutant(
        "hook",
        r"perform check_snapshot\(.*?\);",
        "",
        two(transactions.test_a_hook_that_has_ended_meanwhile_is_not_run_again, "repeatable read"),
    ),
    # [P2] [P3] Commands.
    "commands read the memory without its lock": Mutant(
        "run_command",
        r"lock_job\(run_command\.id\)",
        READ_WITHOUT_LOCK.format("run_command.id"),
        two(updates.test_a_command_that_waited_is_applied_to_what_the_other_left, "commit"),
    ),
    "commands read the memory in a sub-select of the update that waits": Mutant(
        "run_command",
        r"lock_job\(run_command\.id\);(.*)perform write_memory\(.*?\);",
        READ_WITHOUT_LOCK.format("run_command.id")
        + r""";\1
            update jobs as j
               set context = (select (apply_command(o.context, run_command.op, run_command.path,
                                                    run_command.argument)).context
                                from jobs as o where o.id = run_command.id),
                   version = j.version + 1
             where j.id = run_command.id
            returning j.version - 1 into held.version;""",
        two(updates.test_a_command_that_waited_is_applied_to_what_the_other_left, "commit"),
    ),
    "merge is that of ||": Mutant(
        "merge_at",
        r"begin .* end",
        "begin return put_value(merge_at.context, merge_at.path,"
        " coalesce(merge_at.context #> merge_at.path, '{}') || merge_at.patch); end",
        two(updates.test_a_merge_that_waited_for_one_into_the_next_subtree_keeps_both, "commit"),
    ),
    "merge is that of jsonb_set": Mutant(
        "merge_at",
        r"begin .* end",
        "begin return jsonb_set(merge_at.context, merge_at.path, merge_at.patch); end",
        two(updates.test_a_merge_that_waited_for_one_into_the_next_subtree_keeps_both, "commit"),
    ),
    "a key of a command is not looked up": Mutant(
        "answers_by_key",
        r"f\.key = answers_by_key\.key",
        "false",
        two(updates.test_a_key_that_is_used_by_two_at_once_is_one_command, "commit"),
    ),
    "a plain UPDATE has no version": Mutant(
        "record_update",
        r"new\.version := old\.version \+ 1;",
        "return new;",
        two(
            transactions.test_a_plain_update_that_waited_sees_the_memory_that_a_turn_left, "commit"
        ),
    ),
    # [P1] [P4] [P12] Repeats.
    "a turn is applied whatever its position": Mutant(
        "judge_turns",
        r"when h\.position > coalesce\(g\.position, 0\) then 'applied'",
        "",
        two(replies.test_a_repeated_turn_changes_nothing, "keep with facts"),
    ),
    "the token that parked a task is forgotten": Mutant(
        "judge_turns",
        r"when h\.token is null and h\.last_token = g\.token then 'parked'",
        "",
        two(replies.test_a_repeated_turn_changes_nothing, "park"),
    ),
    "a repeated claim claims again": Mutant(
        "claimed_before",
        r"t\.token = claimed_before\.token",
        "false",
        two(replies.test_a_repeated_claim_gives_the_same_tasks_and_counts_no_delivery),
    ),
    "requests look for open answers only": Mutant(
        "request_tasks",
        r"i\.key = q\.key offset 0\)",
        "i.key = q.key and i.consumed_at is null offset 0)",
        two(
            requests.test_a_request_repeated_after_its_answer_was_consumed_inserts_nothing,
            requests.ASKED["a hook that returns"],
        ),
    ),
    "a hook that has ended is forgotten": Mutant(
        "task_has_ended",
        r"f\.kind = 'end'",
        "false",
        three(requests.test_a_hook_from_outside_with_a_key_runs_once, "commit"),
    ),
    # Parents and children.
    "a parent ends without seeing to its children": Mutant(
        "insert_parent_ends",
        r"where children_to_end\(.*?\) <> '\{\}'",
        "where false",
        two(
            families.test_a_parent_leaves_what_sees_to_its_children_when_it_ends_and_not_else,
            "commit",
        ),
    ),
    "what sees to children waits for all of them": Mutant(
        "end_children",
        r"100\), waiting => false",
        "100), waiting => true",
        two(
            families.test_a_child_that_somebody_has_locked_is_passed_by_and_comes_next,
            "cancel",
            "commit",
        ),
    ),
    "what sees to children forgets those that it missed": Mutant(
        "end_children",
        r"if children_to_end\(held\.job, parent, 1\) <> '\{\}' then",
        "if false then",
        two(
            families.test_a_child_that_somebody_has_locked_is_passed_by_and_comes_next,
            "terminate",
            "commit",
        ),
    ),
    "who has lost the lease sees to children": Mutant(
        "end_children",
        r"if held\.job is null then return 'gone'; end if;",
        "held.job := coalesce(held.job, end_children.job);",
        two(families.test_the_holder_of_an_old_lease_sees_to_nobody, "commit"),
    ),
    "what is asked for after a cancel begins as usual": Mutant(
        "cancel_new_requests",
        r"if unaware = '\{\}' then",
        "if true then",
        two(
            families.test_what_is_asked_for_after_a_cancel_begins_cancelled,
            "a detached child",
            "commit",
        ),
    ),
    "a cancel wakes with an old snapshot": Mutant(
        "wake_cancelled",
        r"perform check_snapshot\(.*?\);",
        "",
        two(families.test_who_cancels_with_an_old_snapshot_is_refused, "a hook", "repeatable read"),
    ),
    # The order of locks.
    "a batch waits for jobs that are locked": Mutant(
        "lock_jobs",
        r"skip locked",
        "",
        two(
            transactions.test_an_open_transaction_on_one_job_makes_one_turn_busy_and_delays_none,
            "a plain UPDATE",
            "commit",
        ),
    ),
    "jobs are locked in any order": Mutant(
        "lock_jobs",
        r"order by j\.id for no key update\)",
        "order by case current_setting('application_name') when 'b' then j.id end desc, j.id"
        " for no key update)",
        three(
            deadlocks.test_two_batches_stopped_half_way_at_a_job_of_a_user_lock_in_one_order,
        ),
    ),
    "the tasks of a batch are locked in its own order": Mutant(
        "judge_turns",
        r'order by given\.job collate "C", given\.task collate "C"\) as g',
        "order by given.number) as g",
        three(
            deadlocks.test_tasks_are_locked_in_one_order_whatever_the_order_of_the_call,
            "a batch",
            "a terminate",
        ),
    ),
    "jobs are inserted in the order of the call": Mutant(
        "insert_jobs",
        r'order by w\.id collate "C"',
        "",
        three(starts.test_start_manys_that_meet_in_the_middle_wait_for_each_other),
    ),
}


LISTENING = "the last writer forgets that somebody listens"


@pytest.mark.broken_invariants
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.direct("it listens")) if name == LISTENING else name
        for name in MUTANTS
    ],
)
def test_a_broken_engine_does_not_pass(theatre: Theatre, name: str) -> None:
    """(T32): the test named in the table passes on the engine and fails on the mutant."""
    mutant = MUTANTS[name]
    assert theatre.passes(mutant.test)

    theatre.change(mutant.function, mutant.place, mutant.change)

    assert not theatre.passes(mutant.test)
