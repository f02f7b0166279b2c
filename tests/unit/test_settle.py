"""What is stored beside people's words: placements that follow the fleet, zones that fit, named commits."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.incidents import SAME_TROUBLE_S, to_continue, too_many
from controller.settle import acknowledged, buried, named, pack, place, unpack
from controller.store import Op, Put
from controller.store.protocol import MAX_REQUEST_BYTES
from fleet import keys
from fleet.model import (
    Domain,
    Epoch,
    Fleet,
    HostId,
    Incident,
    IncidentId,
    MemberId,
    Placement,
    Placements,
    PlanId,
    RecordSet,
    Site,
    SiteId,
    Tombstone,
    Why,
    ZoneIntent,
)

HOSTS = [HostId(f"web{n}") for n in range(4)]
SITES = [SiteId(f"site{n}") for n in range(6)]
SETS = st.builds(RecordSet, a=st.sampled_from([("192.0.2.1",), ("192.0.2.1", "192.0.2.2")]))


@given(st.dictionaries(st.sampled_from([Domain(f"d{n}.example") for n in range(9)]), SETS))
def test_a_stored_zone_is_read_as_it_was(names: dict[Domain, RecordSet]) -> None:
    """Packing says each record set once, and loses nothing."""
    intent = ZoneIntent(names=names, removed=(Domain("gone.example"),), incident=IncidentId("i"))
    assert unpack(pack(intent)) == intent


def test_twenty_thousand_names_of_one_zone_fit_one_request() -> None:
    """The largest fleet of the design, all in one zone, behind four edges with IPv4 and IPv6."""
    edges = RecordSet(
        a=tuple(f"203.0.113.{n}" for n in range(4)),
        aaaa=tuple(f"2001:db8:0:1::{n}" for n in range(4)),
    )
    names = {Domain(f"a-rather-long-name-{n}.members.example.org"): edges for n in range(20_000)}
    assert len(pack(ZoneIntent(names=names))) < MAX_REQUEST_BYTES


def site(id: SiteId, home: HostId) -> Site:
    return Site(
        id=id, member=MemberId("m"), plan=PlanId("p"), domains=(Domain(f"{id}.example"),), home=home
    )


homes = st.dictionaries(st.sampled_from(SITES), st.sampled_from(HOSTS))


@given(
    homes,
    homes,
    st.dictionaries(st.sampled_from(SITES), st.sampled_from(HOSTS)),
    st.permutations(HOSTS),
)
@settings(deadline=None)
def test_r7_a_site_never_lacks_a_place_on_the_way(
    before: dict[SiteId, HostId],
    after: dict[SiteId, HostId],
    moved: dict[SiteId, HostId],
    order: list[HostId],
) -> None:
    """From any placements to any new fleet, written in any order: sites stay where they are served between writes."""
    old = Fleet(sites={id: site(id, home) for id, home in before.items()})
    new = Fleet(sites={id: site(id, home) for id, home in after.items()})
    current: dict[HostId, Placements] = {}
    while changed := place(old, current, "then"):
        current |= changed
    current = {
        home: Placements(
            sites={
                id: Placement(host=moved.get(id, p.host), since="then", why=Why("told"))
                for id, p in document.sites.items()
            }
        )
        for home, document in current.items()
    }
    for _ in range(4):
        missing = place(new, current, "now")
        for home in sorted(missing, key=order.index):
            current[home] = missing[home]
            served = {id: p.host for d in current.values() for id, p in d.sites.items()}
            for id in before.keys() & after.keys():
                assert served.get(id) == moved.get(id, before[id])
    assert place(new, current, "later") == {}
    assert {id for document in current.values() for id in document.sites} == set(after)


def test_a_commit_that_orders_follow_from_has_a_name() -> None:
    """A move is named; an incident's line is not (rule R2)."""
    move: Op = Put(keys.placements(HOSTS[0]), b"{}")
    line: Op = Put(keys.incident(IncidentId("i")), b"{}")
    assert named([move, line], "x")[2:] == (Put(keys.COMMITS + b"x", b""),)
    assert named([line], "x") == (line,)


def test_a_tombstone_stays_until_every_edge_follows_it_in_this_generation() -> None:
    """After a move of the store an edge may still follow the old one's orders, whose revisions are higher."""
    at, tombstones, created = Epoch(2, 40), {"t": Tombstone()}, {"t": 30}

    def gone(*applied: Epoch) -> tuple[str, ...]:
        return buried(tombstones, created, acknowledged(applied, at))

    assert gone(Epoch(2, 30), Epoch(2, 40)) == ("t",)
    assert gone(Epoch(2, 40), Epoch(2, 29)) == ()
    assert gone(Epoch(2, 40), Epoch(1, 4711)) == ()
    assert gone(Epoch(2, 40), Epoch()) == (), "one that was never heard"
    assert gone() == ("t",), "where there are no edges nobody needs it"


def incident(id: str, closed_at: float | None) -> Incident:
    return Incident(
        id=IncidentId(id),
        cause="c",
        subject="web1",
        verdict="dead",
        began_at=0,
        closed_at=closed_at,
    )


def test_trouble_that_returns_soon_goes_on_in_its_incident() -> None:
    """A host that flaps has one incident, opened again; ten minutes later it is another one."""
    closed = incident("a", closed_at=1000.0)
    again = to_continue([closed], "web1", 1000.0 + SAME_TROUBLE_S - 1)
    assert again is not None and again.id == "a" and again.closed_at is None
    assert to_continue([closed], "web1", 1000.0 + SAME_TROUBLE_S) is None
    assert to_continue([closed], "web2", 1001.0) is None
    acted = msgspec.structs.replace(closed, epoch=Epoch(1, 7))
    assert to_continue([acted], "web1", 1001.0) is None, (
        "its sites moved: another outage is its own"
    )
    open_now = incident("b", closed_at=None)
    assert to_continue([closed, open_now], "web1", 9999.0) is open_now


def test_only_closed_incidents_are_forgotten_oldest_first() -> None:
    """However many there are, an open one stays."""
    all_of_them = [incident("a", 1.0), incident("b", None), incident("c", 2.0), incident("d", 3.0)]
    assert too_many(all_of_them, 1) == ("a", "c")
    assert too_many(all_of_them, 3) == ()
