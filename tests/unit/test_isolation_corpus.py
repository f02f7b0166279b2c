"""The corpus of hogs, each on a host that is modelled: the right site is held, in time, and nobody else."""

from random import Random

import pytest

from fleet.caps import Level, Nature, Resource
from tests.hogs import HOGS, Demand, Kind, acclaimed, nightly, run


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


def test_who_takes_two_things_is_held_for_both() -> None:
    """A cap of one resource does not lift that of another: the site would go from one to the other for ever."""
    course = run(Kind(_thrash_on_disk, Resource.MEMORY, Nature.HEAVY), seed=3, rounds=160)
    caps = [line for line in course.changes if " CAP " in line]
    assert [word in line for line, word in zip(caps, ("memory", "io"), strict=True)] == [True] * 2


def _thrash_on_disk(demand: Demand, s: float, rng: Random) -> None:
    demand.memory += min(1500.0, 300.0 * s)
    demand.scans += 60.0 if s > 3 else 0.0
    demand.reads += 48.0 * rng.uniform(0.7, 1.3)
    demand.cores += 1.0


def test_a_quiet_day_has_no_penalty() -> None:
    """Ordinary sites with their ordinary peaks, and nobody is held."""
    course = run(None, seed=2, rounds=250, peaks=True)
    assert (course.first, course.changes) == (None, []), course.changes


@pytest.mark.patient
def test_a_night_in_which_every_site_is_busy_punishes_nobody() -> None:
    """All crontabs begin at once and all sites wait for each other: that is nobody's fault, and people are asked."""
    courses = [run(None, seed, rounds=130, besides=nightly) for seed in range(3)]
    assert [course.changes for course in courses] == [[], [], []]
    assert {code for course in courses for code in course.asked} == {"isolation-no-culprit"}


@pytest.mark.patient
def test_a_site_that_turns_popular_while_nobody_waits_is_left_alone() -> None:
    """It takes two fifths of the host, and there is enough for all: no neighbour suffers, so nobody is squeezed."""
    courses = [run(None, seed, rounds=130, busy=0.25, besides=acclaimed) for seed in range(3)]
    assert [course.changes for course in courses] == [[], [], []]


@pytest.mark.patient
def test_a_hog_is_found_on_a_host_that_is_short_of_breath_by_itself() -> None:
    """The neighbours wait for the system too, now and then: no excuse for who makes them wait when it works."""
    courses = [run(HOGS["CPU spin"], seed, rounds=80, system_cores=3.0) for seed in range(4)]
    assert sum(course.first == course.culprit for course in courses) >= 3
    assert not any(course.others for course in courses)


def test_what_the_system_takes_is_held_against_no_site() -> None:
    """Stalls that come and go with no site's work have no suspect."""
    course = run(None, seed=4, rounds=130, system_cores=3.0)
    assert course.changes == []


@pytest.mark.patient
@pytest.mark.parametrize("cache", [0.0, 2000.0])
def test_a_database_that_fills_the_memory_is_no_sites_fault(cache: float) -> None:
    """All wait, and reclaim looks most at who has most cache: he took nothing, and nobody is held."""
    courses = [run(None, seed, rounds=130, system_memory=40.0, cache=cache) for seed in range(3)]
    assert [course.changes for course in courses] == [[], [], []]
    assert {code for course in courses for code in course.asked} == {"isolation-no-culprit"}


@pytest.mark.parametrize(("seed", "tells_rest"), [(6, True), (6, False), (8, False)])
def test_a_host_whose_own_backup_fills_the_disk_punishes_no_site(
    seed: int, *, tells_rest: bool
) -> None:
    """What the machine itself moves counts in what a site's share is a share of, where it is told at all."""
    course = run(None, seed, rounds=80, system_disk=70.0, tells_rest=tells_rest)
    assert [line for line in course.changes if Level.SOFT.name in line] == []
    assert course.others == set()
    assert course.asked == {"isolation-no-culprit"}
