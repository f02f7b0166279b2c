"""How long shadow has watched what arming would hold: by each host's history, and since each plan has its numbers."""

import pytest
from msgspec.structs import replace

from controller.trial import Trial, trial
from fleet import enforcement
from fleet.caps import Enforcement
from fleet.enforcement import Said
from fleet.messages import Past
from fleet.model import PlanId, SiteId
from tests.unit.armingstories import BEGAN, DAY_S, Story

SITES = tuple(map(SiteId, ("blog", "news", "shop")))
YEAR_S = 365 * DAY_S


def story() -> Story:
    """Three sites of a plan that is a year old."""
    found = Story()
    for event in ("plan standard 80", *(f"site {id} standard h1" for id in SITES)):
        found.play(event.split())
    found.words = replace(found.words, since={PlanId("standard"): BEGAN - YEAR_S})
    return found


def asked(
    of: Story,
    *days: float | None,
    ahead_days: float = 0.0,
    minutes: float = 0.0,
    sites: tuple[SiteId, ...] = SITES,
) -> Trial:
    """To arm all, of sites of which their hosts have told so many days."""
    since = of.now + ahead_days * DAY_S
    said = Said(scope="all", id="", since=since)
    new = enforcement.arm(of.words, said, of.plans, of.sites, of.now)
    told = {
        site: None if seen is None else Past(days=seen, shadow_min=minutes)
        for site, seen in zip(sites, days, strict=True)
    }
    return trial(of.words, new, of.plans, of.sites, told, since=since, now=of.now)


@pytest.mark.parametrize(
    ("days", "ahead", "enough"),
    [
        ((13.9, 13.9, 20.0), 0.0, False),
        ((1.0, 14.0, 20.0), 0.0, True),
        ((13.9, 13.9, 20.0), 0.2, True),
        ((None, None, 20.0), 0.0, False),
        ((None, 14.0, 20.0), 0.0, True),
        ((None, None, 20.0), 13.0, False),
        ((None, None, None), 13.0, False),
        ((None, None, None), 14.0, True),
    ],
)
def test_more_than_half_of_the_sites_were_watched_for_two_weeks(
    days: tuple[float | None, ...], ahead: float, enough: bool
) -> None:
    """One that came yesterday is no reason to wait; the time until a date counts; what is not told is no day."""
    found = asked(story(), *days, ahead_days=ahead)
    assert (found.objection is None) == enough
    assert (found.sites, found.told) == (3, sum(seen is not None for seen in days))


def test_one_site_that_is_told_of_speaks_for_no_other() -> None:
    """Of 500 sites one that was watched long says nothing; nor does half of them: more than half is needed."""
    of, sites = Story(), tuple(SiteId(f"s{n:03}") for n in range(500))
    for event in ("plan standard 80", *(f"site {id} standard h1" for id in sites)):
        of.play(event.split())
    of.words = replace(of.words, since={PlanId("standard"): BEGAN - YEAR_S})
    for told, enough in ((1, False), (250, False), (251, True)):
        days = (20.0 if n < told else None for n in range(500))
        found = asked(of, *days, sites=sites)
        assert (found.objection is None) == enough
        assert (found.sites, found.told) == (500, told)


def test_numbers_are_watched_since_a_plan_has_them() -> None:
    """A plan that became stricter begins anew, however long its sites are known; one that became looser does not."""
    of = story()
    of.play(["plan", "standard", "90"])
    assert asked(of, 40.0, 40.0, 40.0).days == 40
    of.play(["plan", "standard", "60"])
    of.now += 3 * DAY_S
    assert asked(of, 40.0, 40.0, 40.0).days == 3


def test_what_holds_already_is_no_question() -> None:
    """Armed again nothing changes; what became stricter is asked about, and so is what was in shadow."""
    of = story()
    of.play(["arm", "all"])
    assert asked(of, 1.0, 1.0, 1.0) == Trial()
    assert Trial().objection is None
    of.play(["shadow", "site", "shop"])
    assert asked(of, 1.0, 1.0, 1.0) == Trial(), "a site's own word that it only watches stays"
    of.play(["plan", "standard", "60"])
    assert asked(of, 1.0, 1.0, 1.0).sites == 2


def test_the_objection_says_what_shadow_found() -> None:
    """Sites, those of which nothing is told, days of how many, and who would have been slowed for how long."""
    why = asked(story(), 3.0, 5.0, None, minutes=7.0).objection
    assert why is not None and why.values == {
        "sites": 3,
        "untold": 1,
        "days": 3.0,
        "enough": 14,
        "slowed": 2,
        "minutes": 14,
    }


def test_a_store_that_knows_no_dates_goes_by_the_hosts_histories() -> None:
    """After an upgrade, until a plan changes for the first time."""
    of = story()
    of.words = Enforcement()
    assert asked(of, 20.0, 20.0, 20.0).objection is None
