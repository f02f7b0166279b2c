"""The whole agent as a process, against a controller's end of the link on a real WebSocket."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from agent import config as settings
from agent.sense.service import run
from agent.serve import Door
from failover.policy import Policy
from fleet.messages import (
    ORDERS_LIMIT_BYTES,
    Ack,
    AgentState,
    Applied,
    Beat,
    FromAgent,
    Orders,
)
from fleet.model import Epoch, HostId
from runtime.config import BadConfig
from tests.ports import free_port

pytestmark = pytest.mark.integration
START = (sys.executable, "-c", "from agent.daemon import command; command()", "--config")
ORDERS = Orders(epoch=Epoch(1, 5), cluster="c", host=HostId("h1"))


class Controller:
    """Hears beats; `misbehave` gets each new WebSocket first and may do what it likes with it."""

    def __init__(self) -> None:
        self.beats: list[Beat] = []
        self.applied: list[Applied] = []
        self.links = 0
        self.tokens: set[str] = set()
        self.misbehave: Callable[[web.WebSocketResponse], object] | None = None
        self._news = asyncio.Event()

    async def link(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        self.links += 1
        self.tokens.add(f"{request.match_info['host']}: {request.headers['Authorization']}")
        if self.misbehave:
            await self.misbehave(socket)  # type: ignore[misc]
        async for frame in socket:
            message = msgspec.json.decode(frame.data, type=FromAgent)
            if isinstance(message, Applied):
                self.applied.append(message)
            else:
                self.beats.append(message)
                await socket.send_bytes(msgspec.json.encode(Ack(sequence=message.sequence)))
            self._news.set()
        return socket

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(15):
            while not holds():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def listening(controller: Controller, port: int) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_get("/v1/link/{host}", controller.link)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running(config: Path) -> AsyncIterator[Process]:
    environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={config.parent}/none"}
    process = await asyncio.create_subprocess_exec(
        *START, str(config), env={**environment, "RELEVO_BOOT_ID": "boot-of-h1"}
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def configure(directory: Path, *ports: int, extra: str = "") -> Path:
    (directory / "token").write_text("secret-of-h1\n")
    (directory / "token").chmod(0o600)
    controllers = "\n".join(f'c{n} = "http://127.0.0.1:{port}"' for n, port in enumerate(ports))
    config = directory / "agent.toml"
    config.write_text(
        f'host = "h1"\ntoken = "{directory}/token"\nstate = "{directory}/state"\n'
        f"reconnect_max_s = 0.3\n[controllers]\n{controllers}\n{extra}"
    )
    return config


async def test_an_agent_reports_follows_orders_and_says_that_it_restarts(tmp_path: Path) -> None:
    """Beats with its token and boot id; orders applied, kept, acknowledged; the last beat is RESTARTING; exit 0."""
    one, two, ports = Controller(), Controller(), (free_port(),)
    metrics = free_port()
    config = configure(tmp_path, *ports, extra=f"[metrics]\nport = {metrics}\n")

    async def order(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(msgspec.json.encode(ORDERS))

    one.misbehave = order
    async with listening(one, ports[0]), running(config) as agent:
        await one.until(lambda: bool(one.applied) and len(one.beats) > 3)
        assert one.applied == [Applied(epoch=Epoch(1, 5))]
        assert one.tokens == {"h1: Bearer secret-of-h1"}
        await one.until(lambda: one.beats[-1].orders == Epoch(1, 5))
        assert one.beats[-1].boot_id == "boot-of-h1"
        assert one.beats[-1].load.memory_total_bytes > 0
        assert one.beats[-1].cluster == "c"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{metrics}/healthz") as answer:
                assert (answer.status, await answer.text()) == (200, "ok\n")
            async with session.get(f"http://127.0.0.1:{metrics}/metrics") as answer:
                assert 'relevo_agent_connected{controller="c0"} 1.0' in await answer.text()
        agent.send_signal(signal.SIGTERM)
        await one.until(lambda: one.beats[-1].state is AgentState.RESTARTING)
        assert await agent.wait() == 0
    async with listening(two, ports[0]), running(config) as agent:
        await two.until(lambda: bool(two.beats) and two.beats[-1].orders == Epoch(1, 5))


async def test_a_controller_that_restarts_is_found_again_by_all_its_agents(tmp_path: Path) -> None:
    """Links end and come back; the agent is the same process with the next sequence."""
    controller, port = Controller(), free_port()
    config = configure(tmp_path, port, extra="[metrics]\nport = 0\n")
    async with running(config):
        for _ in range(3):
            seen = len(controller.beats)
            async with listening(controller, port):
                await controller.until(lambda: len(controller.beats) > seen + 1)  # noqa: B023
    sequences = [beat.sequence for beat in controller.beats]
    assert sequences == sorted(set(sequences))
    assert controller.links == 3


async def never_read(socket: web.WebSocketResponse) -> None:
    await asyncio.sleep(30)


async def nonsense(socket: web.WebSocketResponse) -> None:
    await socket.send_str('{"type":"orders"')


async def huge(socket: web.WebSocketResponse) -> None:
    await socket.send_bytes(b" " * (ORDERS_LIMIT_BYTES + 1))


LATEST_FIRST = 5  # two seconds to open a link on a machine with other work


async def ping_flood(socket: web.WebSocketResponse) -> None:
    for _ in range(200_000):
        await socket.ping()


@pytest.mark.parametrize("fault", [never_read, nonsense, huge, ping_flood])
async def test_a_hostile_controller_costs_the_honest_one_no_beat(
    tmp_path: Path, fault: Callable[[web.WebSocketResponse], object]
) -> None:
    """Whatever one controller does, the other hears a beat each half second, and the hostile one is tried again."""
    good, bad = Controller(), Controller()
    bad.misbehave = fault
    good_port = free_port()
    bad_port = good_port + 1
    config = configure(tmp_path, good_port, bad_port, extra="[metrics]\nport = 0\n")
    async with listening(good, good_port), listening(bad, bad_port), running(config) as agent:
        await good.until(lambda: len(good.beats) > 8)
        assert agent.returncode is None
        assert bad.links > 1 or fault is ping_flood
    # Under a flood the honest link may be open a beat later; from then on none is missing.
    first = good.beats[0].sequence
    assert first <= LATEST_FIRST
    assert [beat.sequence for beat in good.beats][:9] == list(range(first, first + 9))
    # By the agent's own clock: whoever floods it shares a process with whoever listens here.
    sent = [beat.uptime_s for beat in good.beats]
    assert max(later - before for before, later in pairwise(sent)) < Policy().live_edge_s


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ("beat_s = 0\n", "beat_s"),
        ("[metrics]\naddress = '0.0.0.0'\n", "set certificate, key and token"),
        ("[controllers.x]\n", "controllers"),
        ("nonsense = true\n", "nonsense"),
    ],
)
async def test_a_bad_configuration_is_one_line_and_exit_2(
    tmp_path: Path, extra: str, says: str
) -> None:
    """It names the file or the field, and what to do."""
    config = configure(tmp_path, 1)
    head, tail = config.read_text().split("[controllers]")
    text = (
        f"{extra}{head}[controllers]{tail}"
        if "[" not in extra
        else f"{head}[controllers]{tail}{extra}"
    )
    config.write_text(text)
    process = await asyncio.create_subprocess_exec(*START, str(config), stderr=PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert says in errors.decode() and errors.count(b"\n") == 1


def test_a_token_in_the_clear_or_open_to_others_is_refused(tmp_path: Path) -> None:
    """The door compares its token, and opens beyond loopback only with all three."""
    token = tmp_path / "token"
    token.write_text("s\n")
    with pytest.raises(BadConfig, match="chmod 600"):
        Door(settings.Metrics(token=token))
    token.chmod(0o600)
    door = Door(settings.Metrics(token=token))
    assert door.admits("Bearer s") and not door.admits("Bearer t") and not door.admits("")
    with pytest.raises(BadConfig, match="beyond loopback"):
        Door(settings.Metrics(address="::", token=token))


def gone(pid_file: Path) -> bool:
    """Whether that process has ended, reaped or not."""
    status = Path(f"/proc/{pid_file.read_text().strip()}/status")
    return not status.exists() or "State:\tZ" in status.read_text()


async def test_a_restart_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """Nothing of it is left after its time."""
    assert await run(("true",), 5) == "exit 0"
    assert await run(("false",), 5) == "exit 1"
    assert (await run(("/no/such/command",), 5)).startswith("can't be started")
    child = tmp_path / "child"
    script = f"sleep 60 & echo $! > {child}; wait"
    assert await run(("sh", "-c", script), 0.5) == "killed after 0.5 s"
    await asyncio.sleep(0.1)
    assert gone(child)
