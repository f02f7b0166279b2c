"""How far an incident's decision has come true: edges, DNS, proof by effect (rule R12). Facts in, timeline out."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from controller import incidents
from controller.incidents import Times, add, has
from controller.link import Link
from controller.mirror import Mirror
from controller.ports import Convergence
from fleet import keys
from fleet.model import Entry, Epoch, HostId, Incident, MovedSite, Phase, SiteId, Why, ZoneName
from metrics.exporter import Exporter

# A phase's name on the histogram, where it has one.
MEASURED = {
    Phase.VERDICT: "detect",
    Phase.DECIDED: "decide",
    Phase.COMMITTED: "commit",
    Phase.EDGES: "edges",
    Phase.DNS: "dns",
    Phase.PROVEN: "proven",
    Phase.COMPLETE: "complete",
}


class Proofs(Protocol):
    """Which moves were seen to work, by real requests."""

    def proven_at(self, site: SiteId, host: HostId, epoch: Epoch) -> float | None:
        """Unix s at which `site` first answered from `host` as its visitors ask, since `epoch`; None: not yet."""
        ...


class Progress:
    """Reads what has come true from the link, the zones' work and the proofs; writes nothing itself."""

    def __init__(
        self,
        mirror: Mirror,
        link: Link,
        convergence: Convergence,
        proofs: Proofs,
        exporter: Exporter,
    ) -> None:
        self._mirror, self._link, self._exporter = mirror, link, exporter
        self._convergence, self._proofs = convergence, proofs

    def follow(self, incident: Incident, times: Times, *, settled: bool) -> Incident:
        """The incident with every line that has become true; itself where none has.

        `settled`: the zones' intents are those of this revision, so that 'nothing to do' can be believed.
        """
        if not incidents.acted(incident):
            return incident
        grown = self._committed(incident, times)
        grown = self._edges(grown, times)
        grown = self._dns(grown, times, settled=settled)
        grown = self._proven(grown, times)
        return self._complete(grown)

    def _committed(self, incident: Incident, times: Times) -> Incident:
        if incident.epoch.revision:
            return incident
        revision = self._mirror.revision_of(keys.incident(incident.id))
        epoch = Epoch(self._mirror.id.generation, revision)
        why = Why("committed", {"epoch": str(epoch)})
        grown = add(incident, Phase.COMMITTED, times.wall, why)
        return msgspec.structs.replace(grown, epoch=epoch)

    def _edges(self, incident: Incident, times: Times) -> Incident:
        """A line for each live edge that follows the new routes; those not live are named and don't block."""
        if has(incident, Phase.EDGES) or not incident.epoch.revision:
            return incident
        live, silent = self._live_edges(times.now)
        waiting = 0
        for edge in live:
            heard = self._link.heard[edge]
            if not self._link.follows(edge, incident.epoch):
                waiting += 1
            elif not has(incident, Phase.EDGE, edge):
                at = max(times.wall_of(heard.applied_at), incident.timeline[-1].at)
                incident = add(incident, Phase.EDGE, at, Why("edge-follows"), edge)
        routed = any(
            self._mirror.fleet.sites[move.site].route == "edges"
            for move in incident.moved
            if move.site in self._mirror.fleet.sites
        )
        if waiting or (routed and silent and not live):
            return incident
        at = max((e.at for e in incidents.stretch(incident) if e.phase is Phase.EDGE), default=0.0)
        names = ", ".join(silent)
        why = Why("edges-follow", {"edges": len(live), "silent": names})
        return add(incident, Phase.EDGES, at or times.wall, why)

    def _live_edges(self, now: float) -> tuple[list[HostId], list[HostId]]:
        edges = [id for id, host in self._mirror.fleet.hosts.items() if host.is_edge]
        live = [e for e in edges if self._link.age_s(e, now) < self._link.live_edge_s]
        return live, [e for e in edges if e not in live]

    def zones_of(self, incident: Incident) -> tuple[ZoneName, ...]:
        """The zones that the incident changes: those of direct sites that moved, all for a withdrawn edge."""
        fleet = self._mirror.fleet
        subject = fleet.hosts.get(HostId(incident.subject))
        if subject is not None and subject.is_edge:
            return tuple(fleet.zones)
        sites = [fleet.sites[m.site] for m in incident.moved if m.site in fleet.sites]
        edgeless = not any(host.is_edge for host in fleet.hosts.values())
        domains = [d for site in sites if site.route == "direct" or edgeless for d in site.domains]
        found = {zone.name for d in domains if (zone := fleet.zone_of(d)) is not None}
        return tuple(sorted(found))

    def _dns(self, incident: Incident, times: Times, *, settled: bool) -> Incident:
        if has(incident, Phase.DNS) or not incident.epoch.revision or not settled:
            return incident
        zones = self.zones_of(incident)
        if not zones:
            return incident
        works = {zone: self._convergence.work(zone) for zone in zones}
        zones = tuple(z for z in zones if (work := works[z]) is None or not work.idle)
        current = {
            zone: work
            for zone, work in works.items()
            if work is not None
            and not work.idle
            and work.revision == self._mirror.revision_of(keys.dns(zone))
        }
        sent = [work.sent_at for work in current.values() if work.sent_at is not None]
        if len(sent) == len(zones) and not has(incident, Phase.DNS_SENT):
            why = Why("dns-sent", {"zones": len(zones)})
            incident = add(incident, Phase.DNS_SENT, max(sent), why)
        incident = self._servers(incident, zones, {z: w.servers for z, w in current.items()})
        done = [work.done_at for work in current.values() if work.done_at is not None]
        if len(done) == len(zones):
            why = Why("dns-everywhere", {"zones": len(zones)})
            incident = add(incident, Phase.DNS, max(done), why)
        return incident

    def _servers(
        self,
        incident: Incident,
        zones: tuple[ZoneName, ...],
        answering: Mapping[ZoneName, Mapping[str, float]],
    ) -> Incident:
        """A line for each server that answers as intended for all of its zones."""
        declared = {
            str(server) for zone in zones for server in self._mirror.fleet.zones[zone].servers
        }
        for server in sorted(declared):
            ours = [z for z in zones if server in map(str, self._mirror.fleet.zones[z].servers)]
            at = [answering[z][server] for z in ours if server in answering.get(z, {})]
            if len(at) == len(ours) and not has(incident, Phase.DNS_SERVER, server):
                incident = add(
                    incident, Phase.DNS_SERVER, max(at), Why("dns-server-answers"), server
                )
        return incident

    def _proven(self, incident: Incident, times: Times) -> Incident:
        if has(incident, Phase.PROVEN) or not has(incident, Phase.EDGES):
            return incident
        if not self.standing(incident):
            return incident  # an edge that left the DNS, or sites that moved on: no request could prove it
        instants = [
            self._proofs.proven_at(move.site, move.target, incident.epoch)
            for move in self.standing(incident)
        ]
        if any(at is None for at in instants):
            return incident
        at = max((at for at in instants if at is not None), default=times.wall)
        why = Why("proven", {"sites": len(instants)})
        return add(incident, Phase.PROVEN, at, why)

    def standing(self, incident: Incident) -> tuple[MovedSite, ...]:
        """The moves that are still meant: a site that moved on since is proven by its next incident."""
        places = self._mirror.places
        return tuple(
            move
            for move in incident.moved
            if move.site in places and places[move.site].host == move.target
        )

    def _complete(self, incident: Incident) -> Incident:
        routed = has(incident, Phase.EDGES)
        proven = has(incident, Phase.PROVEN) or not self.standing(incident)
        if not (proven and routed) or (self.zones_of(incident) and not has(incident, Phase.DNS)):
            return incident
        at = max(entry.at for entry in incidents.stretch(incident))
        grown = add(incident, Phase.COMPLETE, at, Why("complete"))
        return msgspec.structs.replace(grown, complete=True)

    def observe(self, added: Sequence[Entry]) -> None:
        """Measure the phases among the lines that were added."""
        for entry in added:
            if entry.phase in MEASURED:
                phase = MEASURED[entry.phase]
                self._exporter.observe(
                    "relevo_failover_phase_seconds", max(0.0, entry.offset_s), phase=phase
                )
