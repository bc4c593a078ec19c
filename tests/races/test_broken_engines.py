"""Negative controls: a named test fails on an engine that is broken on purpose.

Each mutant is one change to one function, in a database of its own. The test runs there twice: on
the sound engine it passes, and on the mutant it fails or leaves broken invariants. If the place of
a change is not found any more, the test fails too; then the mutant must be written anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.races import messages
from tests.races import test_asked_once as requests
from tests.races import test_between_runs as runs
from tests.races import test_claims as claims
from tests.races import test_conditions as conditions
from tests.races import test_deadlocks as deadlocks
from tests.races import test_families as families
from tests.races import test_lost_replies as replies
from tests.races import test_lost_updates as updates
from tests.races import test_old_snapshots as snapshots
from tests.races import test_open_transactions as transactions
from tests.races import test_park_and_messages as parks
from tests.races import test_starts as starts
from tests.races import test_two_takers as takers
from tests.races import test_zombies as zombies
from tests.races.theatre import Players, Theatre

Test = Callable[[Players], Any]


def two(test: Callable[..., Any], *more: Any) -> Test:
    """Make a run of a test with two sessions."""
    return lambda players: test(players.a, players.b, *more)


def three(test: Callable[..., Any], *more: Any) -> Test:
    """Make a run of a test with three sessions."""
    return lambda players: test(players.a, players.b, players.c, *more)


def signalled(test: Callable[..., Any], *more: Any) -> Test:
    """Make a run of a test of a park and a signal."""
    return lambda players: test(players.a, players.b, messages.signal(players.a, players.b), *more)


def written(test: Callable[..., Any], way: str, *more: Any) -> Test:
    """Make a run of a test of a condition that a write makes true."""
    return lambda players: test(players.a, conditions.WRITES[way](players.a, players.b), *more)


def stolen(test: Callable[..., Any], *more: Any) -> Test:
    """Make a run of a test of a zombie whose lease was stolen."""
    return lambda players: test(
        players.a, zombies.lost_lease(players.a, players.b, zombies.stolen), *more
    )


@dataclass(frozen=True)
class Mutant:
    """A change to a function of the engine, and the test that must fail on it."""

    function: str
    place: str  # a regular expression; a space stands for any white space
    change: str
    test: Test


READ_WITHOUT_LOCK = "read_job({})"

MUTANTS: dict[str, Mutant] = {
    # [P6] Fences.
    "turns are checked without their token": Mutant(
        "judge_turns",
        r"\(h\.token = g\.token\) is not true or",
        "",
        stolen(zombies.test_late_turn_has_no_effect, False),
    ),
    "heartbeats are accepted without a token": Mutant(
        "renew_leases",
        r"and g\.token = a\.token",
        "",
        stolen(zombies.test_late_heartbeat_is_answered_lost_and_renews_nothing),
    ),
    "claims wait for rows that are locked": Mutant(
        "find_due",
        r"for no key update skip locked",
        "for no key update",
        lambda players: claims.test_tasks_of_claim_that_is_rolled_back_can_be_claimed(
            players.stage
        ),
    ),
    # [P5] Wake-ups and messages.
    "advance reads the inbox without the lock of the job": Mutant(
        "apply_batch",
        r"lock_jobs\(touched, apply_batch\.waiting\)",
        "touched",
        signalled(parks.test_park_that_waits_sees_message_that_commits),
    ),
    "a signal wakes without the lock of the job": Mutant(
        "signal",
        r"lock_job\(signal\.id\)",
        READ_WITHOUT_LOCK.format("signal.id"),
        signalled(parks.test_message_waits_for_open_park_and_wakes_task),
    ),
    "a turn is not busy when the job that it signals is locked": Mutant(
        "judge_turns",
        r"judge_turns\.missed <> '\{\}' and touches_any\(.*?\) as is_missed",
        "given.job = any(judge_turns.missed) as is_missed",
        two(parks.test_turn_that_sends_message_to_locked_job_is_busy),
    ),
    "waking moves tasks that are held": Mutant(
        "wake_tasks",
        r"and t\.token is null and t\.awaits is not null and t\.due_at > wake_tasks\.woken_at",
        "",
        signalled(parks.test_message_during_open_claim_is_found_by_holder, "commit"),
    ),
    "the key of a signal is forgotten when it is consumed": Mutant(
        "signal_was_sent",
        r"i\.dedupe_key = signal_was_sent\.key",
        r"i.dedupe_key = signal_was_sent.key and i.consumed_at is null",
        two(parks.test_signal_with_key_is_accepted_once_even_after_it_was_consumed),
    ),
    "a message is taken without looking whether it is open": Mutant(
        "messages_are_open",
        r"and i\.consumed_at is null",
        "",
        two(takers.test_request_to_cancel_is_taken_once),
    ),
    "one batch gives a message to two turns": Mutant(
        "apply_batch",
        r"or f\.message is not null",
        "",
        lambda players: takers.test_batch_gives_signal_to_first_turn_that_takes_it(
            players.a, (0, 1)
        ),
    ),
    # [P5] [P8] Conditions on a memory.
    "a command looks up conditions before it has the lock of the job": Mutant(
        "run_command",
        r"lock_job\(run_command\.id\)",
        READ_WITHOUT_LOCK.format("run_command.id"),
        written(
            conditions.test_writer_waits_for_open_park_and_wakes_task,
            "a command",
            "commit",
        ),
    ),
    "a command reads whether its job is watched before it has the lock of the job": Mutant(
        "run_command",
        r"held memory := lock_job\(run_command\.id\);(.*)if held\.watched or",
        r"""is_watched boolean := (select j.watched from jobs as j where j.id = run_command.id);
            held memory := lock_job(run_command.id);\1if is_watched or""",
        written(
            conditions.test_writer_waits_for_open_park_and_wakes_task,
            "a command",
            "commit",
        ),
    ),
    "a batch reads whether a job is watched before it has the lock of the job": Mutant(
        "apply_batch",
        r"lock_jobs\(touched, apply_batch\.waiting\)",
        "touched",
        written(
            conditions.test_writer_waits_for_open_park_and_wakes_task,
            "a turn of a hook",
            "commit",
        ),
    ),
    "a plain UPDATE checks no conditions": Mutant(
        "record_update",
        r"if new\.watched or new\.version % 100 = 0",
        "if new.version % 100 = 0",
        written(conditions.test_write_after_park_wakes_task, "a plain UPDATE"),
    ),
    "several commands check the conditions only after the last": Mutant(
        "run_commands",
        r"if held\.watched or held\.version % 100 = 0 then"
        r" held\.watched := mark_version\(held, run_at\); end if;(.*?end loop;)",
        r"\1 held.watched := mark_version(held, run_at);",
        written(
            conditions.test_write_after_park_wakes_task,
            "commands, true in between",
        ),
    ),
    "an answer is sent without waking the task": Mutant(
        "meet_conditions",
        r"wake_tasks\(array\[held\.id\], meet_conditions\.met_at\)",
        "'{}'",
        written(conditions.test_write_after_park_wakes_task, "a command"),
    ),
    "a condition is answered again and again": Mutant(
        "meet_conditions",
        r"delete from conditions as c where",
        "update conditions as c set asked_at = c.asked_at where",
        two(conditions.test_condition_is_answered_only_once),
    ),
    "a request does not check its condition": Mutant(
        "await_conditions",
        r"perform meet_conditions\(.*?\) from unnest\(waiting_jobs\) as job;",
        "",
        written(conditions.test_park_on_true_condition_is_answered_at_once, "a command"),
    ),
    "a request does not mark its job as watched": Mutant(
        "await_conditions",
        r"perform watch_jobs\(waiting_jobs\);",
        "",
        written(conditions.test_write_after_park_wakes_task, "a command"),
    ),
    "a request for a condition looks up no answers": Mutant(
        "await_conditions",
        r"and not is_answered\(r\.job, r\.task, q\.key\)",
        "",
        two(conditions.test_condition_is_answered_only_once),
    ),
    "a withdrawn condition stays": Mutant(
        "withdraw_conditions",
        r"and r\.cancels \? c\.key",
        "and false",
        two(conditions.test_writer_that_waited_for_withdrawal_wakes_no_task, "commit"),
    ),
    "conditions outlive their tasks": Mutant(
        "end_tasks",
        r"perform forget_conditions\(ended\);",
        "",
        two(
            conditions.test_writer_that_waited_for_end_of_task_answers_nothing,
            "terminate",
            "commit",
        ),
    ),
    "the last writer ignores listeners": Mutant(
        "notify_watchers",
        r"or is_listened_for\(.*?'1 hour'\)",
        "",
        two(conditions.test_client_that_watches_gets_hint_for_every_change, "commit"),
    ),
    "an old snapshot may look up conditions": Mutant(
        "check_snapshot",
        r"sees_commits\(\)",
        "true",
        two(
            conditions.test_writer_with_old_snapshot_gets_serialization_failure,
            "repeatable read",
            "a command",
        ),
    ),
    "an old snapshot may park a task": Mutant(
        "apply_turns",
        r"perform refuse_blind_park\(.*?\);",
        "",
        two(
            snapshots.test_task_is_not_parked_where_a_message_would_not_be_seen,
            "a signal",
            "repeatable read",
        ),
    ),
    "an old snapshot may end the parent of a child that has answered": Mutant(
        "delete_tasks",
        r"perform check_children\(.*?\);",
        "",
        two(
            snapshots.test_job_does_not_end_before_it_could_see_the_answer_of_its_child,
            "a turn",
            "repeatable read",
        ),
    ),
    "asking to cancel does not touch the row of the job": Mutant(
        "insert_cancel_requests",
        r"perform touch_job\(.*?\);",
        "",
        two(
            snapshots.test_turn_does_not_overlook_a_cancel_since_its_snapshot,
            "an end",
            "repeatable read",
        ),
    ),
    "requesting a hook from outside does not touch the row of the job": Mutant(
        "hook",
        r"perform touch_job\(.*?\);",
        "",
        two(
            transactions.test_a_verb_that_does_not_see_a_hook_from_outside_is_refused,
            "a signal",
            "repeatable read",
        ),
    ),
    "an old snapshot may look up whether a hook has ended": Mutant(
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
        two(updates.test_command_that_waited_is_applied_to_new_memory, "commit"),
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
        two(updates.test_command_that_waited_is_applied_to_new_memory, "commit"),
    ),
    "merge is that of ||": Mutant(
        "merge_at",
        r"begin .* end",
        "begin return put_value(merge_at.context, merge_at.path,"
        " coalesce(merge_at.context #> merge_at.path, '{}') || merge_at.patch); end",
        two(updates.test_merge_that_waited_for_adjacent_merge_keeps_both, "commit"),
    ),
    "merge is that of jsonb_set": Mutant(
        "merge_at",
        r"begin .* end",
        "begin return jsonb_set(merge_at.context, merge_at.path, merge_at.patch); end",
        two(updates.test_merge_that_waited_for_adjacent_merge_keeps_both, "commit"),
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
        two(transactions.test_plain_update_that_waited_works_on_memory_of_turn, "commit"),
    ),
    # [P1] [P4] [P12] Repeats.
    "a turn is applied whatever its position": Mutant(
        "judge_turns",
        r"when h\.position > coalesce\(g\.position, 0\) and f\.difference is null then 'applied'",
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
    "a job ends although a signal has come that it awaits": Mutant(
        "continue_for_signals",
        r"state := 'continue'",
        "state := 'done'",
        two(runs.test_end_that_waits_for_signal_that_it_awaits, "commit"),
    ),
    "a key is forgotten without a lock of its job": Mutant(
        "forget_old_runs",
        r"lock_job\(forget_old_runs\.id\)",
        "read_job(forget_old_runs.id)",
        two(runs.test_signal_that_is_repeated_while_its_key_is_forgotten, "commit"),
    ),
    "requests look up open answers only": Mutant(
        "request_tasks",
        r"and not exists \( select from journal as f .*? offset 0\)",
        "",
        two(
            requests.test_a_request_repeated_after_its_answer_was_consumed_inserts_nothing,
            requests.KINDS["a hook that returns"],
        ),
    ),
    "requests for conditions look up open answers only": Mutant(
        "is_answered",
        r"or exists \( select from journal as f .*? and f\.is_answer\)",
        "",
        two(conditions.test_condition_is_answered_only_once),
    ),
    "an answer is given beside one that is being taken": Mutant(
        "insert_answers",
        r"and not exists \( select from inbox as i .*? and not exists .*? offset 0\)",
        "",
        two(requests.test_hook_that_answered_early_ends_while_its_answer_is_taken, "commit"),
    ),
    "a condition is answered beside an answer that was taken": Mutant(
        "answer_conditions",
        r"where not is_answered\(.*?\)",
        "",
        two(
            requests.test_second_answer_under_key_of_taken_one_is_dropped,
            "condition hook",
            (1, 0),
        ),
    ),
    "a hook that has ended is forgotten": Mutant(
        "task_has_ended",
        r"f\.kind = 'end'",
        "false",
        three(requests.test_a_hook_from_outside_with_a_key_runs_once, "commit"),
    ),
    # Parents and children.
    "a parent ends without a task for its children": Mutant(
        "insert_parent_ends",
        r"where children_to_end\(.*?\) <> '\{\}'",
        "where false",
        two(
            families.test_task_that_ends_children_appears_when_parent_has_ended,
            "commit",
        ),
    ),
    "the task that ends children waits for all of them": Mutant(
        "end_children",
        r"100\), waiting => false",
        "100), waiting => true",
        two(
            families.test_locked_child_is_skipped_and_ended_later,
            "cancel",
            "commit",
        ),
    ),
    "the task that ends children forgets those that it skipped": Mutant(
        "end_children",
        r"if children_to_end\(held\.job, parent, 1\) <> '\{\}' then",
        "if false then",
        two(
            families.test_locked_child_is_skipped_and_ended_later,
            "terminate",
            "commit",
        ),
    ),
    "the holder of a lost lease ends children": Mutant(
        "end_children",
        r"if held\.job is null then return 'gone'; end if;",
        "held.job := coalesce(held.job, end_children.job);",
        two(families.test_holder_of_lost_lease_ends_no_children, "commit"),
    ),
    "requests after a cancel begin as usual": Mutant(
        "cancel_new_requests",
        r"if unaware = '\{\}' then",
        "if true then",
        two(
            families.test_request_that_waited_for_cancel_begins_cancelled,
            "a detached child",
            "commit",
        ),
    ),
    "a cancel may wake tasks with an old snapshot": Mutant(
        "wake_cancelled",
        r"perform check_snapshot\(.*?\);",
        "",
        two(
            families.test_cancel_with_old_snapshot_gets_serialization_failure,
            "a hook",
            "repeatable read",
        ),
    ),
    # The order of locks.
    "a batch waits for jobs that are locked": Mutant(
        "lock_jobs",
        r"skip locked",
        "",
        two(
            transactions.test_open_transaction_on_one_job_makes_only_its_turn_busy,
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
            deadlocks.test_two_batches_with_opposite_orders_lock_jobs_in_same_order,
        ),
    ),
    "the tasks of a batch are locked in its own order": Mutant(
        "judge_turns",
        r'order by given\.job collate "C", given\.task collate "C"\) as g',
        "order by given.ordinality) as g",
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


LISTENING = "the last writer ignores listeners"


@pytest.mark.broken_invariants
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.direct("it listens")) if name == LISTENING else name
        for name in MUTANTS
    ],
)
def test_broken_engine_fails_its_test(theatre: Theatre, name: str) -> None:
    """(T32) The test named in the table passes on the sound engine and fails on the mutant."""
    mutant = MUTANTS[name]
    assert theatre.passes(mutant.test)

    theatre.change(mutant.function, mutant.place, mutant.change)

    assert not theatre.passes(mutant.test)
