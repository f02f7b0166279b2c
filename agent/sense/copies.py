"""How old the newest copy is: of backups and replicas that this host makes or keeps. It judges none of them."""

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Never

from agent.config import Copy
from metrics.exporter import Exporter
from runtime import log

LOOK_EVERY_S = 60.0
LOOK_S = 10.0  # a network file system that hangs must not keep the others from being looked at
NEVER = 0.0  # there is none: older than every bound

_log = log.logger("copies")


def newest(path: Path) -> float:
    """When (Unix s) `path`, or the youngest entry of the folder that it is, was written; NEVER: there is none.

    Raises OSError for what can't be looked at, which says nothing about its age.
    """
    try:
        if not path.is_dir():
            return path.stat().st_mtime
        with os.scandir(path) as entries:
            return max((_written(entry) for entry in entries), default=NEVER)
    except FileNotFoundError:
        return NEVER


def _written(entry: "os.DirEntry[str]") -> float:
    with suppress(FileNotFoundError):  # rotated away meanwhile
        return entry.stat().st_mtime
    return NEVER


class CopySense:
    """Looks at each copy once a minute. What can't be looked at keeps its last time, and so grows old (rule R7)."""

    def __init__(self, copies: Iterable[Copy], exporter: Exporter) -> None:
        self._copies, self._exporter = tuple(copies), exporter
        self._looking: set[str] = set()
        self._failing: set[str] = set()

    async def keep(self) -> Never:
        """Eternal."""
        for copy in self._copies:
            self._exporter.set(
                "relevo_agent_copy_stale_after_seconds", copy.stale_after_s, copy=copy.name
            )
        while True:
            for copy in self._copies:
                await self.look(copy)
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self, copy: Copy) -> None:
        """Bounded in time; a look that still hangs is not begun again."""
        if copy.name in self._looking:
            return
        self._looking.add(copy.name)
        try:
            async with asyncio.timeout(LOOK_S):
                written = await asyncio.to_thread(self._newest, copy)
        except OSError as error:  # includes TimeoutError
            if copy.name not in self._failing:
                _log.warning(
                    "can't look at a copy", copy=copy.name, path=str(copy.path), error=repr(error)
                )
            self._failing.add(copy.name)
            return
        self._failing.discard(copy.name)
        self._exporter.set("relevo_agent_copy_timestamp_seconds", written, copy=copy.name)

    def _newest(self, copy: Copy) -> float:
        try:
            return newest(copy.path)
        finally:
            self._looking.discard(copy.name)
