"""Recordings of isolation ([isolation] record = "…"), read and judged again: one line of JSON for each round."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from agent.isolate import Change, House, Policy, State, decide
from agent.signals import Signals
from tests.hogs import WALL


def recorded(path: Path) -> Iterator[Signals]:
    """The rounds of a recording, oldest first. Raises msgspec.ValidationError for what is none."""
    with path.open("rb") as lines:
        for line in lines:
            yield msgspec.json.decode(line, type=Signals)


def replayed(
    rounds: Iterable[Signals], house: House, policy: Policy, *, wall: float = WALL
) -> list[tuple[float, Change]]:
    """What is decided from these rounds today: every change, with the second of the recording it came in."""
    state, begun, found = State(), None, list[tuple[float, Change]]()
    for signals in rounds:
        begun = signals.at if begun is None else begun
        at = signals.at - begun
        decision = decide(state, signals, house, policy, signals.at, wall + at)
        state = decision.state
        found += [(at, change) for change in decision.changes]
    return found
