"""The corpus of hogs, each on a host that is modelled: the right site is held, in time, and nobody else."""

import pytest

from fleet.caps import Level
from tests.hogs import HOGS, run


@pytest.mark.parametrize("name", HOGS)
def test_the_hog_is_found_and_nobody_else(name: str) -> None:
    """A hog among forty sites is the first that is held, as what it is, soon; no neighbour ever is."""
    kind = HOGS[name]
    course = run(kind, seed=3, rounds=70)
    assert course.first == course.culprit, course.changes
    assert course.others == set(), course.changes
    assert course.nature is kind.nature, course.changes
    assert course.after_s is not None
    assert course.after_s <= kind.within_s + 2.0, course.changes  # a single run: the bench has p95


def test_neighbours_that_work_hard_beside_a_hog_are_not_held() -> None:
    """Whoever takes a little more than its part while a hog is held is given the time to be no suspect."""
    course = run(HOGS["CPU spin"], seed=1, rounds=90)
    assert (course.first, course.others) == (course.culprit, set()), course.changes


def test_a_quiet_day_has_no_penalty() -> None:
    """Ordinary sites with their ordinary peaks, and nobody is held."""
    course = run(None, seed=2, rounds=250, peaks=True)
    assert (course.first, course.changes) == (None, []), course.changes


def test_a_host_whose_own_backup_fills_the_disk_punishes_no_site() -> None:
    """What the machine itself moves counts in what a site's share is a share of."""
    course = run(None, seed=6, rounds=80, system_disk=70.0)
    assert [line for line in course.changes if Level.SOFT.name in line] == []
    assert course.others == set()
    assert course.asked == {"isolation-no-culprit"}
