"""A real Prometheus, fed by what a test serves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from deploy.demo.packages import Tools
from tests.ports import free_port


@asynccontextmanager
async def prometheus(tools: Tools, home: Path) -> AsyncIterator[str]:
    """Reads `home`/prometheus.yml, keeps its data there; gives its URL."""
    port = free_port()
    with (home / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(tools.path("prometheus")),
            f"--config.file={home}/prometheus.yml",
            f"--storage.tsdb.path={home}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
            env=tools.env(),
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        async with asyncio.timeout(20):
            await process.wait()


async def ask(session: aiohttp.ClientSession, url: str, query: str) -> list[dict[str, Any]]:
    """The result vector of an instant query; empty while Prometheus is not up yet. Raises AssertionError."""
    try:
        async with session.get(f"{url}/api/v1/query", params={"query": query}) as answer:
            told = await answer.json()
    except aiohttp.ClientError:
        return []
    assert told["status"] == "success", f"{query}: {told.get('error')}"
    found: list[dict[str, Any]] = told["data"]["result"]
    return found


async def until(session: aiohttp.ClientSession, url: str, query: str) -> list[dict[str, Any]]:
    """What `query` gives once it gives something. Raises TimeoutError when the caller's patience ends."""
    while not (found := await ask(session, url, query)):
        await asyncio.sleep(0.2)
    return found
