"""A co-op without edges: the controller and the neighbours ask real servers, and one of the neighbours may lie."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from controller.commands import Person
from controller.config import Config
from controller.dns import Zones
from controller.parts import Controller
from controller.ports import ConnectionLost
from controller.store import EmbeddedStore
from failover.routes import probes, target
from fleet.documents import read
from fleet.messages import Beat, Check
from fleet.model import Arming, ControllerId, Fleet, Health, Host, HostId, SiteId
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from runtime.probes import Probes
from tests.integration.controllers import Nowhere
from tests.integration.test_api import beat
from tests.ports import free_port
from tests.unit.fleets import GOOD

pytestmark = pytest.mark.integration

BEAT_S = 0.5
PERSON = Person("ana", "a test")
HUERTO, BLOG = SiteId("huerto"), SiteId("blog")
LIAR, VICTIM, REFUGE = HostId("mx1-web-01"), HostId("mx1-web-09"), HostId("us1-web-01")
ADDRESSES = {LIAR: "127.0.0.11", VICTIM: "127.0.0.12", REFUGE: "127.0.0.13"}
MOVED_S = 8.0


def coop(port: int) -> Fleet:
    """Three hosting servers on loopback; `blog` lives on the one that will die."""
    lines = GOOD.partition("zones:")[0].splitlines(keepends=True)
    text = "".join(line for line in lines if "[edge]" not in line)
    text = text.replace("standbys: [us1-web-01]", "standbys: [us1-web-01], route: direct")
    text = text.replace("standbys: [mx1-web-01]", f"standbys: [{REFUGE}]")
    fleet = read(text, "coop.yaml")
    return msgspec.structs.replace(
        fleet, hosts={id: on_loopback(host, port) for id, host in fleet.hosts.items()}
    )


def on_loopback(host: Host, port: int) -> Host:
    return msgspec.structs.replace(host, addresses=(ADDRESSES[host.id],), port=port)


@dataclass(slots=True)
class Agent:
    """A host's end of a link, in memory: it beats until its machine is dead; what it says of others may be a lie."""

    host: HostId
    fleet: Fleet
    sees: Probes
    lies: dict[HostId, Health] = field(default_factory=dict)
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    sequence: int = 0

    async def send(self, frame: bytes) -> None:
        return

    async def close(self) -> None:
        return

    async def receive(self) -> bytes:
        try:
            async with asyncio.timeout(BEAT_S):
                await self.dead.wait()
        except TimeoutError:
            self.sequence += 1
            plain = msgspec.json.decode(beat(self.host, self.sequence), type=Beat)
            return msgspec.json.encode(msgspec.structs.replace(plain, checks=self.checks()))
        raise ConnectionLost("its machine is dead")

    def checks(self) -> Mapping[HostId, Check]:
        now = asyncio.get_running_loop().time()
        near = probes(self.host, self.fleet).keys()
        seen = {host: check for host, check in self.sees.checks(now).items() if host in near}
        lies = {host: Check(health=said, since_s=60.0) for host, said in self.lies.items()}
        return {**seen, **lies}


@dataclass(slots=True)
class Coop:
    controller: Controller
    agents: dict[HostId, Agent]
    servers: dict[HostId, web.AppRunner]

    async def until(self, true: Callable[[], bool], within_s: float) -> None:
        changed = self.controller.mirror.changed
        async with asyncio.timeout(within_s):
            while not true():
                await changed.within(changed.count, 0.05)

    def verdict(self, host: HostId) -> str:
        found = self.controller.board.verdicts.get(host)
        return found.kind.value if found else ""

    def place(self, site: SiteId) -> HostId:
        return self.controller.mirror.places[site].host

    async def die(self, host: HostId) -> None:
        """Its server and its agent at once."""
        self.agents[host].dead.set()
        await self.servers[host].cleanup()


@asynccontextmanager
async def server(address: str, port: int) -> AsyncIterator[web.AppRunner]:
    async def answer(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port).start()
        yield runner
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running(state: Path) -> AsyncIterator[Coop]:
    """The co-op armed and all up, with a controller that leads and probes."""
    port = free_port()
    fleet = coop(port)
    async with (
        server(ADDRESSES[LIAR], port) as one,
        server(ADDRESSES[VICTIM], port) as two,
        server(ADDRESSES[REFUGE], port) as three,
        aiohttp.ClientSession() as session,
        EmbeddedStore.open(None) as store,
        asyncio.TaskGroup() as group,
    ):
        controller = Controller(
            Config(id=ControllerId("c1"), state=state),
            store,
            exporter=Exporter(CONTROLLER),
            tokens={},
            name_servers=lambda cluster: Zones(cluster, {}),
            visitor=Nowhere(),
            probing=Probes(session),
        )
        sees = Probes(session)
        sees.follow({id: target(host) for id, host in fleet.hosts.items()})
        agents = {id: Agent(id, fleet, sees) for id in fleet.hosts}
        services = (
            controller.run(),
            sees.keep(),
            *(controller.link.serve(id, agent) for id, agent in agents.items()),
        )
        tasks = [group.create_task(service) for service in services]
        it = Coop(controller, agents, {LIAR: one, VICTIM: two, REFUGE: three})
        await it.until(lambda: controller.decides, 5)
        await controller.commands.apply_fleet(fleet, PERSON)
        await controller.commands.arm("all", "", Arming.ARM, PERSON)
        await it.until(lambda: all(it.verdict(host) == "up" for host in fleet.hosts), 15)
        await it.until(lambda: len(controller.mirror.places) == 2, 5)
        yield it
        for task in tasks:
            task.cancel()


@pytest.mark.parametrize("lie", [None, Health.UP], ids=["nobody-lies", "a-neighbour-lies"])
async def test_a_dead_hosts_sites_move_whatever_one_neighbour_says(
    tmp_path: Path, lie: Health | None
) -> None:
    """Its server and its agent die: the automatic site moves to its standby, also against one word that it lives."""
    async with running(tmp_path) as it:
        if lie is not None:
            it.agents[LIAR].lies[VICTIM] = lie
        await it.die(VICTIM)
        await it.until(lambda: it.place(BLOG) == REFUGE, MOVED_S)
        assert it.verdict(VICTIM) == "dead"
        assert it.place(HUERTO) == LIAR


async def test_one_neighbour_alone_moves_nothing(tmp_path: Path) -> None:
    """It says that a host is down: while it beats it is up, without its agent it is one whose agent is lost."""
    async with running(tmp_path) as it:
        it.agents[LIAR].lies[VICTIM] = Health.DOWN
        await asyncio.sleep(3 * BEAT_S)
        assert it.verdict(VICTIM) == "up"
        it.agents[VICTIM].dead.set()
        await it.until(lambda: it.verdict(VICTIM) == "agent-lost", MOVED_S)
        await asyncio.sleep(3 * BEAT_S)
        assert it.verdict(VICTIM) == "agent-lost"
        assert it.place(BLOG) == VICTIM
        assert not any(incident.moved for incident in it.controller.mirror.incidents.values())
