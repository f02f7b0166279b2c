"""Whatever breaks, the rules hold; when nothing breaks any more, everyone is served. RELEVO_SEEDS=500 plays more."""

import asyncio
import os
from collections import Counter
from random import Random

import pytest

from failover.policy import Policy
from tests.simulation.clock import play
from tests.simulation.coop import Shape
from tests.simulation.faults import mischief
from tests.simulation.world import world

SEEDS = int(os.environ.get("RELEVO_SEEDS", "10"))
FAULTS_S = 60.0
PATIENCE_S = (
    100.0  # settling (30 s), reconnecting (5 s), a wait after an error of a zone (15 s), twice
)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_breaks_the_rules_hold_and_all_are_served_in_the_end(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SAFETY at every commit and every half second (tests/simulation/rules.py); LIVENESS after the faults."""
    play(monkeypatch, _life(seed))


async def _life(seed: int) -> None:
    lots = Random(seed)
    edges = lots.choice((0, 2, 2, 3))
    shape = Shape(edges=edges, controllers=lots.choice((1, 3)) if edges else 1)
    policy = Policy(causes_per_hour=lots.choice((None, 50)), location_ratio=lots.choice((0.3, 0.9)))
    async with world(seed, shape, policy) as made:
        await mischief(made, count=lots.randrange(3, 14), within_s=FAULTS_S)
        made.log("the faults are over")
        if lots.random() < 0.7:
            await asyncio.sleep(45.0)  # pauses and drains end, hosts settle
            served_at = Counter(place.host for place in made.places.values())
            ((victim, _),) = served_at.most_common(1)
            made.log(f"{victim} dies for good")
            made.power_off(victim)
            await asyncio.sleep(5.0)
        await made.until(lambda: not made.rules.unserved(), PATIENCE_S, "all served")
