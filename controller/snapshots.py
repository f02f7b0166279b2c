"""Copies of the store on this machine's own disk, hourly; each is restored before it counts."""

import asyncio
import os
from pathlib import Path
from typing import Annotated, Never

import msgspec
from msgspec import Meta

from controller import copies
from controller.board import Board
from controller.copies import BadCopy, Copy
from controller.mirror import Mirror
from controller.store import EmbeddedStore, Store, StoreError
from fleet import keys
from metrics.exporter import Exporter
from runtime import log
from runtime.clock import iso, wall

_log = log.logger("snapshots")
SUFFIX = ".snapshot"
RESTORE_S = 60.0
COMMAND_S = 600.0
TRY_AGAIN_S = 60.0


class Snapshots(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`directory`: where copies go, else `snapshots` below `state`; the newest `keep` stay.

    `command` is run after each, with the file's path as its last argument: it takes the copy to another machine.
    """

    directory: Path | None = None
    every_s: Annotated[float, Meta(ge=1)] = 3600.0
    keep: Annotated[int, Meta(ge=1, le=10_000)] = 48
    command: tuple[str, ...] = ()


class Keeper:
    """Takes copies for as long as its controller lives, leading or not: each controller has its own."""

    def __init__(
        self,
        settings: Snapshots,
        state: Path,
        mirror: Mirror,
        store: Store,
        exporter: Exporter,
        board: Board | None = None,
        again_s: float = TRY_AGAIN_S,
    ) -> None:
        self._settings, self._mirror, self._store = settings, mirror, store
        self._directory = settings.directory or state / "snapshots"
        self._exporter, self._board = exporter, board
        self._again_s = again_s

    async def keep(self) -> Never:
        """Eternal. What fails is said, counted, and tried again in a minute."""
        while not self._mirror.id.cluster:
            await self._mirror.changed.after(self._mirror.changed.count)
        here: Path | None = None  # taken, and not handed over yet
        while True:
            wait_s = self._age_left_s()
            if wait_s > 0 and here is None:
                await asyncio.sleep(wait_s)
            try:
                if wait_s <= 0 or here is None:
                    here = await self._take()
                if self._settings.command:
                    await self._hand_over(here)
                here = None
                self._say("")
            except (StoreError, BadCopy, OSError) as error:
                self._exporter.count("relevo_snapshot_failures_total")
                self._say(str(error))
                _log.error("no snapshot", error=str(error), directory=str(self._directory))
                await asyncio.sleep(min(self._again_s, self._settings.every_s))

    def _say(self, error: str) -> None:
        if self._board is not None:
            self._board.snapshot_error = error

    def _age_left_s(self) -> float:
        """Until the newest copy is old enough for another."""
        newest = max((file.stat().st_mtime for file in self._files()), default=0.0)
        if newest:
            self._exporter.set("relevo_snapshot_timestamp_seconds", newest)
        return newest + self._settings.every_s - wall()

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob(f"*{SUFFIX}")) if self._directory.is_dir() else []

    async def _take(self) -> Path:
        copy = await copies.take(self._store, wall())
        name = iso(copy.taken_at).replace(":", "")
        path = self._directory / f"{name}-{copy.revision}{SUFFIX}"
        await asyncio.to_thread(_write, path, copy)
        await restored(await asyncio.to_thread(copies.read, path))
        for old in self._files()[: -self._settings.keep]:
            old.unlink(missing_ok=True)
        self._exporter.set("relevo_snapshot_timestamp_seconds", copy.taken_at)
        _log.info("snapshot", file=str(path), keys=len(copy.items), revision=copy.revision)
        return path

    async def _hand_over(self, path: Path) -> None:
        """Raises OSError where the command fails; it is ended if it takes too long."""
        command = (*self._settings.command, str(path))
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(COMMAND_S):
                status = await process.wait()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        if status != 0:
            raise OSError(f"{command[0]} ended with status {status}")


async def restored(copy: Copy) -> Mirror:
    """What a controller would know from `copy`. Raises BadCopy where that is nothing whole."""
    async with EmbeddedStore.open(None) as store:
        async with store.campaign(keys.LEADER, b"restore", ttl=3) as leadership:
            await copies.give(leadership, store, copy, generation=copy.id.generation)
        mirror = Mirror()
        try:
            async with asyncio.timeout(RESTORE_S), asyncio.TaskGroup() as group:
                following = group.create_task(mirror.follow(store))
                while not mirror.ready:
                    await mirror.changed.after(mirror.changed.count)
                following.cancel()
        except* (ValueError, TimeoutError) as errors:  # msgspec's are ValueErrors
            raise BadCopy(f"it can't be read back: {errors.exceptions[0]}") from None
    if mirror.fleet_broken or not mirror.id.cluster:
        raise BadCopy(f"it can't be read back: {mirror.fleet_broken or 'the store has no name'}")
    return mirror


def _write(path: Path, copy: Copy) -> None:
    """Whole or not at all, readable by its owner only: it holds the digests of every credential."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_suffix(".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(copy.packed)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
