"""Workers, limits and pauses at random on one queue: no slot is given twice. [P6] [P8] (C42)"""

from __future__ import annotations

import random
import time
from collections import Counter
from functools import partial
from typing import Any

from tests.amount import seed
from tests.races.sessions import PATIENCE, Session, Stage, Task, together

WORKERS = 6
JOBS = 60
SLOTS, SLOTS_OF_A_KEY = 5, 2
RATE_OF_A_KEY = 100
FATES = ["done", "done", "retry", "release", "park", "lost"]
RULES = ["pause_queue", "resume_queue", "set_queue", "set_queue", "pause"]

TOO_MANY = f"""
select sum(k.held), max(k.held)
  from (select count(*) as held from tasks
         where queue = 'q' and token is not null group by limit_key) as k
having sum(k.held) > {SLOTS} or max(k.held) > {SLOTS_OF_A_KEY}"""


class Storm:
    """Random workers, a session that pauses and sets limits, and one that counts slots."""

    def __init__(self) -> None:
        self.seed = seed()
        self.done: Counter[str] = Counter()
        self.too_many: list[Any] = []
        self._ends_at = time.monotonic() + PATIENCE

    def goes_on(self) -> bool:
        """Tell whether jobs are left; a storm that takes too long ends, and fails."""
        return self.done.total() < JOBS and time.monotonic() < self._ends_at

    def work(self, session: Session) -> None:
        """Claim tasks, and let each come to a random end."""
        chance = random.Random(self.seed + session.name)
        while self.goes_on():
            for task in session.claim("q", max_tasks=chance.choice([1, 2, 9])):
                self._end(session, task, chance.choice(FATES))

    def _end(self, session: Session, task: Task, fate: str) -> None:
        if fate == "lost":
            session.expire(task)
        elif fate == "park":
            state = session.advance(task.park("go"), waiting=True).state
            if state == "parked":
                session.signal(task.job, "go")
            else:
                session.release(task)  # it had a message
        else:
            state = session.advance(task.turn(fate), waiting=True).state
            self.done[task.job] += state == "done"

    def rule(self, session: Session) -> None:
        """Change limits and pauses."""
        chance = random.Random(self.seed)
        while self.goes_on():
            call = chance.choice(RULES)
            if call == "set_queue":
                slots = chance.choice([SLOTS, SLOTS - 2])
                of_a_key = chance.choice([SLOTS_OF_A_KEY, 1])
                limits: dict[str, Any] = {"max_running": slots, "max_per_key": of_a_key}
                limits |= {"rate_per_key": chance.choice([RATE_OF_A_KEY, None])}
                session.call(call, queue="q", **limits)
            elif call == "pause":
                job = f"j{chance.randrange(JOBS)}"
                if session.status(job) == "running" and session.call("pause", id=job):
                    session.call("resume", id=job)
            else:
                session.call(call, queue="q")
            time.sleep(0.01)  # or the others would not get the lock of the queue
        session.call("resume_queue", queue="q")

    def watch(self, session: Session) -> None:
        """Collect the moments at which more slots are in use than there are."""
        while self.goes_on():
            self.too_many += session.run(TOO_MANY)


def test_no_slot_is_given_twice_and_every_job_ends_once(stage: Stage) -> None:
    workers = stage.sessions(WORKERS)
    ruler, witness = stage.session("ruler"), stage.session("witness")
    storm = Storm()
    ruler.call("set_queue", queue="q", max_running=SLOTS, max_per_key=SLOTS_OF_A_KEY)
    for number in range(JOBS):
        options = {"limit_key": "abc"[number % 3], "priority": number % 2}
        ruler.start(f"j{number}", queue="q", **options)

    calls = [partial(storm.work, session) for session in workers]
    together(*calls, partial(storm.rule, ruler), partial(storm.watch, witness))

    assert storm.too_many == []
    assert storm.done == Counter({f"j{number}": 1 for number in range(JOBS)})
