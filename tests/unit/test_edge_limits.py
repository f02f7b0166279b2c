"""What the edges let through to a site: from plan, override, penalties and a person's word to the map's entries."""

from collections.abc import Sequence
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.edge.gate import REASONS
from agent.edge.limits import Holding, held, hosts_of, with_limits
from agent.edge.meter import Meter
from agent.edge.plan import Served, plan
from agent.edge.view import Unreadable, read_refused
from deploy.demo.plans import PLANS
from failover.limits import HOLDS, edge_limits, in_force
from failover.routes import Intent, enforced, routes
from fleet.caps import Enforcement, Level, Override, Penalty, Resource, Ruling, Turn
from fleet.documents import read
from fleet.messages import LIMIT_MAX, EdgeLimit, LimitState, Orders, Routes, Target
from fleet.model import (
    Caps,
    Domain,
    Epoch,
    HostId,
    Note,
    Placement,
    PlanId,
    SiteId,
    Why,
)
from fleet.penalized import Penalized
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from tests.unit.fleets import GOOD

STANDARD = PLANS[PlanId("standard")].caps
W1 = HostId("w1")
SITE = SiteId("huerto")
FLEET = read(GOOD, "good.yaml")


def penalty(level: Level, since: float, until: float, **more: object) -> Penalty:
    fields = {"enforced": True, "share": 0.5 if level is Level.CAP else 1.0, **more}
    return msgspec.structs.replace(
        Penalty(
            site=SITE, level=level, resource=Resource.CPU, since=since, until=until, why=Why("told")
        ),
        **fields,
    )


def note(since: float, until: float) -> Note:
    return Note(owner="ana", reason="told", since=since, until=until)


times = st.integers(0, 12).map(float)
spans = st.tuples(times, times).map(sorted)
penalties = st.lists(
    st.builds(
        lambda level, span, share, on, owner: penalty(
            level, *span, share=share, enforced=on, owner=owner
        ),
        st.sampled_from(Level),
        spans,
        st.sampled_from((0.25, 0.5, 1.0)),
        st.booleans(),
        st.sampled_from(("relevo", "ana")),
    ),
    min_size=2,
    max_size=4,
)
rulings = st.none() | st.builds(
    lambda word, level, span: Ruling(word=word, level=level, note=note(*span)),
    st.sampled_from(("quarantine", "release", "suspect")),
    st.sampled_from(Level),
    spans,
)
overrides = st.none() | st.builds(
    lambda field, value, span: Override(caps={field: value}, note=note(*span)),
    st.sampled_from(("in_flight", "requests_per_s", "requests_burst", "client_requests_per_min")),
    st.integers(1, 10_000),
    spans,
)
NUMBERS = ("in_flight", "requests_per_s", "requests_burst", "client_requests_per_min")


def numbers(limit: EdgeLimit | Caps) -> tuple[float, ...]:
    return tuple(getattr(limit, name) for name in NUMBERS)


def test_in_shadow_nothing_is_limited() -> None:
    """Neither by a plan that is not in force, nor by penalties that are only recorded, nor by who only watches."""
    suspect = Ruling(word="suspect", note=note(0, 99))
    recorded = [penalty(level, 0, 99, enforced=False) for level in Level]
    assert edge_limits(STANDARD, penalties=recorded, ruling=suspect) == ()
    watched = Ruling(word="quarantine", level=Level.WATCH, note=note(0, 99))
    watching = [penalty(Level.WATCH, 0, 99)]
    assert edge_limits(STANDARD, penalties=watching, ruling=watched) == ()


def test_a_plan_in_force_is_the_limit_from_its_day_on() -> None:
    """Without an end; what the plan says is what is sent."""
    (step,) = edge_limits(STANDARD, enforced_from=50.0)
    assert (step.since, step.until, step.state) == (50.0, None, LimitState.OPEN)
    assert numbers(step) == numbers(STANDARD)
    assert (step.queue, step.queue_wait_s) == (STANDARD.queue, STANDARD.queue_wait_s)


@pytest.mark.parametrize(
    ("level", "state", "shares"),
    [
        (Level.WATCH, LimitState.OPEN, (1, 1, 1, 1)),
        (Level.SOFT, LimitState.SLOWED, (0.5, 1, 1, 0.5)),
        (Level.CAP, LimitState.SLOWED, (0.5, 0.5, 0.5, 0.5)),
        (Level.ISOLATE, LimitState.CLOSED, (1, 1, 1, 1)),
        (Level.STOP, LimitState.CLOSED, (1, 1, 1, 1)),
    ],
)
def test_each_level_leaves_its_share_and_ends(
    level: Level, state: LimitState, shares: Sequence[float]
) -> None:
    """Before and after it, the plan."""
    steps = edge_limits(STANDARD, enforced_from=0.0, penalties=[penalty(level, 10, 20)])
    step = in_force(steps, 15)
    assert step
    assert step.state is state
    expected = tuple(int(n * share) for n, share in zip(numbers(STANDARD), shares, strict=True))
    assert tuple(int(number) for number in numbers(step)) == expected
    for other in (0, 9.9, 20, 1000):
        found = in_force(steps, other)
        assert found and numbers(found) == numbers(STANDARD)
        assert found.state is LimitState.OPEN


@pytest.mark.parametrize("enforced_from", [None, 0.0])
def test_the_watchdog_s_relief_slows_nobody_at_the_edges(enforced_from: float | None) -> None:
    """It lifts a limit on the host, and takes nothing: the edges go by the plan, or beside it by the real cap."""
    relief = penalty(Level.CAP, 10, 20, resource=Resource.MEMORY, share=1.0)
    plain = edge_limits(STANDARD, enforced_from=enforced_from)
    assert edge_limits(STANDARD, enforced_from=enforced_from, penalties=[relief]) == plain
    cap = penalty(Level.CAP, 10, 20, resource=Resource.MEMORY)
    both = edge_limits(STANDARD, enforced_from=enforced_from, penalties=[cap, relief])
    assert both == edge_limits(STANDARD, enforced_from=enforced_from, penalties=[cap]) != plain


def test_in_shadow_a_penalty_holds_what_it_takes_from_and_nothing_else() -> None:
    """A person may slow one site in a co-op whose plans are not in force yet."""
    ordered = Ruling(word="quarantine", level=Level.SOFT, note=note(10, 20))
    (step,) = edge_limits(STANDARD, ruling=ordered)
    assert (step.since, step.until) == (10, 20)
    assert (step.requests_per_s, step.requests_burst) == (LIMIT_MAX, LIMIT_MAX)
    assert step.in_flight == STANDARD.in_flight // 2


def test_a_person_s_word_stands_in_the_place_of_what_relevo_decided() -> None:
    """As long as it does: a release, and a quarantine that is milder."""
    release = Ruling(word="release", note=note(0, 15))
    by_relevo = edge_limits(STANDARD, penalties=[penalty(Level.ISOLATE, 10, 20)], ruling=release)
    assert [(step.since, step.until) for step in by_relevo] == [(15, 20)]
    milder = Ruling(word="quarantine", level=Level.SOFT, note=note(0, 15))
    found = edge_limits(STANDARD, penalties=[penalty(Level.ISOLATE, 10, 20)], ruling=milder)
    assert [(step.until, step.state) for step in found] == [
        (15, LimitState.SLOWED),
        (20, LimitState.CLOSED),
    ]


def test_what_a_host_tells_of_a_person_s_word_holds_nothing_by_itself() -> None:
    """A quarantine that was taken back ends at the edges, though its host has fallen silent with it."""
    by_ana = penalty(Level.ISOLATE, 10, 20, owner="ana")
    assert edge_limits(STANDARD, penalties=[by_ana]) == ()
    release = Ruling(word="release", note=note(0, 15))
    assert edge_limits(STANDARD, penalties=[by_ana], ruling=release) == ()
    ordered = Ruling(word="quarantine", level=Level.ISOLATE, note=note(10, 20))
    (step,) = edge_limits(STANDARD, penalties=[by_ana], ruling=ordered)
    assert (step.since, step.until, step.state) == (10, 20, LimitState.CLOSED)


@given(overrides, st.none() | times, penalties, rulings)
def test_r11_steps_are_in_order_and_only_a_plan_has_no_end(
    override: Override | None,
    enforced_from: float | None,
    given_penalties: list[Penalty],
    ruling: Ruling | None,
) -> None:
    """None overlaps, none is empty, two neighbours differ, and what is less than the plan ends by itself."""
    steps = edge_limits(
        STANDARD,
        override=override,
        enforced_from=enforced_from,
        penalties=given_penalties,
        ruling=ruling,
    )
    for step in steps:
        assert step.until is None or step.since < step.until
        assert step.until or (step.state is LimitState.OPEN and enforced_from is not None)
        assert msgspec.json.decode(msgspec.json.encode(step), type=EdgeLimit) == step
    for one, other in pairwise(steps):
        assert one.until is not None and one.until <= other.since
        same = msgspec.structs.replace(other, since=one.since, until=one.until) == one
        assert not (same and one.until == other.since)


def counts(penalty: Penalty) -> bool:
    return penalty.enforced and penalty.owner == "relevo"


@given(overrides, st.none() | times, penalties, times)
def test_a_penalty_only_takes_and_only_an_enforced_one(
    override: Override | None,
    enforced_from: float | None,
    given_penalties: list[Penalty],
    now: float,
) -> None:
    """At every moment: with penalties no number is above what it is without.

    The recorded ones change nothing, and those that repeat a person's word.
    """
    alone = in_force(edge_limits(STANDARD, override=override, enforced_from=enforced_from), now)
    steps = edge_limits(
        STANDARD, override=override, enforced_from=enforced_from, penalties=given_penalties
    )
    limit = in_force(steps, now)
    standing = [
        p
        for p in given_penalties
        if counts(p) and p.level > Level.WATCH and p.since <= now < p.until
    ]
    if not standing:
        assert (limit is None) == (alone is None)
    if alone and limit:
        assert all(less <= most for less, most in zip(numbers(limit), numbers(alone), strict=True))
    hard = any(p.level >= Level.ISOLATE for p in standing)
    assert (limit is not None and limit.state is LimitState.CLOSED) == hard
    recorded = [p for p in given_penalties if not counts(p)]
    kept = [p for p in given_penalties if counts(p)]
    assert steps == edge_limits(
        STANDARD, override=override, enforced_from=enforced_from, penalties=kept
    ), recorded


def test_every_level_has_a_row() -> None:
    """A level that is added is decided here too."""
    assert HOLDS.keys() == set(Level)


def limited(**steps: tuple[EdgeLimit, ...]) -> Routes:
    return Routes(
        hosts={W1: Target(address="192.0.2.1", port=80)},
        domains={Domain(f"{site}.example"): W1 for site in steps},
        limits={SiteId(site): its for site, its in steps.items()},
        sites={Domain(f"{site}.example"): SiteId(site) for site in steps},
    )


def test_an_entry_says_the_numbers_that_haproxy_compares() -> None:
    """Host, site, in flight, in flight and waiting, wait in ms, in 1 s, in 10 s, of one client in a minute."""
    now = held(limited(a=edge_limits(STANDARD, enforced_from=0.0)), 1.0)
    entries = with_limits({"a.example": "w1", "b.example": "w2"}, now.entries)
    assert entries == {"a.example": "w1|a|20|120|10000|150|250|300", "b.example": "w2"}
    assert hosts_of(entries) == {"a.example": "w1", "b.example": "w2"}
    assert now.states[LimitState.OPEN] == 1


def test_a_closed_site_has_no_numbers() -> None:
    """And all its domains are closed."""
    steps = edge_limits(STANDARD, penalties=[penalty(Level.ISOLATE, 0, 99)])
    routes = msgspec.structs.replace(
        limited(a=steps), sites={Domain("a.example"): SiteId("a"), Domain("b.example"): SiteId("a")}
    )
    found = held(routes, 1.0)
    assert found.entries == {"a.example": "a|closed", "b.example": "a|closed"}
    assert found.until == 99


@given(st.none() | times, penalties, times, st.floats(0, 1, exclude_max=True))
def test_what_is_held_stays_until_the_moment_that_is_told(
    enforced_from: float | None, given_penalties: list[Penalty], now: float, part: float
) -> None:
    """An edge that looks again only then misses nothing."""
    routes = limited(
        a=edge_limits(STANDARD, enforced_from=enforced_from, penalties=given_penalties),
        b=edge_limits(STANDARD, penalties=given_penalties[:1]),
    )
    found = held(routes, now)
    later = min(found.until, 1e6)
    assert held(routes, now + part * (later - now) * 0.999).entries == found.entries
    assert found.until > now


@given(st.lists(st.tuples(penalties, st.booleans(), times), min_size=2, max_size=4))
def test_what_is_remembered_is_what_is_in_force(
    looks: list[tuple[list[Penalty], bool, float]],
) -> None:
    """Whatever the orders and the clock do between two looks."""
    holding = Holding()
    for its_penalties, both, now in looks:
        steps = edge_limits(STANDARD, enforced_from=3.0, penalties=its_penalties)
        routes = limited(a=steps, b=steps) if both else limited(a=steps)
        for at in (now, now + 1, now - 1):
            assert holding.held(routes, at).entries == held(routes, at).entries


@pytest.mark.parametrize("site", ["a|b", "a b", "a\nset server", "", "-a", "x" * 64])
def test_a_hostile_name_of_a_site_reaches_no_map(site: str) -> None:
    """It is refused by name; its domain is routed, the other site is held."""
    steps = edge_limits(STANDARD, enforced_from=0.0)
    routes = msgspec.structs.replace(
        limited(a=steps),
        limits={SiteId(site): steps, SiteId("a"): steps},
        sites={Domain("x.example"): SiteId(site), Domain("a.example"): SiteId("a")},
    )
    wanted = plan(routes, Served(hosts={}, domains={}), held(routes, 1.0))
    assert wanted.held.entries.keys() == {"a.example"}
    assert len(wanted.refused) == 1
    assert "\n" not in wanted.refused[0]


def test_orders_limit_what_is_behind_the_edges_and_in_force() -> None:
    """A site that DNS sends to its host directly is out of an edge's reach; the others follow their plan's turn."""
    places = {
        id: Placement(host=site.home, since="", why=Why("told")) for id, site in FLEET.sites.items()
    }
    intent = Intent(cluster="c", commit="l", fleet=FLEET, places=places)
    assert routes(intent).limits == {}
    on = msgspec.structs.replace(Enforcement(), plans={PlanId("solidarity"): Turn(since=5.0)})
    found = routes(Intent(cluster="c", commit="l", fleet=FLEET, places=places, enforcement=on))
    assert found.limits.keys() == {SITE}
    assert found.sites == {Domain("huerto.example.org"): SITE}
    orders = Orders(epoch=Epoch(1, 1), cluster="c", host=W1, routes=found)
    assert msgspec.json.decode(msgspec.json.encode(orders), type=Orders) == orders


def test_a_penalty_in_the_store_reaches_the_edges_if_it_is_enforced() -> None:
    """Shadow is kept as history, and no edge hears of it."""
    places = {SITE: Placement(host=W1, since="", why=Why("told"))}
    stored = {
        SITE: Penalized(host=W1, at=0.0, penalties=(penalty(Level.ISOLATE, 1, 9),)),
        SiteId("blog"): Penalized(
            host=W1, at=0.0, penalties=(penalty(Level.CAP, 1, 9, enforced=False),)
        ),
    }
    standing = enforced(stored)
    assert standing.keys() == {SITE}
    found = routes(Intent(cluster="c", commit="l", fleet=FLEET, places=places, penalties=standing))
    assert [step.state for step in found.limits[SITE]] == [LimitState.CLOSED]


def test_refusals_grow_over_workers_and_sites_that_begin_again() -> None:
    """A new worker counts from nothing, as does a site that was forgotten: neither is a negative number."""
    exporter = Exporter(AGENT)
    meter = Meter(exporter)

    def counted() -> list[float]:
        text = exporter.render().decode()
        lines = [
            line for line in text.splitlines() if line.startswith("relevo_edge_refused_total{")
        ]
        by_reason = {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}
        return [by_reason[reason] for reason in REASONS]

    assert counted() == [0, 0, 0, 0]
    meter.refused(1, {"a": (1, 2, 3, 4), "b": (0, 1, 0, 0)})
    meter.refused(1, {"a": (1, 2, 5, 4), "b": (0, 1, 0, 0)})
    assert counted() == [1, 3, 5, 4]
    meter.refused(1, {"a": (1, 2, 1, 4)})
    assert counted() == [1, 3, 6, 4]
    meter.refused(2, {"a": (1, 2, 5, 4)})
    assert counted() == [2, 5, 11, 8]


def test_a_table_is_read_whole_or_not_at_all() -> None:
    """`show table` of HAProxy 2.6."""
    head = "# table: relevo:refused, type: string, size:20480, used:1\n"
    row = "0x7efde0045e08: key=a use=0 exp=3599498 gpc0=1 gpc1=2 gpc2=3 gpc3=4\n"
    assert read_refused(head) == {}
    assert read_refused(head + row + "\n") == {"a": (1, 2, 3, 4)}
    for answer in ("", "No such table\n", head + row[:-8]):
        with pytest.raises(Unreadable):
            read_refused(answer)
