"""Agents enough for a whole fleet, over real links: they beat, and the edges among them see who answers."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import msgspec

from fleet.messages import Ack, Beat, Check, EdgeReport, FromController, Load, Orders
from fleet.model import Epoch, Health, Host, HostId
from tests.integration.controllers import Served

BEAT_S = 0.4
_decoder: msgspec.json.Decoder[FromController] = msgspec.json.Decoder(FromController)


class Crowd:
    """`dead`: hosts that neither beat nor answer; `silent`: hosts whose agent alone is gone."""

    def __init__(self, hosts: dict[HostId, Host]) -> None:
        self.hosts = hosts
        self.dead: set[HostId] = set()
        self.silent: set[HostId] = set()
        self._applied: dict[HostId, Epoch] = {}
        self._since: dict[HostId, float] = {}

    def die(self, *hosts: str) -> None:
        for host in hosts:
            self.dead.add(HostId(host))
            self._since[HostId(host)] = asyncio.get_running_loop().time()

    def rise(self, *hosts: str) -> None:
        self.dead -= {HostId(host) for host in hosts}

    async def live(self, socket: aiohttp.ClientWebSocketResponse[bool], host: Host) -> None:
        """Eternal: one agent's link."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(socket, host))
            sequence = 0
            while True:
                sequence += 1
                if host.id not in self.dead | self.silent:
                    await socket.send_bytes(msgspec.json.encode(self._beat(host, sequence)))
                await asyncio.sleep(BEAT_S)

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse[bool], host: Host) -> None:
        async for frame in socket:
            match _decoder.decode(frame.data):
                case Orders() as orders:
                    self._applied[host.id] = orders.epoch
                case Ack() | _:
                    pass

    def _beat(self, host: Host, sequence: int) -> Beat:
        number = sum(host.id.encode())
        applied = self._applied.get(host.id, Epoch())
        return Beat(
            host=host.id,
            sequence=sequence,
            boot_id="b1",
            uptime_s=86_400.0 * (number % 40) + 3_000,
            kernel="6.12",
            version="0.1.0",
            load=Load(
                cpu_ratio=number % 60 / 100,
                load_1min=number % 30 / 10,
                memory_total_bytes=64 << 30,
                memory_available_bytes=(20 + number % 20) << 30,
                swap_used_bytes=0,
                receive_bytes_per_s=1e6,
                transmit_bytes_per_s=5e6,
            ),
            orders=applied,
            newest=applied,
            edge=EdgeReport(haproxy_up=True, routes=applied, domains=1200, sessions=85)
            if host.is_edge
            else None,
            checks=self._checks() if host.is_edge else {},
        )

    def _checks(self) -> dict[HostId, Check]:
        now = asyncio.get_running_loop().time()
        return {
            id: Check(health=Health.DOWN, since_s=now - self._since[id])
            if id in self.dead
            else Check(health=Health.UP, since_s=60.0)
            for id, host in self.hosts.items()
            if not host.is_edge
        }


@asynccontextmanager
async def crowd(served: Served, tokens: dict[str, str]) -> AsyncGenerator[Crowd, None]:
    """An agent for every declared host that has a token, until the body ends."""
    fleet = served.controller.mirror.fleet
    here = Crowd({id: host for id, host in fleet.hosts.items() if id in tokens})
    async with AsyncExitStack() as stack:
        sockets = {}
        for id in here.hosts:
            headers = {"Authorization": f"Bearer {tokens[id]}"}
            url = f"{served.url}/v1/link/{id}"
            sockets[id] = await stack.enter_async_context(
                served.session.ws_connect(url, headers=headers, max_msg_size=0)
            )
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(here.live(sockets[id], here.hosts[id])) for id in sockets]
            yield here
            for task in tasks:
                task.cancel()
