"""The demo: it measures right, it comes to its end, and nothing of it is left, however it ended."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from deploy.demo import network as networks
from deploy.demo import processes
from deploy.demo.lab import Door
from deploy.demo.load import Crowd, Tally, Target
from deploy.demo.network import NAMESPACES, Namespaces, network
from deploy.demo.packages import Tools

pytestmark = pytest.mark.integration
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
DEMO = (sys.executable, "-m", "deploy.demo.command")
KEYS = (
    *("sites_moved", "detected_s", "decided_s", "edges_s", "proven_s", "dns_s", "complete_s"),
    *("requests", "failed_requests_own", "failed_requests_others"),
)


def left_of(pid: int) -> list[str]:
    """What is still there of the demo with this pid: namespaces, folders, processes that live in them."""
    names = NAMESPACES.glob(f"relevo-{pid}-*") if NAMESPACES.is_dir() else ()
    folders = Path(tempfile.gettempdir()).glob(f"{processes.FOLDER}{pid}-*")
    living = (p for p in psutil.process_iter() if f"{processes.FOLDER}{pid}-" in cwd_of(p))
    return [*map(str, names), *map(str, folders), *map(str, living)]


def cwd_of(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except (psutil.Error, OSError):
        return ""


def until(condition: Callable[[], object], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s:g} s"
        time.sleep(0.05)


@needs_root
async def test_a_network_is_gone_at_the_end_also_after_a_failure() -> None:
    """Eleven namespaces while the block runs, none afterwards."""
    with pytest.raises(RuntimeError, match="in the middle"):
        async with network() as own:
            assert isinstance(own, Namespaces)
            assert len(left_of(os.getpid())) == len(own.lab.machines) + 1
            raise RuntimeError("in the middle")
    assert left_of(os.getpid()) == []


@needs_root
async def test_a_machine_that_is_cut_off_is_silent_and_comes_back() -> None:
    """No packet, so neither answer nor refusal; mended, it answers at once, on IPv4 and IPv6."""
    async with network() as own:
        web, edge = own.lab.machines["web1"], own.lab.machines["edge1"]
        server = (
            "import socket as s\n"
            "door = s.create_server(('::', 80), family=s.AF_INET6, dualstack_ipv6=True)\n"
            "while True: door.accept()"
        )
        command = (*own.command(web), sys.executable, "-c", server)
        listening = await asyncio.create_subprocess_exec(*command)
        try:
            for address in web.addresses:
                await until_connects(own.command(edge), address)
            await own.cut(web)
            for address in web.addresses:
                assert await connect(own.command(edge), address) == "TimeoutError"
            await own.mend(web)
            for address in web.addresses:
                await until_connects(own.command(edge), address)
        finally:
            listening.kill()
            await listening.wait()


async def connect(command: tuple[str, ...], address: str) -> str:
    code = (
        f"import socket\ntry: socket.create_connection(({address!r}, 80), 0.7)\n"
        "except OSError as error: print(type(error).__name__)"
    )
    process = await asyncio.create_subprocess_exec(
        *command, sys.executable, "-c", code, stdout=subprocess.PIPE
    )
    async with asyncio.timeout(10):
        said, _ = await process.communicate()
    return said.decode().strip()


async def until_connects(command: tuple[str, ...], address: str) -> None:
    async with asyncio.timeout(10):
        while await connect(command, address):
            await asyncio.sleep(0.05)


@needs_root
def test_the_next_start_removes_what_a_killed_demo_left(tools: Tools) -> None:
    """SIGKILL leaves the demo no time to clean up: the next one does, and touches no other demo."""
    demo = subprocess.Popen([*DEMO, "--once", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        until(lambda: any("Process" in left for left in left_of(demo.pid)), 20)
        asyncio.run(remove_stale())
        assert left_of(demo.pid), "a demo that lives was touched"
    finally:
        demo.kill()
        demo.communicate()
    assert left_of(demo.pid)
    asyncio.run(remove_stale())
    assert left_of(demo.pid) == []


async def remove_stale() -> None:
    processes.remove_stale()
    await networks.remove_stale()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_a_signal(tools: Tools, number: signal.Signals) -> None:
    """ctrl-C and SIGTERM end the demo in good order, in the middle of its start too."""
    demo = subprocess.Popen([*DEMO, "--once", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: any("Process" in left for left in left_of(demo.pid)), 20)
    demo.send_signal(number)
    out, err = demo.communicate(timeout=20)
    assert out == b""
    assert b"Traceback" not in err, err.decode()
    assert demo.returncode != 0
    assert left_of(demo.pid) == []


async def test_the_load_counts_what_the_server_did() -> None:
    """Each kind of failure counts for its site, each right answer too; nothing is lost at the end."""
    served: Counter[str] = Counter()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        domain = head.partition("Host: ")[2].partition("\r\n")[0]
        served[domain] += 1
        body = {"wrong": "site=other host=x"}.get(domain, f"site={domain} host=x")
        status = "503 No" if domain == "refusing" else "200 OK"
        if domain == "slow":
            await reader.read()  # until the visitor has lost patience
        elif domain != "silent":
            writer.write(f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}\n".encode())
        writer.close()
        await writer.wait_closed()

    names = ("good", "fine", "wrong", "refusing", "silent", "slow")
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        door = Door(*server.sockets[0].getsockname())
        crowd = Crowd(sites=tuple(Target(name, name) for name in names), doors=(door,))
        tallies = await run_load(crowd, for_s=1.5)
    ok: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for tally in tallies:
        for site, (good, bad) in tally.sites.items():
            ok[site] += good
            failed[site] += bad
    assert ok + failed == served
    assert set(+ok) == {"good", "fine"}
    assert set(+failed) == {"wrong", "refusing", "silent", "slow"}
    assert 200 * 1.2 < served.total() < 200 * 2.5
    assert max(served.values()) - min(served.values()) <= 1
    reasons = {failure.site: failure.reason for tally in tallies for failure in tally.failures}
    assert reasons == {
        "wrong": "status 200",
        "refusing": "status 503",
        "silent": "empty",
        "slow": "timeout",
    }


async def run_load(crowd: Crowd, *, for_s: float) -> list[Tally]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.demo.load"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(msgspec.json.encode(crowd) + b"\n")
    async with asyncio.timeout(20):
        tallies = [msgspec.json.decode(await process.stdout.readline(), type=Tally)]
        await asyncio.sleep(for_s)
        process.stdin.close()
        while not tallies[-1].last:
            tallies.append(msgspec.json.decode(await process.stdout.readline(), type=Tally))
        await process.wait()
    return tallies


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("1",), id="kill"),
        pytest.param(("freeze",), id="freeze", marks=pytest.mark.long),
        pytest.param(("shutdown",), id="shutdown"),
        pytest.param(("cut",), id="cut", marks=(needs_root, pytest.mark.long)),
        pytest.param(("1", "--network", "loopback"), id="kill-on-loopback"),
    ],
)
def test_a_host_fails_and_its_sites_live_on(tools: Tools, arguments: tuple[str, ...]) -> None:
    """One line of JSON on stdout, all ten sites moved and proven, no request of another host's site failed."""
    demo = subprocess.Popen(
        [*DEMO, "--once", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = demo.communicate(timeout=90)
    assert demo.returncode == 0, err.decode()
    (line,) = out.decode().splitlines()
    outcome = json.loads(line)
    assert tuple(outcome) == KEYS
    assert outcome["sites_moved"] == 10
    assert outcome["failed_requests_others"] == 0, err.decode()
    assert outcome["requests"] >= 200 * 3
    assert outcome["complete_s"] == max(outcome["proven_s"], outcome["dns_s"]) < 10
    assert 0 <= outcome["detected_s"] <= outcome["decided_s"] <= outcome["edges_s"]
    assert left_of(demo.pid) == []


def test_what_loopback_cannot_do_is_said_at_once(tools: Tools) -> None:
    """A host can't be cut off without a packet there: exit status 2, and how to have it."""
    demo = subprocess.run(
        [*DEMO, "--once", "cut", "--network", "loopback"],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (demo.returncode, demo.stdout) == (2, b"")
    assert b"run as root" in demo.stderr
