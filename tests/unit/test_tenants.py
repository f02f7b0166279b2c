"""What orders tell a host of its sites' caps: all of it, of its own sites only, and nothing twice."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.link import _same
from controller.settle import named
from controller.store import Put
from deploy.demo.plans import PLANS
from failover.routes import Intent, orders, shared
from fleet import keys
from fleet.caps import Enforcement, Level, Override, Ruling, Turn
from fleet.messages import ORDERS_LIMIT_BYTES, Orders
from fleet.model import (
    Domain,
    Epoch,
    Fleet,
    Host,
    HostId,
    LocationId,
    MemberId,
    Note,
    Placement,
    PlanId,
    Site,
    SiteId,
    Why,
)
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from tests.unit.wires import Wire, a_link

A, B, C = HostId("a"), HostId("b"), HostId("c")
STANDARD = PlanId("standard")
NOTE = Note(owner="ana", reason="a test", since=0, until=4e9)


def fleet_of(count: int) -> Fleet:
    mx = LocationId("mx")
    return Fleet(
        hosts={h: Host(id=h, tag=h, location=mx, addresses=("192.0.2.1",)) for h in (A, B, C)},
        plans=PLANS,
        sites={
            SiteId(f"site-{n:05}"): Site(
                id=SiteId(f"site-{n:05}"),
                member=MemberId("m"),
                plan=STANDARD,
                domains=(
                    Domain(f"site-{n:05}.example.org"),
                    Domain(f"www.site-{n:05}.example.org"),
                ),
                home=A,
                users=(f"user-{n:05}",),
                databases=(f"db_{n:05}",),
            )
            for n in range(count)
        },
    )


def intent(count: int = 2, on: Mapping[int, HostId] | None = None, **said: object) -> Intent:
    fleet = fleet_of(count)
    places = {
        id: Placement(host=(on or {}).get(n, A), since="", why=Why("placed-at-home"))
        for n, id in enumerate(fleet.sites)
    }
    return Intent(cluster="c", commit="n", fleet=fleet, places=places, **said)  # type: ignore[arg-type]


def given_to(host: HostId, of: Intent, revision: int = 1) -> Orders:
    return orders(host, of, shared(of), Epoch(1, revision))


FIRST, SECOND = SiteId("site-00000"), SiteId("site-00001")


def test_a_host_is_told_of_its_own_sites_only() -> None:
    """Tenants and rulings go where the site is placed; the plans go everywhere, so that use is told against each."""
    ruling = Ruling(word="quarantine", level=Level.CAP, note=NOTE)
    override = Override(caps={"tasks": 200}, note=NOTE)
    both = {FIRST: ruling, SECOND: ruling, SiteId("gone"): ruling}
    of = intent(on={1: B}, rulings=both, overrides={SECOND: override})
    one, other = given_to(A, of), given_to(B, of)
    assert (set(one.tenants), set(one.rulings)) == ({FIRST}, {FIRST})
    assert (set(other.tenants), set(other.rulings)) == ({SECOND}, {SECOND})
    assert one.plans == other.plans == {id: plan.caps for id, plan in PLANS.items()}
    tenant = other.tenants[SECOND]
    assert (tenant.plan, tenant.users, tenant.databases) == (
        STANDARD,
        ("user-00001",),
        ("db_00001",),
    )
    assert tenant.override is override and one.tenants[FIRST].override is None


def test_a_site_s_own_slice_is_told() -> None:
    """Where it names none its host looks for its users' slices."""
    of = intent()
    sites = {
        **of.fleet.sites,
        FIRST: msgspec.structs.replace(of.fleet.sites[FIRST], slice="site-first.slice"),
    }
    fleet = msgspec.structs.replace(of.fleet, sites=sites)
    told = given_to(A, Intent(cluster="c", commit="n", fleet=fleet, places=of.places))
    assert [tenant.slice for tenant in told.tenants.values()] == ["site-first.slice", None]


turns = st.none() | st.builds(
    Turn, since=st.none() | st.floats(1, 9), said=st.integers(0, 4).map(float)
)


@given(turns, turns, turns, turns.map(lambda turn: turn or Turn()))
def test_the_most_specific_word_wins_that_no_later_shadow_covers(
    site: Turn | None, plan: Turn | None, host: Turn | None, everything: Turn
) -> None:
    """Site, plan, host, all: also the word that it is to be shadow; and what was armed before one over it is over."""
    words = Enforcement(
        all=everything,
        hosts={A: host} if host else {},
        plans={STANDARD: plan} if plan else {},
        sites={FIRST: site} if site else {},
    )
    said = [turn for turn in (site, plan, host, everything) if turn is not None]
    expected, begins = None, 0.0
    for n, turn in enumerate(said):
        if turn.since is None:
            break
        begins = max(begins, turn.since)  # its own date stands, also where it is over
        if not any(wider.since is None and wider.said > turn.said for wider in said[n:]):
            expected = begins
            break
    assert given_to(A, intent(enforcement=words)).tenants[FIRST].enforced_from == expected


@pytest.mark.parametrize(("count", "limit_bytes"), [(60, 64 << 10), (2000, ORDERS_LIMIT_BYTES)])
def test_orders_of_many_sites_are_small_enough(count: int, limit_bytes: int) -> None:
    """Sixty sites, each with a word and an override, are 64 kB at most; two thousand fit a frame."""
    ids = [SiteId(f"site-{n:05}") for n in range(count)]
    override = Override(caps={"memory_max_bytes": 2 << 30, "tasks": 200}, note=NOTE)
    ruling = Ruling(word="quarantine", note=NOTE)
    of = intent(count, overrides=dict.fromkeys(ids, override), rulings=dict.fromkeys(ids, ruling))
    assert len(msgspec.json.encode(given_to(A, of))) < limit_bytes


def test_an_older_agent_reads_what_it_knows_of_newer_orders() -> None:
    """Of caps it knows nothing, and goes on doing the rest."""
    new = {"plans", "tenants", "rulings"}
    older = msgspec.defstruct(
        "OlderOrders",
        [(f.name, f.type, f.default) if not f.required else (f.name, f.type)
         for f in msgspec.structs.fields(Orders) if f.name not in new and f.default_factory is msgspec.NODEFAULT],
        kw_only=True, tag_field="type", tag="orders",
    )  # fmt: skip
    told = given_to(A, intent(rulings={FIRST: Ruling(word="release", note=NOTE)}))
    read = msgspec.json.decode(msgspec.json.encode(told), type=older)
    assert (read.sites, read.epoch) == (told.sites, told.epoch)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "key",
    [keys.ENFORCEMENT, keys.override(FIRST), keys.ruling(FIRST), keys.penalty(FIRST)],
    ids=["enforcement", "override", "ruling", "penalty"],
)
def test_a_commit_that_changes_caps_has_a_name(key: bytes) -> None:
    """Orders are made from it, so a store that was rewound must be found not to know it (R2)."""
    put = Put(key, b"{}")
    assert len(named([put], "a-name")) == 2
    noted = Put(keys.AUDIT + b"1", b"{}")
    assert named([noted], "a-name") == (noted,)


def test_equal_orders_are_the_same_at_any_revision() -> None:
    """A ruling on another host's site is nothing new here; one on our own is."""
    before = given_to(A, intent(on={1: B}))
    word = Ruling(word="release", note=NOTE)
    after = given_to(A, intent(on={1: B}, rulings={SECOND: word}), revision=2)
    assert _same(before, after)
    assert not _same(before, given_to(A, intent(on={1: B}, rulings={FIRST: word}), revision=2))


@pytest.mark.virtual_time
async def test_a_move_rebuilds_what_the_two_hosts_are_told_and_no_more() -> None:
    """A failover's orders wait for no other host's sites: what they are told is the same object as before."""
    link, wires = a_link(Exporter(CONTROLLER)), {A: Wire(), B: Wire(), C: Wire()}
    plain = intent(4, on={1: B, 2: C, 3: C})
    moved = replace(plain, places=intent(4, on={0: B, 1: B, 2: C, 3: C}).places)
    lent = replace(moved, overrides={SiteId("site-00002"): Override(caps={}, note=NOTE)})
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(link.serve(host, wire)) for host, wire in wires.items()]
        await asyncio.sleep(0.01)
        seen = []
        for revision, of in enumerate((plain, moved, lent)):
            link.order(of, Epoch(1, revision))
            await asyncio.sleep(0.01)
            seen.append(link.ordered(C))
        assert [wire.sent for wire in wires.values()] == [2, 2, 2]
        assert seen[0] is not None and seen[1] is not None and seen[2] is not None
        assert seen[1].tenants is seen[0].tenants
        assert seen[2].tenants[SiteId("site-00002")].override is not None
        for task in tasks:
            task.cancel()


@pytest.mark.virtual_time
async def test_a_word_on_a_site_is_sent_to_its_host_alone() -> None:
    """The other host gets no frame; the same intent again gives none to anybody."""
    link, one, other = a_link(Exporter(CONTROLLER)), Wire(), Wire()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(link.serve(host, wire)) for host, wire in ((A, one), (B, other))]
        await asyncio.sleep(0.01)
        plain = intent(on={1: B})
        link.order(plain, Epoch(1, 1))
        await asyncio.sleep(0.01)
        assert (one.sent, other.sent) == (1, 1)
        ruled = replace(plain, rulings={SECOND: Ruling(word="release", note=NOTE)})
        for revision in (2, 3):
            link.order(ruled, Epoch(1, revision))
            await asyncio.sleep(0.01)
        assert (one.sent, other.sent) == (1, 2)
        for task in tasks:
            task.cancel()
