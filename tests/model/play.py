"""The scheduler: the next actor is drawn, and now and then the invariants are checked."""

from __future__ import annotations

from tests.model.clients import Client
from tests.model.game import Game
from tests.model.workers import Worker

LOOK_EVERY = 50  # calls


def play(game: Game, calls: int) -> None:
    """Let three workers and a client act in random order."""
    served = ["q0@2", "q0", "q1", "few", "keys", "slow", "$sql"]
    workers = [
        Worker(game, "w1", ["q0", "q1", "$sql"]),
        Worker(game, "w2", served),
        Worker(game, "w3", served[::-1]),
    ]
    client = Client(game)
    while len(game.sent) < calls:
        looked = len(game.sent) // LOOK_EVERY
        worker = game.chance.choice(workers)
        is_idle = not worker.held and not worker.is_wanted() and game.chance.random() < 0.9
        (client if is_idle or game.chance.random() < 0.4 else worker).act()
        if len(game.sent) // LOOK_EVERY > looked:
            game.check_invariants()
    game.check_invariants()
