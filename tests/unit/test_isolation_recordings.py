"""Signals of real hosts with a hog, recorded by tests/vm/test_isolation.py: the ladder of today finds the same site."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.isolate.measure import busy
from fleet.caps import Level, Resource
from tests.replay import HOGS, POLICY, QUIET, RECORDINGS, hosting, recorded, replayed
from tests.vm.hosting import SITES

# What a hog may be told by beside what it was written to take: a thousand forks a second, or pages that are touched
# again and again, are a full CPU too, and where the kernel is emulated that is felt first.
ALSO = {Resource.TASKS: {Resource.CPU}, Resource.MEMORY: {Resource.CPU}}


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_recorded_hog_is_found_again(path: Path) -> None:
    """Of the sites of the recording the noisy one is met as it was on its host, for what it takes, and no other."""
    rounds, hog = [*recorded(path)], HOGS[path.stem]
    moves = [change for _, change in replayed(rounds, hosting(rounds), POLICY)]
    assert {change.site for change in moves} <= {SITES[0].name}
    assert max((change.to for change in moves), default=Level.BASELINE) >= hog.level
    grips = [change.why.values["resource"] for change in moves if change.harder]
    if hog.resource and grips:
        rightly = {hog.resource} | ALSO.get(hog.resource, set())
        assert {Resource(grip) for grip in grips} <= rightly


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_recording_says_what_agents_say_today(path: Path) -> None:
    """Nothing of it is unknown to the ladder, and what the host's own CPUs and disks do is in it; else record anew."""
    lines = path.read_bytes().splitlines()
    for line, signals in zip(lines, recorded(path), strict=True):
        understood = msgspec.json.decode(msgspec.json.encode(signals))
        assert not [*_lost(msgspec.json.decode(line), understood)]
    noisy = [*recorded(path)][QUIET:]
    assert all(busy(signals.host).keys() >= {Resource.CPU, Resource.IO} for signals in noisy)


def _lost(said: object, known: object) -> Iterator[str]:
    """The names in `said` that `known` has not."""
    if isinstance(said, dict) and isinstance(known, dict):
        for name, value in said.items():
            if name not in known:
                yield name
            else:
                yield from _lost(value, known[name])
