"""A whole controller whose store has no room left: it refuses to write, and everything else goes on."""

import asyncio
from pathlib import Path

import pytest

from controller.store import EmbeddedStore, NoSpace
from fleet.messages import Ack, Orders
from fleet.model import HostId
from tests.integration.controllers import served_over
from tests.integration.test_api import OBSERVE, Socket, agent, beat, heard

pytestmark = pytest.mark.integration

QUOTA_BYTES = 1 << 20
BALLAST = b"/ballast/"  # keys of nobody, that fill the store
LARGE_BYTES, SMALL_BYTES = 32 << 10, 64
ACK_S = 1.5  # three beats: an agent that waits longer looks for another controller
WEB = HostId("mx1-web-01")


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
        served_over(store, tmp_path) as it,
    ):
        await it.placed()
        mirror = it.controller.mirror
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
