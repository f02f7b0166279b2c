"""HAProxy's sockets when it misbehaves, and its answers read."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest

from agent.config import Edge
from agent.edge.checks import CARRIED_S, Checks
from agent.edge.haproxy import HAProxy
from agent.edge.runtime import Runtime, Socket
from agent.edge.view import ServerView, Unreadable, read_entries, read_stat
from agent.ports import DriverError
from fleet.messages import Routes
from fleet.model import Epoch, Health, HostId

W1 = HostId("w1")
HEADER = "# pxname,svname,scur,status,lastchg,check_status,check_code,last_chk,addr,\n"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def fake(handler: Handler) -> AsyncIterator[Path]:
    """A Unix socket that answers as `handler` likes."""
    answering: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        answering.add(task)
        with suppress(OSError), closing(writer):
            await handler(reader, writer)

    # Short: a socket's path has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="relevo-wire-") as folder:
        path = Path(folder) / "sock"
        async with await asyncio.start_unix_server(answer, path):
            yield path
        if answering:
            _, stuck = await asyncio.wait(answering, timeout=5)
            assert not stuck, "the driver left a connection open"


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()  # until the driver gives up


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write(b"\xff\xfe\x00 220 mail.example ESMTP\n" * 3)


async def curt(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes at once."""


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Never silent for long, and never done."""
    await reader.readline()
    while True:
        writer.write(b"Name: HAProxy\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def flooding(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


@pytest.mark.parametrize("handler", [silent, garbage, curt, dripping])
async def test_a_haproxy_out_of_its_mind_is_an_error_in_bounded_time(handler: Handler) -> None:
    """Silence, garbage, an early end, an endless answer: each a DriverError, each within the timeout."""
    now = asyncio.get_running_loop().time
    async with fake(handler) as path:
        runtime = Runtime(path, Path("/x/domains.map"), timeout_s=0.2)
        for call in (
            runtime.info(),
            runtime.stat(),
            runtime.servers_state(),
            runtime.replace_map({"a.example": "w1"}),
        ):
            began = now()
            with pytest.raises(DriverError, match="haproxy"):
                await call
            assert now() - began < 0.5


async def test_an_answer_without_end_is_cut_off() -> None:
    """The memory that an answer may take is bounded."""
    async with fake(flooding) as path:
        with pytest.raises(DriverError, match="more than 1000000 bytes"):
            await Socket(path, limit_bytes=1_000_000).ask("show info", timeout_s=5)


@pytest.mark.parametrize("handler", [silent, garbage, curt, None])
async def test_a_look_at_such_a_haproxy_is_a_view_never_an_error(
    handler: Handler | None, tmp_path: Path
) -> None:
    """It is called not up, without a single check, and the reason is told."""
    async with fake(handler or curt) as path:
        socket = path if handler else tmp_path / "absent"
        driver = HAProxy(Edge(directory=tmp_path, socket=socket, master_socket=path))
        async with asyncio.timeout(2):
            view = await driver.look()
    assert not view.report.haproxy_up
    assert view.checks == {}
    assert "haproxy" in view.report.error


async def test_routes_are_refused_where_no_binary_can_check_them(tmp_path: Path) -> None:
    """A missing program is said by its name; nothing is left half-written."""
    edge = Edge(
        directory=tmp_path,
        socket=tmp_path / "s",
        master_socket=tmp_path / "m",
        binary="/no/haproxy",
    )
    with pytest.raises(DriverError, match="can't run /no/haproxy"):
        await HAProxy(edge).follow(Routes(), Epoch(1, 1))
    assert not (tmp_path / "haproxy.cfg").exists()
    assert not (tmp_path / "haproxy.cfg.new").exists()


def test_a_folder_that_would_need_quoting_is_refused() -> None:
    """Its name reaches HAProxy's socket."""
    with pytest.raises(ValueError, match="white space"):
        HAProxy(Edge(directory=Path("/tmp/a b")))


@pytest.mark.parametrize(
    ("status", "check", "health", "detail"),
    [
        ("UP", "L7OK,200", Health.UP, "L7OK 200"),
        ("UP", "* L7OK,200", Health.UP, "L7OK 200"),
        ("UP 2/3", "L4TOUT,", Health.UNKNOWN, "UP 2/3 L4TOUT"),
        ("DOWN", "L4CON,", Health.DOWN, "L4CON"),
        ("DOWN 1/2", "L7OK,200", Health.UNKNOWN, "DOWN 1/2 L7OK 200"),
        ("UP", "INI,", Health.UNKNOWN, "UP INI"),
        ("UP", ",", Health.UNKNOWN, "UP"),
        ("MAINT", "L7OK,200", Health.UNKNOWN, "MAINT L7OK 200"),
        ("no check", ",", Health.UNKNOWN, "no check"),
    ],
)
def test_haproxy_s_words_become_three_values(
    status: str, check: str, health: Health, detail: str
) -> None:
    """Only a finished finding counts; what is on its way or not checked is unknown."""
    row = f'w1,host,0,{status},7,{check},"not, found",192.0.2.1:80,\n'
    server = read_stat(HEADER + row).servers[W1]
    assert (server.health, server.detail) == (health, detail)
    assert (server.since_s, server.address) == (7, "192.0.2.1:80")


@pytest.mark.parametrize(
    "answer",
    ["", "garbage", "# pxname,svname,\nw1,host,\n", HEADER + "w1,host,0,UP\n",
     HEADER + "w1,host,0,UP,soon,L7OK,200,,192.0.2.1:80,\n"],
)  # fmt: skip
def test_a_cut_answer_is_unreadable(answer: str) -> None:
    """It is never taken for a HAProxy without hosts."""
    with pytest.raises(Unreadable):
        read_stat(answer)


def test_entries_are_read_with_their_pointers_left_out() -> None:
    """And a line of another kind is an error, not an entry."""
    answer = "0x1 a.example w1\n0x2 b.example w2\n\n"
    assert read_entries(answer) == {"a.example": "w1", "b.example": "w2"}
    with pytest.raises(Unreadable):
        read_entries("Unknown map identifier.\n")


def server(
    health: Health, *, initial: bool = False, since_s: float = 9.0
) -> dict[HostId, ServerView]:
    return {
        W1: ServerView(
            health=health, since_s=since_s, detail="L4CON", address="192.0.2.1:80", initial=initial
        )
    }


def test_what_was_seen_stands_over_a_reload_until_checked_again() -> None:
    """A new worker has checked nothing yet; a restarted HAProxy has nothing to stand by."""
    checks = Checks()
    checks.see(server(Health.DOWN), 100.0)
    checks.reloaded(100.5)
    carried = checks.see(server(Health.UNKNOWN, initial=True), 101.0)[W1]
    assert (carried.health, carried.since_s) == (Health.DOWN, 10.0)
    late = checks.see(server(Health.UNKNOWN, initial=True), 101.0 + CARRIED_S)[W1]
    assert late.health is Health.UNKNOWN


def test_the_unknown_is_timed_from_its_first_look() -> None:
    """HAProxy counts from the last time it was sure."""
    checks = Checks()
    assert checks.see(server(Health.UP), 100.0)[W1].since_s == 9.0
    assert checks.see(server(Health.UNKNOWN), 101.0)[W1].since_s == 0.0
    assert checks.see(server(Health.UNKNOWN), 102.5)[W1].since_s == 1.5
