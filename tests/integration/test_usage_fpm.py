"""A real php-fpm asked how it is: idle, busy, overrun, asleep."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.layout.attached import Attached
from agent.ports import DriverError
from agent.usage import fpm, processes
from agent.usage.accesslog import Web
from agent.usage.web import WebSide
from deploy.demo.packages import Tools, bring
from fleet.caps import Attachment
from fleet.model import SiteId, Why

pytestmark = pytest.mark.integration

A = SiteId("a")
PAGE = "/status"
CONFIG = """\
[global]
error_log = {folder}/log
daemonize = no
[a]
user = {user}
listen = {folder}/a.sock
listen.mode = 0666
listen.backlog = 4
pm = {manager}
pm.max_children = 2
pm.process_idle_timeout = 2s
pm.status_path = /status
{more}
"""
SLEEPER = "<?php usleep(700000); echo 'slept';"


class Fpm:
    """One pool of two workers at most."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.socket, self._folder, self.process = folder / "a.sock", folder, process
        self._script = folder / "sleep.php"
        self._script.write_text(SLEEPER)

    def visit(self) -> bytes:
        """What a visitor gets, after 0.7 s of a worker's time."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(10)
            link.connect(str(self.socket))
            link.sendall(fpm.request(str(self._script)))
            stream = fpm.Stream()
            while not stream.ended:
                stream.feed(link.recv(4096))
        return bytes(stream.out)

    def workers(self) -> int:
        mine = processes.look(frozenset({os.getuid()}), time.monotonic()).seen.values()
        return sum(seen.parent == self.process.pid for seen in mine)


@contextmanager
def served(tools: Tools, folder: Path, manager: str, more: str = "") -> Iterator[Fpm]:
    config = folder / "fpm.conf"
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    config.write_text(CONFIG.format(folder=folder, user=user, manager=manager, more=more))
    command = [str(tools.path("php-fpm8.2")), "-n", "-R", "-F", "-y", str(config)]
    with subprocess.Popen(command, env=tools.env(), stderr=subprocess.DEVNULL) as process:
        try:
            it = Fpm(folder, process)
            until(it.socket.exists)
            yield it
        finally:
            process.terminate()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def tools() -> Tools:
    return Tools(bring(("php-fpm",)))


def test_a_calm_pool_tells_what_it_served(tools: Tools, tmp_path: Path) -> None:
    """Counters grow by what visitors asked; nobody waits."""
    with served(tools, tmp_path, "static") as it:
        before = fpm.ask(it.socket, PAGE)
        assert b"slept" in it.visit()
        after = fpm.ask(it.socket, PAGE)
    assert after.accepted - before.accepted == 2, "the visitor and our own question"
    assert (after.active, after.total, after.short) == (1, 2, 0)


def test_a_crowded_pool_says_that_it_is_short_and_the_kernel_who_waits(
    tools: Tools, tmp_path: Path
) -> None:
    """With a socket of its own for the status, as every pool should have, it answers while all workers are busy."""
    more = (
        f"pm.status_listen = {tmp_path}/status.sock\npm.start_servers = 1\n"
        "pm.min_spare_servers = 1\npm.max_spare_servers = 1"
    )
    status = (tmp_path / "status.sock", PAGE)
    with served(tools, tmp_path, "dynamic", more) as it, ThreadPoolExecutor(6) as visitors:
        until(status[0].exists)
        web = WebSide()
        pool = Attached(attachment=Attachment.POOL, why=Why("x"), socket=it.socket, status=status)
        web.follow({A: pool})
        assert web.round(0.0, {A})[A].queue == 0
        visits = [visitors.submit(it.visit) for _ in range(6)]
        time.sleep(0.3)
        assert (web.round(2.0, {A})[A].queue or 0) >= 3
        assert all(b"slept" in visit.result() for visit in visits)
        told = web.round(12.0, {A})[A]
        web.close()
    assert told.workers_short >= 1 and told.queue == 0
    assert told.requests_per_s == pytest.approx(6 / 12)


def test_a_pool_without_a_free_worker_is_not_waited_for(tools: Tools, tmp_path: Path) -> None:
    """The question waits behind the visitors, and its deadline holds."""
    with served(tools, tmp_path, "static") as it, ThreadPoolExecutor(4) as visitors:
        visits = [visitors.submit(it.visit) for _ in range(4)]
        time.sleep(0.2)
        began = time.monotonic()
        with pytest.raises(fpm.NoAnswer):
            fpm.ask(it.socket, PAGE)
        assert time.monotonic() - began < 0.5
        assert all(b"slept" in visit.result() for visit in visits)


def test_a_page_that_is_no_status_is_refused(tools: Tools, tmp_path: Path) -> None:
    """What php-fpm says of a file that is not there is not taken for calm."""
    with served(tools, tmp_path, "static") as it, pytest.raises(DriverError, match=r"40[34]"):
        fpm.ask(it.socket, "/other")


def test_a_pool_that_sleeps_is_let_sleep(tools: Tools, tmp_path: Path) -> None:
    """Its workers end after two seconds without a visitor, though we look each two."""
    with served(tools, tmp_path, "ondemand") as it:
        site = Attached(attachment=Attachment.POOL, why=Why("x"), status=(it.socket, PAGE))
        web = WebSide()
        web.follow({A: site})
        it.visit()
        assert it.workers() == 1
        assert web.round(0.0, {A})[A].busy == 0.0
        now = 0.0
        while it.workers():
            now += 2.0
            assert web.round(now, ()) == {A: Web()} and now < 100
            time.sleep(0.3)
        web.close()
