"""Talks with the program that sets quotas (quotactl), for one round at a time.

The kernel asks for CAP_SYS_ADMIN, with which an agent could do anything: so systemd starts the program in a unit that
ends with the round, has this one capability, a bound in time and memory, and inherits one end of the talk.
Where systemd does not run the agent starts it itself, with what capabilities it has.
Source: org.freedesktop.systemd1(5), systemd.exec(5).
"""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Protocol

import msgspec
from dbus_fast import BusType, DBusFastError, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from agent.caps import quotactl
from agent.caps.quota import Kept, Seen
from agent.caps.systemd import MANAGER, PATH, SYSTEMD
from agent.ports import DriverError
from agent.systembus import CALL_S
from fleet.quota import Quota

UNIT = (
    "relevo-quota.service"  # one at a time: a second is refused as long as the first has not ended
)
SYS_ADMIN = 1 << 21  # Source: capability.h
# A thousand users take 20 ms from memory; a disk that is busy, or asleep, some seconds.
ANSWER_S, END_S, ALL_S = 30.0, 5.0, 90.0
ANSWER_BYTES = 16 << 20  # twenty thousand users have 3 MB
MEMORY_BYTES, TASKS = 128 << 20, 8
PROGRAM = (sys.executable, "-I", "-S", quotactl.__file__)

Wish = Mapping[str, Mapping[int, Quota | None]]
"""By mount and uid: what to set, or None to look only."""


class _User(msgspec.Struct, frozen=True):
    """As quotactl.FIELDS."""

    used_bytes: int
    used_inodes: int
    disk_bytes: int
    disk_hard_bytes: int
    inodes: int
    inodes_hard: int

    def kept(self) -> Kept:
        return Kept(
            used_bytes=self.used_bytes,
            used_inodes=self.used_inodes,
            quota=Quota(
                disk_bytes=self.disk_bytes or None,
                disk_hard_bytes=self.disk_hard_bytes or None,
                inodes=self.inodes or None,
                inodes_hard=self.inodes_hard or None,
            ),
        )


class _Mount(msgspec.Struct, frozen=True):
    state: str
    users: dict[int, _User] = {}
    refused: dict[int, str] = {}

    def seen(self) -> Seen:
        users = {uid: user.kept() for uid, user in self.users.items()}
        return Seen(state=self.state, users=users, refused=self.refused)


class Talk(Protocol):
    async def ask(self, wish: Wish) -> dict[str, Seen]:
        """Set what is wished, then look. By mount. Raises DriverError."""
        ...


class Quotas(Protocol):
    def talk(self) -> AbstractAsyncContextManager[Talk]:
        """For one round. Raises DriverError."""
        ...


class _Spoken:
    """The agent's end of the talk."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, wish: Wish) -> dict[str, Seen]:
        try:
            async with asyncio.timeout(ANSWER_S):
                self._writer.write(await asyncio.to_thread(_line, wish))
                await self._writer.drain()
                line = await self._reader.readline()
                return await asyncio.to_thread(_told, line)
        except TimeoutError as error:
            raise DriverError(f"quotas: no answer within {ANSWER_S:g} s") from error
        except (OSError, ValueError) as error:  # a line without end is a ValueError
            raise DriverError(f"quotas: no answer that can be read: {error}") from error


def _line(wish: Wish) -> bytes:
    asked = {
        mount: {
            "users": [*users],
            "set": {str(uid): _limits(quota) for uid, quota in users.items() if quota is not None},
        }
        for mount, users in wish.items()
    }
    return msgspec.json.encode(asked) + b"\n"


def _limits(quota: Quota) -> dict[str, int]:
    return {name: getattr(quota, name) or 0 for name in Quota.__struct_fields__}


def _told(line: bytes) -> dict[str, Seen]:
    """Raises msgspec.DecodeError, a ValueError."""
    told = msgspec.json.decode(line, type=dict[str, _Mount])
    return {mount: said.seen() for mount, said in told.items()}


class Direct:
    """Where systemd does not run: the program is a child of the agent."""

    def __init__(self, program: tuple[str, ...] = PROGRAM) -> None:
        self._program = program

    @asynccontextmanager
    async def talk(self) -> AsyncGenerator[Talk, None]:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._program,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=ANSWER_BYTES,
            )
        except OSError as error:
            raise DriverError(f"quotas: {self._program[0]}: {error.strerror}") from error
        assert process.stdin is not None and process.stdout is not None
        try:
            yield _Spoken(process.stdout, process.stdin)
        finally:
            process.stdin.close()
            await _ended(process)


async def _ended(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(END_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


class Unit:
    """Where systemd runs: the program is a unit of its own, for as long as the talk."""

    def __init__(self, program: tuple[str, ...] = PROGRAM) -> None:
        self._program = program

    @asynccontextmanager
    async def talk(self) -> AsyncGenerator[Talk, None]:
        ours, theirs = socket.socketpair()
        with closing(ours):
            with closing(theirs):
                await self._start(theirs.fileno())
            ours.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=ours, limit=ANSWER_BYTES)
            try:
                yield _Spoken(reader, writer)
            finally:
                await _left(reader, writer)

    async def _start(self, end: int) -> None:
        """A connection of its own: the drivers' sends no files, and is not there on every host."""
        bus = MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True)
        body = [UNIT, "fail", [*map(list, _properties(self._program))], []]
        message = Message(
            destination=SYSTEMD,
            path=PATH,
            interface=MANAGER,
            member="StartTransientUnit",
            signature="ssa(sv)a(sa(sv))",
            body=body,
            unix_fds=[end, end],
        )
        try:
            async with asyncio.timeout(CALL_S):
                await bus.connect()
                answer = await bus.call(message)
        except (OSError, EOFError, DBusFastError) as error:  # OSError includes TimeoutError
            raise DriverError(f"quotas: systemd can't be reached: {error!r}") from error
        finally:
            bus.disconnect()
        if answer is None or answer.message_type is MessageType.ERROR:
            told = f"{answer.error_name}: {answer.body[:1]}" if answer else "no answer"
            raise DriverError(f"quotas: {UNIT}: {told}")


async def _left(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The program ends when there is nothing more to read; until it has, another one would be refused."""
    if writer.is_closing():  # the program has died, and a closed one has no more ends
        return
    try:
        async with asyncio.timeout(END_S):
            writer.write_eof()
            while await reader.read(1 << 16):
                pass
            writer.close()
            await writer.wait_closed()
    except OSError:  # includes TimeoutError: it is systemd's to end now
        writer.transport.abort()


def _properties(program: tuple[str, ...]) -> list[tuple[str, Variant]]:
    """Nothing that gives it mounts of its own: no quota is set where a program sees a file system as read-only."""
    return [
        ("Description", Variant("s", "relevo: quotas of sites' users, for one round")),
        ("ExecStart", Variant("a(sasb)", [[program[0], list(program), False]])),
        ("CollectMode", Variant("s", "inactive-or-failed")),
        ("Slice", Variant("s", "relevo.slice")),
        ("StandardInputFileDescriptor", Variant("h", 0)),
        ("StandardOutputFileDescriptor", Variant("h", 1)),
        ("StandardError", Variant("s", "journal")),
        ("CapabilityBoundingSet", Variant("t", SYS_ADMIN)),
        ("NoNewPrivileges", Variant("b", True)),
        ("RuntimeMaxUSec", Variant("t", int(ALL_S * 1e6))),
        ("MemoryMax", Variant("t", MEMORY_BYTES)),
        ("TasksMax", Variant("t", TASKS)),
    ]


def runner(root: Path = Path("/")) -> Quotas | None:
    """How quotas are set on this host; None: nobody here may."""
    if os.geteuid() != 0:
        return None
    return Unit() if (root / "run/systemd/system").is_dir() else Direct()
