"""The order in which an incident may come true (rule R12): edges first, then the proof, then complete."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controller import incidents
from controller.incidents import Times
from controller.mirror import Mirror
from controller.ports import Work
from controller.progress import Progress
from failover.routes import Intent
from fleet.messages import Applied
from fleet.model import (
    Domain,
    Epoch,
    Fleet,
    Hold,
    HostId,
    Incident,
    IncidentId,
    MovedSite,
    Phase,
    Placement,
    SiteId,
    Why,
    ZoneName,
)
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from tests.simulation.coop import Shape, fleet_of
from tests.unit.wires import Wire, a_beat, a_link

pytestmark = pytest.mark.virtual_time

SITE, WEB1, WEB2 = SiteId("site0-web1"), HostId("web1"), HostId("web2")
EDGES = (HostId("edge1"), HostId("edge2"))
FLEET, EPOCH = fleet_of(Shape()), Epoch(1, 7)


class NoZones:
    """Nothing to do in the DNS, and nothing held there."""

    def work(self, zone: str) -> Work | None:
        return None

    def removed(self, zone: ZoneName) -> frozenset[Domain]:
        return frozenset()

    def holds(self) -> dict[str, Hold]:
        return {}


class AllProven:
    """Whatever is asked, every visitor got the right answer: the proof stops nothing."""

    def proven_at(self, site: SiteId, host: HostId, epoch: Epoch) -> float | None:
        return 1.0


class Bench:
    """Two edges that are live and have been ordered the routes of EPOCH; web1's site has moved to `at`."""

    def __init__(self, at: HostId) -> None:
        exporter, self.mirror = Exporter(CONTROLLER), Mirror()
        self.mirror.fleet = FLEET
        self.mirror.places = {SITE: Placement(host=at, since="", why=Why("dead"))}
        self.link = a_link(exporter)
        self.wires = {edge: Wire() for edge in EDGES}
        self._progress = Progress(self.mirror, self.link, NoZones(), AllProven(), exporter)

    async def hear(self, **applied: Epoch) -> None:
        """A beat of each edge, and what those named have applied."""
        for edge, wire in self.wires.items():
            wire.say(a_beat(edge))
            if edge in applied:
                wire.say(Applied(epoch=applied[edge]))
        await asyncio.sleep(0.01)

    def phases(self) -> set[Phase]:
        """What the incident says by now, beyond its decision."""
        incident = Incident(
            id=IncidentId("i"),
            cause="host:web1",
            subject=WEB1,
            verdict="dead",
            began_at=0.0,
            moved=(MovedSite(site=SITE, source=WEB1, target=WEB2),),
            epoch=EPOCH,
        )
        incident = incidents.add(incident, Phase.DECIDED, 0.0, Why(incidents.DECIDED))
        times = Times(wall=2.0, now=asyncio.get_running_loop().time())
        grown = self._progress.follow(incident, times, settled=True)
        assert grown.complete == any(entry.phase is Phase.COMPLETE for entry in grown.timeline)
        return {entry.phase for entry in grown.timeline} - {Phase.DECIDED}


@asynccontextmanager
async def ordered(at: HostId = WEB2) -> AsyncIterator[Bench]:
    bench = Bench(at)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(bench.link.serve(e, w)) for e, w in bench.wires.items()]
        await bench.hear()
        fleet: Fleet = bench.mirror.fleet
        intent = Intent(cluster="c", commit="n", fleet=fleet, places=bench.mirror.places)
        bench.link.order(intent, EPOCH)
        yield bench
        for task in tasks:
            task.cancel()


async def test_r12_edges_come_first_however_good_the_proof() -> None:
    """All visitors are served rightly; while one live edge has not applied the routes, that is not believed."""
    async with ordered() as bench:
        assert bench.phases() == set()
        await bench.hear(edge1=EPOCH)
        assert bench.phases() == {Phase.EDGE}
        await bench.hear(edge2=Epoch(1, 6))
        assert bench.phases() == {Phase.EDGE}
        await bench.hear(edge2=EPOCH)
        assert bench.phases() == {Phase.EDGE, Phase.EDGES, Phase.PROVEN, Phase.COMPLETE}


async def test_r12_edges_come_first_where_no_proof_is_asked_for() -> None:
    """The site has moved on, so that nothing is left to prove: complete only once every live edge follows."""
    async with ordered(at=HostId("web3")) as bench:
        await bench.hear(edge1=EPOCH)
        assert bench.phases() == {Phase.EDGE}
        await bench.hear(edge2=EPOCH)
        assert bench.phases() == {Phase.EDGE, Phase.EDGES, Phase.COMPLETE}


async def test_r12_an_edge_that_is_not_live_blocks_nothing_and_no_live_edge_is_no_proof() -> None:
    """One that went silent is waited for no more; where all did, nobody routes and nothing is complete."""
    async with ordered() as bench:
        await bench.hear(edge1=EPOCH)
        await asyncio.sleep(bench.link.live_edge_s)
        assert bench.phases() == set()
        del bench.wires[EDGES[1]]
        await bench.hear(edge1=EPOCH)
        assert Phase.COMPLETE in bench.phases()
