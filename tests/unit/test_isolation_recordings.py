"""Signals of real hosts with a hog, recorded by tests/vm/test_isolation.py: the ladder of today finds the same site."""

from pathlib import Path

import pytest

from fleet.caps import Level, Resource
from tests.replay import POLICY, RECORDINGS, hosting, recorded, replayed
from tests.vm.hogs import CORPUS
from tests.vm.hosting import SITES

HOGS = {hog.name.lower().replace(" ", "_").replace("/", ""): hog for hog in CORPUS}
# What a hog may be told by beside what it was written to take: a thousand forks a second are a full CPU too, and where
# the kernel is emulated that is felt first.
ALSO = {Resource.TASKS: {Resource.CPU}}


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_recorded_hog_is_found_again(path: Path) -> None:
    """Of the sites of the recording the noisy one is met as it was on its host, for what it takes, and no other."""
    rounds, hog = [*recorded(path)], HOGS[path.stem]
    moves = [change for _, change in replayed(rounds, hosting(rounds), POLICY)]
    assert {change.site for change in moves} == {SITES[0].name}
    assert max(change.to for change in moves) >= max(hog.level, Level.WATCH)
    grips = [change.why.values["resource"] for change in moves if change.harder]
    if hog.resource and grips:
        rightly = {hog.resource} | ALSO.get(hog.resource, set())
        assert {Resource(grip) for grip in grips} <= rightly
