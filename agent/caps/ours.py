"""What this host's agent has put on slices, kept on disk: what it may take away again, after a restart too."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from agent.caps.kernel import look
from agent.lane import Lane
from agent.ports import DriverError
from fleet.caps import Limits
from fleet.model import SiteId
from runtime import log

_log = log.logger("caps")


class Ours(msgspec.Struct, frozen=True, kw_only=True):
    """`stopped`: units that a penalty stops, to be started at its end; None: none. `ended`: nothing of it runs now."""

    sites: tuple[SiteId, ...]
    limits: Limits
    stopped: tuple[str, ...] | None = None
    ended: bool = True

    @property
    def is_stopped(self) -> bool:
        return self.stopped is not None and self.ended


class Memory:
    """`slices`: what is ours, by slice, on disk as it was when it was saved last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.slices: Mapping[str, Ours] = read(path)
        self._written: Mapping[str, Ours] = self.slices
        self._turn = asyncio.Lock()
        self._disk = Lane()

    def stop(self, slice: str, units: tuple[str, ...] | None, *, ended: bool) -> None:
        """Note what is stopped of a slice that is ours, and whether it has ended."""
        if mine := self.slices.get(slice):
            new = msgspec.structs.replace(mine, stopped=units, ended=ended)
            self.slices = {**self.slices, slice: new}

    async def save(self) -> None:
        """Before it is done: what we have put on we must know to take off."""
        async with self._turn:
            if (new := self.slices) == self._written:
                return
            try:
                await look(self._disk, write, self._path, new)
                self._written = new
            except DriverError as error:
                _log.error("caps are held but a restart would forget whose", error=str(error))


def read(path: Path) -> dict[str, Ours]:
    """By slice; empty where there is none, or none that can be read (rule R7: nothing is taken away then)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Ours])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _log.error("what was capped can't be read: it stays", path=str(path), error=str(error))
        return {}


def write(path: Path, ours: Mapping[str, Ours]) -> None:
    """Replaced as a whole. Raises DriverError."""
    new = path.with_name(f"{path.name}.new")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(ours))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise DriverError(f"can't keep what was capped at {path}: {error}") from error
