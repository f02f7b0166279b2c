"""A small co-op as a story tells it: declared in words, changed by events, seen as evidence, planned for."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from failover.evidence import Evidence, Opinion, Reach, Report, Seen, Witness
from failover.guards import Guarded, Leave, guard
from failover.judge import Verdict, judge
from failover.plan import Situation, propose
from failover.policy import Policy
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
    Location,
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

BEFORE = -3600.0  # everything has been well for an hour when a story begins


@dataclass(slots=True)
class Machine:
    """One host as the story has it so far."""

    heard_at: dict[ControllerId, float | None] = field(default_factory=dict)
    beating_to: set[ControllerId] = field(default_factory=set)
    known: bool = True
    boot: int = 1
    state: AgentState = AgentState.RUNNING
    service_down_since: float | None = None
    restart: RestartState = RestartState.NONE
    package_run: bool = False
    memory: float = 0.5


class World:
    """What the story has said up to `now`, and what relevo has committed."""

    def __init__(self) -> None:
        self.now = 0.0
        self.policy = Policy()
        self.controllers: dict[ControllerId, float] = {ControllerId("c1"): BEFORE}
        self.doubting: set[str] = set()
        self.hosts: dict[HostId, Host] = {}
        self.sites: dict[SiteId, Site] = {}
        self.machines: dict[HostId, Machine] = {}
        self.opinions: dict[tuple[HostId, HostId], Health] = {}
        self.probes: dict[tuple[ControllerId, HostId], Health] = {}
        self.switches = Switches()
        self.drains: dict[HostId, Note] = {}
        self.refused: dict[HostId, Note] = {}
        self.rewound: Why | None = None
        self.places: dict[SiteId, Placement] = {}
        self.withdrawn: set[HostId] = set()
        self.spent: tuple[Spent, ...] = ()
        self.verdicts: dict[HostId, Verdict] = {}

    @property
    def fleet(self) -> Fleet:
        places = {host.location for host in self.hosts.values()}
        locations = {id: Location(id=id, country="MX") for id in places}
        return Fleet(locations=locations, hosts=self.hosts, sites=self.sites)

    def declare(self, words: list[str]) -> None:
        """One line of the preamble."""
        match words:
            case ["host" | "edge" as role, name, "in", location, *rest]:
                roles = (Role.EDGE,) if role == "edge" else (Role.WEB,)
                limit = int(rest[-1]) if rest else None
                host = Host(
                    id=HostId(name),
                    tag=name,
                    location=LocationId(location),
                    addresses=("192.0.2.1",),
                    roles=roles,
                    max_sites=limit,
                )
                self.hosts[host.id] = host
                beating = set(self.controllers)
                self.machines[host.id] = Machine(beating_to=beating)
            case ["site", name, "at", home, *rest]:
                mode = Mode(rest.pop())
                site = Site(
                    id=SiteId(name),
                    member=MemberId("m"),
                    plan=PlanId("p"),
                    domains=(Domain(f"{name}.example"),),
                    home=HostId(home),
                    standbys=tuple(HostId(host) for host in rest[1:]),
                    mode=mode,
                )
                self.sites[site.id] = site
                why = Why("placed-at-home")
                self.places[site.id] = Placement(host=site.home, since="", why=why)
            case ["controllers", *names]:
                self.controllers = {ControllerId(name): BEFORE for name in names}
            case ["policy", name, value]:
                parsed = msgspec.json.decode(value)
                self.policy = msgspec.structs.replace(self.policy, **{name: parsed})
            case _:
                self.happen(words)

    def happen(self, words: list[str]) -> None:  # noqa: C901, PLR0912 - a grammar, a case per event
        """One event."""
        match words:
            case ["end"]:
                pass
            case ["arm" | "observe" as verb, scope, *id]:
                self._arm(Arming(verb), scope, *id)
            case ["pause", "for", duration]:
                self.switches = msgspec.structs.replace(
                    self.switches, paused=self._note(float(duration))
                )
            case ["resume"]:
                self.switches = msgspec.structs.replace(self.switches, paused=None)
            case ["drain", host, "for", duration]:
                self.drains[HostId(host)] = self._note(float(duration))
            case ["activate", host]:
                del self.drains[HostId(host)]
            case ["refuse", host, "for", duration]:
                self.refused[HostId(host)] = self._note(float(duration))
            case ["spent", count, "at", at]:
                self.spent = tuple(
                    Spent(at=float(at), cause=f"earlier {n}", incident=IncidentId(""))
                    for n in range(int(count))
                )
            case ["store", "rewound"]:
                values: dict[str, str | int | float] = {"epoch": "1.90", "ours": "1.12"}
                self.rewound = Why("store-rewound", values)
            case ["store", "recovered"]:
                self.rewound = None
            case ["edges", "see", host, health]:
                edges = [id for id, declared in self.hosts.items() if declared.is_edge]
                self.opinions |= {(edge, HostId(host)): Health(health) for edge in edges}
            case [observer, "doubts", "itself"]:
                self.doubting.add(observer)
            case [observer, "trusts", "itself"]:
                self.doubting.discard(observer)
            case [controller, "starts"]:
                self._starts(ControllerId(controller))
            case [controller, "sees", host, health] if controller in self.controllers:
                self.probes[ControllerId(controller), HostId(host)] = Health(health)
            case [host, *rest]:
                self._of_host(HostId(host), rest)

    def _starts(self, controller: ControllerId) -> None:
        """Afresh: it has heard nothing yet."""
        self.controllers[controller] = self.now
        for machine in self.machines.values():
            machine.heard_at[controller] = None

    def _of_host(self, host: HostId, words: list[str]) -> None:  # noqa: C901, PLR0912 - as above
        machine = self.machines[host]
        match words:
            case ["silent"]:
                machine.beating_to.clear()
            case ["silent", "to", *controllers]:
                machine.beating_to -= set(map(ControllerId, controllers))
            case ["beats"]:
                machine.beating_to = set(self.controllers)
            case ["never", "reported"]:
                machine.known, machine.beating_to, machine.heard_at = False, set(), {}
            case ["boots"]:
                machine.boot += 1
                machine.beating_to = set(self.controllers)
                machine.state, machine.service_down_since = AgentState.RUNNING, None
            case ["says", state]:
                machine.state = AgentState(state)
            case ["service", "fails"]:
                machine.service_down_since = self.now
            case ["service", "recovers"]:
                machine.service_down_since, machine.restart = None, RestartState.DONE
            case ["restart", state]:
                machine.restart = RestartState(state)
            case ["package", "run", "begins" | "ends" as word]:
                machine.package_run = word == "begins"
            case ["memory", ratio]:
                machine.memory = float(ratio)
            case ["sees", other, health]:
                self.opinions[host, HostId(other)] = Health(health)
            case _:
                raise ValueError(f"no such event: {host} {' '.join(words)}")

    def _arm(self, word: Arming, scope: str, id: str = "") -> None:
        old = self.switches
        new: object
        match scope:
            case "all":
                new = msgspec.structs.replace(old, all=word)
            case "location":
                words = {**old.locations, LocationId(id): word}
                new = msgspec.structs.replace(old, locations=words)
            case "host":
                new = msgspec.structs.replace(old, hosts={**old.hosts, HostId(id): word})
            case _:
                new = msgspec.structs.replace(old, sites={**old.sites, SiteId(id): word})
        self.switches = new

    def _note(self, for_s: float) -> Note:
        return Note(owner="ana", reason="disk", since=self.now, until=self.now + for_s)

    def seen(self) -> Seen:
        """The evidence as it stands now."""
        for machine in self.machines.values():
            machine.heard_at |= dict.fromkeys(machine.beating_to, self.now)
            machine.known |= bool(machine.beating_to)
        needed = len(self.controllers) // 2 + 1
        live = {
            id
            for id, host in self.hosts.items()
            if host.is_edge
            and sum(age < self.policy.live_edge_s for age in self._ages(id)) >= needed
        }
        return Seen(
            controllers=frozenset(self.controllers),
            hosts={id: self._evidence(id) for id in self.hosts},
            live_edges=frozenset(live),
            has_edges=any(host.is_edge for host in self.hosts.values()),
        )

    def _ages(self, host: HostId) -> list[float]:
        heard = self.machines[host].heard_at.values()
        return [self.now - at for at in heard if at is not None]

    def _evidence(self, host: HostId) -> Evidence:
        machine = self.machines[host]
        reach = {}
        for controller, began in self.controllers.items():
            at = machine.heard_at.get(controller)
            reach[controller] = Reach(
                age_s=None if at is None else self.now - at,
                trusted=controller not in self.doubting,
                watched_s=self.now - began,
            )
        heard = any(at is not None for at in machine.heard_at.values())
        return Evidence(
            reach=reach,
            opinions=dict(self._opinions(host)),
            report=self._report(machine) if heard else None,
            known=machine.known,
        )

    def _opinions(self, host: HostId) -> Iterator[tuple[str, Opinion]]:
        """Edges look at every host and see it up until the story says otherwise; others say what they are told to."""
        for witness, declared in self.hosts.items():
            told = self.opinions.get((witness, host), Health.UP if declared.is_edge else None)
            fresh = min(self._ages(witness), default=9.0) < self.policy.suspect_s
            if told is None or witness == host or not fresh:
                continue
            kind = Witness.EDGE if declared.is_edge else Witness.NEIGHBOUR
            health = Health.UNKNOWN if witness in self.doubting else told
            yield witness, Opinion(kind=kind, health=health)
        for (controller, asked), told in self.probes.items():
            if asked == host:
                health = Health.UNKNOWN if controller in self.doubting else told
                yield controller, Opinion(kind=Witness.CONTROLLER, health=health)

    def _report(self, machine: Machine) -> Report:
        service = None
        if (since := machine.service_down_since) is not None:
            check = Check(health=Health.DOWN, since_s=self.now - since)
            service = Service(check=check, restart=machine.restart)
        return Report(
            boot_id=f"boot-{machine.boot}",
            state=machine.state,
            service=service,
            package_run=machine.package_run,
            memory_available_ratio=machine.memory,
        )

    def plan(self) -> tuple[Situation, tuple[Guarded, ...]]:
        """Judge, propose and guard once; the verdicts stay for the next round."""
        seen = self.seen()
        self.verdicts = judge(self.verdicts, seen, self.policy, self.now)
        situation = Situation(
            fleet=self.fleet,
            places=self.places,
            verdicts=self.verdicts,
            drains={h: note for h, note in self.drains.items() if self.now < note.until},
            withdrawn=frozenset(self.withdrawn),
            boots={id: f"boot-{machine.boot}" for id, machine in self.machines.items()},
            memory_available_ratio={id: m.memory for id, m in self.machines.items()},
        )
        leave = Leave(
            fleet=self.fleet,
            switches=self.switches,
            budget=Budget(spent=self.spent),
            verdicts=self.verdicts,
            rewound=self.rewound,
            doubts_itself="leader" in self.doubting,
            wall=self.now,
            refused=self.refused,
        )
        proposals = propose(situation, self.policy, self.now)
        return situation, guard(proposals, leave, self.policy)

    def commit(self, guarded: Guarded) -> None:
        """What one transaction would write."""
        cause = guarded.proposal.cause
        for move in guarded.moves:
            self.places[move.site] = Placement(host=move.target, since="", why=cause.why)
        if guarded.withdraw is True:
            self.withdrawn.add(cause.host)
        if guarded.spends:
            item = Spent(at=self.now, cause=cause.id, incident=IncidentId(""))
            self.spent = (*self.spent, item)
