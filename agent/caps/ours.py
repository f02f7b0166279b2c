"""What this host's agent has put on slices, kept on disk: what it may take away again, after a restart too."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Never

import msgspec

from agent.caps.before import without
from agent.caps.kernel import look, unlike
from agent.caps.limits import FREE
from agent.lane import Lane
from agent.ports import DriverError
from fleet.caps import Limits
from fleet.model import SiteId, Why
from runtime import durable, log
from runtime.pulse import Pulse

_log = log.logger("caps")


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """Until when (Unix s) penalties are in what is held, and what is to be held after it."""

    until: float
    after: Limits
    says: tuple[str, ...] | None = None

    @property
    def after_says(self) -> frozenset[str]:
        """The fields that `after` speaks of."""
        return _spoken(self.says, self.after)


class Ours(msgspec.Struct, frozen=True, kw_only=True):
    """`stopped`: units that a penalty stops, to be started at its end; None: none. `ended`: nothing of it runs now.

    `term`: of the penalties in `limits`; None: there are none. `fields`: of `limits`, that are ours; the others are as
    the host has them. `was`: what the slice would hold without us, as seen in this `boot`; None: to be seen anew, for
    what is set at run time ends with a boot. Earlier releases noted neither `fields` nor `says`, and took all that is
    not the kernel's default for theirs.
    """

    sites: tuple[SiteId, ...]
    limits: Limits
    term: Term | None = None
    stopped: tuple[str, ...] | None = None
    ended: bool = True
    fields: tuple[str, ...] | None = None
    was: Limits | None = None
    boot: str = ""

    @property
    def says(self) -> frozenset[str]:
        return _spoken(self.fields, self.limits)

    @property
    def is_unseen(self) -> bool:
        """Whether it is not known what was there before, and nothing of ours has been put on it since."""
        return self.was is None and self.fields is not None

    @property
    def holds_more(self) -> bool:
        """Whether anything is held otherwise than it would be without us."""
        return self.limits != without(self.limits, self.says, self.was)

    @property
    def is_stopped(self) -> bool:
        return self.stopped is not None and self.ended


def _spoken(fields: tuple[str, ...] | None, limits: Limits) -> frozenset[str]:
    return unlike(FREE, limits) if fields is None else frozenset(fields)


class Memory:
    """`slices`: what is ours, by slice, on disk as it was when it was saved last. `failed`: why it can't be saved.

    `boot`: the kernel's name of this one; "": not told.
    """

    def __init__(self, path: Path, boot: str = "") -> None:
        self._path, self.boot = path, boot
        self.slices: Mapping[str, Ours]
        found, self._unread = read(path)
        self.slices = {name: booted(mine, boot) for name, mine in found.items()}
        self.failed = ""
        # What is to be seen anew is written down before anything is put on it.
        self._written: Mapping[str, Ours] = {n: m for n, m in self.slices.items() if m == found[n]}
        self._in_doubt = False  # what is late may be written yet
        self._turn = asyncio.Lock()
        self._asked = Pulse()
        self._disk = Lane()

    @property
    def lacks(self) -> tuple[Why, ...]:
        """What a restart would not know, or what of the last one is to be put right by a person."""
        unread = (Why("unable-unread", {"path": str(self._unread)}),) if self._unread else ()
        return (*unread, Why("unable-kept", {"error": self.failed})) if self.failed else unread

    def stop(self, slice: str, units: tuple[str, ...] | None, *, ended: bool) -> None:
        """Note what is stopped of a slice that is ours, and whether it has ended."""
        if mine := self.slices.get(slice):
            new = msgspec.structs.replace(mine, stopped=units, ended=ended)
            self.slices = {**self.slices, slice: new}

    def knows(self, slice: str, fields: frozenset[str]) -> bool:
        """Whether the next agent would know these of it as ours, whatever becomes of this one."""
        return slice in self._written and fields <= self._written[slice].says

    async def keep(self) -> Never:
        """Eternal: what was asked to be saved `soon` is, beside whatever else is done."""
        while True:
            count = self._asked.count
            await self.save()
            await self._asked.after(count)

    def soon(self) -> None:
        if not self._is_written():
            self._asked.beat()

    def _is_written(self) -> bool:
        return not self._in_doubt and self.slices == self._written

    async def save(self) -> None:
        """What fails is told by `failed`, and tried again with the next."""
        with suppress(DriverError):
            await self.commit()

    async def commit(self) -> None:
        """Before it is done: what we have put on we must know to take off, and to start again. Raises DriverError."""
        async with self._turn:
            if self._is_written():
                return
            new, self._in_doubt = self.slices, True
            try:
                await look(self._disk, write, self._path, new)
            except DriverError as error:
                if not self.failed:
                    _log.error("a restart would forget what is held", error=str(error))
                self.failed = str(error)
                raise
            self._written, self.failed, self._in_doubt = new, "", False


def boot_id(root: Path) -> str:
    try:
        return (root / "proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def booted(mine: Ours, boot: str) -> Ours:
    """What it is in this boot: of another one it is not known any more what was there before.

    Disks that were limited by the host alone are not ours to limit again.
    """
    if not boot or mine.boot == boot or mine.fields is None:
        return mine
    own = mine.was.io if mine.was is not None else {}
    disks = {disk: limit for disk, limit in mine.limits.io.items() if own.get(disk) != limit}
    limits = msgspec.structs.replace(mine.limits, io=disks)
    return msgspec.structs.replace(mine, limits=limits, was=None, boot=boot)


def read(path: Path) -> tuple[dict[str, Ours], Path | None]:
    """By slice, and where one that can't be read is kept for a person to look at; None: there is none.

    Nothing is taken away then (rule R7). It is kept aside, and told of at each start while it is there: only it
    says which units of a stopped site are to be started.
    """
    found: dict[str, Ours] = {}
    aside = path.with_name(f"{path.name}.unread")
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, Ours])
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RecursionError) as error:
        _log.error("what was capped can't be read: it stays", path=str(path), error=str(error))
        with suppress(OSError):
            path.replace(aside)
        return found, aside
    return found, aside if aside.exists() else None


def write(path: Path, ours: Mapping[str, Ours]) -> None:
    """Replaced as a whole. Raises DriverError."""
    try:
        durable.replace(path, msgspec.json.encode(ours))
    except OSError as error:
        raise DriverError(f"can't keep what was capped at {path}: {error}") from error
