"""Signals of real hosts with a hog, recorded by tests/vm/test_isolation.py: the ladder of today finds the same site."""

from pathlib import Path

import pytest

from agent.isolate import House, Policy
from agent.isolate.policy import Signs
from fleet.caps import Level, Tenant
from fleet.model import PlanId
from tests.replay import recorded, replayed
from tests.vm.capped import PLANS, SCALE
from tests.vm.hosting import SITES

RECORDINGS = sorted((Path(__file__).parents[1] / "recordings").glob("*.jsonl"))
POLICY = Policy(scale=SCALE, signs=Signs(miner_s=600 * SCALE))
WIDE = PlanId("wide")


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_recorded_hog_is_found_again(path: Path) -> None:
    """Of the sites of the recording the noisy one is held, or watched where nobody suffers, and no other."""
    rounds = [*recorded(path)]
    sites = {site for signals in rounds for site in signals.sites}
    house = House(
        plans={WIDE: PLANS[WIDE]},
        tenants=dict.fromkeys(sites, Tenant(plan=WIDE, enforced_from=0.0)),
        rulings={},
    )
    changes = [change for _, change in replayed(rounds, house, POLICY)]
    assert {change.site for change in changes if change.to >= Level.WATCH} == {SITES[0].name}
