"""A whole controller whose store has no room left: it refuses to write, and everything else goes on."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from controller.api.server import Api, listening
from controller.config import Config, Listen
from controller.dns import Zones
from controller.parts import Controller
from controller.store import EmbeddedStore, NoSpace
from deploy.demo.certificates import Authority
from fleet.messages import Ack, Orders
from fleet.model import ControllerId, HostId
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from tests.integration.controllers import (
    ADMINS,
    AGENTS,
    FLEET,
    Blind,
    Nowhere,
    Served,
    digests,
)
from tests.integration.test_api import OBSERVE, Socket, agent, beat, heard

pytestmark = pytest.mark.integration

QUOTA_BYTES = 1 << 20
BALLAST = b"/ballast/"  # keys of nobody, that fill the store
LARGE_BYTES, SMALL_BYTES = 32 << 10, 64
ACK_S = 1.5  # three beats: an agent that waits longer looks for another controller
WEB = HostId("mx1-web-01")


@asynccontextmanager
async def served(directory: Path, store: EmbeddedStore) -> AsyncIterator[Served]:
    """A controller that leads over `store`, served over TLS."""
    authority = Authority(directory)
    own = authority.issue("controller", ("127.0.0.1",))
    exporter = Exporter(CONTROLLER)
    controller = Controller(
        Config(id=ControllerId("c1"), state=directory),
        store,
        exporter=exporter,
        tokens={HostId(host): digest for host, digest in digests(AGENTS).items()},
        admins=digests(ADMINS),
        name_servers=lambda cluster: Zones(cluster, {}, exporter=exporter),
        visitor=Nowhere(),
        probing=Blind(),
    )
    tls = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(authority.path)))
    listen = Listen(port=0, certificate=own.certificate, key=own.key)
    async with (
        listening(Api(controller), listen) as port,
        aiohttp.ClientSession(connector=tls) as session,
        asyncio.TaskGroup() as group,
    ):
        running = group.create_task(controller.run())
        it = Served(controller, f"https://127.0.0.1:{port}", authority.path, session)
        await it.until(lambda: controller.decides)
        yield it
        assert not running.done(), "the daemon would have ended"
        running.cancel()


async def fill(store: EmbeddedStore) -> None:
    """Put ballast until not even a small value fits."""
    for size in (LARGE_BYTES, SMALL_BYTES):
        with pytest.raises(NoSpace):
            for number in range(QUOTA_BYTES // SMALL_BYTES):
                await store.put(BALLAST + f"{size}-{number % 8}".encode(), b"x" * size)


async def make_room(store: EmbeddedStore) -> None:
    """What `fill` wrote over and over is history: forget it."""
    await store.compact((await store.list(BALLAST)).revision)


async def acknowledged(socket: Socket, sequence: int) -> None:
    async with asyncio.timeout(ACK_S):
        await socket.send_bytes(beat(WEB, sequence))
        while (message := await heard(socket)) != Ack(sequence=sequence):
            assert isinstance(message, Orders)


async def test_a_full_store_refuses_writes_and_ends_nothing_else(tmp_path: Path) -> None:
    """Reads and links go on, an order is refused with what is wrong, nothing moves; with room again, all is done."""
    async with (
        EmbeddedStore.open(tmp_path / "store.db", quota_bytes=QUOTA_BYTES) as store,
        served(tmp_path, store) as it,
    ):
        await it.apply(FLEET)
        mirror = it.controller.mirror
        await it.until(lambda: len(mirror.places) == 2)
        async with agent(it, WEB) as socket:
            await acknowledged(socket, 1)
            await it.until(lambda: WEB in mirror.known)
            await fill(store)
            places = mirror.places
            order = {"reason": "a test", "to": WEB, "anyway": True}
            for number in range(2, 6):
                assert (await it.ask("GET", "/v1/hosts"))[0] == 200
                for method, path, said in (
                    ("PUT", "/v1/failover/arming", OBSERVE),
                    ("POST", "/v1/sites/blog/move", order),
                ):
                    status, headers, body = await it.raw(method, path, said=said)
                    assert status in (503, 507), body
                    assert headers["Content-Type"] == "application/problem+json"
                    assert b"the store is full" in body
                await acknowledged(socket, number)
                await asyncio.sleep(0.5)
            assert mirror.places == places
            assert not mirror.incidents
            await make_room(store)
            assert (await it.ask("PUT", "/v1/failover/arming", said=OBSERVE))[0] == 200
            status, told = await it.ask("POST", "/v1/sites/blog/move", said=order)
            assert status == 200, told
            await it.until(lambda: bool(mirror.incidents))
            await acknowledged(socket, 9)
