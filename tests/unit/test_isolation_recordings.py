"""Signals of real hosts with a hog, recorded by tests/vm/test_isolation.py: the ladder of today finds the same site."""

from pathlib import Path

import pytest

from fleet.caps import Level
from tests.replay import POLICY, RECORDINGS, hosting, recorded, replayed
from tests.vm.hosting import SITES


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_recorded_hog_is_found_again(path: Path) -> None:
    """Of the sites of the recording the noisy one is held, or watched where nobody suffers, and no other."""
    rounds = [*recorded(path)]
    changes = [change for _, change in replayed(rounds, hosting(rounds), POLICY)]
    assert {change.site for change in changes if change.to >= Level.WATCH} == {SITES[0].name}
