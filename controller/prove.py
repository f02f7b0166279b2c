"""Proof by effect (rule R12): ask for moved sites as their visitors do, through every live edge."""

import asyncio
from collections.abc import Iterator

from controller import incidents
from controller.link import Link
from controller.mirror import Mirror
from controller.ports import Answer, Visitor
from fleet.model import Epoch, Host, HostId, Incident, MovedSite, Phase, Site, SiteId
from metrics.exporter import Exporter
from runtime import log
from runtime.clock import wall

_log = log.logger("prove")
AT_ONCE = 32  # requests in flight: a proof must not be a load
AGAIN_S = 0.1
# Asked ten times a second at first, when visitors wait for the proof; a site that stays broken is not hammered.
PATIENCE_S, SELDOM_S = 10.0, 30.0

_Key = tuple[SiteId, HostId, Epoch]


class Prover:
    """Keeps asking until each moved site answers from its new host; remembers when it first did."""

    def __init__(
        self,
        mirror: Mirror,
        link: Link,
        visitor: Visitor,
        exporter: Exporter,
        *,
        edge_port: int,
    ) -> None:
        self._mirror, self._link, self._visitor = mirror, link, visitor
        self._exporter, self._edge_port = exporter, edge_port
        self._proven: dict[_Key, float] = {}
        self._first: dict[_Key, float] = {}
        self._next: dict[_Key, float] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    def proven_at(self, site: SiteId, host: HostId, epoch: Epoch) -> float | None:
        return self._proven.get((site, host, epoch))

    async def run(self) -> None:
        """Eternal, while this controller leads."""
        while True:
            seen = self._mirror.changed.count
            self._forget()
            unproven = list(self._unproven())
            if not unproven:
                await self._mirror.changed.after(seen)
                continue
            async with asyncio.TaskGroup() as group:
                for incident, move in self._due(unproven):
                    group.create_task(self._prove(incident, move))
            if any(self._unproven()):
                await asyncio.sleep(AGAIN_S)
            else:
                self._link.urgent.beat()
                await self._mirror.changed.within(seen, 1.0)

    def _forget(self) -> None:
        """What no incident waits for any more; a proof that is not in its incident yet is kept until it is."""
        awaited = {_key(incident, move) for incident, move in self._awaited()}
        for kept in (self._proven, self._first, self._next):
            for key in kept.keys() - awaited:
                del kept[key]

    def _unproven(self) -> Iterator[tuple[Incident, MovedSite]]:
        """Moves whose effect nobody has seen yet."""
        for incident, move in self._awaited():
            if _key(incident, move) not in self._proven:
                yield incident, move

    def _awaited(self) -> Iterator[tuple[Incident, MovedSite]]:
        """Moves whose routes are in force, of incidents that are not proven as a whole."""
        mirror = self._mirror
        for incident in mirror.incidents.values():
            if not incidents.acted(incident) or not incidents.has(incident, Phase.EDGES):
                continue
            if incidents.has(incident, Phase.PROVEN):
                continue
            for move in incident.moved:
                place = mirror.places.get(move.site)
                if place is not None and place.host == move.target:
                    yield incident, move

    def _due(
        self, unproven: list[tuple[Incident, MovedSite]]
    ) -> Iterator[tuple[Incident, MovedSite]]:
        """Those to ask now; the longer one has failed, the less often: every tenth of the time that it took so far."""
        now = asyncio.get_running_loop().time()
        for incident, move in unproven:
            key = _key(incident, move)
            waited_s = now - self._first.setdefault(key, now)
            if now >= self._next.get(key, now):
                pause_s = 0.0 if waited_s < PATIENCE_S else min(SELDOM_S, waited_s / 10)
                self._next[key] = now + pause_s
                yield incident, move

    async def _prove(self, incident: Incident, move: MovedSite) -> None:
        mirror = self._mirror
        site, target = mirror.fleet.sites.get(move.site), mirror.fleet.hosts.get(move.target)
        if site is None or target is None:
            return
        asked = list(self._places_to_ask(site, target))
        for address, port, through_edge in asked:
            async with self._slots:
                answer = await self._visitor.ask(
                    address, port, domain=site.domains[0], path=site.check.path, proof=mirror.proof
                )
            right = site.check.accepts(answer.status) and (
                not through_edge or answer.served_by == target.id
            )
            outcome = "ok" if right else "failed"
            self._exporter.count("relevo_proof_requests_total", outcome=outcome)
            if not right:
                _log.debug("not proven yet", site=site.id, at=address, **_seen(answer))
                return
        if asked:
            self._proven[_key(incident, move)] = wall()

    def _places_to_ask(self, site: Site, target: Host) -> Iterator[tuple[str, int, bool]]:
        edges = any(host.is_edge for host in self._mirror.fleet.hosts.values())
        if site.route == "direct" or not edges:
            yield target.addresses[0], target.port, False
            return
        now = asyncio.get_running_loop().time()
        for id, edge in self._mirror.fleet.hosts.items():
            if edge.is_edge and self._link.age_s(id, now) < self._link.live_edge_s:
                yield edge.addresses[0], self._edge_port, True


def _key(incident: Incident, move: MovedSite) -> _Key:
    return move.site, move.target, incident.epoch


def _seen(answer: Answer) -> dict[str, object]:
    return {"status": answer.status, "served_by": answer.served_by, "error": answer.error}
