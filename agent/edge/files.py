"""The edge's folder: what HAProxy would start with, written whole or not at all."""

import asyncio
import os
import re
from collections.abc import Mapping
from pathlib import Path

from agent.config import Edge
from agent.edge.gate import WAIT, WAITING
from agent.edge.limits import hosts_of
from agent.edge.plan import Served
from agent.edge.render import (
    CONFIG,
    MAP,
    STATE,
    read_hosts,
    read_map,
    read_proof,
    render_map,
)
from agent.ports import DriverError
from fleet.model import Epoch

EPOCH = "domains.epoch"  # beside the map: of the routes that it holds
NO_STATE = "1\n"  # a server-state-file that says nothing
# Sockets that a service manager holds for HAProxy are not ours to show it: the check binds nothing anyway.
INHERITED = re.compile(r"^(    bind )fd@\d+", re.MULTILINE)
CHECK_TIMEOUT_S = 20.0
PRIVATE = 0o600  # the configuration holds the proof token, and nobody else needs the rest


class Files:
    """haproxy.cfg, the map, its epoch and the servers' state. Everything raises DriverError."""

    def __init__(self, edge: Edge) -> None:
        self._folder, self._binary = edge.directory, edge.binary

    @property
    def config(self) -> Path:
        return self._folder / CONFIG

    def config_text(self) -> str:
        """Empty where there is none yet."""
        return self._read(CONFIG)

    def served(self) -> Served:
        """What a HAProxy that starts now would serve."""
        text = self.config_text()
        return Served(
            hosts=read_hosts(text),
            domains=hosts_of(read_map(self._read(MAP))),
            proof=read_proof(text),
        )

    def epoch(self) -> Epoch:
        """Of the routes that HAProxy was last seen to follow; the oldest one if that is not known."""
        try:
            return Epoch.parse(self._read(EPOCH).strip())
        except ValueError:
            return Epoch()

    async def write_epoch(self, epoch: Epoch) -> None:
        await self._write(EPOCH, f"{epoch}\n")

    async def write_map(self, entries: Mapping[str, str]) -> None:
        if (text := render_map(entries)) != self._read(MAP):
            await self._write(MAP, text)

    async def write_state(self, text: str = NO_STATE) -> None:
        await self._write(STATE, text)

    async def write_config(self, text: str) -> None:
        """Let HAProxy check `text`, then put it in place. Raises DriverError with HAProxy's own message."""
        # A missing map or state file would fail the check, or warn about it at every start.
        for name, content in ((MAP, ""), (STATE, NO_STATE)):
            if not (self._folder / name).exists():
                await self._write(name, content)
        if self._read(WAIT) != WAITING:
            await self._write(WAIT, WAITING)
        candidate = f"{CONFIG}.new"
        try:
            await self._write(candidate, INHERITED.sub(r"\g<1>127.0.0.1:1", text))
            await self._check(self._folder / candidate)
            await self._write(candidate, text)
            (self._folder / candidate).rename(self.config)
            _sync_folder(self._folder)
        except OSError as error:
            raise DriverError(f"can't write {self.config}: {error.strerror}") from error
        finally:
            (self._folder / candidate).unlink(missing_ok=True)

    async def _check(self, path: Path) -> None:
        command = (self._binary, "-c", "-f", str(path))
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise DriverError(f"can't run {self._binary}: {error.strerror}") from error
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                _, said = await process.communicate()
        except TimeoutError as error:
            raise DriverError(f"{self._binary} -c took more than {CHECK_TIMEOUT_S:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise DriverError(f"haproxy refuses the configuration: {_alerts(said)}")

    def _read(self, name: str) -> str:
        try:
            return (self._folder / name).read_text()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise DriverError(f"can't read {self._folder / name}: {error}") from error

    async def _write(self, name: str, text: str) -> None:
        try:
            # In a thread: an fsync can take as long as the disk is busy, and beats must go on.
            await asyncio.to_thread(_write_whole, self._folder / name, text)
        except OSError as error:
            raise DriverError(f"can't write {self._folder / name}: {error.strerror}") from error


def _write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _alerts(stderr: bytes) -> str:
    """HAProxy's complaints, without what it says of itself and without the lines of the file."""
    lines = stderr.decode(errors="replace").splitlines()
    alerts = [line.partition(" : ")[2] for line in lines if "[ALERT]" in line]
    return " | ".join(alerts[:4])[:400] or "it did not say why"
