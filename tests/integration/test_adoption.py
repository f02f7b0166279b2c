"""Adopted workers: systemd's scopes over a real dbus-daemon, and what a real php-fpm does with its workers' lives."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.layout.adopt import TITLE, Begin, End, Step, Take, scope_of
from agent.layout.attached import Adoptable
from agent.layout.scopes import IN_A_ROW, SystemdScopes
from agent.layout.wishes import leave
from agent.ports import DriverError
from agent.usage import processes
from deploy.demo.logind import private_bus
from deploy.demo.packages import Tools, bring
from fleet.model import SiteId
from tests.integration import systemds
from tests.integration.test_usage_fpm import Fpm, served, until

pytestmark = pytest.mark.integration

SHOP, NEWS = SiteId("shop"), SiteId("news")
SCOPE, UNIT = "relevo-pool-shop.scope", "php8.2-fpm.service"
BEGIN = Begin(SCOPE, "user-1001.slice", UNIT, (700, 701))
BUSY_S = 0.7
# A signal would end a sleep.
BUSY = f"<?php for ($end = microtime(true) + {BUSY_S}; microtime(true) < $end;); echo 'slept';"
ENDS = {"stop": signal.SIGTERM, "graceful stop": signal.SIGQUIT}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a Unix socket's has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="relevo-") as path:
        yield Path(path)


@pytest.fixture
async def systemd(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[systemds.Systemd]:
    if shutil.which("dbus-daemon") is None:
        pytest.skip("no dbus-daemon here")
    async with private_bus(folder) as address, systemds.stand_in(address, folder) as made:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield made


async def test_a_scope_is_delegated_and_lives_no_longer_than_its_service(
    systemd: systemds.Systemd,
) -> None:
    """Made of the workers that are there, in the site's slice; it starts nothing that somebody has stopped."""
    assert await SystemdScopes().carry_out([(SHOP, BEGIN)]) == {}
    made = systemd.scopes[SCOPE]
    assert (made["Slice"], made["Delegate"], made["pids"]) == ("user-1001.slice", True, [700, 701])
    for dependency in ("PartOf", "StopPropagatedFrom", "Before"):
        assert made[dependency] == [UNIT]
    assert not made.keys() & {"Requires", "BindsTo", "Wants", "Upholds"}


async def test_later_workers_are_attached_and_the_rest_is_ended(systemd: systemds.Systemd) -> None:
    """One call for each step, in order; what is there is not made again."""
    steps: list[tuple[SiteId, Step]] = [
        (SHOP, BEGIN),
        (SHOP, Take(SCOPE, (702,))),
        (SHOP, Take(SCOPE, (703,))),
    ]
    assert await SystemdScopes().carry_out(steps) == {}
    assert systemd.scopes[SCOPE]["pids"] == [700, 701, 702, 703]
    again = await SystemdScopes().carry_out([(SHOP, BEGIN)])
    assert "already loaded" in again[SHOP]
    assert await SystemdScopes().carry_out([(SHOP, End(SCOPE))]) == {}
    assert systemd.scopes == {}


async def test_a_worker_that_has_just_ended_costs_its_own_site_a_round(
    systemd: systemds.Systemd,
) -> None:
    """systemd refuses the whole call; the next site's is made all the same."""
    systemd.ended = {701}
    news = Begin(scope_of(NEWS), "user-1002.slice", UNIT, (800,))
    failed = await SystemdScopes().carry_out([(SHOP, BEGIN), (NEWS, news)])
    assert failed.keys() == {SHOP} and "No such process" in failed[SHOP]
    assert systemd.scopes.keys() == {scope_of(NEWS)}


async def test_a_systemd_that_refuses_everybody_is_not_pressed(systemd: systemds.Systemd) -> None:
    """After a few in a row the rest waits for the next round, and is told as not tried."""
    systemd.refuses = "StartTransientUnit"
    sites = [SiteId(f"s{n}") for n in range(10)]
    every: list[tuple[SiteId, Step]] = [
        (site, Begin(scope_of(site), "x.slice", UNIT, (700,))) for site in sites
    ]
    failed = await SystemdScopes().carry_out(every)
    assert failed.keys() == set(sites) and "not tried" in failed[sites[-1]]
    assert [member for member, _ in systemd.calls] == ["StartTransientUnit"] * IN_A_ROW


async def test_without_a_bus_nothing_is_done(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that is said, once for all."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={folder}/none")
    with pytest.raises(DriverError, match="can't be reached"):
        await SystemdScopes().carry_out([(SHOP, BEGIN)])


@pytest.fixture(scope="module")
def tools() -> Tools:
    return Tools(bring(("php8.2-fpm",)))


def workers_of(master: int) -> dict[int, str]:
    """What each calls itself, by pid."""
    mine = processes.look(frozenset({os.getuid()}), time.monotonic()).seen
    found = [pid for pid, seen in mine.items() if seen.parent == master]
    return {pid: Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0 ") for pid in found}


def runs(pid: int) -> bool:
    """A zombie does not."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def busy(folder: Path) -> None:
    """A visit is work from now on."""
    (folder / "sleep.php").write_text(BUSY)


def visited(fpm: Fpm) -> bool:
    return b"slept" in fpm.visit()


@pytest.mark.parametrize("how", ENDS)
def test_a_master_that_is_stopped_ends_its_workers_wherever_they_are(
    how: str, tools: Tools, folder: Path
) -> None:
    """By their pids: no cgroup of systemd's has a part in it, so a worker elsewhere ends too."""
    with served(tools, folder, "static") as fpm:
        until(lambda: len(workers_of(fpm.process.pid)) == 2)
        mine = workers_of(fpm.process.pid)
        assert all(title.startswith(TITLE) for title in mine.values()), mine
        fpm.process.send_signal(ENDS[how])
        assert fpm.process.wait(timeout=10) == 0
        assert not any(map(runs, mine))


def test_a_reload_ends_workers_after_their_requests_and_keeps_the_master(
    tools: Tools, folder: Path
) -> None:
    """The same pid executes itself anew: its new workers are adopted as the old ones were, and nobody was cut off."""
    with served(tools, folder, "static", "[global]\nprocess_control_timeout = 10\n") as fpm:
        until(lambda: len(workers_of(fpm.process.pid)) == 2)
        busy(folder)
        old = workers_of(fpm.process.pid)
        with ThreadPoolExecutor(2) as visitors:
            answers = [visitors.submit(visited, fpm) for _ in range(2)]
            time.sleep(0.2)  # both are under way
            fpm.process.send_signal(signal.SIGUSR2)
            assert all(answer.result() for answer in answers)
        until(lambda: len(workers_of(fpm.process.pid).keys() - old.keys()) == 2)
        assert not any(map(runs, old)) and visited(fpm)


def test_a_reload_makes_every_pool_wait_for_the_slowest_request_of_all(
    tools: Tools, folder: Path
) -> None:
    """Why no penalty reloads a shared master to have fewer workers: its neighbours would pay for it."""
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    other = f"[b]\nuser = {user}\nlisten = {folder}/b.sock\npm = static\npm.max_children = 2\n"
    more = f"{other}[global]\nprocess_control_timeout = 10\n"
    with served(tools, folder, "static", more) as slow, ThreadPoolExecutor(2) as visitors:
        quick = Fpm(folder, slow.process)
        quick.socket = folder / "b.sock"
        busy(folder)
        until(lambda: len(workers_of(slow.process.pid)) == 4)
        asked = time.monotonic()
        answer = visitors.submit(visited, slow)
        time.sleep(0.1)
        slow.process.send_signal(signal.SIGUSR2)
        time.sleep(0.1)
        assert visited(quick) and answer.result()
        assert time.monotonic() - asked > 2 * BUSY_S, "it did not begin before the other had ended"


@pytest.mark.skipif(os.getuid() != 0, reason="a master that counts is root's")
async def test_a_release_has_each_worker_answer_first(tools: Tools, folder: Path) -> None:
    """Both are gone afterwards, one of them from the middle of a request; visitors notice nothing."""
    with served(tools, folder, "static") as fpm, ThreadPoolExecutor(6) as visitors:
        until(lambda: len(workers_of(fpm.process.pid)) == 2)
        busy(folder)
        old = workers_of(fpm.process.pid)
        of = Adoptable(
            uids=(os.getuid(),),
            main=f"{folder}/fpm.conf",
            cgroup=f"/system.slice/{UNIT}",
            unit=UNIT,
            slice="user-1001.slice",
        )
        for cgroup, pids in (
            (of.cgroup, [fpm.process.pid]),
            (f"/user.slice/{of.slice}/{SCOPE}", [*old, os.getpid()]),
        ):
            procs = folder / cgroup.lstrip("/") / "cgroup.procs"
            procs.parent.mkdir(parents=True)
            procs.write_text("".join(f"{pid}\n" for pid in pids))
        answers = [visitors.submit(visited, fpm)]
        await asyncio.sleep(0.2)
        async with asyncio.TaskGroup() as group:
            left = group.create_task(leave(SHOP, of, folder, read_s=0))
            await asyncio.sleep(0.1)
            answers += [visitors.submit(visited, fpm) for _ in range(5)]
        assert left.result() == 0 and not any(map(runs, old))
        for answer in answers:
            assert await asyncio.wrap_future(answer)
        assert len(workers_of(fpm.process.pid)) == 2


def test_workers_of_a_killed_master_keep_the_next_one_out_until_they_end(
    tools: Tools, folder: Path
) -> None:
    """Why the scope ends with the service, and why what systemd misses is the agent's to end."""
    with served(tools, folder, "static") as fpm:
        until(lambda: len(workers_of(fpm.process.pid)) == 2)
        mine = workers_of(fpm.process.pid)
        fpm.process.kill()
        fpm.process.wait()
        try:
            assert all(map(runs, mine)), "nobody ends them"
            command = [str(tools.path("php-fpm8.2")), "-n", "-R", "-F", "-y", f"{folder}/fpm.conf"]
            refused = subprocess.run(
                command, env=tools.env(), capture_output=True, timeout=20, check=False
            )
            assert refused.returncode != 0 and b"already listen" in (
                refused.stderr + (folder / "log").read_bytes()
            )
        finally:
            for pid in mine:
                os.kill(pid, signal.SIGTERM)
        until(lambda: not any(map(runs, mine)))
