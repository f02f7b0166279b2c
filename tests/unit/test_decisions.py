"""Properties of the pure decisions, on co-ops and evidence that nobody thought of."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import msgspec
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from failover.evidence import Evidence, Opinion, Reach, Report, Seen, Witness
from failover.guards import Guarded, Leave, guard
from failover.judge import MOVING, Kind, Verdict, judge
from failover.plan import Situation, propose
from failover.policy import Policy
from failover.routes import Intent, routes
from fleet.messages import AgentState, Check, RestartState, Service
from fleet.model import (
    Arming,
    Budget,
    ControllerId,
    Domain,
    Fleet,
    Health,
    Host,
    HostId,
    IncidentId,
    LocationId,
    MemberId,
    Mode,
    Note,
    Placement,
    PlanId,
    Role,
    Site,
    SiteId,
    Spent,
    Switches,
    Why,
)

K = TypeVar("K")
V = TypeVar("V")
POLICY = Policy()
WALL = 10_000.0
NOTE = Note(owner="ana", reason="disk", since=0.0, until=WALL + 1)
HOSTS = tuple(HostId(name) for name in ("w1", "w2", "w3", "w4", "e1", "e2"))
WEB, EDGES = HOSTS[:4], HOSTS[4:]
CONTROLLERS = tuple(ControllerId(name) for name in ("c1", "c2", "c3"))


def mostly(usual: V, *rare: V) -> st.SearchStrategy[V]:
    """Three draws of four are the usual one, so that several such draws still agree often."""
    return st.sampled_from([usual] * 3 * len(rare) + [*rare])


ages = st.sampled_from([0.1, 1.4, 1.6, 1.9, 2.0, 5.0, 700.0])
reaches = st.builds(
    Reach,
    age_s=st.none() | ages,
    trusted=st.booleans(),
    watched_s=st.sampled_from([1.0, 9.0, 10.0, 99.0]),
)
services = st.builds(
    Service,
    check=st.builds(
        Check, health=st.sampled_from(Health), since_s=st.sampled_from([1.0, 15.0, 60.0])
    ),
    restart=st.sampled_from(RestartState),
)
reports = st.builds(
    Report,
    boot_id=st.just("boot"),
    state=st.sampled_from(AgentState),
    service=st.none() | services,
    package_run=st.booleans(),
)


def opinions(witness: HostId) -> st.SearchStrategy[Opinion]:
    kind = Witness.EDGE if witness in EDGES else Witness.NEIGHBOUR
    return st.builds(Opinion, kind=st.just(kind), health=st.sampled_from(Health))


evidences = st.builds(
    Evidence,
    reach=st.dictionaries(st.sampled_from(CONTROLLERS), reaches),
    opinions=st.fixed_dictionaries({}, optional={str(host): opinions(host) for host in HOSTS}),
    report=st.none() | reports,
    known=st.booleans(),
)


@st.composite
def seens(draw: st.DrawFn) -> Seen:
    has_edges = draw(st.booleans())
    hosts = HOSTS if has_edges else WEB
    return Seen(
        controllers=frozenset(CONTROLLERS[: draw(st.sampled_from([1, 3]))]),
        hosts={host: draw(evidences) for host in hosts},
        live_edges=frozenset(draw(st.sets(st.sampled_from(EDGES)))) if has_edges else frozenset(),
        has_edges=has_edges,
    )


def site(n: int, home: HostId, standbys: list[HostId], mode: Mode) -> Site:
    return Site(
        id=SiteId(f"s{n:02}"),
        member=MemberId("m"),
        plan=PlanId("p"),
        domains=(Domain(f"s{n}.example"), Domain(f"www.s{n}.example")),
        home=home,
        standbys=tuple(standbys),
        mode=mode,
    )


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    hosts = {
        id: Host(
            id=id,
            tag=id,
            location=LocationId(draw(st.sampled_from(["mx", "es", "us"]))),
            addresses=("192.0.2.1",),
            roles=(Role.EDGE,) if id in EDGES else (Role.WEB,),
            max_sites=draw(mostly(None, 0, 2)),
        )
        for id in HOSTS
    }
    sites = []
    for n in range(draw(st.sampled_from([8, 10, 6, 2]))):
        home = draw(st.sampled_from(WEB))
        anywhere = st.lists(st.sampled_from(WEB), unique=True, max_size=3)
        elsewhere = st.permutations([host for host in WEB if host != home])
        standbys = draw(elsewhere if draw(mostly(True, True, False)) else anywhere)
        mode = draw(mostly(Mode.AUTOMATIC, Mode.GATED, Mode.MANUAL))
        sites.append(site(n, home, standbys, mode))
    return Fleet(hosts=hosts, sites={item.id: item for item in sites})


instants = st.sampled_from([-800.0, -600.0, -400.0, -200.0, 0.0, 50.0, 90.0])  # most are apart
symptoms = st.none() | instants


troubles = mostly(Kind.DEAD, *Kind)
healths = st.sampled_from([*[Kind.UP] * 50, *Kind])


@st.composite
def verdicts(draw: st.DrawFn) -> dict[HostId, Verdict]:
    """None to all web hosts in trouble, most often two or three; the others up but for a rare one."""
    count = draw(st.sampled_from([2, 3, 2, 3, 1, 2, 0, 4]))
    lost = draw(st.permutations(WEB))[:count]
    found = {}
    for host in HOSTS:
        kind = draw(troubles if host in lost else healths)
        found[host] = Verdict(
            kind=kind,
            since=draw(instants),
            why=Why("told"),
            symptom_at=None if kind is Kind.UP else draw(symptoms),
            recovered_at=draw(mostly(None, None, None, 10.0, 95.0)),
        )
    return found


drained = mostly(0, 2).flatmap(lambda most: st.sets(st.sampled_from(HOSTS), max_size=most))


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    fleet = draw(fleets())
    return Situation(
        fleet=fleet,
        places={
            id: Placement(host=draw(mostly(item.home, *WEB)), since="", why=Why("told"))
            for id, item in fleet.sites.items()
        },
        verdicts=draw(verdicts()),
        drains=dict.fromkeys(draw(drained), NOTE),
        withdrawn=frozenset(draw(st.sets(st.sampled_from(EDGES)))),
        boots=dict.fromkeys(HOSTS, "boot"),
        memory_available_ratio={h: draw(mostly(0.5, 0.5, 0.01)) for h in WEB},
    )


words = mostly(Arming.ARM, Arming.ARM, Arming.OBSERVE)
switches = st.builds(
    Switches,
    all=words,
    locations=st.dictionaries(st.just(LocationId("mx")), words),
    hosts=st.dictionaries(st.sampled_from(HOSTS), words, max_size=2),
    sites=st.dictionaries(st.sampled_from([SiteId("s00"), SiteId("s01")]), words),
    paused=mostly(None, None, None, NOTE),
)
PAID = [f"host:{host}:boot" for host in WEB]


@st.composite
def leaves(draw: st.DrawFn, situation: Situation) -> Leave:
    """Of three causes an hour none to four are spent, mostly for others than those that are here."""
    causes = [draw(mostly(str(n), *PAID)) for n in range(draw(st.sampled_from([2, 3, 1, 0, 4])))]
    spent = tuple(
        Spent(at=WALL - draw(mostly(10.0, 10.0, 4000.0)), cause=cause, incident=IncidentId(""))
        for cause in causes
    )
    return Leave(
        fleet=situation.fleet,
        switches=draw(switches),
        budget=Budget(spent=spent),
        verdicts=situation.verdicts,
        rewound=draw(mostly(None, None, None, Why("store-rewound"))),
        doubts_itself=draw(mostly(False, False, False, True)),
        wall=WALL,
    )


def decide(situation: Situation, leave: Leave) -> tuple[Guarded, ...]:
    return guard(propose(situation, POLICY, 100.0), leave, POLICY)


def test_the_drawn_situations_ask_the_guards_for_all_that_they_decide() -> None:
    """Of drawn rounds a good share moves, pays, exhausts the budget and meets manual sites of hosts to empty."""
    seen: Counter[str] = Counter()

    @given(st.data())
    @settings(max_examples=300, derandomize=True, database=None, phases=[Phase.generate])
    def count(data: st.DataObject) -> None:
        situation = data.draw(situations())
        plan = decide(situation, data.draw(leaves(situation)))
        by_itself = [guarded for guarded in plan if not guarded.proposal.cause.human]
        codes = {held.why.code for guarded in plan for held in guarded.held}
        told = {
            "rounds": True,
            "moved": any(guarded.moves for guarded in plan),
            "moved by itself": any(guarded.moves for guarded in by_itself),
            "moved for a person": any(g.moves for g in plan if g.proposal.cause.human),
            "two paid": sum(guarded.spends for guarded in plan) >= 2,
            "a paid cause went on": any(g.moves and not g.spends for g in by_itself),
            **{code: code in codes for code in ("brake", "manual", "gated-not-fenced")},
        }
        seen.update(what for what, happened in told.items() if happened)

    count()
    least = {
        "moved": 0.2,
        "moved by itself": 0.15,
        "moved for a person": 0.01,
        "two paid": 0.04,
        "a paid cause went on": 0.01,
        "brake": 0.04,
        "manual": 0.1,
        "gated-not-fenced": 0.1,
    }
    rounds = seen["rounds"]
    assert {what: seen[what] for what, share in least.items() if seen[what] < share * rounds} == {}


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_no_move_without_leave_and_none_to_an_unfit_host(data: st.DataObject) -> None:
    """Automatic moves are armed, of automatic sites, unpaused, undoubted; every target is up, free and not full."""
    situation = data.draw(situations())
    leave = data.draw(leaves(situation))
    plan = decide(situation, leave)
    serves = dict.fromkeys(HOSTS, 0)
    for place in situation.places.values():
        serves[place.host] += 1
    for guarded in plan:
        for move in guarded.moves:
            assert leave.rewound is None
            declared = situation.fleet.hosts[move.target]
            assert situation.fleet.sites[move.site].effective_mode is Mode.AUTOMATIC
            assert situation.verdicts[move.target].kind is Kind.UP
            assert move.target not in situation.drains
            assert situation.memory_available_ratio[move.target] >= POLICY.low_memory_ratio
            serves[move.target] += 1
            assert declared.max_sites is None or serves[move.target] <= declared.max_sites
            if not guarded.proposal.cause.human:
                where = situation.fleet.hosts[move.source].location
                assert leave.switches.armed(move.site, move.source, where)
                assert leave.switches.paused is None and not leave.doubts_itself
                assert situation.verdicts[move.source].kind in MOVING


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_automatic_causes_never_exceed_the_budget(data: st.DataObject) -> None:
    """What was spent in the hour and what spends now stay within the brake; only people's acts cost nothing."""
    situation = data.draw(situations())
    leave = data.draw(leaves(situation))
    plan = decide(situation, leave)
    recent = {item.cause for item in leave.budget.spent if WALL - item.at < 3600}
    paying = {guarded.proposal.cause.id for guarded in plan if guarded.spends}
    assert not paying or len(recent | paying) <= POLICY.causes_allowed(len(HOSTS))
    for guarded in plan:
        if guarded.acts:
            cause = guarded.proposal.cause
            assert cause.human or cause.id in recent | paying


@given(st.data())
@settings(deadline=None)
def test_every_site_of_a_host_to_empty_is_moved_shown_or_held_with_a_reason(
    data: st.DataObject,
) -> None:
    """Nothing is forgotten, nothing is in two places of the plan, each hold has a code."""
    situation = data.draw(situations())
    plan = decide(situation, data.draw(leaves(situation)))
    planned = [move.site for g in plan for move in (*g.moves, *g.would)]
    planned += [held.site for g in plan for held in g.held]
    assert len(planned) == len(set(planned))
    empty = {h for h, v in situation.verdicts.items() if v.kind in MOVING} | set(situation.drains)
    assert set(planned) == {id for id, place in situation.places.items() if place.host in empty}
    assert all(held.why.code for g in plan for held in g.held)


@given(st.data())
@settings(deadline=None)
def test_the_order_of_inputs_decides_nothing(data: st.DataObject) -> None:
    """Sites, hosts and verdicts in reverse give the same plan."""
    situation = data.draw(situations())
    leave = data.draw(leaves(situation))
    back = replace(
        situation,
        fleet=msgspec.structs.replace(
            situation.fleet,
            sites=_reversed(situation.fleet.sites),
            hosts=_reversed(situation.fleet.hosts),
        ),
        places=_reversed(situation.places),
        verdicts=_reversed(situation.verdicts),
        drains=_reversed(situation.drains),
    )
    assert decide(back, leave) == decide(situation, leave)


def _reversed(mapping: Mapping[K, V]) -> dict[K, V]:
    return dict(reversed(list(mapping.items())))


@given(seens())
@settings(deadline=None)
def test_the_order_of_evidence_decides_nothing(seen: Seen) -> None:
    """Witnesses and controllers in reverse give the same verdicts; each has a reason."""
    found = judge({}, seen, POLICY, 100.0)
    back = replace(
        seen,
        hosts={
            host: replace(e, reach=_reversed(e.reach), opinions=_reversed(e.opinions))
            for host, e in _reversed(seen.hosts).items()
        },
    )
    assert judge({}, back, POLICY, 100.0) == found
    assert set(found) == set(seen.hosts)
    assert all(verdict.why.code for verdict in found.values())


@given(seens(), st.data())
@settings(deadline=None)
def test_doubt_never_convicts(seen: Seen, data: st.DataObject) -> None:
    """R4, R5: a controller that falls into doubt, or a witness that no longer calls a host down, kills nobody."""
    host = data.draw(st.sampled_from(sorted(seen.hosts)))
    evidence = seen.hosts[host]
    reach, words = dict(evidence.reach), dict(evidence.opinions)
    for id in data.draw(st.sets(st.sampled_from(CONTROLLERS))) & reach.keys():
        reach[id] = replace(reach[id], trusted=False)
    downs = sorted(w for w, o in words.items() if o.health is Health.DOWN)
    for witness in data.draw(st.sets(st.sampled_from(downs))) if downs else ():
        words[witness] = replace(words[witness], health=Health.UNKNOWN)
    doubting = {**seen.hosts, host: replace(evidence, reach=reach, opinions=words)}
    before = judge({}, seen, POLICY, 100.0)[host].kind
    after = judge({}, replace(seen, hosts=doubting), POLICY, 100.0)[host].kind
    assert after not in MOVING or before in MOVING


@given(seens())
@settings(deadline=None)
def test_r4_the_dead_were_lost_by_a_majority_and_reached_by_no_live_edge(seen: Seen) -> None:
    """Counted anew from the evidence, by the words of the rule."""
    for host, verdict in judge({}, seen, POLICY, 100.0).items():
        if verdict.kind is not Kind.DEAD:
            continue
        evidence = seen.hosts[host]
        lost = [
            r
            for id, r in evidence.reach.items()
            if id in seen.controllers and r.trusted and (r.age_s is None or r.age_s >= 2.0)
        ]
        assert 2 * len(lost) > len(seen.controllers)
        assert evidence.known
        others = {w: o.health for w, o in evidence.opinions.items() if w != host}
        if seen.has_edges:
            live = [others[edge] for edge in seen.live_edges if edge in others]
            assert Health.UP not in live and Health.DOWN in live
        else:
            near = [o for w, o in others.items() if w in WEB]
            assert near.count(Health.DOWN) > near.count(Health.UP)


@given(fleets(), st.data())
@settings(deadline=None)
def test_r7_routes_never_lose_a_domain_of_a_placed_site(fleet: Fleet, data: st.DataObject) -> None:
    """Every domain of every site with a place has a route to it, and is in no list of removals."""
    placed = data.draw(st.sets(st.sampled_from(sorted(fleet.sites))))
    places = {
        id: Placement(host=data.draw(st.sampled_from(WEB)), since="", why=Why("told"))
        for id in placed
    }
    found = routes(Intent(commit="l", cluster="c", fleet=fleet, places=places))
    for id in placed:
        for domain in fleet.sites[id].domains:
            assert found.domains[domain] == places[id].host
            assert domain not in found.removed_domains
            assert places[id].host in found.hosts
