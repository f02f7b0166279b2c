"""An agent that leaves during the handshake, on a real socket."""

import asyncio
import logging

import pytest
from aiohttp import web

from controller.api import link

UPGRADE = (
    "GET /v1/link/h1 HTTP/1.1\r\nHost: c1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def test_an_agent_that_leaves_during_the_handshake_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is not accepted, and nothing is logged: agents come and go."""
    begun, gone, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        begun.set()
        await gone.wait()
        while request.transport is not None:
            await asyncio.sleep(0.001)
        try:
            _, socket = await link.accept(request, lambda: None)
        finally:
            ended.set()
        return socket

    app = web.Application()
    app.router.add_get("/v1/link/h1", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        _, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
        with caplog.at_level(logging.WARNING):
            async with asyncio.timeout(5):
                writer.write(UPGRADE.encode())
                await begun.wait()
                writer.transport.abort()
                gone.set()
                await ended.wait()
                await asyncio.sleep(0.05)
    finally:
        await runner.cleanup()
    assert [record.getMessage() for record in caplog.records] == []
