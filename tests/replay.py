"""Recordings of isolation ([isolation] record = "…"), read and judged again: one line of JSON for each round."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from agent.isolate import Change, House, Policy, State, decide
from agent.isolate.policy import Signs
from agent.signals import Signals
from fleet.caps import Tenant
from fleet.model import PlanId
from tests.hogs import WALL
from tests.vm.capped import PLANS, SCALE
from tests.vm.hogs import CORPUS, REFUSED_MAIL

# As the agent was configured whose signals tests/vm/test_isolation.py recorded.
RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.jsonl"))
POLICY = Policy(scale=SCALE, signs=Signs(miner_s=600 * SCALE))
HOGS = {hog.file: hog for hog in (*CORPUS, REFUSED_MAIL)}  # by the stem of its recording
QUIET = 10  # rounds before the hog begins
WIDE = PlanId("wide")


def recorded(path: Path) -> Iterator[Signals]:
    """The rounds of a recording, oldest first. Raises msgspec.ValidationError for what is none."""
    with path.open("rb") as lines:
        for line in lines:
            yield msgspec.json.decode(line, type=Signals)


def replayed(
    rounds: Iterable[Signals],
    house: House,
    policy: Policy,
    *,
    wall: float = WALL,
    known_s: float = 0.0,
) -> list[tuple[float, Change]]:
    """What is decided from these rounds today: every change, with the second of the recording it came in.

    `known_s`: for how long the host had learned what is usual.
    """
    state, begun, found = (
        State(since=wall - known_s, learned=wall),
        None,
        list[tuple[float, Change]](),
    )
    for signals in rounds:
        begun = signals.at if begun is None else begun
        at = signals.at - begun
        decision = decide(state, signals, house, policy, signals.at, wall + at)
        state = decision.state
        found += [(at, change) for change in decision.changes]
    return found


def hosting(rounds: Iterable[Signals]) -> House:
    """The host of such a recording: every site is held to the plan that lets it hurt its neighbours."""
    sites = {site for signals in rounds for site in signals.sites}
    tenants = dict.fromkeys(sites, Tenant(plan=WIDE, enforced_from=0.0))
    return House(plans={WIDE: PLANS[WIDE]}, tenants=tenants, rulings={})
