"""The units under a real systemd, installed by the words of docs/install.md."""

import re
from dataclasses import dataclass

import pytest

from tests.vm.coop import coop, visit
from tests.vm.installed import Pair
from tests.vm.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.long]

UNITS = ("relevo-controller", "relevo-agent")
# What a daemon says when its unit forbids it something.
FORBIDDEN = "Permission denied|Operation not permitted|Read-only file system|Traceback|refuses"
FROZEN_S = 40.0  # the watchdog's 10 s, and a start of an emulated machine
STOP_S = 5.0  # TimeoutStopSec


@dataclass(frozen=True, slots=True)
class State:
    """What systemd says of a unit."""

    active: str
    pid: int
    restarts: int
    result: str


async def state(vm: Machine, unit: str) -> State:
    names = ("ActiveState", "MainPID", "NRestarts", "Result")
    told = await vm.do(f"systemctl show {unit} {' '.join(f'-p {name}' for name in names)}")
    found = dict(line.split("=", 1) for line in told.splitlines())
    active, pid, restarts, result = (found[name] for name in names)
    return State(active, int(pid), int(restarts), result)


async def test_what_the_document_says_installs_a_co_op(packaged: Pair) -> None:
    """Every command of "Install" succeeded: the daemons are active, hosts are up, a site answers through the edge."""
    async with coop(packaged) as made:
        for vm, units in ((made.north, UNITS), (made.south, UNITS[1:])):
            for unit in units:
                found = await state(vm, unit)
                assert (found.active, found.restarts, found.result) == ("active", 0, "success")
        told = await made.north.do("relevo hosts")
        assert len(re.findall(r"\b(north|south)\b.*\bup\b", told)) == 2, told
        await made.north.do(visit("garden.example.org"))
        # READY said late: a start that returned means that it listens.
        await made.north.do("systemctl restart relevo-controller")
        await made.north.do("relevo status")
        await made.south.do("systemctl restart relevo-agent")
        metrics = "import urllib.request as u; u.urlopen('http://127.0.0.1:7411/metrics')"
        await made.south.do(f'python3 -c "{metrics}"')


async def test_the_confinement_is_in_force_and_in_nobodys_way(packaged: Pair) -> None:
    """The score is good; out of its unit an agent restarts a web server and reloads HAProxy; nothing was refused."""
    async with coop(packaged) as made:
        for vm, units in ((made.north, UNITS), (made.south, UNITS[1:])):
            for unit in units:
                told = await vm.do(f"systemd-analyze security --no-pager {unit} | tail -1")
                score = re.search(r"([\d.]+) OK", told)
                assert score is not None and float(score[1]) < 2.5, told
        await made.south.do("systemctl kill -s KILL nginx; systemctl stop nginx")
        await made.south.until("systemctl is-active nginx", timeout_s=30)
        await made.south.until(visit("garden.example.org"))
        # A host whose check is another one: the agent has HAProxy judge a new configuration, and reload.
        checked = "sed -i 's|tag: clara,|tag: clara, check: /well,|' /etc/relevo/fleet.yaml"
        await made.north.do(f"{checked} && relevo fleet apply /etc/relevo/fleet.yaml --reason test")
        await made.south.until("grep -q /well /etc/haproxy/relevo/haproxy.cfg", timeout_s=30)
        for vm, units in ((made.north, UNITS), (made.south, UNITS[1:])):
            for unit in units:
                said = await vm.run(f"journalctl -b -q -o cat -u {unit} -g '{FORBIDDEN}'")
                assert said.output == "", said.output


async def test_a_frozen_daemon_is_restarted_by_the_watchdog(packaged: Pair) -> None:
    """A stopped process pets nobody: systemd kills it and starts another, and the host is up again."""
    async with coop(packaged) as made:
        old = {unit: await state(made.north, unit) for unit in UNITS}
        await made.north.do(f"kill -STOP {' '.join(str(was.pid) for was in old.values())}")
        for unit in UNITS:
            again = f'test "$(systemctl show {unit} -p NRestarts --value)" = 1'
            await made.north.until(f"{again} && systemctl is-active {unit}", timeout_s=FROZEN_S)
            assert (await state(made.north, unit)).pid != old[unit].pid
            said = await made.north.do(f"journalctl -b -q -o cat -u {unit} -g 'Watchdog timeout'")
            assert "Watchdog timeout (limit 10s)!" in said
        await made.until_verdict("north", "up")


async def test_stopping_is_quick_and_clean(packaged: Pair) -> None:
    """`systemctl stop` ends a daemon in its own time, without force and without a complaint."""
    async with coop(packaged) as made:
        for unit in reversed(UNITS):
            took = await made.north.do(f"TIMEFORMAT=%R; time systemctl stop {unit}")
            assert float(took) < STOP_S
            ended = await state(made.north, unit)
            assert (ended.active, ended.result) == ("inactive", "success")
            said = await made.north.do(f"journalctl -b -q -o cat -u {unit} -n 20")
            assert not re.search("SIGKILL|timed out|Traceback", said), said
