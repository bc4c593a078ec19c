"""Negative controls of the commands: a rule of theirs is broken, and a named test fails.

As in `test_broken_engines.py`, each mutant is one change to one function, in a database of its own.
The test passes on the sound engine.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from tests.docs import test_memory_page as page
from tests.memory import test_memory_model as model
from tests.races import test_command_pairs as pairs
from tests.races import test_random_history as history
from tests.races.test_broken_engines import READ_WITHOUT_LOCK, Mutant, Test
from tests.races.theatre import Players, Theatre

READ_WHILE_LOCKING = """
    (with locked as materialized (
         select l.id from jobs as l where l.id = run_command.id for no key update)
     select (j.id, j.status, j.context, j.version, j.run, j.entity, j.watched)::memory
       from locked join jobs as j using (id))"""

READ_WHILE_UPDATING = (
    READ_WITHOUT_LOCK.format("run_command.id")
    + r""";\1
    update jobs as j
       set context = (select (apply_command(o.context, run_command.op, run_command.path,
                                            run_command.argument)).context
                        from jobs as o where o.id = run_command.id),
           version = j.version + 1
     where j.id = run_command.id
    returning j.version - 1 into held.version;"""
)


def pair(first: str, second: str) -> Test:
    """Make a test in which two commands meet, and the first commits."""
    test = pairs.test_call_that_waits_for_command_works_on_its_result
    return lambda players: test(players.a, players.b, first, second, "commit")


class Subtests:
    """A stand-in for pytest's subtests that lets the first failure through."""

    def test(self, about: str) -> AbstractContextManager[None]:
        """Run one case."""
        return nullcontext()


def memory_page(players: Players) -> Any:
    """Check every cell of the table of commands on the page about memory."""
    page.test_every_cell_is_true(players.a.connection, Subtests())


def memory_model(players: Players) -> Any:
    """Compare a few memories with the model, always the same ones."""
    model.agrees(players.a, 40, "a mutant")


def random_history(players: Players) -> Any:
    """Check a short random history for linearizability."""
    history.play(players.stage, 1600)


def exact_sum(players: Players) -> Any:
    """Add numbers that floats cannot add exactly."""
    players.a.call("entity_create", id="e", entity="sum", context={"n": 0.1})
    assert players.a.one("select entity_increment('e', 'n', 0.2)::text") == "0.3"


def deep_merge(players: Players) -> Any:
    """Merge into a nested object, and beside it."""
    players.a.call("entity_create", id="e", entity="deep", context={"a": {"b": 1}})
    players.a.one("""select entity_merge('e', '{"a": {"c": 2}, "z": 3}')""")
    assert players.a.one("select entity_get('e')") == {"a": {"b": 1, "c": 2}, "z": 3}


MUTANTS: dict[str, Mutant] = {
    # The lock. [P3]
    "the memory is read in a sub-select of its update": Mutant(
        "run_command",
        r"lock_job\(run_command\.id\);(.*)perform write_memory\(.*?\);",
        READ_WHILE_UPDATING,
        pair("append", "prepend"),
    ),
    "the memory is read in the statement that locks it": Mutant(
        "run_command", r"lock_job\(run_command\.id\)", READ_WHILE_LOCKING, pair("merge", "append")
    ),
    "the memory of a history is read in the statement that locks it": Mutant(
        "run_command", r"lock_job\(run_command\.id\)", READ_WHILE_LOCKING, random_history
    ),
    "plain updates get no version": Mutant(
        "record_update", r"new\.version := old\.version \+ 1;", "return new;", random_history
    ),
    "versions have gaps": Mutant(
        "answer_command",
        r"held\.version := held\.version \+ 1;",
        "held.version := held.version + 2;",
        random_history,
    ),
    "the expected version is compared before the lock": Mutant(
        "run_command",
        r"held memory := lock_job\(run_command\.id\);"
        r"(.*)if held\.version <>(.*)version_failure\(held,",
        "seen memory := "
        + READ_WITHOUT_LOCK.format("run_command.id")
        + r"; held memory := lock_job(run_command.id);\1if seen.version <>\2version_failure(seen,",
        pair("increment", "compare and set"),
    ),
    # Keys. [P2]
    "a key is not looked up": Mutant(
        "answers_by_key", r"f\.key = answers_by_key\.key", "false", pair("with a key", "with a key")
    ),
    "a key may be repeated with another command": Mutant(
        "answers_by_key",
        r"if \w+(\.command)? is distinct from .*? then",
        "if false then",
        pair("with a key", "another with this key"),
    ),
    "a key is looked up before the lock": Mutant(
        "run_command",
        r"held memory := lock_job\(run_command\.id\);(.*?)answers := (answers_by_key\(.*?\));",
        r"early jsonb[] := case when run_command.key is not null then \2 end;"
        r" held memory := lock_job(run_command.id);\1answers := early;",
        pair("with a key", "with a key"),
    ),
    "the version is compared before the key": Mutant(
        "run_command",
        r"if run_command\.key is not null then",
        "perform raise_failure(version_failure(held, run_command.expected_version));"
        " if run_command.key is not null then",
        memory_model,
    ),
    # Results of commands. (C26) … (C35)
    "a value is put as jsonb_set puts it": Mutant(
        "put_value",
        r"begin .* end",
        "begin return jsonb_set(put_value.context, put_value.path, put_value.value); end",
        memory_page,
    ),
    "no path is refused": Mutant(
        "path_failure", r"begin .* end", "begin return null; end", memory_page
    ),
    "an index beyond the end appends": Mutant(
        "path_failure",
        r"if here #> path_failure\.path\[step:step\] is null then",
        "if false then",
        memory_page,
    ),
    "an index with a plus sign at the end of a path is not one": Mutant(
        "path_failure", r"\[\+-\]\?\[0-9\]\+", r"-?[0-9]{1,9}", memory_model
    ),
    "a null counts as missing": Mutant(
        "apply_command",
        r"old := (apply_command\.context #> apply_command\.path);",
        r"old := nullif(\1, 'null');",
        memory_page,
    ),
    "any value may be merged into": Mutant(
        "wanted_type", r"when 'merge' then 'an object'", "", memory_page
    ),
    "merge is that of ||": Mutant(
        "merge_values",
        r"\|\| coalesce\(deeper, '{}'\)",
        "",
        deep_merge,
    ),
    "merge replaces": Mutant(
        "merge_at",
        r"begin .* end",
        "begin return put_value(merge_at.context, merge_at.path, merge_at.patch); end",
        memory_page,
    ),
    "prepend reverses its items": Mutant(
        "check_and_apply",
        r"when 'prepend' then argument",
        """when 'prepend' then (select coalesce(jsonb_agg(i order by n desc), '[]')
               from jsonb_array_elements(argument) with ordinality as t (i, n))""",
        memory_model,
    ),
    "removing the last element sets the array to null": Mutant(
        "remove_element",
        r"list - remove_element\.index\)",
        "coalesce(nullif(list - remove_element.index, '[]'), 'null'))",
        memory_page,
    ),
    "numbers are added as floats": Mutant(
        "apply_command",
        r"coalesce\(old, '0'\)::numeric \+ argument::numeric",
        "coalesce(old, '0')::float8 + argument::float8",
        exact_sum,
    ),
    "a deleted value becomes null": Mutant(
        "check_and_apply",
        r"check_and_apply\.context #- check_and_apply\.path end",
        """case when old is null then check_and_apply.context
                else put_value(check_and_apply.context, check_and_apply.path, 'null') end end""",
        memory_page,
    ),
    "a turn answers the argument, not the result": Mutant(
        "answer_command", r"made\.answer,", "fact.argument,", memory_model
    ),
}

_passed: set[Test] = set()  # on the sound engine


@pytest.mark.broken_invariants
@pytest.mark.parametrize("name", MUTANTS)
def test_broken_command_fails_its_test(theatre: Theatre, name: str) -> None:
    """(T32) The test named in the table passes on the sound engine and fails on the mutant."""
    mutant = MUTANTS[name]
    assert mutant.test in _passed or theatre.passes(mutant.test)
    _passed.add(mutant.test)

    theatre.change(mutant.function, mutant.place, mutant.change)

    assert not theatre.passes(mutant.test)
