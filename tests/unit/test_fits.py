"""Plans beside the hosts that have their sites: what can't be held as written is said, and nothing is refused."""

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from controller.fits import Machine, misfits
from fleet.diff import diff
from fleet.documents import read
from fleet.model import Fleet, HostId, PlanId, SiteId
from tests.unit.fleets import GOOD

WEB1, WEB9, US1 = HostId("mx1-web-01"), HostId("mx1-web-09"), HostId("us1-web-01")
SOLIDARITY = PlanId("solidarity")
LARGE = Machine(cores=32, memory_bytes=1 << 37, has_swap=True)
FLEET = read(GOOD, "coop.yaml")


def with_caps(**caps: float) -> Fleet:
    plan = FLEET.plans[SOLIDARITY]
    return replace(FLEET, plans={SOLIDARITY: replace(plan, caps=replace(plan.caps, **caps))})


def said(
    new: Fleet,
    machines: Mapping[HostId, Machine],
    serving: Mapping[SiteId, HostId] | None = None,
    old: Fleet = FLEET,
) -> list[str]:
    return [str(each) for each in misfits(new, diff(old, new), serving or {}, machines)]


@pytest.mark.parametrize(
    ("machine", "caps", "expected"),
    [
        (LARGE, {"cpu_percent": 1600}, ""),
        (LARGE, {"cpu_percent": 1601}, "cpu_percent: '1601' is more than half of the CPU of mx1-web-01 (32 cores)"),
        (Machine(cores=1), {"cpu_percent": 100, "tasks": 90}, ""),
        (Machine(has_swap=False), {"tasks": 90}, "which mx1-web-01 has not: the maximum alone"),
        (Machine(has_swap=False), {"memory_high_ratio": 1.0}, ""),
        (Machine(has_swap=False), {"swap_max_ratio": 0.0}, ""),
        (Machine(memory_bytes=1 << 28), {"tasks": 90}, "is more than all the memory of mx1-web-01"),
        (Machine(), {"cpu_percent": 9000}, ""),
    ],
)  # fmt: skip
def test_a_plan_is_compared_with_the_hosts_that_have_its_sites(
    machine: Machine, caps: dict[str, float], expected: str
) -> None:
    """Half of the CPU, swap, and memory: what a host has not said is no reason to warn.

    Of a plan without swap its file is told already, wherever its sites are.
    """
    found = said(with_caps(**caps), {WEB1: machine})
    assert len(found) == bool(expected)
    assert all(expected in text for text in found)


def test_hosts_without_a_site_of_the_plan_say_nothing() -> None:
    """Homes count, and where a site is served now; a standby is another day's question."""
    new, small = with_caps(cpu_percent=400), Machine(cores=2)
    assert not said(new, {US1: small})
    assert "us1-web-01 (2 cores)" in said(new, {US1: small}, {SiteId("blog"): US1})[0]
    (both,) = said(new, {WEB1: small, WEB9: small, US1: small})
    assert "of mx1-web-01 (2 cores), mx1-web-09 (2 cores):" in both


def test_only_what_is_changed_is_compared() -> None:
    """A plan, or a site that comes to a host: a change of something else repeats no old warning."""
    dry = {WEB1: Machine(has_swap=False), WEB9: Machine(has_swap=False)}
    assert not said(FLEET, dry)
    member = next(iter(FLEET.members.values()))
    renamed = replace(FLEET, members={member.id: replace(member, name="Another")})
    assert not said(renamed, dry)
    site = FLEET.sites[SiteId("huerto")]
    moved = replace(FLEET, sites={**FLEET.sites, site.id: replace(site, home=WEB9)})
    assert said(moved, dry)
