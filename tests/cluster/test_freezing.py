"""(T35) Transaction ids are always about to run out: vacuums freeze, and yield to no lock."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack

import pytest

import perdure
from tests.amount import amount
from tests.cluster.load import Load
from tests.cluster.machines import Machine
from tests.worker.processes import worker_process

# The lowest age at which a server insists on freezing.
ALWAYS_FREEZING = {
    "autovacuum_freeze_max_age": "100000",
    "autovacuum_naptime": "1s",
    "vacuum_freeze_min_age": "0",
}
BURN = """
do $$
begin
    for number in 1..10000 loop
        perform pg_current_xact_id();
        commit;
    end loop;
end
$$
"""
OLDEST = """
select max(age(c.relfrozenxid)) from pg_class as c
 where c.relnamespace = 'perdure'::regnamespace and c.relkind = 'r'
"""


def test_work_continues_while_tables_are_frozen(
    machines: Callable[..., Machine], example: Machine
) -> None:
    """[P12] Indexes are built too, although such a vacuum delays them."""
    if amount(10) <= 10:
        pytest.skip("`make cluster` runs it: half a million ids take long")
    server = machines(settings=ALWAYS_FREEZING)
    server.begin_as(example)
    server.start()
    with ExitStack() as stack:
        client = stack.enter_context(perdure.connect(server.url(), provision=False))
        stack.enter_context(worker_process(server.url(), WORKER=json.dumps({"poll": 0.2})))
        server.await_workers(1)
        with Load(server.url()) as load, server.connect() as connection:
            oldest = []
            for burnt in range(50):
                connection.execute(BURN)
                oldest.append(connection.execute(OLDEST).fetchone()[0])
                if burnt % 20 == 10:
                    client.create_index("counter", f"n{burnt}", "number")
            load.go_on(50)
        load.check(client)
    assert max(oldest) < 300_000
    server.check()
