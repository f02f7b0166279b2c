"""What sites may send out: port 25 is closed to each account once all its sites are in force; what is open is said."""

from collections.abc import Mapping
from dataclasses import replace

import msgspec
import pytest

from agent.caps.choose import common
from agent.caps.egress import Rules
from agent.caps.limits import HostFacts
from agent.caps.outward import open_to, rules, shut_by
from agent.caps.shut import Shut
from agent.caps.wants import World
from agent.layout.attached import Attached
from fleet.caps import Attachment, Level, Penalty, Resource, Tenant
from fleet.messages import Orders
from fleet.model import Epoch, HostId, PlanId, SiteId, Why
from runtime.words import LANGUAGES, explain
from tests.unit.test_caps_limits import STANDARD, penalty

SHOP, NEWS, CLUB = SiteId("shop"), SiteId("news"), SiteId("club")
PEOPLE = {"shop": 1001, "news": 1002, "ana": 1003}
WEB = {"www-data": 33}
NOBODY: frozenset[SiteId] = frozenset()
changed = msgspec.structs.replace


def inside() -> Attached:
    """As mod_php has it."""
    return Attached(attachment=Attachment.LOG, why=Why("x"), in_common=True)


def pooled(*uids: int) -> Attached:
    return Attached(attachment=Attachment.POOL, why=Why("x"), uids=uids)


def sliced(slice: str, *uids: int) -> Attached:
    return Attached(attachment=Attachment.SLICE, why=Why("x"), slice=slice, uids=uids)


def world(
    sites: Mapping[SiteId, tuple[Attached, tuple[str, ...]]],
    shadow: frozenset[SiteId] = NOBODY,
    penalties: tuple[Penalty, ...] = (),
) -> World:
    """`sites` by how they are attached, and their users."""
    tenants = {
        site: Tenant(
            plan=PlanId("standard"), users=users, enforced_from=None if site in shadow else 0.0
        )
        for site, (_, users) in sites.items()
    }
    return World(
        orders=Orders(
            epoch=Epoch(1, 1),
            cluster="c",
            host=HostId("h1"),
            plans={PlanId("standard"): STANDARD},
            tenants=tenants,
        ),
        attached={site: attached for site, (attached, _) in sites.items()},
        people=PEOPLE,
        common=WEB,
        penalties=penalties,
        facts=HostFacts(cores=16),
        now=100.0,
    )


def told(of: World) -> dict[SiteId, tuple[Why, ...]]:
    """What is open, which can be said in every language."""
    found = open_to(of)
    for why in (why for whys in found.values() for why in whys):
        assert all(why.code not in explain(why, language) for language in LANGUAGES)
    return found


MIXED = {
    SHOP: (sliced("user-1001.slice", 1001), ("shop",)),
    NEWS: (inside(), ("news", "www-data")),
    CLUB: (inside(), ()),
}


def test_the_web_servers_account_is_closed_once_all_that_run_as_it_are_in_force() -> None:
    """Each user of a site's own is closed with the site; nothing is open, so nothing is said."""
    of = world(MIXED)
    assert rules(of, Rules()).sites == {1001, 1002, 33}
    assert told(of) == {}


def test_until_then_those_in_force_are_told_whom_they_wait_for() -> None:
    """Shadow holds nobody: closing the account would. Who runs as somebody else waits for no one."""
    of = world(MIXED, shadow=frozenset({CLUB}))
    assert rules(of, Rules()).sites == {1001, 1002}
    waits = Why("mail-waits-for", {"user": "www-data", "sites": "club"})
    assert told(of) == {NEWS: (waits,)}


def test_a_user_of_several_sites_is_closed_with_the_last_of_them() -> None:
    """As their slice is held with the last of them."""
    both = {SHOP: (pooled(), ("ana",)), NEWS: (pooled(), ("ana",))}
    waits = Why("mail-waits-for", {"user": "ana", "sites": "news"})
    assert rules(world(both, shadow=frozenset({NEWS})), Rules()).sites == frozenset()
    assert told(world(both, shadow=frozenset({NEWS}))) == {SHOP: (waits,)}
    assert rules(world(both), Rules()).sites == {1003}


def test_a_site_of_which_no_account_is_known_is_told_that_it_is_open() -> None:
    """Neither its users are here nor does it run as the web server; in shadow nothing is said."""
    alone = {SHOP: (sliced("shop.slice"), ("moved-away",))}
    assert told(world(alone)) == {SHOP: (Why("mail-open"),)}
    assert told(world(alone, shadow=frozenset({SHOP}))) == {}


NOT_SERVED = Attached(attachment=Attachment.NONE, why=Why("layout-not-served"))


@pytest.mark.parametrize(
    ("attached", "users", "shut"),
    [
        (inside(), (), set()),
        (inside(), ("shop",), {1001}),
        (pooled(), ("moved-away",), set()),
        (pooled(1001), ("shop", "www-data"), {1001}),
        (sliced("x.slice"), (), set()),
        (NOT_SERVED, ("shop",), {1001}),
    ],
)
def test_who_can_not_be_shut_in_alone_is_told_so(
    attached: Attached, users: tuple[str, ...], shut: set[int]
) -> None:
    """By a slice or a user of its own it can; what runs as an account of many is closed at the edges only.

    Whether the web server leads to it now makes no difference: its processes go on.
    """
    isolated = changed(penalty(Level.ISOLATE, Resource.EGRESS), site=SHOP)
    of = world({SHOP: (attached, users), CLUB: (inside(), ())}, penalties=(isolated,))
    is_told = Why("egress-open") in told(of).get(SHOP, ())
    assert is_told is (attached.slice is None and (not shut or attached.in_common))
    assert rules(of, Rules()).isolated == shut


def test_a_user_that_another_site_has_too_is_not_shut_in() -> None:
    """For what one of them does the other one still works."""
    isolated = changed(penalty(Level.ISOLATE, Resource.EGRESS), site=SHOP)
    both = {SHOP: (pooled(), ("ana", "shop")), NEWS: (pooled(), ("ana",))}
    assert rules(world(both, penalties=(isolated,)), Rules()).isolated == {1001}


def test_what_was_closed_for_a_site_that_nobody_speaks_of_stays_until_another_one_runs_as_it() -> (
    None
):
    """That one is alive, and in shadow nothing is closed to it; an account that is deleted is nobody's."""
    isolated = changed(penalty(Level.ISOLATE, Resource.EGRESS), site=SHOP)
    before = shut_by(world(MIXED, penalties=(isolated,)), {})
    assert before[SHOP] == Shut(mail=("shop",), isolated=("shop",), until=isolated.until)
    assert before[NEWS] == Shut(mail=("news", "www-data"))

    def after(of: World) -> tuple[set[int], set[int]]:
        held = rules(of, Rules(), shut_by(of, before))
        return {*held.sites}, {*held.isolated}

    assert after(world({})) == ({1001, 1002, 33}, {1001})
    assert after(replace(world({}), now=isolated.until)) == ({1001, 1002, 33}, set())
    again = world({SHOP: MIXED[SHOP]}, shadow=frozenset({SHOP}))
    assert after(again) == ({1002, 33}, set())
    heir = world({CLUB: (inside(), ("shop",))}, shadow=frozenset({CLUB}))
    assert after(heir) == ({1002}, set())
    assert after(replace(world({}), people={"news": 1002, "late": 1001})) == ({1002, 33}, set())


def test_only_accounts_of_web_servers_are_common() -> None:
    """What runs as root, or as nobody, is no site's."""
    found = common()()
    assert found.keys() <= {"www-data", "nginx", "apache", "http"} and 0 not in found.values()
