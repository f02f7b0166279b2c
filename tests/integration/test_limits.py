"""Those who ask too often, too much or too slowly: told so or cut off, and nobody else is held up."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from aiohttp import web

from controller.api.connections import Hall, Patience, doors
from controller.api.kinds import ProblemDetails
from controller.api.pace import ASKING, FAILING
from tests.integration.controllers import ADMINS, AGENTS, Served, controller_served

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served, None]:
    async with controller_served(tmp_path) as controller:
        yield controller


async def test_who_fails_often_waits_and_others_at_the_address_do_not(served: Served) -> None:
    """After 20 wrong tokens an address is told how long to wait; right tokens and links there go on."""
    for _ in range(FAILING.burst):
        assert (await served.raw("GET", "/v1/status", token="wrong"))[0] == 401
    status, headers, body = await served.raw("GET", "/v1/status", token="wrong")
    told = msgspec.json.decode(body)
    assert (status, told["type"]) == (429, "/problems/too-many-requests")
    assert 0 < int(headers["Retry-After"]) <= 3
    assert (await served.raw("GET", "/v1/status"))[0] == 200
    assert (await served.raw("GET", "/metrics"))[0] == 200
    assert (await served.raw("GET", "/healthz", token=None))[0] == 200
    link = f"{served.url}/v1/link/mx1-web-01"
    right = {"Authorization": f"Bearer {AGENTS['mx1-web-01']}"}
    async with served.session.ws_connect(link, headers=right):
        await served.until(lambda: "mx1-web-01" in served.controller.link.connected)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with served.session.ws_connect(link, headers={"Authorization": "Bearer wrong"}):
            pass
    assert refused.value.status == 429
    assert (
        b'relevo_api_refused_total{reason="failures"}' in (await served.raw("GET", "/metrics"))[2]
    )


async def test_a_token_out_of_its_mind_is_slowed_and_no_other(served: Served) -> None:
    """Past its burst and pace a token gets 429 with Retry-After; another token, scrapes and health go on."""
    statuses: list[int] = []

    async def ask() -> None:
        while len(statuses) < 3 * ASKING.burst and 429 not in statuses:
            statuses.append((await served.raw("GET", "/v1/holds"))[0])

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(ask())
    assert set(statuses) == {200, 429} and statuses.index(429) >= ASKING.burst
    status, _, _ = await served.raw("GET", "/v1/holds", token=ADMINS["beto"])
    assert status == 200
    assert (await served.raw("GET", "/metrics"))[0] == 200
    assert (await served.raw("GET", "/healthz", token=None))[0] == 200


@pytest.mark.parametrize(
    ("path", "headers", "status", "slug"),
    [
        (f"/v1/sites?q={'x' * 9000}", {}, 414, "address-too-long"),
        ("/v1/status", {"X-Long": "x" * 9000}, 431, "headers-too-large"),
        ("/v1/status", {f"X-{number}": "x" for number in range(200)}, 431, "headers-too-large"),
        ("/v1/status", {"X-Path": "/" + "x" * 9000}, 431, "headers-too-large"),
    ],
)
async def test_a_head_or_an_address_above_its_limit_is_refused(
    served: Served, path: str, headers: dict[str, str], status: int, slug: str
) -> None:
    """As every problem is, with what is too long; the next request is served."""
    refused, said, body = await served.raw("GET", path, headers=headers)
    assert (refused, said["Content-Type"]) == (status, "application/problem+json")
    told = msgspec.json.decode(body, type=ProblemDetails)
    assert (told.type, told.status) == (f"/problems/{slug}", status) and told.remedy
    assert (await served.raw("GET", "/v1/status"))[0] == 200


async def test_what_is_no_request_is_told_so(tmp_path: Path) -> None:
    """Another protocol on this port gets an answer in HTTP, and its connection's end; the log says nothing of it."""
    async with small(Patience()) as (port, _), asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HELO example.org\r\n\r\n")
        told = (await reader.read()).decode()
        writer.close()
    assert told.startswith("HTTP/1.0 400 ") or told.startswith("HTTP/1.1 400 ")
    assert '"type":"/problems/bad-request"' in told


@asynccontextmanager
async def small(patience: Patience) -> AsyncGenerator[tuple[int, list[str]], None]:
    """A listener of this patience; gives its port, and why connections were cut off."""
    refused: list[str] = []
    hall = Hall(refused.append, patience)

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(float(request.query.get("after", "0")))
        return web.Response(body=b"x" * int(request.query.get("bytes", "2")))

    app = web.Application(middlewares=[hall.attended])
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        async with doors(runner, hall, "127.0.0.1", 0, None) as port:
            yield port, refused
    finally:
        await runner.cleanup()


async def asks(port: int, path: str = "/") -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as it,
    ):
        await it.read()
        return it.status


async def test_one_byte_a_second_holds_nothing_up(tmp_path: Path) -> None:
    """Whoever never ends its request is cut off; meanwhile, and while being answered slowly, others are served."""
    patience = Patience(most=1000, head_s=0.4, look_s=0.05)
    async with small(patience) as (port, refused), asyncio.timeout(10):
        drops = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for byte in b"GET / HTTP/1.1\r\nHost: relevo\r\nX: y":
            for _, writer in drops:
                if not writer.transport.is_closing():
                    writer.write(bytes([byte]))
            assert await asks(port) == 200
            await asyncio.sleep(0.02)
        assert await asks(port, "/?after=0.6") == 200
        for reader, writer in drops:
            with suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
        assert refused == ["slow"] * 20


async def test_a_connection_between_two_requests_is_kept(tmp_path: Path) -> None:
    """Who has asked and been answered may ask again later than a head may take."""
    patience = Patience(most=1000, head_s=0.2, look_s=0.05)
    async with small(patience) as (port, refused), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(b"GET / HTTP/1.1\r\nHost: relevo\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\nxx")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.5)
        writer.close()
        assert refused == []


async def test_a_reader_that_takes_nothing_is_cut_off(tmp_path: Path) -> None:
    """An answer that nobody takes does not stay for ever."""
    patience = Patience(most=1000, unsent_s=0.3, look_s=0.05)
    async with small(patience) as (port, refused), asyncio.timeout(10):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(b"GET /?bytes=50000000 HTTP/1.1\r\nHost: relevo\r\n\r\n")
        while not refused:
            assert await asks(port) == 200
            await asyncio.sleep(0.02)
        writer.transport.abort()
        assert refused == ["slow"]


async def test_who_asks_finds_room_among_those_who_only_sit_there(tmp_path: Path) -> None:
    """A full listener lets the newcomer in, and cuts off who has asked for nothing for longest."""
    patience = Patience(most=5, head_s=60)
    async with small(patience) as (port, refused), asyncio.timeout(10):
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        await asyncio.sleep(0.05)
        assert [await asks(port) for _ in range(3)] == [200] * 3
        assert refused[0] == "connections"
        with suppress(ConnectionError):
            assert await idle[0][0].read() == b""
        async with asyncio.TaskGroup() as group:
            busy = [group.create_task(asks(port, "/?after=0.5")) for _ in range(5)]
            await asyncio.sleep(0.2)
            with pytest.raises(aiohttp.ClientError):
                await asks(port)
        assert [task.result() for task in busy] == [200] * 5
        for _, writer in idle:
            writer.close()
