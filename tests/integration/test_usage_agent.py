"""What a real agent tells of its sites, as a process of its own, on a machine that holds none of them."""

import asyncio
import re
import signal
import time
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from fleet.caps import Attachment, Tenant
from fleet.messages import Ack, Beat, FromAgent, Orders, Usage
from fleet.model import Epoch, HostId, SiteId
from tests.integration.test_agent_daemon import Controller as Other
from tests.integration.test_agent_daemon import configure, listening, running
from tests.ports import free_port
from tests.unit.test_usage_ledger import PLANS, SMALL

pytestmark = pytest.mark.integration

SITES = {SiteId(f"s{n:03}"): Tenant(plan=SMALL, domains=(f"{n}.example",)) for n in range(250)}
ORDERS = Orders(
    epoch=Epoch(1, 5),
    cluster="c",
    host=HostId("h1"),
    plans=PLANS,
    sites=tuple(SITES),
    tenants=SITES,
)


COUNTED = re.compile(r'^relevo_usage_sites\{attachment="none"\} 250.0$', re.MULTILINE)


class Controller(Other):
    """Gives orders at once, and hears what is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Usage] = []
        self.heard_at: list[float] = []

    async def link(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        await socket.send_bytes(msgspec.json.encode(ORDERS))
        async for frame in socket:
            match msgspec.json.decode(frame.data, type=FromAgent):
                case Beat(sequence=sequence):
                    self.heard_at.append(time.monotonic())
                    await socket.send_bytes(msgspec.json.encode(Ack(sequence=sequence)))
                case Usage() as usage:
                    self.told.append(usage)
            self._news.set()
        return socket


async def metrics(session: aiohttp.ClientSession, address: str) -> str:
    async with session.get(address) as answer:
        return await answer.text()


async def test_an_agent_tells_of_every_site_what_it_knows(tmp_path: Path) -> None:
    """In several messages, each site once; nothing is known of sites that are not here, which is not zero.

    The history is opened, Prometheus sees how many there are, and a SIGTERM ends threads and all at once.
    """
    controller, port = Controller(), free_port()
    config = configure(tmp_path, port, extra=f"[metrics]\nport = {port + 1}\n")
    async with listening(controller, port), running(config) as agent:
        told = controller.told
        await controller.until(lambda: {s for usage in told for s in usage.sites} == SITES.keys())
        assert len(told) == 3
        uses = [use for usage in told for use in usage.sites.values()]
        assert {use.attachment for use in uses} == {Attachment.NONE}
        assert {(use.cpu_cores, use.memory_bytes, use.tasks) for use in uses} == {(None,) * 3}
        address = f"http://127.0.0.1:{port + 1}/metrics"
        async with aiohttp.ClientSession() as session, asyncio.timeout(20):
            while not COUNTED.search(await metrics(session, address)):
                await asyncio.sleep(0.5)
        assert (tmp_path / "state/usage.sqlite").exists()
        began = time.monotonic()
        agent.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await agent.wait() == 0
        assert time.monotonic() - began < 4
