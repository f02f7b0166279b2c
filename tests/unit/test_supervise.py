"""What a daemon tells systemd, over a real notification socket."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from runtime.supervise import Watchdog, notify, serve


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that systemd would read."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(path))
        heard.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield heard


def told(heard: socket.socket) -> list[str]:
    words = []
    while True:
        try:
            words.append(heard.recv(100).decode())
        except BlockingIOError:
            return words


def test_a_systemd_that_does_not_read_holds_nobody_up(systemd: socket.socket) -> None:
    """A hundred notices to a full socket return at once; what fits is there."""
    began = monotonic()
    for _ in range(100):
        notify("WATCHDOG=1")
    # A datagram socket takes net.unix.max_dgram_qlen of them, which is less than a hundred by far.
    assert monotonic() - began < 1
    assert 0 < len(told(systemd)) <= 100


@pytest.mark.virtual_time
async def test_the_watchdog_is_petted_each_quarter_of_its_period(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten rounds a second for eight seconds under a period of eight: petted each two, not eighty times."""
    monkeypatch.setenv("WATCHDOG_USEC", "8000000")
    watchdog = Watchdog("round")
    for _ in range(80):
        watchdog.finished("round")
        await asyncio.sleep(0.1)
    assert told(systemd) == ["WATCHDOG=1"] * 4


@pytest.mark.virtual_time
async def test_one_stale_round_ends_the_petting(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon whose one round hangs is not petted by its other."""
    monkeypatch.setenv("WATCHDOG_USEC", "8000000")
    watchdog = Watchdog("lead", "orders")
    watchdog.finished("lead")
    watchdog.finished("orders")
    assert told(systemd) == ["WATCHDOG=1"]
    await asyncio.sleep(9)
    watchdog.finished("orders")
    assert told(systemd) == []


async def test_ready_is_told_when_it_is_true_and_not_before(systemd: socket.socket) -> None:
    """Nothing is told while the daemon gets ready; then READY; STOPPING at the signal."""
    opened = asyncio.Event()
    heard: list[list[str]] = []

    async def story() -> None:
        await asyncio.sleep(0.02)
        heard.append(told(systemd))
        opened.set()
        await asyncio.sleep(0.02)
        heard.append(told(systemd))
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    async with asyncio.timeout(5):
        await serve(ready=opened.wait(), story=story())
    assert heard == [[], ["READY=1"]]
    assert told(systemd) == ["STOPPING=1"]


async def test_a_daemon_can_be_ended_before_it_is_ready(systemd: socket.socket) -> None:
    """SIGTERM while a daemon waits to be ready ends it; it is never called ready."""

    async def story() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    async with asyncio.timeout(5):
        await serve(ready=asyncio.Event().wait(), story=story())
    assert told(systemd) == ["STOPPING=1"]
