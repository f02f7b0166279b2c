"""A co-op in virtual time: real controllers, real agents, stand-ins for all else, and the means to break any of it."""

import asyncio
import copy
import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

from agent.ports import Connection, DriverError
from controller.config import Config
from controller.notify.letter import Notifier
from controller.notify.settings import Receiver
from controller.parts import Controller
from controller.ports import Answer, ConnectionLost
from controller.store import EmbeddedStore
from controller.store.keyspace import Keyspace
from failover.policy import Policy
from fleet.messages import AgentState, Orders
from fleet.model import (
    ControllerId,
    Domain,
    Fleet,
    HostId,
    Placement,
    RecordSet,
    SiteId,
)
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from tests.simulation.coop import Shape, fleet_of
from tests.simulation.machines import Checker, Machine, now
from tests.simulation.names import NameServers, Primary
from tests.simulation.network import End, Network
from tests.simulation.processes import Process
from tests.simulation.rules import Rules
from tests.simulation.stores import Client, Weather

Receivers = Sequence[tuple[Receiver, Notifier]]
TOKEN = hashlib.sha256(b"token").hexdigest()
FOREIGN = {Domain("webmail.coop.example"): RecordSet(a=("198.51.100.7",))}


@dataclass(slots=True)
class Knock:
    """An agent at a controller's door."""

    host: HostId
    end: End
    answered: asyncio.Future[None]


class Seat:
    """Where a controller runs: its present life, if any."""

    def __init__(self, world: "World", id: ControllerId) -> None:
        self._world, self.id = world, id
        self.process: Process | None = None
        self.controller: Controller | None = None
        self.client: Client | None = None
        self.door: asyncio.Queue[Knock] = asyncio.Queue()

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.runs

    @property
    def leads(self) -> bool:
        return bool(self.runs and self.controller and self.controller.leader.leadership)

    @property
    def up_since(self) -> float:
        assert self.process is not None
        return max(self.process.began_at, self.process.thawed_at)

    def start(self) -> None:
        world, process = self._world, Process(self.id)
        world.log(f"{self.id} starts")
        self.process, self.door = process, asyncio.Queue()
        self.client = Client(
            world.store, process, world.weather, world.random, world.rules.committed
        )
        config = Config(
            id=self.id,
            controllers=tuple(world.seats),
            urls={id: f"https://{id}.coop.example:7410" for id in world.seats},
            policy=world.policy,
            tick_s=world.tick_s,
            edge_port=80,
        )
        self.controller = Controller(
            config,
            self.client,
            exporter=Exporter(CONTROLLER),
            tokens=dict.fromkeys(world.machines, TOKEN),
            name_servers=lambda cluster: NameServers(cluster, world.primary, world.random),
            visitor=Visitor(world, self.id),
            probing=Checker(lambda host: world.reaches(self.id, host)),
            receivers=world.receivers(self.id),
        )
        process.start(world.group, self._run(self.controller))

    async def _run(self, controller: Controller) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(controller.run())
            while True:
                knock = await self.door.get()
                if not knock.answered.done() and controller.link.admits(knock.host, "token"):
                    knock.answered.set_result(None)
                    group.create_task(controller.link.serve(knock.host, knock.end))

    async def kill(self) -> None:
        if self.process and self.client:
            self._world.log(f"{self.id} is killed")
            self.client.abandon()
            self.process.kill()
            await self.process.ended()

    def freeze(self, for_s: float) -> None:
        if self.process and self.client and self.process.runs:
            self.process.freeze()
            if for_s >= 3.0:  # the lease's time to live
                self.client.abandon()

    def thaw(self) -> None:
        if self.process:
            self.process.thaw()

    def part_from_store(self) -> Callable[[], None]:
        """Cut this controller alone off from the store; call what is given to end it."""
        assert self.client is not None
        weather = self.client.weather = Weather()
        weather.leave()
        self.client.abandon()
        self._world.log(f"{self.id} can't reach the store")
        return weather.come_back


class Visitor:
    """The port of the proof: asks from a controller's place."""

    def __init__(self, world: "World", place: str) -> None:
        self._world, self._place = world, place

    async def ask(self, address: str, port: int, *, domain: str, path: str, proof: str) -> Answer:
        await self._world.network.delay()
        host = self._world.by_address[address]
        if not self._world.network.both_ways(self._place, host):
            await asyncio.sleep(1.0)
            return Answer(0, error="timeout")
        return self._world.visit(host, Domain(domain))


class World:
    """Everything there is. `trail` is the report of a failing seed."""

    def __init__(self, seed: int, shape: Shape, policy: Policy, group: asyncio.TaskGroup) -> None:
        self.random = Random(seed)
        self.shape, self.policy, self.group = shape, policy, group
        self.tick_s = 0.1
        self.trail: list[str] = [f"seed {seed}, {shape}"]
        self.network = Network(self.random)
        self.weather = Weather()
        self.fleet: Fleet = fleet_of(shape)
        self.primary = Primary(FOREIGN)
        self.by_address = {host.addresses[0]: id for id, host in self.fleet.hosts.items()}
        self.rules = Rules(self)
        ids = [ControllerId(f"c{n + 1}") for n in range(shape.controllers)]
        self.machines = {
            id: Machine(
                host,
                self.network,
                self.random,
                controllers=tuple(ids),
                dial=self._dial,
                asks=self.reaches,
                applied=self._applied,
            )
            for id, host in self.fleet.hosts.items()
        }
        self.seats = {id: Seat(self, id) for id in ids}
        # Whom a controller calls; for those that start from then on.
        self.receivers: Callable[[ControllerId], Receivers] = lambda id: ()
        self.store: EmbeddedStore
        self.backup: Keyspace | None = None
        self.broken: set[Domain] = set()  # sites that answer with an error, wherever they are

    def log(self, what: str) -> None:
        self.trail.append(f"{now():8.2f}  {what}")

    @property
    def leader(self) -> Controller | None:
        """The controller that leads, if one does, and can be asked."""
        leading = [seat.controller for seat in self.seats.values() if seat.leads]
        return leading[0] if leading else None

    @property
    def places(self) -> dict[SiteId, Placement]:
        """What the store says."""
        return self.rules.places

    # How the parts meet.

    async def _dial(self, host: HostId, controller: ControllerId) -> Connection:
        seat = self.seats[controller]
        await self.network.passable(host, controller)
        await self.network.delay()
        if seat.process is None or seat.process.killed:
            raise DriverError("connection refused")
        ours, theirs = self.network.connect(host, controller, DriverError, ConnectionLost)
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        seat.door.put_nowait(Knock(host, theirs, answered))
        try:
            await answered
        except asyncio.CancelledError:
            await ours.close()
            raise
        return ours

    def reaches(self, asker: str, host: HostId) -> bool:
        return self.machines[host].answers and (
            asker == host or self.network.both_ways(asker, host)
        )

    def visit(self, host: HostId, domain: Domain) -> Answer:
        """What `host` answers to a visitor who reached it."""
        machine = self.machines[host]
        if not machine.answers:
            return Answer(0, error="no answer")
        if machine.haproxy is None:
            return Answer(200)
        target = machine.haproxy.domains.get(domain)
        if target is None:
            return Answer(404)
        if not self.reaches(host, target):
            return Answer(503)
        if domain in self.broken:
            return Answer(500, served_by=target)
        return Answer(200, served_by=target)

    def _applied(self, machine: Machine, orders: Orders) -> None:
        self.rules.applied(machine, orders)

    # Faults that need more than one part.

    def power_off(self, host: HostId) -> None:
        for other in self.others(host):
            self.network.cut(host, other)
            self.network.cut(other, host)
        self.machines[host].power_off()

    def boot(self, host: HostId) -> None:
        for other in self.others(host):
            self.network.heal(host, other)
            self.network.heal(other, host)
        self.machines[host].boot_up(self.group)

    def others(self, host: HostId) -> list[str]:
        return [name for name in (*self.machines, *self.seats) if name != host]

    def announce_shutdown(self, host: HostId) -> None:
        machine = self.machines[host]
        if machine.agent and machine.agent.runs and machine.beats:
            machine.leaving, machine.agent_state = True, AgentState.LEAVING
            machine.beats.hurry()

    async def restart_agent(self, host: HostId, pause_s: float) -> None:
        """SIGTERM, last words, a pause, and a new life."""
        machine = self.machines[host]
        if not (machine.agent and machine.agent.runs and machine.beats):
            return
        if machine.agent_state is not AgentState.LEAVING:
            machine.agent_state = AgentState.RESTARTING
        await machine.beats.last_words(0.5)
        machine.agent.kill()
        await asyncio.sleep(pause_s)
        if machine.powered and not machine.frozen and machine.agent.killed:
            machine.start_agent(self.group)

    async def rewind(self) -> None:
        """Every controller stops; the store of the last backup is put in its place; they start."""
        assert self.backup is not None
        for seat in self.seats.values():
            await seat.kill()
        await self.store.aclose()
        self.rules.rewound()
        self.store = await _opened(copy.deepcopy(self.backup))
        self.log("the store is an older copy")
        for seat in self.seats.values():
            seat.start()

    def back_up(self) -> None:
        self.backup = copy.deepcopy(self.store._keys)

    async def until(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        end = now() + within_s
        while not condition():
            assert now() < end, self.report(f"not within {within_s:g} s: {what}")
            await asyncio.sleep(0.1)

    def report(self, problem: str) -> str:
        return "\n".join((problem, *self.trail[-200:]))


async def _opened(keyspace: Keyspace) -> EmbeddedStore:
    """A store with what an older copy holds; leases of its time are over."""
    store = EmbeddedStore(keyspace, None)
    found = await store.list(b"")
    for item in found.items:
        if item.lease:
            await store.delete(item.key)
    return store


@asynccontextmanager
async def world(
    seed: int, shape: Shape | None = None, policy: Policy | None = None
) -> AsyncGenerator[World, None]:
    """A co-op that has settled: fleet applied, everything armed but what is named otherwise, all hosts up."""
    async with EmbeddedStore.open(None) as store, asyncio.TaskGroup() as group:
        made = World(seed, shape or Shape(), policy or Policy(), group)
        made.store = store
        group.create_task(made.rules.keep())
        for machine in made.machines.values():
            machine.boot_up(group)
        for seat in made.seats.values():
            seat.start()
        try:
            await made.rules.settle()
            yield made
        finally:
            await _end(made)


async def _end(made: World) -> None:
    for seat in made.seats.values():
        await seat.kill()
    for machine in made.machines.values():
        machine.power_off()
    made.rules.stop()
    await made.store.aclose()
