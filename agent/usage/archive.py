"""The history's thread: rows in, answers out, and nobody waits for a disk that hangs."""

import asyncio
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from agent.usage.history import History, answer
from agent.usage.ledger import Row
from fleet.messages import Past
from fleet.model import SiteId
from fleet.pastuse import PastAsked, PastTold

T = TypeVar("T")

JOBS = (
    8  # rows come each five minutes, questions each ten seconds: a disk so far behind takes no more
)
ANSWER_S = 5.0


class Archive:
    """Opened and closed in its thread; used from any. `with Archive(…)`."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._room = threading.BoundedSemaphore(JOBS)
        self._open = False

    def __enter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, "history")
        self._history = self._thread.submit(History, self._path, max_bytes=self._max_bytes)
        self._open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False
        self._thread.submit(lambda: self._history.result().close())
        self._thread.shutdown()

    def keep(self, rows: Collection[Row]) -> Future[bool] | None:
        """Write `rows`, in its turn: False, they are lost; None: no room for them, they are lost already."""
        kept = tuple(rows)
        return self._submit(lambda history: history.write(kept))

    async def past(self, sites: Collection[SiteId], slot: int) -> dict[SiteId, Past]:
        """What is known at `slot`; nothing if the disk takes too long."""
        wanted = tuple(sites)
        return await self._ask(lambda history: history.past(wanted, slot)) or {}

    async def rows(self, site: SiteId, since: int) -> tuple[Row, ...]:
        """The roll-ups of `site` since the slot `since`, oldest first; none if the disk takes too long."""
        return await self._ask(lambda history: history.rows(site, since)) or ()

    async def told(self, asked: PastAsked) -> PastTold:
        """The answer to a question about a site's past; one without rows says why there are none."""
        if not self._open:
            return answer(asked, error="nothing is measured there yet")
        found = await self._ask(lambda history: history.told(asked))
        return found or answer(asked, error=f"the disk did not answer within {ANSWER_S:g} s")

    async def _ask(self, job: Callable[[History], T]) -> T | None:
        if (asked := self._submit(job)) is None:
            return None
        try:
            async with asyncio.timeout(ANSWER_S):
                return await asyncio.wrap_future(asked)
        except TimeoutError:
            return None

    def _submit(self, job: Callable[[History], T]) -> Future[T] | None:
        if not self._room.acquire(blocking=False):
            return None
        done = self._thread.submit(lambda: job(self._history.result()))
        done.add_done_callback(lambda _: self._room.release())
        return done
