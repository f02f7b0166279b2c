"""DESIGN's rules as assertions on the simulated world: each commit, each application of orders, each half second."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from controller.commands import Person
from controller.parts import Controller
from controller.settle import unpack
from controller.store import Op, Put
from failover.guards import spent_causes
from failover.judge import Kind
from fleet import keys
from fleet.caps import Ruling
from fleet.messages import Orders
from fleet.model import (
    Arming,
    Budget,
    ControllerId,
    Domain,
    Epoch,
    Hold,
    HostId,
    Incident,
    IncidentId,
    Phase,
    Placement,
    Placements,
    SiteId,
    Switches,
    Why,
)
from fleet.penalized import TERM_S, Penalized
from runtime.clock import wall
from runtime.words import explain
from tests.simulation.coop import moves_by_itself
from tests.simulation.machines import Machine, now

if TYPE_CHECKING:
    from tests.simulation.world import World

ANA = Person("ana", "rehearsal")
HUMAN = {"drain", "move", "bring-home"}
STEADY_S = 3.0  # what has been so for longer was visible to every observer
HEARD_S = 9.0  # the longest that an agent takes to come back: dial, back-off, a beat


class Rules:
    """Watches the whole world. Every message names the rule."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.places: dict[SiteId, Placement] = {}
        self.incidents: dict[IncidentId, Incident] = {}
        self.switches = Switches()
        self.budget = Budget()
        self.moves: list[tuple[float, SiteId, HostId, HostId, str]] = []
        self._was: dict[SiteId, tuple[HostId, float]] = {}  # where a moved site was, until when
        self._revision = 0
        self._applied: dict[HostId, Epoch] = {}
        self._routed: dict[HostId, dict[Domain, HostId]] = {}
        self._alone_since: float | None = None
        self._frozen_view: object = None
        self.told_to_remove: set[Domain] = set()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        self._stop.set()

    def rewound(self) -> None:
        """The store is about to be an older one: what it says begins anew, what agents hold does not."""
        self._revision = 0

    def check(self, truth: object, what: str) -> None:
        assert truth, self._world.report(what)

    # Each commit.

    def committed(self, by: str, operations: Sequence[Op], revision: int) -> None:
        if any(op.key == keys.LEADER or op.key.startswith(keys.OBSERVERS) for op in operations):
            return
        leader = self._world.store._keys.get(keys.LEADER)
        self.check(leader and leader.value == by.encode(), f"R1: {by} wrote without leading")
        self.check(revision > self._revision, f"R2: revision {revision} after {self._revision}")
        self._revision = revision
        puts = [op for op in operations if isinstance(op, Put)]
        for put in puts:
            self._read(put)
        moves = [move for put in puts for move in self._moved(put)]
        if moves:
            self._judge_moves(by, moves)

    def _read(self, put: Put) -> None:
        if put.key == keys.SWITCHES:
            self.switches = msgspec.json.decode(put.value, type=Switches)
        elif put.key == keys.BUDGET:
            self.budget = msgspec.json.decode(put.value, type=Budget)
            allowed = self._world.policy.causes_allowed(len(self._world.fleet.hosts))
            spent = spent_causes(self.budget, wall())
            self.check(len(spent) <= allowed, f"R8: {sorted(spent)} of {allowed} causes")
        elif put.key.startswith(keys.INCIDENTS):
            self._incident(msgspec.json.decode(put.value, type=Incident))
        elif put.key.startswith(keys.HOLDS):
            hold = msgspec.json.decode(put.value, type=Hold)
            for why in (hold.why, *(held.why for held in hold.sites)):
                self._explained(why, f"hold {hold.id}")
        elif put.key.startswith(keys.PENALTIES):
            self._penalized(
                SiteId(keys.leaf(put.key)), msgspec.json.decode(put.value, type=Penalized)
            )
        elif put.key.startswith(keys.RULINGS):
            ruling = msgspec.json.decode(put.value, type=Ruling)
            ends = ruling.word != "suspect" or ruling.note.until <= wall() + TERM_S
            self.check(ends, f"R11: {put.key!r} suspected until {ruling.note.until}")
        elif put.key.startswith(keys.DNS):
            intent = unpack(put.value)
            for name, records in intent.names.items():
                self.check(records.a or records.aaaa, f"R10: {name} is meant to be empty")

    def _penalized(self, site: SiteId, kept: Penalized) -> None:
        """By the host that serves it, or did a moment ago; by what that host said; with an end."""
        place, lately = self.places.get(site), self._was.get(site)
        hosts = {place.host} if place else set()
        if lately is not None and now() - lately[1] < STEADY_S:
            hosts.add(lately[0])
        self.check(not kept.penalties or kept.host in hosts, f"R15: {site} held by {kept.host}")
        for penalty in kept.penalties:
            said = site in self._world.machines[kept.host].claimed
            self.check(said, f"{kept.host} never said that it penalizes {site}")
            self.check(penalty.until <= wall() + TERM_S, f"R11: {site} until {penalty.until}")

    def _incident(self, incident: Incident) -> None:
        before = self.incidents.get(incident.id)
        self.incidents[incident.id] = incident
        for held in incident.held:
            self._explained(held.why, f"incident {incident.id}")
        if before is None or before.moved != incident.moved or before.held != incident.held:
            held_for = sorted({held.why.code for held in incident.held})
            self._world.log(
                f"incident {incident.id}: moved {len(incident.moved)}"
                f"{' (observed)' if incident.observed else ''}, held {held_for}"
            )
        if incident.complete and not (before and before.complete):
            self._world.log(f"incident {incident.id} complete")
            self._judge_complete(incident)

    def _moved(self, put: Put) -> list[tuple[SiteId, HostId, Placement]]:
        if not put.key.startswith(keys.PLACEMENTS):
            return []
        found = []
        for site, place in msgspec.json.decode(put.value, type=Placements).sites.items():
            before = self.places.get(site)
            self.places[site] = place
            if before is not None and before.host != place.host:
                self._was[site] = before.host, now()
                found.append((site, before.host, place))
        return found

    def _judge_moves(self, by: str, moves: list[tuple[SiteId, HostId, Placement]]) -> None:
        for id, source, place in moves:
            assert place.incident is not None
            incident, cause = self.incidents[place.incident], place.why.code
            self.moves.append((now(), id, source, place.host, cause))
            self._explained(place.why, f"move of {id}")
            self._world.log(f"{by} moves {id}: {source} to {place.host} ({cause})")
            site = self._world.fleet.sites[id]
            if cause in HUMAN:
                asked = cause != "drain" or site.effective_mode.value == "automatic"
                self.check(asked, f"R3: a drain moved {id}, which is not automatic")
                continue
            self.check(moves_by_itself(site), f"R3: {id} moved by itself")
            where = self._world.fleet.hosts[source].location
            self.check(self.switches.armed(id, source, where), f"{id} moved and is not armed")
            paused = self.switches.paused
            self.check(paused is None or paused.until <= wall(), f"R11: {id} moved in a pause")
            paid = any(
                incident.id == item.incident or incident.cause == item.cause
                for item in self.budget.spent
            )
            self.check(paid, f"R8: {incident.id} moved {id} and was not paid for")
            self._trusted(by)
            self._truly(cause, source, by)
            target = self._world.machines[place.host]
            lit = target.dark_since is None or now() - target.dark_since < STEADY_S
            self.check(lit, f"{id} moved to {place.host}, dark since {target.dark_since}")

    def _trusted(self, by: str) -> None:
        """R5: a controller that has just started, or was stopped for long, moves nothing yet."""
        process = self._world.seats[ControllerId(by)].process
        assert process is not None
        for_s = now() - max(process.began_at, process.stalled_until)
        least = self._world.policy.unreachable_s - 0.2
        self.check(for_s >= least, f"R5: {by} moved sites {for_s:.2f} s after a start or a stall")

    def _truly(self, verdict: str, source: HostId, by: str) -> None:
        machine = self._world.machines[source]
        match verdict:
            case "leaving":
                said = machine.leaving or not machine.powered or now() - machine.booted_at < HEARD_S
                self.check(said, f"{source} never announced its shutdown")
            case "service-down":
                self.check(
                    not machine.answers or now() - machine.web_changed_at < STEADY_S,
                    f"R4: the service of {source} answers",
                )
            case "dead":
                self._truly_dead(machine, by)

    def _truly_dead(self, machine: Machine, by: str) -> None:
        """R4: no live edge that trusts itself still gets answers; nobody hears its agent."""
        world, id = self._world, machine.id
        for edge in world.machines.values():
            if edge.haproxy is None or edge.id == id or not self._sees_and_says(edge, by):
                continue
            reaches = (
                machine.answering_since is not None
                and now() - machine.answering_since >= STEADY_S
                and world.network.well_for(edge.id, id, now()) >= STEADY_S
            )
            self.check(not reaches, f"R4: {id} called dead while {edge.id} reaches it")
        probed = (
            not any(other.haproxy for other in world.machines.values())
            and machine.answering_since is not None
            and now() - machine.answering_since >= STEADY_S
            and world.network.well_for(by, id, now()) >= STEADY_S
            and now() - world.seats[ControllerId(by)].up_since >= STEADY_S
        )
        self.check(not probed, f"R4: {id} called dead while {by} itself gets answers from it")
        agent = machine.agent
        heard = (
            agent is not None
            and agent.runs
            and now() - max(agent.began_at, agent.thawed_at) >= HEARD_S
            and world.network.well_for(id, by, now()) >= HEARD_S
            and now() - world.seats[ControllerId(by)].up_since >= HEARD_S
        )
        self.check(not heard, f"R4: {id} called dead while {by} hears it")

    def _sees_and_says(self, edge: Machine, by: str) -> bool:
        """Whether this edge looks, trusts itself, and reaches the controller, and has for a while."""
        world, agent = self._world, edge.agent
        controller = world.seats[ControllerId(by)].controller
        assert controller is not None
        heard = controller.link.heard.get(edge.id)
        return (
            agent is not None
            and agent.runs
            and now() - max(agent.began_at, agent.thawed_at) >= HEARD_S
            and edge.answering_since is not None
            and now() - edge.answering_since >= STEADY_S
            and world.network.well_for(edge.id, by, now()) >= HEARD_S
            and heard is not None
            and now() - heard.at < world.policy.live_edge_s
            and not heard.beat.doubts_itself
        )

    def _judge_complete(self, incident: Incident) -> None:
        """R12: every live edge routes to the new host, every server answers with its addresses."""
        world = self._world
        for move in incident.moved:
            site, place = world.fleet.sites[move.site], self.places[move.site]
            if place.host != move.target:
                continue
            target = world.machines[move.target]
            since = target.dark_since
            proven = [e.at for e in incident.timeline if e.phase is Phase.PROVEN][-1]
            lit = since is None or wall() - (now() - since) > proven - STEADY_S
            self.check(lit, f"R12: {incident.id} proven, but {move.target} did not answer")
            if site.route == "direct":
                address = world.fleet.hosts[move.target].addresses[0]
                for instant in (now(), now() - 1.0):
                    says = world.primary.as_of(instant)[site.domains[0]]
                    self.check(address in says.records.a, f"R12: {site.id} is not in DNS")
                continue
            for edge in world.machines.values():
                if edge.haproxy and any(
                    self._sees_and_says(edge, id) for id, s in world.seats.items() if s.leads
                ):
                    goes = edge.haproxy.domains.get(site.domains[0])
                    told = f"R12: {incident.id} complete; {edge.id} sends {site.id} to {goes}"
                    self.check(goes == move.target, told)

    def _explained(self, why: Why, of: str) -> None:
        self.check(why.code and explain(why), f"R13: {of} has no reason")

    # Each application of orders, each half second.

    def applied(self, machine: Machine, orders: Orders) -> None:
        before = self._applied.get(machine.id, Epoch())
        self.check(orders.epoch >= before, f"R2: {machine.id} went from {before} to {orders.epoch}")
        self._applied[machine.id] = orders.epoch

    async def keep(self) -> None:
        """Eternal, until stopped."""
        while not self._stop.is_set():
            self._look()
            await asyncio.sleep(0.5)

    def _look(self) -> None:
        world = self._world
        for edge in world.machines.values():
            if edge.haproxy:
                gone = self._routed.get(edge.id, {}).keys() - edge.haproxy.domains.keys()
                self.check(gone <= self.told_to_remove, f"R7: {edge.id} lost {sorted(gone)}")
                self._routed[edge.id] = dict(edge.haproxy.domains)
        for name, records in world.primary.foreign.items():
            self.check(world.primary.read(name).records == records, f"R10: {name} was touched")
        if leader := world.leader:
            for host, verdict in leader.board.verdicts.items():
                self._explained(verdict.why, f"verdict on {host}")
        self._static()

    def _static(self) -> None:
        """R6: without any controller traffic and DNS stay as they are."""
        world = self._world
        if any(seat.runs for seat in world.seats.values()):
            self._alone_since = None
            return
        view = (dict(self._routed), dict(world.primary.names))
        if self._alone_since is None:
            self._alone_since = now()
        elif now() - self._alone_since >= 1.0:  # what was sent before still arrives
            if self._frozen_view is not None:
                self.check(view == self._frozen_view, "R6: something changed without controllers")
            self._frozen_view = view
            return
        self._frozen_view = None

    # Beginning and end.

    async def settle(self) -> None:
        """Found the store, declare the fleet, arm it, and wait until all is well."""
        world = self._world
        await world.until(lambda: world.leader is not None, 10, "a leader")
        await world.until(lambda: bool(_leader(world).mirror.id.cluster), 10, "a founded store")
        await _leader(world).commands.apply_fleet(world.fleet, ANA)
        await _leader(world).commands.arm("all", "", Arming.ARM, ANA)
        for site in world.fleet.sites:
            if site.startswith("watched"):
                await _leader(world).commands.arm("site", site, Arming.OBSERVE, ANA)
        await world.until(self._all_well, 30, "all hosts up, every site routed and named")
        world.log("settled")

    def _all_well(self) -> bool:
        world = self._world
        if world.leader is None:
            return False
        verdicts = world.leader.board.verdicts
        direct = [site for site in world.fleet.sites.values() if site.route == "direct"]
        return (
            len(verdicts) == len(world.machines)
            and all(verdict.kind is Kind.UP for verdict in verdicts.values())
            and all(self.served(id) for id in world.fleet.sites)
            and all(
                world.primary.read(s.domains[0]).records.a or s.id.startswith("watched")
                for s in direct
            )
        )

    def served(self, id: SiteId) -> bool:
        """Whether visitors get this site by every edge that has power, or from its host for a direct one."""
        world, site = self._world, self._world.fleet.sites[id]
        place = self.places.get(id)
        if place is None:
            return False
        edges = [m for m in world.machines.values() if m.haproxy and m.answers]
        if site.route == "direct" or not edges:
            return world.machines[place.host].answers
        answers = [world.visit(edge.id, site.domains[0]) for edge in edges]
        return all(a.status == 200 and a.served_by == place.host for a in answers)

    def unserved(self) -> list[str]:
        """Sites that should be served by now and are not, and incidents that are not over; with their reasons."""
        world, leader = self._world, self._world.leader
        if leader is None:
            return ["nobody leads"]
        held = {
            held.site: held.why.code for hold in leader.mirror.holds.values() for held in hold.sites
        }
        excused = {"brake", "location-in-question"}
        waiting = [
            f"{id} at {self.places[id].host}: {held.get(id, 'no reason')}"
            for id, site in world.fleet.sites.items()
            if moves_by_itself(site) and not self.served(id) and held.get(id) not in excused
        ]
        waiting += [
            f"incident {incident.id}: not complete"
            for incident in leader.mirror.incidents.values()
            if incident.closed_at is None and incident.epoch.revision and not incident.complete
        ]
        return waiting


def _leader(world: "World") -> Controller:
    assert world.leader is not None, world.report("nobody leads")
    return world.leader
