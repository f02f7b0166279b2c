"""Peers that take nothing: a link and an event stream that are never read, beside others that are."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
import structlog.testing

from controller.api.events import WRITE_S
from controller.commands import Person
from controller.link import SEND_TIMEOUT_S
from deploy.demo import coop
from fleet.messages import Ack
from fleet.model import HostId
from tests.integration.controllers import ADMINS, Served, controller_served
from tests.integration.test_api import Socket, agent, beat, heard

pytestmark = pytest.mark.integration

# Some 1,900 sites, and without the zones, so that nothing is asked of an address that is not ours.
COOP = (Path(coop.__file__).parent / "coop.yaml").read_text().partition("\nzones:")[0]
PERSON = Person("ana", "a test")
EDGE, WEB = HostId("mx1-edge-01"), HostId("mx1-web-01")
ACK_S = 1.5  # three beats: an agent that waits longer looks for another controller
BEAT_S = 0.25


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served, None]:
    async with controller_served(tmp_path) as controller:
        await controller.apply(COOP)
        mirror = controller.controller.mirror
        await controller.until(lambda: len(mirror.places) == len(mirror.fleet.sites))
        yield controller


async def acknowledged(socket: Socket, sequence: int) -> float:
    """Beat once; how long the acknowledgement took (s)."""
    now = asyncio.get_running_loop().time
    began = now()
    await socket.send_bytes(beat(WEB, sequence))
    while await heard(socket) != Ack(sequence=sequence):
        pass
    return now() - began


@asynccontextmanager
async def well_behaved(served: Served) -> AsyncIterator[list[float]]:
    """Another agent, which beats and reads all the while; gives what each acknowledgement took (s)."""
    took: list[float] = []

    async def live(socket: Socket) -> None:
        while True:
            took.append(await acknowledged(socket, len(took) + 1))
            await asyncio.sleep(BEAT_S)

    async with agent(served, WEB) as socket, asyncio.TaskGroup() as group:
        task = group.create_task(live(socket))
        yield took
        task.cancel()


@pytest.mark.long
async def test_an_agent_that_does_not_read_loses_its_link_and_nobody_else_does(
    served: Served,
) -> None:
    """It beats, and is sent a whole co-op's routes again and again: it is gone, the other's beats are acknowledged."""
    controller = served.controller
    link, mirror = controller.link, controller.mirror
    with structlog.testing.capture_logs() as logs:
        async with well_behaved(served) as took, agent(served, EDGE) as deaf:
            await deaf.send_bytes(beat(EDGE))
            await served.until(lambda: EDGE in link.connected)
            site = min(mirror.places)
            for round_ in range(2, 200):
                if EDGE not in link.connected:
                    break
                target = next(
                    host for host in (WEB, HostId("mx1-web-02")) if host != mirror.places[site].host
                )
                await controller.commands.move(
                    site, target, PERSON, anyway=True, old_host_stopped=True
                )
                if round_ % 5 == 0:
                    await deaf.send_bytes(beat(EDGE, round_))
                await asyncio.sleep(0.1)
            assert EDGE not in link.connected
            before = len(took)
            await asyncio.sleep(2 * BEAT_S)
            assert len(took) > before
    ended = {log["host"]: log["why"] for log in logs if log["event"] == "link ended"}
    assert ended[EDGE] == f"did not read for {SEND_TIMEOUT_S:g} s"
    assert max(took) < ACK_S


@pytest.mark.long
async def test_a_reader_of_events_that_takes_nothing_is_ended_and_the_others_go_on(
    served: Served,
) -> None:
    """Ten seconds of patience, then its stream is closed; another reader has every event, agents their answers."""
    events, got = served.controller.events, 0
    headers = {"Authorization": f"Bearer {ADMINS['ana']}"}
    url = f"{served.url}/v1/events"
    loop = asyncio.get_running_loop()

    async def read(stream: aiohttp.ClientResponse) -> None:
        nonlocal got
        async for line in stream.content:
            got += line == b"event: filler\n"

    async with (
        well_behaved(served) as took,
        served.session.get(url, headers=headers) as taking,
        served.session.get(url, headers=headers),
        asyncio.TaskGroup() as group,
    ):
        reader = group.create_task(read(taking))
        assert await streams(served) == 2
        began, sent = loop.time(), 0
        while await streams(served) == 2:
            assert loop.time() - began < WRITE_S + 10
            for _ in range(20):  # a second: who asks for the metrics more often is held up
                for _ in range(5):
                    events.publish("filler", text="x" * 10_000)
                    sent += 1
                await asyncio.sleep(0.05)
        assert await streams(served) == 1
        events.publish("filler", text="the last one")
        async with asyncio.timeout(5):
            while got <= sent:
                await asyncio.sleep(0.02)
        reader.cancel()
    assert got == sent + 1
    assert max(took) < ACK_S


async def streams(served: Served) -> int:
    """How many event streams are open, as the controller's metrics say; they answer all the while."""
    async with asyncio.timeout(ACK_S):
        _, _, text = await served.raw("GET", "/metrics")
    line = next(x for x in text.decode().splitlines() if x.startswith("relevo_api_streams "))
    return int(float(line.split()[1]))
