"""A proof by effect, once seen, stays seen until its incident says so (rule R12)."""

import asyncio
from collections.abc import Mapping

import msgspec
import pytest

from controller import incidents
from controller.link import Heard
from controller.mirror import Mirror
from controller.ports import Answer
from controller.prove import Prover
from fleet.model import (
    Epoch,
    HostId,
    Incident,
    IncidentId,
    MovedSite,
    Phase,
    Placement,
    SiteId,
    Why,
)
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from tests.simulation.coop import Shape, fleet_of
from tests.unit.wires import a_beat, a_link

pytestmark = pytest.mark.virtual_time

SITE, WEB1, WEB2 = SiteId("direct-web1"), HostId("web1"), HostId("web2")
BEHIND, EDGE1, EDGE2 = SiteId("site0-web1"), HostId("edge1"), HostId("edge2")
EPOCH = Epoch(1, 7)


class Everyone:
    """A visitor to whom every site answers."""

    asked = 0

    async def ask(self, address: str, port: int, *, domain: str, path: str, proof: str) -> Answer:
        self.asked += 1
        await asyncio.sleep(0.01)
        return Answer(200)


class Through:
    """A visitor to whom each edge answers from the host that it still takes for the site's."""

    def __init__(self, mirror: Mirror, sends: Mapping[HostId, HostId | None]) -> None:
        self._sends = {mirror.fleet.hosts[edge].addresses[0]: to for edge, to in sends.items()}

    async def ask(self, address: str, port: int, *, domain: str, path: str, proof: str) -> Answer:
        return Answer(200, served_by=self._sends[address])


def an_incident(*phases: Phase, site: SiteId = SITE) -> Incident:
    incident = Incident(
        id=IncidentId("i"),
        cause="host:web1",
        subject=WEB1,
        verdict="dead",
        began_at=0.0,
        moved=(MovedSite(site=site, source=WEB1, target=WEB2),),
        epoch=EPOCH,
    )
    for phase in phases:
        incident = incidents.add(incident, phase, 0.0, Why(incidents.DECIDED))
    return incident


def proving(mirror: Mirror, visitor: Everyone) -> Prover:
    """Asks `visitor` about a direct site that moved from web1 to web2."""
    exporter = Exporter(CONTROLLER)
    link = a_link(exporter)
    mirror.fleet = fleet_of(Shape())
    mirror.places = {SITE: Placement(host=WEB2, since="", why=Why("dead"))}
    return Prover(mirror, link, visitor, exporter, edge_port=80)


async def proves(sends: Mapping[HostId, HostId | None]) -> bool:
    """Whether a move from web1 to web2 is soon proven when these live edges send the site's visitors so."""
    mirror, exporter = Mirror(), Exporter(CONTROLLER)
    mirror.fleet = fleet_of(Shape())
    mirror.places = {BEHIND: Placement(host=WEB2, since="", why=Why("dead"))}
    incident = an_incident(Phase.DECIDED, Phase.EDGES, site=BEHIND)
    mirror.incidents = {incident.id: incident}
    link, now = a_link(exporter), asyncio.get_running_loop().time()
    link.heard.update({edge: Heard(beat=a_beat(edge), at=now) for edge in sends})
    prover = Prover(mirror, link, Through(mirror, sends), exporter, edge_port=80)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(prover.run())
        await asyncio.sleep(0.5)
        running.cancel()
    return prover.proven_at(BEHIND, WEB2, EPOCH) is not None


async def test_r12_nobody_is_asked_before_every_live_edge_follows() -> None:
    """An answer from before the routes were in force proves nothing: the first request comes with the edges' line."""
    mirror, visitor = Mirror(), Everyone()
    prover = proving(mirror, visitor)
    early = an_incident(Phase.DECIDED)
    mirror.incidents = {early.id: early}
    async with asyncio.TaskGroup() as group:
        running = group.create_task(prover.run())
        await asyncio.sleep(5.0)
        assert visitor.asked == 0 and prover.proven_at(SITE, WEB2, EPOCH) is None
        mirror.incidents = {early.id: an_incident(Phase.DECIDED, Phase.EDGES)}
        mirror.changed.beat()
        await asyncio.sleep(0.1)
        assert visitor.asked == 1 and prover.proven_at(SITE, WEB2, EPOCH) is not None
        running.cancel()


async def test_a_proof_is_kept_through_changes_of_the_store_until_its_incident_tells_it() -> None:
    """Forgotten too early, it would be asked for again only at the next change of the store: days later, maybe."""
    mirror, visitor = Mirror(), Everyone()
    prover = proving(mirror, visitor)
    incident = an_incident(Phase.DECIDED, Phase.EDGES)
    mirror.incidents = {incident.id: incident}
    async with asyncio.TaskGroup() as group:
        running = group.create_task(prover.run())
        await asyncio.sleep(0.1)
        for _ in range(3):
            assert prover.proven_at(SITE, WEB2, EPOCH) is not None
            mirror.changed.beat()
            await asyncio.sleep(0.1)
        assert visitor.asked == 1

        told = incidents.add(incident, Phase.PROVEN, 0.0, Why("proven"))
        mirror.incidents = {incident.id: msgspec.structs.replace(told, complete=True)}
        mirror.changed.beat()
        await asyncio.sleep(0.1)
        assert prover.proven_at(SITE, WEB2, EPOCH) is None, "what nobody awaits is forgotten"
        running.cancel()


@pytest.mark.parametrize(("served_by", "proven"), [(WEB1, False), (None, False), (WEB2, True)])
async def test_r12_only_an_answer_of_the_new_host_proves_a_move(
    served_by: HostId | None, proven: bool
) -> None:
    """A good answer that an edge still takes from the old host, or from nobody it names, proves nothing."""
    assert await proves({EDGE1: served_by}) is proven


@pytest.mark.parametrize("behind", [EDGE1, EDGE2])
async def test_r12_a_move_is_proven_through_every_live_edge(behind: HostId) -> None:
    """One edge that sends visitors to the old host yet is enough, whichever is asked first."""
    assert await proves({EDGE1: WEB2, EDGE2: WEB2})
    assert not await proves({EDGE1: WEB2, EDGE2: WEB2, behind: WEB1})
