"""The line in which writes to an embedded store wait for the disk.

A batch of them is tried on a draft, written by the one worker thread, and only then adopted: memory is never
ahead of the disk, and one fsync serves all who wait. Without a journal nothing waits and there is no thread.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from controller.store.draft import Draft
from controller.store.journal import Journal
from controller.store.keyspace import Keyspace
from controller.store.protocol import Ambiguous, StoreError, Unavailable

T = TypeVar("T")

WAITING_MAX = 1_000  # writes; beyond, the disk is too slow for what is asked of it
BATCH_MAX = 64  # writes that share one fsync


@dataclass(slots=True, eq=False)
class Write(Generic[T]):
    """What one caller wants done to a draft, and where the answer goes."""

    act: Callable[[Draft], T]
    answer: asyncio.Future[T]
    begun: bool = False
    result: T | StoreError | None = None

    def attempt(self, draft: Draft) -> None:
        self.begun = True
        try:
            self.result = self.act(draft)
        except StoreError as finding:
            self.result = finding

    def settle(self, failure: StoreError | None) -> None:
        """Answer, unless the caller has left."""
        if self.answer.done():
            return
        if failure:  # one instance each: tracebacks grow where they are raised
            self.answer.set_exception(type(failure)(*failure.args))
        elif isinstance(self.result, StoreError):
            self.answer.set_exception(self.result)
        else:
            self.answer.set_result(self.result)  # type: ignore[arg-type] # attempted: it is T


@dataclass(slots=True, eq=False)
class Disk:
    """A journal and the one thread that uses it."""

    journal: Journal
    thread: ThreadPoolExecutor

    @classmethod
    async def open(cls, path: Path, *, quota_bytes: int) -> tuple["Disk", Keyspace]:
        """With what it holds. Raises StoreError."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="store")

        def read() -> tuple[Journal, Keyspace]:
            journal = Journal(path, quota_bytes=quota_bytes)
            try:
                return journal, journal.load()
            except StoreError:
                journal.close()
                raise

        try:
            journal, keyspace = await asyncio.get_running_loop().run_in_executor(thread, read)
        except BaseException:
            thread.shutdown()
            raise
        return cls(journal, thread), keyspace

    def write(self, draft: Draft) -> asyncio.Future[None]:
        job = partial(
            self.journal.write,
            draft.revisions,
            oldest=draft.oldest,
            superseded=draft.superseded,
        )
        return asyncio.get_running_loop().run_in_executor(self.thread, job)

    async def close(self) -> None:
        """After what the thread has in hand."""
        try:
            await asyncio.get_running_loop().run_in_executor(self.thread, self.journal.close)
        finally:
            self.thread.shutdown()


class Writer:
    """Changes `keyspace`, and nobody else does. `adopted` hears of each draft that became real."""

    def __init__(
        self,
        keyspace: Keyspace,
        disk: Disk | None,
        *,
        leases: Container[int],
        adopted: Callable[[Draft], None],
    ) -> None:
        self._keys, self._disk = keyspace, disk
        self._leases, self._adopted = leases, adopted
        self._waiting: deque[Write[object]] = deque()
        self._writing = False
        self.closed = False

    async def write(self, act: Callable[[Draft], T], *, timeout: float) -> T:
        """Do `act` to the keys, in its turn. Its answer comes once it's durable; StoreErrors it raises are one.

        Raises Unavailable when it was not begun in time, Ambiguous when it was.
        """
        self.check_open()
        if len(self._waiting) >= WAITING_MAX:
            raise Unavailable(f"{WAITING_MAX} writes are waiting for the disk; try again later")
        write = self.enqueue(act)
        try:
            async with asyncio.timeout(timeout):
                return await write.answer
        except TimeoutError:
            if write.begun:
                raise Ambiguous(f"no answer within {timeout:g} s; the write goes on") from None
            raise Unavailable(f"not begun within {timeout:g} s; nothing was written") from None

    def enqueue(self, act: Callable[[Draft], T]) -> Write[T]:
        """The same without waiting for the answer, and however long the line is."""
        write = Write(act, asyncio.get_running_loop().create_future())
        self._waiting.append(write)
        if not self._writing:
            self._write_next()
        return write

    async def close(self) -> None:
        """Refuse what waits, let the write under way finish. Idempotent."""
        if self.closed:
            return
        self.closed = True
        while self._waiting:
            self._waiting.popleft().settle(Unavailable("the store is closed"))
        if self._disk:
            await self._disk.close()

    def check_open(self) -> None:
        """Raises Unavailable."""
        if self.closed:
            raise Unavailable("the store is closed")

    def _write_next(self) -> None:
        """Try what waits on a draft, and hand the draft to the disk."""
        draft = Draft(self._keys, self._leases)
        batch: list[Write[object]] = []
        while self._waiting and len(batch) < BATCH_MAX:
            write = self._waiting.popleft()
            if not write.answer.done():  # its caller may have left
                write.attempt(draft)
                batch.append(write)
        if draft.revisions:
            draft.oldest = max(draft.oldest, self._keys.overdue())
        if self._disk and (draft.revisions or draft.oldest):
            self._writing = True
            # A callback, not an await: the write ends well also when all its callers have left.
            self._disk.write(draft).add_done_callback(partial(self._written, draft, batch))
        else:
            self._settle(draft, batch, None)

    def _written(
        self, draft: Draft, batch: list[Write[object]], done: asyncio.Future[None]
    ) -> None:
        self._writing = False
        failure: StoreError | None = None
        try:
            done.result()
        except StoreError as error:
            failure = error
        self._settle(draft, batch, failure)
        if self._waiting:
            self._write_next()

    def _settle(self, draft: Draft, batch: list[Write[object]], failure: StoreError | None) -> None:
        if not failure:
            self._keys.adopt(draft.revisions, draft.oldest)
            self._adopted(draft)
        for write in batch:
            write.settle(failure)
