"""Carries out the steps that move a pool: files, sockets' names, systemd. It decides nothing."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Protocol

from agent.caps.mountinfo import mounted
from agent.discover.php import socket as written
from agent.layout.moves import Places
from agent.layout.steps import (
    Ask,
    Drain,
    Gone,
    Guard,
    Judge,
    Link,
    Point,
    PutAside,
    Step,
    Systemd,
    Unguard,
    Write,
)
from agent.layout.texts import raw
from agent.ports import DriverError
from agent.usage.fpm import Stream, request

COMMAND_S = 60.0  # a unit that does not start in that time has failed
ASKED_S = 20.0  # of a master that has just been started; emulated machines are slow
ANSWER_S = 5.0
DRAIN_S = 120.0  # Apache and nginx give a request 60 s
GONE_S = 60.0  # the shared master's process_control_timeout, and its start
EVERY_S = 0.1
ANSWER_BYTES = 1 << 16
LISTENS = 0x10000  # the flag of a listener in /proc/net/unix. Source: Linux, include/linux/net.h, SO_ACCEPTCON
NOWHERE = "/relevo-nowhere"  # no script: whatever the pool says of it, it is there


class Services(Protocol):
    """What runs units."""

    async def systemctl(self, verb: str, *units: str) -> None:
        """Wait until it is done. Raises DriverError."""
        ...


class Systemctl:
    """systemd, by its own command."""

    async def systemctl(self, verb: str, *units: str) -> None:
        await run("systemctl", "--quiet", verb, *units)


async def run(*command: str) -> None:
    """Raises DriverError with what it said."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise DriverError(f"{command[0]}: {error}") from error
    try:
        async with asyncio.timeout(COMMAND_S):
            output, _ = await process.communicate()
    except TimeoutError as error:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise DriverError(f"{' '.join(command)}: not done after {COMMAND_S:g} s") from error
    if process.returncode != 0:
        last = output.decode(errors="replace").strip().splitlines()[-3:]
        raise DriverError(f"{' '.join(command)}: {'; '.join(last) or process.returncode}")


class Carrier:
    """Does one step at a time; each may be done again. What files said before is kept below `places.conf`/was."""

    def __init__(self, places: Places, services: Services, *, drain_s: float = DRAIN_S) -> None:
        self._places, self._services, self._drain_s = places, services, drain_s

    async def carry_out(self, step: Step) -> None:
        """Raises DriverError."""
        try:
            await self._do(step)
        except (OSError, ValueError) as error:
            raise DriverError(f"{step}: {error}") from error

    async def _do(self, step: Step) -> None:
        match step:
            case Systemd():
                await self._services.systemctl(step.verb, *step.units)
            case Judge():
                await run(step.program, "--test", "--fpm-config", step.main)
            case Guard():
                if step.name not in guarded():
                    await run("mount", "--bind", str(step.name), str(step.name))
            case Unguard():
                while step.name in guarded():  # somebody may have laid one over another
                    await run("umount", str(step.name))
            case Ask() | Drain() | Gone():
                await self._wait(step)
            case Write() | PutAside() | Link() | Point():
                self._file(step)

    async def _wait(self, step: Ask | Drain | Gone) -> None:
        match step:
            case Ask():
                await _until(lambda: _answers(step.socket), ASKED_S, f"{step.socket}: no answer")
            case Drain():
                said = f"{step.bound}: requests have not ended"
                await _until(_true(lambda: not connected(step.bound)), self._drain_s, said)
            case Gone():
                said = f"{step.bound}: the old master still listens"
                await _until(_true(lambda: step.bound not in listening()), GONE_S, said)

    def _file(self, step: Write | PutAside | Link | Point) -> None:
        match step:
            case Write():
                _raise_if_other(step.path, step.was, step.text)
                self._write(step.path, raw(step.text), step.mode)
            case PutAside():
                _raise_if_other(step.path, step.was, "")
                self._keep(step.path)
                step.path.unlink(missing_ok=True)
            case Link():
                fresh = _beside(step.name)
                os.link(step.target, fresh)
                fresh.rename(step.name)
                # rename(2) leaves both where they are one file already.
                fresh.unlink(missing_ok=True)
            case Point():
                fresh = _beside(step.name)
                fresh.symlink_to(step.target)
                fresh.rename(step.name)

    def _write(self, path: Path, said: bytes, mode: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_bytes() == said:
            return
        self._keep(path)
        fresh = _beside(path)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(said)
            file.flush()
            os.fsync(file.fileno())
        # One that comes back is whose it was.
        if (model := next((p for p in (path, self._was(path)) if p.exists()), None)) is not None:
            owner = model.stat()
            os.chown(fresh, owner.st_uid, owner.st_gid)
            mode = owner.st_mode & 0o7777
        fresh.chmod(mode)
        fresh.rename(path)

    def _was(self, path: Path) -> Path:
        """Where its copy is: /etc/php/8.2/fpm/pool.d/a.conf is etc-php-8.2-fpm-pool.d-a.conf."""
        return self._places.conf / "was" / str(path).strip("/").replace("/", "-")

    def _keep(self, path: Path) -> None:
        if path.is_file():
            self._was(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copy2(path, self._was(path))


def _raise_if_other(path: Path, *known: str | None) -> None:
    """A file of the host's, which others write too: what they said since this was planned is not written over."""
    if None in known:
        return
    said = path.read_bytes() if path.exists() else b""
    if said not in {raw(text) for text in known if text is not None}:
        raise DriverError(f"{path}: was changed meanwhile")


def _beside(path: Path) -> Path:
    """A name in the same folder that nobody reads, free to be used."""
    fresh = path.with_name(f".{path.name}.relevo")
    fresh.unlink(missing_ok=True)
    return fresh


def _true(look: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def looked() -> bool:
        return look()

    return looked


async def _until(look: Callable[[], Awaitable[bool]], within_s: float, said: str) -> None:
    try:
        async with asyncio.timeout(within_s):
            while True:
                if await look():
                    return
                await asyncio.sleep(EVERY_S)
    except TimeoutError as error:
        raise DriverError(f"{said} within {within_s:g} s") from error


async def _answers(path: Path) -> bool:
    """Whether a worker of the pool behind `path` has answered a request, whatever it said."""
    stream = Stream()
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(path)
            with closing(writer):
                writer.write(request(NOWHERE))
                while not stream.ended:
                    if not (data := await reader.read(ANSWER_BYTES)):
                        return False
                    stream.feed(data)
    except (OSError, ValueError):  # not there yet; OSError includes TimeoutError
        return False
    return True


def listening() -> frozenset[str]:
    """The names that listeners on this machine were bound as, written as `php.socket` does."""
    return frozenset(name for name, listens in _sockets() if listens)


def connected(bound: str) -> int:
    """How many are connected to, or wait at, a listener that was bound as `bound`."""
    return sum(1 for name, listens in _sockets() if name == bound and not listens)


def _sockets() -> list[tuple[str, bool]]:
    """Every named Unix socket: its name, whether it listens. Source: proc_net(5), /proc/net/unix."""
    found = []
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]:
        parts = line.split(maxsplit=7)
        if len(parts) == 8:
            found.append((written(parts[7]), bool(int(parts[3], 16) & LISTENS)))
    return found


def guarded() -> frozenset[Path]:
    """Everything that something is mounted on, as this program sees it."""
    text = Path("/proc/self/mountinfo").read_text(errors="replace")
    return frozenset(each.place for each in mounted(text))
