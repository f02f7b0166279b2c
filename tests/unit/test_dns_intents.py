"""What zones should say: never empty, never a dead edge beside a live one, nothing lost by absence."""

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failover.dns import Changes, changes, intents, records, too_much
from failover.policy import Policy
from fleet.model import (
    Domain,
    Fleet,
    Host,
    HostId,
    IncidentId,
    Location,
    LocationId,
    MemberId,
    NameServer,
    PlanId,
    RecordSet,
    Role,
    Site,
    SiteId,
    Zone,
    ZoneIntent,
    ZoneName,
)

PLACES = (LocationId("mx"), LocationId("us"))
COOP, SUB = ZoneName("coop.example"), ZoneName("sub.coop.example")
NONE: frozenset[HostId] = frozenset()


def host(id: str, place: str, *addresses: str, edge: bool = False) -> Host:
    return Host(
        id=HostId(id),
        tag=id,
        location=LocationId(place),
        addresses=addresses,
        roles=(Role.EDGE,) if edge else (Role.WEB,),
    )


def site(id: str, home: str, *domains: str, direct: bool = False) -> Site:
    return Site(
        id=SiteId(id),
        member=MemberId("m"),
        plan=PlanId("p"),
        domains=tuple(Domain(domain) for domain in domains),
        home=HostId(home),
        route="direct" if direct else "edges",
    )


def fleet_of(hosts: list[Host], sites: list[Site], zones: tuple[str, ...] = (COOP, SUB)) -> Fleet:
    return Fleet(
        locations={place: Location(id=place, country="MX") for place in PLACES},
        hosts={host.id: host for host in hosts},
        sites={site.id: site for site in sites},
        zones={
            ZoneName(name): Zone(
                name=ZoneName(name), primary=NameServer(address="192.0.2.53"), key="k"
            )
            for name in zones
        },
    )


HOSTS = [
    host("w1", "mx", "192.0.2.11", "2001:db8::11"),
    host("w2", "us", "192.0.2.12"),
    host("e1", "mx", "192.0.2.1", "2001:DB8:0::1", edge=True),
    host("e2", "mx", "192.0.2.2", edge=True),
    host("e3", "us", "192.0.2.3", edge=True),
]
SITES = [
    site("blog", "w1", "blog.coop.example", "www.member.org"),
    site("shop", "w2", "shop.sub.coop.example"),
    site("mail", "w1", "mail.coop.example", direct=True),
]
FLEET = fleet_of(HOSTS, SITES)
SERVING = {SiteId("blog"): HostId("w1"), SiteId("shop"): HostId("w2"), SiteId("mail"): HostId("w1")}
BLOG, SHOP, MAIL = (
    Domain(name) for name in ("blog.coop.example", "shop.sub.coop.example", "mail.coop.example")
)


def names(
    fleet: Fleet = FLEET,
    serving: Mapping[SiteId, HostId] = SERVING,
    down: frozenset[HostId] = NONE,
    previous: Mapping[ZoneName, ZoneIntent] | None = None,
) -> dict[Domain, RecordSet]:
    every = intents(fleet, serving, down, previous or {}).values()
    return {name: found for intent in every for name, found in intent.names.items()}


def down(*ids: str) -> frozenset[HostId]:
    return frozenset(HostId(id) for id in ids)


def test_names_go_to_the_most_specific_zone_and_others_to_none() -> None:
    """A domain below a declared zone is its name; a member's own domain is nobody's business."""
    found = intents(FLEET, SERVING, NONE, {})
    assert list(found) == [COOP, SUB]
    assert list(found[COOP].names) == [BLOG, MAIL]
    assert list(found[SUB].names) == [SHOP]


def test_sites_behind_edges_have_their_location_s_edges() -> None:
    """Addresses are canonical, sorted, IPv4 and IPv6 apart."""
    assert names()[BLOG] == RecordSet(a=("192.0.2.1", "192.0.2.2"), aaaa=("2001:db8::1",))
    assert names()[SHOP] == RecordSet(a=("192.0.2.3",))


def test_a_moved_site_behind_edges_keeps_its_names() -> None:
    """Edges follow the site by their routes: DNS stays with its home's location."""
    assert names(serving={**SERVING, SiteId("blog"): HostId("w2")})[BLOG] == names()[BLOG]


def test_a_direct_site_has_its_host_s_addresses_and_follows_it() -> None:
    """A and AAAA of the host that serves it now."""
    assert names()[MAIL] == RecordSet(a=("192.0.2.11",), aaaa=("2001:db8::11",))
    assert names(serving={**SERVING, SiteId("mail"): HostId("w2")})[MAIL] == RecordSet(
        a=("192.0.2.12",)
    )


def test_a_down_edge_leaves_every_set() -> None:
    assert names(down=down("e1"))[BLOG] == RecordSet(a=("192.0.2.2",))


def test_a_location_without_edges_left_is_served_by_the_others() -> None:
    assert names(down=down("e1", "e2"))[BLOG] == RecordSet(a=("192.0.2.3",))


def test_with_no_edge_left_nothing_changes() -> None:
    """Neither emptied nor guessed (rule R10)."""
    before = intents(FLEET, SERVING, NONE, {})
    assert intents(FLEET, SERVING, down("e1", "e2", "e3"), before) == before
    assert BLOG not in names(down=down("e1", "e2", "e3"))


def test_a_co_op_without_edges_has_its_sites_at_their_hosts() -> None:
    fleet = fleet_of(HOSTS[:2], SITES)
    assert names(fleet)[BLOG] == RecordSet(a=("192.0.2.11",), aaaa=("2001:db8::11",))


def test_a_site_that_is_not_settled_keeps_its_names() -> None:
    """Absence is not deletion (rule R7): no placement, a host that is not declared."""
    before = intents(FLEET, SERVING, NONE, {})
    assert intents(FLEET, {}, NONE, before) == before
    assert intents(FLEET, {SiteId("mail"): HostId("gone")}, NONE, before) == before
    assert names(serving={}) == {}


def test_what_left_the_fleet_is_told_to_be_removed_until_it_returns() -> None:
    """Removal is a word of its own, kept by later rounds; a name that returns is no longer removed."""
    before = intents(FLEET, SERVING, NONE, {})
    without = fleet_of(HOSTS, SITES[1:])
    after = intents(without, SERVING, NONE, before)
    assert (after[COOP].removed, list(after[COOP].names)) == ((BLOG,), [MAIL])
    assert intents(without, SERVING, NONE, after) == after
    assert intents(FLEET, SERVING, NONE, after) == before


def test_a_name_that_a_new_zone_takes_over_is_not_removed_from_the_old_one() -> None:
    """Declaring a more specific zone tells nobody to delete."""
    flat = fleet_of(HOSTS, SITES, zones=(COOP,))
    before = intents(flat, SERVING, NONE, {})
    after = intents(FLEET, SERVING, NONE, before)
    assert after[COOP] == before[COOP]
    assert SHOP in after[SUB].names


def test_an_intent_that_stays_keeps_its_incident() -> None:
    """The same content is the same intent; a changed one begins without."""
    before = {
        zone: msgspec.structs.replace(intent, incident=IncidentId("i1"))
        for zone, intent in intents(FLEET, SERVING, NONE, {}).items()
    }
    after = intents(FLEET, SERVING, down("e1"), before)
    assert (after[COOP].incident, after[SUB].incident) == (None, "i1")


def zone_intent(
    *names: str, address: str = "192.0.2.1", removed: tuple[str, ...] = ()
) -> ZoneIntent:
    return ZoneIntent(
        names={Domain(name): RecordSet(a=(address,)) for name in names},
        removed=tuple(Domain(name) for name in removed),
    )


def test_changes_are_told_apart() -> None:
    previous = zone_intent("a", "b", "c", removed=("x",))
    wanted = ZoneIntent(
        names={**zone_intent("b", "d").names, **zone_intent("c", address="192.0.2.9").names},
        removed=(Domain("a"), Domain("x")),
    )
    assert changes(previous, wanted) == Changes(
        created=(Domain("d"),), updated=(Domain("c"),), removed=(Domain("a"),)
    )


@pytest.mark.parametrize(("touched", "held"), [(10, False), (11, True)])
def test_small_zones_change_by_number_not_ratio(touched: int, held: bool) -> None:
    """Up to ten names may change of twelve; the eleventh needs a human."""
    every = [f"n{number}" for number in range(12)]
    wanted = zone_intent(*every[touched:], removed=tuple(every[:touched]))
    why = too_much(FLEET.zones[COOP], zone_intent(*every), wanted, Policy())
    assert (why is not None) is held
    if why:
        assert why.code == "dns-too-many-changes"
        assert (why.values["removed"], why.values["names"], why.values["allowed"]) == (11, 12, 10)


def test_large_zones_change_by_ratio_and_creations_are_free() -> None:
    """30 % of 1,000 names may change; 5,000 new ones may come."""
    every = [f"n{number}" for number in range(1000)]
    zone = FLEET.zones[COOP]

    def wanted(changed: int) -> ZoneIntent:
        moved = zone_intent(*every[:changed], address="192.0.2.9").names
        new = zone_intent(*(f"new{number}" for number in range(5000))).names
        return ZoneIntent(names={**zone_intent(*every).names, **moved, **new})

    assert too_much(zone, zone_intent(*every), wanted(300), Policy()) is None
    assert too_much(zone, zone_intent(*every), wanted(301), Policy()) is not None


def test_records_are_canonical() -> None:
    assert records(["2001:DB8::0:1", "192.0.2.2", "192.0.2.1", "192.0.2.1"]) == RecordSet(
        a=("192.0.2.1", "192.0.2.2"), aaaa=("2001:db8::1",)
    )


# Worlds of two to six hosts and sites, with names in and out of the zones.
IDS = st.integers(0, 5)


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    hosts = [
        host(
            f"h{number}",
            draw(st.sampled_from(PLACES)),
            *draw(
                st.sampled_from(
                    [
                        (f"192.0.2.{number}",),
                        (f"2001:db8::{number}",),
                        (f"192.0.2.{number}", f"2001:db8::{number}"),
                    ]
                )
            ),
            edge=draw(st.booleans()),
        )
        for number in range(2, draw(st.integers(4, 8)))
    ]
    sites = [
        site(
            f"s{number}",
            draw(st.sampled_from(hosts)).id,
            f"s{number}.coop.example",
            *draw(st.sampled_from([(), (f"s{number}.sub.coop.example",), (f"s{number}.org",)])),
            direct=draw(st.booleans()),
        )
        for number in sorted(draw(st.sets(IDS, min_size=2)))
    ]
    return fleet_of(hosts, sites)


@st.composite
def servings(draw: st.DrawFn) -> dict[SiteId, HostId]:
    """Where some of the sites are, at hosts that may not exist."""
    return {
        SiteId(f"s{number}"): HostId(f"h{draw(st.integers(2, 9))}") for number in draw(st.sets(IDS))
    }


DOWNS = st.frozensets(st.integers(2, 9).map(lambda number: HostId(f"h{number}")))
WORLDS = st.tuples(fleets(), servings(), DOWNS)


@settings(max_examples=150, deadline=None)
@given(st.lists(WORLDS, min_size=2, max_size=4))
def test_whatever_happens_names_are_right_or_as_they_were(
    worlds: list[tuple[Fleet, dict[SiteId, HostId], frozenset[HostId]]],
) -> None:
    """Never an empty name, no down edge while one lives, only the fleet removes, each round is stable."""
    previous: dict[ZoneName, ZoneIntent] = {}
    for fleet, serving, down_edges in worlds:
        found = intents(fleet, serving, down_edges, previous)
        assert intents(fleet, serving, down_edges, found) == found
        declared = {domain for site in fleet.sites.values() for domain in site.domains}
        edges = [host for host in fleet.hosts.values() if host.is_edge]
        live = {a for edge in edges if edge.id not in down_edges for a in edge.addresses}
        dead = {a for edge in edges if edge.id in down_edges for a in edge.addresses}
        behind = {
            domain
            for site in fleet.sites.values()
            if site.route == "edges" and serving.get(site.id) in fleet.hosts
            for domain in site.domains
        }
        for zone, intent in found.items():
            before = previous.get(zone, ZoneIntent())
            assert list(intent.names) == sorted(intent.names)
            assert not set(intent.removed) & declared
            assert set(before.names) <= {*intent.names, *intent.removed}
            for name, has in intent.names.items():
                assert has.a or has.aaaa
                assert name in declared
                if live and name in behind and fleet.zone_of(name) == fleet.zones[zone]:
                    assert not dead & {*has.a, *has.aaaa}
        previous = found
