"""The made-up co-op: the committed file is the generator's, and has the shape that was promised."""

import time
from collections import Counter
from pathlib import Path

import pytest

import deploy.demo.coop
from deploy.demo.coop import coop, document
from deploy.demo.plans import PLANS
from fleet.documents import load, read_file
from fleet.model import Fleet, Mode
from fleet.validate import check

COMMITTED = Path(deploy.demo.coop.__file__).with_name("coop.yaml")


def test_the_committed_file_is_what_the_generator_writes() -> None:
    """Nobody edits coop.yaml by hand, and the seed gives the same co-op every time."""
    assert COMMITTED.read_text() == document()
    assert coop() == coop()
    assert coop(seed=1) != coop()


def test_the_committed_file_has_the_shape_of_a_real_coop() -> None:
    """5 locations in 3 countries, 96 hosts, 10 edges, 600 members, 1,050 sites, about 1,400 domains, 4 plans."""
    found = read_file(COMMITTED)
    fleet = found.fleet
    assert fleet == coop()
    assert found.warnings == ()
    assert len(fleet.locations) == 5
    assert len({location.country for location in fleet.locations.values()}) == 3
    assert len(fleet.hosts) == 96
    edges = Counter(host.location for host in fleet.hosts.values() if host.is_edge)
    assert list(edges.values()) == [2] * 5
    assert (len(fleet.members), len(fleet.sites), len(fleet.plans)) == (600, 1050, 4)
    assert 1350 <= sum(len(site.domains) for site in fleet.sites.values()) <= 1450
    assert len({host.tag for host in fleet.hosts.values()}) == 96


def test_the_committed_file_mixes_what_a_coop_mixes() -> None:
    """Mostly gated sites, some automatic and manual, 8 % direct, standbys near and far, both languages."""
    fleet = coop()
    modes = Counter(site.effective_mode for site in fleet.sites.values())
    assert modes[Mode.GATED] > 600
    assert min(modes.values()) > 50
    direct = [site for site in fleet.sites.values() if site.route == "direct"]
    assert 0.06 <= len(direct) / len(fleet.sites) <= 0.10
    assert all(fleet.zone_of(domain) for site in direct for domain in site.domains)
    assert {member.language for member in fleet.members.values()} == {"en", "es"}
    far = sum(
        any(fleet.hosts[s].location != fleet.hosts[site.home].location for s in site.standbys)
        for site in fleet.sites.values()
    )
    assert 0.5 < far / len(fleet.sites) < 0.8


@pytest.mark.parametrize("name", PLANS)
def test_the_four_plans_keep_their_own_rules(name: str) -> None:
    """Each plan passes the relations that every plan is held to, and has a price."""
    plan = PLANS[name]  # type: ignore[index]  # ids are strings
    assert check(Fleet(plans={plan.id: plan})).problems == ()
    assert plan.price.amount > 0


def test_the_coop_is_read_and_judged_well_within_its_budget() -> None:
    """Validated and applied has 3 s in all; reading and judging takes a small part of them."""
    times = []
    text = COMMITTED.read_text()
    for _ in range(3):
        before = time.perf_counter()
        load(text, "coop.yaml")
        times.append(time.perf_counter() - before)
    assert min(times) < 1.0
