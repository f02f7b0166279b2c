"""One look at what a controller knows, as plain values of one moment: all that any page is made from."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING

from controller.calls import ranked
from controller.holders import Holder, holders
from controller.uses import HostWord, SiteWord
from failover.evidence import Seen
from failover.guards import spent_causes
from failover.judge import MOVING, Verdict
from failover.policy import Policy
from fleet.caps import Enforcement, Override, Penalty, Ruling, effective
from fleet.inforce import Force, Forces
from fleet.messages import USAGE_OLD_S, Beat
from fleet.model import (
    Arming,
    AuditEntry,
    Budget,
    ControllerId,
    Entry,
    Fleet,
    HeldSite,
    Hold,
    Host,
    HostId,
    Incident,
    IncidentId,
    LocationId,
    Note,
    Placement,
    Site,
    SiteId,
    Switches,
    Why,
)
from fleet.penalized import Penalized
from runtime.clock import wall

if TYPE_CHECKING:
    from controller.parts import Controller

BAD = frozenset(kind.value for kind in MOVING)  # verdicts that empty a host
HELP_S = 60.0  # what a host asked longer ago is no news
UNSURE = frozenset({"suspect", "unknown", "agent-lost", "restarting"})


@dataclass(frozen=True, slots=True)
class Last:
    """The last beat of a host, and how long ago it came."""

    beat: Beat
    age_s: float


@dataclass(frozen=True, slots=True)
class Meter:
    """A resource that a site uses, as a share of its cap."""

    resource: str
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Look:
    """`wall` is Unix s and `now` the loop's clock, read together. Notes whose time is over are not in it."""

    wall: float
    now: float
    controller: ControllerId
    version: str = ""
    cluster: str = ""
    revision: int = 0
    ready: bool = True
    leads: bool = True
    leader: str = ""  # who leads, by the store; empty: nobody
    rewound: Why | None = None
    store_error: str = ""
    fleet_broken: str = ""
    doubts_itself: bool = False
    policy: Policy = field(default_factory=Policy)
    fleet: Fleet = field(default_factory=Fleet)
    places: Mapping[SiteId, Placement] = field(default_factory=dict)
    verdicts: Mapping[HostId, Verdict] = field(default_factory=dict)
    seen: Seen | None = None
    heard: Mapping[HostId, Last] = field(default_factory=dict)
    connected: frozenset[HostId] = frozenset()
    holds: Mapping[str, Hold] = field(default_factory=dict)
    incidents: Mapping[IncidentId, Incident] = field(default_factory=dict)
    switches: Switches = field(default_factory=Switches)
    budget: Budget = field(default_factory=Budget)
    drains: Mapping[HostId, Note] = field(default_factory=dict)
    refusals: Mapping[HostId, Note] = field(default_factory=dict)
    withdrawn: Mapping[HostId, Note] = field(default_factory=dict)
    audit: Mapping[str, AuditEntry] = field(default_factory=dict)
    enforcement: Enforcement = field(default_factory=Enforcement)
    overrides: Mapping[SiteId, Override] = field(default_factory=dict)
    rulings: Mapping[SiteId, Ruling] = field(default_factory=dict)
    penalties: Mapping[SiteId, Penalized] = field(default_factory=dict)
    help: Mapping[HostId, tuple[Why, ...]] = field(default_factory=dict)
    use_of: Callable[[SiteId], SiteWord | None] = lambda site: None
    happened: Callable[[SiteId], Mapping[str, int]] = lambda site: {}
    caps_on: Mapping[HostId, HostWord] = field(default_factory=dict)

    # --- hosts

    @property
    def judges(self) -> bool:
        """Whether there are verdicts to show: not in a controller's first moments."""
        return bool(self.verdicts)

    def verdict(self, id: HostId) -> str:
        found = self.verdicts.get(id)
        return "unknown" if found is None else found.kind.value

    def why(self, id: HostId) -> Why:
        found = self.verdicts.get(id)
        return Why("not-judged-here") if found is None else found.why

    def since(self, id: HostId) -> float | None:
        """Unix s since which the verdict stands."""
        found = self.verdicts.get(id)
        return None if found is None else self.wall - max(0.0, self.now - found.since)

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(self.verdict(id) for id in self.fleet.hosts)

    @cached_property
    def here(self) -> Counter[HostId]:
        """Sites served on each host."""
        places = self.places
        return Counter(places[id].host for id in self.fleet.sites if id in places)

    @cached_property
    def home(self) -> Counter[HostId]:
        """Sites at home on each host."""
        return Counter(site.home for site in self.fleet.sites.values())

    def hosts_in(self, location: LocationId) -> list[Host]:
        """Those that need a look first, then by name."""
        here = [host for host in self.fleet.hosts.values() if host.location == location]
        return sorted(here, key=lambda host: (self._calm(host), host.id))

    def _calm(self, host: Host) -> int:
        verdict = self.verdict(host.id)
        return 0 if verdict in BAD else 1 if verdict != "up" else 2

    # --- sites

    @cached_property
    def away(self) -> tuple[SiteId, ...]:
        """Sites served elsewhere than at home."""
        sites, places = self.fleet.sites, self.places
        found = (id for id, s in sites.items() if id in places and places[id].host != s.home)
        return tuple(sorted(found))

    @cached_property
    def held(self) -> Mapping[SiteId, tuple[str, HeldSite]]:
        """For each held site its hold's id, and what keeps it where it is."""
        return {h.site: (hold.id, h) for hold in self.holds.values() for h in hold.sites}

    def host_of(self, site: Site) -> HostId:
        """Where it is served; before it is placed, where it will be."""
        place = self.places.get(site.id)
        return place.host if place else site.home

    def armed(self, site: Site) -> bool:
        host = self.fleet.hosts.get(self.host_of(site))
        return host is not None and self.switches.armed(site.id, host.id, host.location)

    def sites_at(self, host: HostId) -> list[Site]:
        """At home or served there, by name."""
        every = self.fleet.sites.values()
        found = (site for site in every if host in (site.home, self.host_of(site)))
        return sorted(found, key=lambda site: site.id)

    def sites(self, *, q: str = "", only: str = "") -> list[Site]:
        """By name: with `q` in id, domain, member or host; `only` those `away` or `held`."""
        q = q.strip().lower()
        every = sorted(self.fleet.sites.values(), key=lambda site: site.id)
        found = every if not only else [s for s in every if s.id in self._only(only)]
        return found if not q else [site for site in found if self._has(site, q)]

    def _only(self, only: str) -> Iterable[SiteId]:
        return frozenset(self.away if only == "away" else self.held)

    def _has(self, site: Site, q: str) -> bool:
        member = self.fleet.members.get(site.member)
        texts = (site.id, *site.domains, site.member, member.name if member else "", site.home)
        return any(q in text.lower() for text in (*texts, self.host_of(site)))

    # --- what holds sites inside their plans

    @cached_property
    def forces(self) -> Forces:
        return Forces(self.enforcement, self.fleet.plans)

    def standing(self, site: SiteId) -> tuple[Penalty, ...]:
        """The penalties of a site now, the hardest first."""
        kept = self.penalties.get(site)
        return kept.taking(self.wall) if kept else ()

    def reliefs(self, site: SiteId) -> tuple[Penalty, ...]:
        """Of the memory watchdog: they take nothing, and are no penalty."""
        kept = self.penalties.get(site)
        return tuple(p for p in kept.standing(self.wall) if p.is_relief) if kept else ()

    def enforced_from(self, site: Site) -> float | None:
        """Unix s; None: its caps only watch."""
        return self.force(site).enforced_from

    def force(self, site: Site) -> Force:
        """What is in force of its plan."""
        return self.forces.of(site.id, site.plan, self.host_of(site))

    def held_by(self, site: Site) -> tuple[Holder, ...]:
        """Who would hold it in force."""
        place, word = self.places.get(site.id), self.use_of(site.id)
        host = self.caps_on.get(place.host) if place else None
        return holders(site, place, host.driver if host else "", word.use if word else None)

    def is_old(self, word: HostWord) -> bool:
        """A host's word on its sites: what it holds now is not known."""
        return self.now - word.at > USAGE_OLD_S

    def waits(self, site: Site) -> tuple[str, ...]:
        """The caps of its plan that are stricter than those that hold."""
        plan = self.fleet.plans.get(site.plan)
        return self.force(site).waits(plan.caps, self.wall) if plan else ()

    def meters(self, site: Site) -> list[Meter]:
        """Its use as shares of what its caps allow now; what can't be attributed is not in it."""
        word, plan = self.use_of(site.id), self.fleet.plans.get(site.plan)
        if word is None or plan is None:
            return []
        held = self.force(site).caps(plan.caps, self.wall)
        caps, use = effective(held, self.overrides.get(site.id), self.wall), word.use
        found = (
            ("cpu", use.cpu_cores, caps.cpu_percent / 100),
            ("memory", use.memory_bytes, caps.memory_max_bytes),
            ("tasks", use.tasks, caps.tasks),
            ("web", use.requests_per_s, caps.requests_per_s),
        )
        return [Meter(name, used / of) for name, used, of in found if used is not None]

    # --- failover

    @cached_property
    def open_incidents(self) -> list[Incident]:
        """Newest first."""
        return [i for i in self.newest_incidents if i.closed_at is None]

    @cached_property
    def newest_incidents(self) -> list[Incident]:
        return list(reversed(list(self.incidents.values())))

    def incidents_of(self, subject: str, site: str = "") -> list[Incident]:
        """Those of a host, or those that moved or would have moved a site; newest first."""
        return [
            incident
            for incident in self.newest_incidents
            if (subject and incident.subject.rpartition(":")[2] == subject)
            or (site and any(move.site == site for move in incident.moved))
        ]

    @cached_property
    def waiting(self) -> list[Hold]:
        """Holds that nobody has answered, oldest first."""
        every = sorted(self.holds.values(), key=lambda hold: hold.since)
        return [hold for hold in every if not self.answered(hold)]

    def answered(self, hold: Hold) -> Note | None:
        """The refusal that a person gave it."""
        return self.refusals.get(HostId(hold.subject))

    @property
    def paused(self) -> Note | None:
        note = self.switches.paused
        return note if note is not None and self.wall < note.until else None

    @property
    def spent(self) -> int:
        """Causes that the brake counts now."""
        return len(spent_causes(self.budget, self.wall))

    @property
    def allowed(self) -> int:
        return self.policy.causes_allowed(len(self.fleet.hosts))

    @cached_property
    def armed_hosts(self) -> int:
        hosts = self.fleet.hosts.values()
        return sum(self.switches.host_armed(host.id, host.location) for host in hosts)

    @property
    def armed_anywhere(self) -> bool:
        return self.armed_hosts > 0 or Arming.ARM in self.switches.sites.values()


@dataclass(frozen=True, slots=True)
class Step:
    """Lines of a timeline that say the same of several subjects, one after the other."""

    first: Entry
    last: Entry
    subjects: tuple[str, ...]


def steps(timeline: Iterable[Entry]) -> list[Step]:
    """A timeline with what ten edges say told once."""
    found: list[Step] = []
    for entry in timeline:
        before = found[-1] if found else None
        same = before and (before.last.phase, before.last.why) == (entry.phase, entry.why)
        if before and same and entry.subject and before.last.subject:
            found[-1] = Step(before.first, entry, (*before.subjects, entry.subject))
        else:
            found.append(Step(entry, entry, (entry.subject,) if entry.subject else ()))
    return found


def look(controller: "Controller") -> Look:
    """What is now. Everything in it belongs to the same moment."""
    mirror, board, link = controller.mirror, controller.board, controller.link
    now, at = asyncio.get_running_loop().time(), wall()
    leads = controller.leader.leadership is not None
    return Look(
        wall=at,
        now=now,
        controller=controller.config.id,
        version=_version(),
        cluster=mirror.id.cluster,
        revision=mirror.revision,
        ready=mirror.ready and (not leads or board.times is not None),
        leads=leads,
        leader=controller.config.id if leads else mirror.leader or "",
        rewound=board.rewound,
        store_error=board.store_error,
        fleet_broken=mirror.fleet_broken,
        doubts_itself=link.doubt.doubts_itself,
        policy=controller.config.policy,
        fleet=mirror.fleet,
        places=mirror.places,
        verdicts=board.verdicts,
        seen=board.seen,
        heard={id: Last(heard.beat, max(0.0, now - heard.at)) for id, heard in link.heard.items()},
        connected=link.connected,
        holds=mirror.holds,
        incidents=mirror.incidents,
        switches=mirror.switches,
        budget=mirror.budget,
        drains={id: note for id, note in mirror.drains.items() if at < note.until},
        refusals={id: note for id, note in mirror.refusals.items() if at < note.until},
        withdrawn=mirror.withdrawn,
        audit=mirror.audit,
        enforcement=mirror.enforcement,
        overrides={id: it for id, it in mirror.overrides.items() if at < it.note.until},
        rulings={id: it for id, it in mirror.rulings.items() if at < it.note.until},
        penalties=mirror.penalties,
        help={
            id: ranked(word.help)
            for id, word in controller.uses.hosts.items()
            if word.help and now - word.at < HELP_S
        },
        use_of=controller.uses.of,
        happened=controller.uses.happened,
        caps_on=controller.uses.hosts,
    )


@cache
def _version() -> str:
    return version("relevo")  # read from disk: once
