"""The program that sets quotas, started by a stand-in for systemd over a real dbus-daemon, and by the agent itself."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dbus_fast import BusType, Message, MessageType, RequestNameReply
from dbus_fast.aio import MessageBus

from agent.caps import quotaunit
from agent.caps.quota import Seen
from agent.caps.quotaunit import PROGRAM, SYS_ADMIN, UNIT, Direct, Quotas, Unit
from agent.caps.systemd import PATH, SYSTEMD
from agent.ports import DriverError
from deploy.demo.logind import private_bus
from fleet.quota import NO_QUOTA, quota
from tests.integration.test_agent_caps import Controller, delegated, orders, use
from tests.integration.test_agent_daemon import configure, listening, running
from tests.ports import free_port

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="no dbus-daemon here"),
]

WISH = {"/srv": {1001: quota(1 << 30, 1000), 1002: None}}
# Speaks as the program does, of a kernel that holds whatever it is told.
MADE_UP = """\
import json, sys
holds = {}
for line in sys.stdin:
    told = {}
    for mount, wish in json.loads(line).items():
        holds.update(wish["set"])
        none = dict.fromkeys(("disk_bytes", "disk_hard_bytes", "inodes", "inodes_hard"), 0)
        users = {str(u): {"used_bytes": u, "used_inodes": 7, **holds.get(str(u), none)} for u in wish["users"]}
        told[mount] = {"state": "enforced", "users": users, "refused": {"1002": "no"}}
    print(json.dumps(told), flush=True)
"""
MADE_UP_PROGRAM = (sys.executable, "-c", MADE_UP)


@dataclass
class Systemd:
    """Starts what it is asked to start, one at a time, with the files that came along."""

    bus: MessageBus
    started: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    running: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def answer(self, message: Message) -> Message | bool:
        if message.message_type is not MessageType.METHOD_CALL or message.path != PATH:
            return False
        assert message.member == "StartTransientUnit", message.member
        unit, mode, said, beside = message.body
        assert (mode, beside) == ("fail", [])
        if any(each.poll() is None for each in self.running):
            return Message.new_error(message, "org.freedesktop.systemd1.UnitExists", "it is there")
        properties = {name: value.value for name, value in said}
        self.started.append((unit, properties))
        ((path, arguments, _),) = properties["ExecStart"]
        files = message.unix_fds
        self.running.append(
            subprocess.Popen(
                arguments,
                executable=path,
                stdin=files[properties["StandardInputFileDescriptor"]],
                stdout=files[properties["StandardOutputFileDescriptor"]],
            )
        )
        for each in files:
            os.close(each)
        return Message.new_method_return(message, "o", [f"{PATH}/job/1"])


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a Unix socket's has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="relevo-") as path:
        yield Path(path)


@asynccontextmanager
async def stand_in(address: str) -> AsyncIterator[Systemd]:
    bus = MessageBus(address, BusType.SYSTEM, negotiate_unix_fd=True)
    await bus.connect()
    systemd = Systemd(bus)
    try:
        bus.add_message_handler(systemd.answer)
        assert await bus.request_name(SYSTEMD) is RequestNameReply.PRIMARY_OWNER
        yield systemd
    finally:
        bus.disconnect()
        for process in systemd.running:
            process.kill()
            process.wait()


@pytest.fixture
async def systemd(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Systemd]:
    async with private_bus(folder) as address, stand_in(address) as systemd:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield systemd


def hears(told: dict[str, Seen]) -> None:
    seen = told["/srv"]
    assert (seen.state, seen.refused) == ("enforced", {1002: "no"})
    assert seen.users[1001].quota == quota(1 << 30, 1000)
    assert seen.users[1001].used_bytes == 1001
    assert seen.users[1002].quota == NO_QUOTA, "no limit is 0 there"


async def test_systemd_starts_it_with_one_capability(systemd: Systemd) -> None:
    """Two questions in one talk; it ends with the talk, and the next one is another process."""
    for _ in range(2):
        async with Unit(MADE_UP_PROGRAM).talk() as talk:
            hears(await talk.ask(WISH))
            hears(await talk.ask({"/srv": dict.fromkeys((1001, 1002))}))
        assert systemd.running[-1].wait(5) == 0
    assert len(systemd.running) == 2
    unit, properties = systemd.started[0]
    assert unit == UNIT
    assert properties["CapabilityBoundingSet"] == SYS_ADMIN == 0x200000
    assert properties["NoNewPrivileges"] is True
    assert properties["RuntimeMaxUSec"] == 90_000_000
    assert properties["CollectMode"] == "inactive-or-failed", (
        "a failed one does not stand in the way"
    )


async def test_the_agent_starts_it_where_there_is_no_systemd() -> None:
    """The same talk with a child of its own."""
    async with Direct(MADE_UP_PROGRAM).talk() as talk:
        hears(await talk.ask(WISH))
        hears(await talk.ask({"/srv": dict.fromkeys((1001, 1002))}))


@pytest.mark.parametrize("kind", [Unit, Direct])
async def test_the_program_itself_answers(systemd: Systemd, kind: Callable[[], Quotas]) -> None:
    """The real one, of a file system that holds nobody: so it is said."""
    async with kind().talk() as talk:
        assert await talk.ask({"/proc": {1001: None}}) == {"/proc": Seen(state="off")}
    assert [properties["ExecStart"] for _, properties in systemd.started] == (
        [[(PROGRAM[0], list(PROGRAM), False)]] if kind is Unit else []
    )


async def test_a_second_one_is_refused_while_the_first_goes_on(systemd: Systemd) -> None:
    """A disk that hangs holds up one process, and not one more each five minutes."""
    async with Unit(MADE_UP_PROGRAM).talk() as talk:
        with pytest.raises(DriverError, match="UnitExists"):
            async with Unit(MADE_UP_PROGRAM).talk():
                pass
        hears(await talk.ask(WISH))
    assert len(systemd.running) == 1


@pytest.mark.parametrize("kind", [Unit, Direct])
@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("raise SystemExit(1)", "no answer that can be read"),
        ("print('{\"/srv\": 1}')", "no answer that can be read"),
        ("import time; time.sleep(60)", "no answer within 0.5 s"),
    ],
)
async def test_a_program_that_fails_is_told_of(
    systemd: Systemd,
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[[tuple[str, ...]], Quotas],
    program: str,
    says: str,
) -> None:
    """It dies, says something else, or hangs: what is held stays, and the next round tries again."""
    monkeypatch.setattr(quotaunit, "ANSWER_S", 0.5)
    monkeypatch.setattr(quotaunit, "END_S", 0.2)
    with pytest.raises(DriverError, match=says):
        async with kind((sys.executable, "-c", program)).talk() as talk:
            await talk.ask(WISH)
    assert len(systemd.started) == (kind is Unit)


@pytest.mark.long
async def test_an_agent_tells_of_the_disk_what_it_can(tmp_path: Path) -> None:
    """From the orders to the telling: a site without a user of its own is said to be one, and nothing is made up."""
    port = free_port()
    caps = f'[caps]\nsubtree = "{tmp_path}/sites"\negress = false\nverify_s = 1\n'
    config = configure(tmp_path, port, extra=f"{caps}[metrics]\nport = {port + 1}\n")
    delegated(tmp_path / "sites")
    controller = Controller(orders(1, in_force=True))
    async with listening(controller, port), running(config):  # type: ignore[arg-type] # it has a link too
        usage = await controller.until(lambda usage: use(usage).disk)
    disk = use(usage).disk
    assert disk is not None and disk.because["disk_bytes"].code == "quota-no-user"
    assert (disk.used_bytes, disk.wanted, disk.held) == (None, None, None)


async def test_a_bus_without_systemd_is_told_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody of that name, and no bus at all."""
    async with private_bus(folder) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        with pytest.raises(DriverError, match=r"relevo-quota\.service"):
            async with Unit().talk():
                pass
    with pytest.raises(DriverError, match="can't be reached"):
        async with Unit().talk():
            pass
