"""Which slices hold what on this host: tenants, their plans and penalties, by the slice that each is in. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from agent.caps.limits import Case, HostFacts, Wanted, limits, roomiest
from agent.caps.ours import Ours, Term
from agent.caps.sparing import spare
from agent.layout.attached import Attached
from fleet.caps import OWNER, Penalty, Tenant, armed, as_armed, effective, in_background
from fleet.messages import Orders
from fleet.model import Caps, SiteId

# Of all memory: with more than this promised, reclaim has nowhere left to go when the host is short.
LOW_RATIO = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One slice: whose it is, and what it should hold. Not `in_force`: its plan is in shadow.

    `beside`: a user's own, for sessions and jobs of sites whose services live elsewhere, there as long as they are; or
    one that nothing of its sites is seen in now.
    `among`: all of whom something runs in it; `waits_for`: those of them that are in shadow. `term`: of its penalties.
    """

    sites: tuple[SiteId, ...]
    wanted: Wanted
    in_force: bool
    beside: bool = False
    among: tuple[SiteId, ...] = ()
    waits_for: tuple[SiteId, ...] = ()
    term: Term | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is known when it is decided what to hold; `now` is Unix s. `people`: this host's users, no system's.

    `common`: its web servers' accounts.
    """

    orders: Orders
    attached: Mapping[SiteId, Attached]
    people: Mapping[str, int]
    penalties: tuple[Penalty, ...]
    facts: HostFacts
    now: float
    common: Mapping[str, int] = field(default_factory=dict)

    def penalties_of(self, sites: Iterable[SiteId]) -> tuple[Penalty, ...]:
        """Those that are to be held now."""
        named = frozenset(sites)
        return tuple(
            p for p in self.penalties if p.site in named and p.enforced and self.now < p.until
        )

    def in_force(self, tenant: Tenant) -> bool:
        return tenant.enforced_from is not None and tenant.enforced_from <= self.now

    def uids(self, tenant: Tenant) -> list[int]:
        """Of its users that are there, shared ones too."""
        return [self.people[user] for user in tenant.users if user in self.people]

    def caps(self, tenant: Tenant) -> Caps | None:
        """None: a plan that these orders do not know; what is held for it stays (rule R7)."""
        plan = self.plan(tenant)
        return effective(plan, tenant.override, self.now) if plan else None

    def plan(self, tenant: Tenant) -> Caps | None:
        """With the numbers that were armed, where they have become stricter since."""
        plan = self.orders.plans.get(tenant.plan)
        return armed(plan, tenant.held, self.now) if plan else None


Held = tuple[SiteId, Tenant, Caps]


def shares(world: World, ours: Mapping[str, Ours] = MappingProxyType({})) -> dict[str, Share]:
    """By slice. Sites that share one have the roomiest of their plans, and nothing before all of them are in force.

    `ours`: what is held now. A site that is seen in no slice is held on in the one that it was in.
    """
    held: dict[str, list[Held]] = defaultdict(list)
    seen: set[str] = set()
    beside: dict[str, list[Held]] = defaultdict(list)
    elsewhere = _Elsewhere(world, ours)
    for site, tenant in world.orders.tenants.items():
        attached, caps = world.attached.get(site), world.caps(tenant)
        if attached and caps:
            if attached.slice:
                seen.add(attached.slice)
            for name in [attached.slice] if attached.slice else elsewhere.of(site):
                held[name].append((site, tenant, caps))
            for uid in world.uids(tenant):
                beside[f"user-{uid}.slice"].append((site, tenant, caps))
    reckon = _Reckoned(world, replace(world.facts, low_ratio=_low_ratio(world, held.values())))
    users = {name: those for name, those in beside.items() if name not in held}
    return {
        **{name: reckon.share(_in_background(those), beside=True) for name, those in users.items()},
        **{
            name: reckon.share(those, beside.get(name, ()), beside=name not in seen)
            for name, those in held.items()
        },
    }


class _Elsewhere:
    """Where sites that are seen in no slice were held, and may run again.

    The web server does not lead there now, or its master was ended. Users' own slices are held anyway. An adoption
    that is over has let its slice go, but for what it must start again.
    """

    def __init__(self, world: World, ours: Mapping[str, Ours]) -> None:
        self._world, self._ours = world, ours
        self._users = {f"user-{uid}.slice" for uid in world.people.values()}
        self._names: dict[SiteId, list[str]] = defaultdict(list)
        for name, mine in ours.items():
            if mine.holds_more or mine.stopped is not None:
                for site in mine.sites:
                    self._names[site].append(name)

    def of(self, site: SiteId) -> list[str]:
        tenant, now = self._world.orders.tenants[site], self._world.attached[site]
        return [
            name
            for name in self._names.get(site, ())
            if (name not in self._users or name == tenant.slice)
            and (now.adoptable is None or self._ours[name].stopped is not None)
        ]


def protected_above(shared: Mapping[str, Share]) -> dict[str, int]:
    """What slices above must protect so that what is promised below them counts: the sum of it, by slice.

    Source: kernel, cgroup-v2 memory.low: a group's protection is at most that of the group around it.
    """
    above: dict[str, int] = defaultdict(int)
    for name, share in shared.items():
        parts = name.removesuffix(".slice").split("-")
        for n in range(1, len(parts)):
            above[f"{'-'.join(parts[:n])}.slice"] += share.wanted.limits.memory_low_bytes
    return {name: low for name, low in above.items() if name not in shared}


def _in_background(those: list[Held]) -> list[Held]:
    return [(site, tenant, in_background(caps)) for site, tenant, caps in those]


class _Reckoned:
    """What each slice should hold. Most are of a few plans, and no penalty's: those are reckoned once."""

    def __init__(self, world: World, facts: HostFacts) -> None:
        self._world, self._facts = world, facts
        self._known: dict[tuple[Caps, int, frozenset[str], bool], Wanted] = {}

    def share(self, those: list[Held], near: Iterable[Held] = (), *, beside: bool = False) -> Share:
        """Of sites that are held there; `near`: all whose users' sessions and jobs run there."""
        world = self._world
        sites = tuple(site for site, _, _ in those)
        among = {site: tenant for site, tenant, _ in (*those, *near)}
        shadow = tuple(site for site, tenant in among.items() if not world.in_force(tenant))
        standing = [
            p for p in world.penalties_of(among) if p.owner != OWNER or not {*shadow} - {p.site}
        ]
        mercy = spare(standing, among)
        overrides = [t.override for _, t, _ in those if t.override and _counts(t, world)]
        alone = len(those) == 1
        case = Case(
            caps=those[0][2] if alone else roomiest([caps for _, _, caps in those]),
            facts=self._facts,
            penalties=tuple(p for p in mercy.held if p.site in sites),
            among=tuple(among),
            spared=tuple(p for p in mercy.spared if p.site in sites),
            override=overrides[0] if overrides else None,
            sites=len(those),
            as_armed=frozenset(as_armed(those[0][1].held, world.now)) if alone else frozenset(),
        )
        return Share(
            sites=sites,
            wanted=self._wanted(case, in_force=not shadow),
            in_force=not shadow,
            beside=beside,
            among=tuple(among),
            waits_for=shadow,
            term=self._term(case, in_force=not shadow),
        )

    def _term(self, case: Case, *, in_force: bool) -> Term | None:
        """Remembered beside what is held: where nobody speaks of a site any more, its penalty ends all the same."""
        if not case.penalties:
            return None
        plan = replace(case, penalties=(), spared=())
        after = self._wanted(plan, in_force=in_force)
        return Term(
            until=max(penalty.until for penalty in case.penalties),
            after=after.limits,
            says=tuple(sorted(after.says)),
        )

    def _wanted(self, case: Case, *, in_force: bool) -> Wanted:
        if case.penalties or case.spared or case.override:
            return limits(case, in_force=in_force)
        # Without these nothing turns on whose slice it is.
        alike = (case.caps, case.sites, case.as_armed, in_force)
        if (known := self._known.get(alike)) is None:
            known = self._known[alike] = limits(case, in_force=in_force)
        return known


def _counts(tenant: Tenant, world: World) -> bool:
    """Whether its override has changed something now."""
    return world.caps(tenant) != world.plan(tenant)


def _low_ratio(world: World, shared: Iterable[list[Held]]) -> float:
    promised = sum(
        max(caps.memory_low_bytes for _, _, caps in those)
        for those in shared
        if all(world.in_force(tenant) for _, tenant, _ in those)
    )
    most = LOW_RATIO * world.facts.memory_total_bytes
    return min(1.0, most / promised) if promised and most else 1.0


def next_change_s(world: World) -> float:
    """How long until a penalty, an override or a shadow ends; infinite if none does."""
    return min((at - world.now for at in _ends(world) if at > world.now), default=float("inf"))


def _ends(world: World) -> Iterator[float]:
    for penalty in world.penalties:
        yield penalty.until
    for tenant in world.orders.tenants.values():
        yield from tenant.turns()
