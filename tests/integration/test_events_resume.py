"""Events over a restart of the controller: the reader goes on by itself, and knows where something may be lost."""

import asyncio
import hashlib
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from cli.answers import Event

pytestmark = pytest.mark.integration

TOKEN = "a-token-for-a-test-of-events"
RELEVO = str(Path(sys.executable).with_name("relevo"))
SECONDS = 20.0


@asynccontextmanager
async def running(*arguments: str, stdout: int = DEVNULL) -> AsyncGenerator[Process, None]:
    environment = {**os.environ, "RELEVO_TOKEN": TOKEN, "LC_ALL": "C"}
    process = await asyncio.create_subprocess_exec(
        RELEVO, *arguments, env=environment, stdout=stdout, stderr=DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(SECONDS):
                await process.wait()


def config(home: Path) -> tuple[Path, str]:
    """A controller's configuration, and its address: the same after each start."""
    for port in range(21_300, 21_400):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                break
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    (home / "admins.toml").write_text(f'ana = "{digest}"\n')
    (home / "agents.toml").write_text("")
    path = home / "controller.toml"
    path.write_text(
        f'id = "c1"\nagents = "{home}/agents.toml"\nadmins = "{home}/admins.toml"\n'
        f'state = "{home}/state"\nlisten = {{ address = "127.0.0.1", port = {port} }}\n'
    )
    return path, f"http://127.0.0.1:{port}"


async def order(url: str, reason: str) -> None:
    """Give an order as soon as the controller leads."""
    said = {"scope": "all", "arming": "observe", "reason": reason}
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    async with asyncio.timeout(SECONDS), aiohttp.ClientSession(headers=bearer) as session:
        while True:
            try:
                async with session.put(f"{url}/v1/failover/arming", json=said) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


async def until(lines: asyncio.StreamReader, told: list[Event], reason: str) -> None:
    """Read on until an order that was given for this reason is told."""
    while not told or told[-1].data.get("reason") != reason:
        line = await asyncio.wait_for(lines.readline(), SECONDS)
        told.append(msgspec.json.decode(line, type=Event))


async def test_events_go_on_over_a_restart(tmp_path: Path) -> None:
    """`relevo events --follow`: one order before, a reset, one order after; each told once."""
    path, url = config(tmp_path)
    told: list[Event] = []
    follow = ("events", "--follow", "--json", "--url", url)
    async with AsyncExitStack() as stack:
        async with running("controller", "--config", str(path)):
            await order(url, "before")
            reader = await stack.enter_async_context(running(*follow, stdout=PIPE))
            assert reader.stdout is not None
            await until(reader.stdout, told, "before")
        async with running("controller", "--config", str(path)):
            await order(url, "after")
            await until(reader.stdout, told, "after")
    resets = [n for n, event in enumerate(told) if event.event == "reset"]
    assert len(resets) == 1 and told[resets[0]].data == {"why": "restarted"}
    before, after = told[: resets[0]], told[resets[0] :]
    assert [e.data["reason"] for e in before if e.event == "audit"] == ["before"]
    assert [e.data["reason"] for e in after if e.event == "audit"] == ["after"]
    processes = [{event.id.partition(".")[0] for event in part} for part in (before, after)]
    assert len(processes[0]) == len(processes[1]) == 1 and processes[0] != processes[1]
