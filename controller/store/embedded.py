"""The store inside the controller's own process: etcd's semantics on a SQLite file, or on memory alone.

Reads come from memory, writes go through the Writer. Without a file there is no thread and nothing waits, so
the store also lives on a virtual clock.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from controller.store.campaign import campaign
from controller.store.draft import Draft
from controller.store.journal import QUOTA_BYTES
from controller.store.keyspace import Keyspace
from controller.store.limits import check, check_key
from controller.store.protocol import (
    KV,
    TIMEOUT_S,
    Batch,
    Cmp,
    Delete,
    Denied,
    Leadership,
    NoSpace,
    Op,
    Put,
    Snapshot,
    StoreError,
    TxnResult,
)
from controller.store.writer import Disk, Writer

T = TypeVar("T")

WATCH_EVENTS = 1_000  # in one batch of a watch, unless one revision has more
RETRY_S = 1.0  # until keys whose lease is over are deleted again, when the disk refused
LEASES_PER_REVISION = 1 << 20  # ids go on from the revision at opening: none is used twice


class EmbeddedLease:
    """Lives while its process does: the end is always `ttl` away until it's revoked or abandoned."""

    def __init__(self, store: "EmbeddedStore", id: int, ttl: int) -> None:
        self.id, self.ttl = id, ttl
        self.lost = asyncio.Event()
        self.ends: float | None = None  # on the loop's clock; None: kept alive
        self._store = store

    @property
    def deadline(self) -> float:
        now = asyncio.get_running_loop().time()
        if self.lost.is_set():
            return now
        return now + self.ttl if self.ends is None else self.ends

    async def revoke(self) -> None:
        """Delete its keys now. Of an abandoned or lost lease: nothing, for its holder is gone."""
        if self.ends is None and not self.lost.is_set():
            await self._store.revoke(self.id)


class EmbeddedStore:
    """A Store; made by `open`."""

    def __init__(self, keyspace: Keyspace, disk: Disk | None) -> None:
        self._keys = keyspace
        self._leases: dict[int, EmbeddedLease] = {}
        self._expiries: dict[int, asyncio.TimerHandle] = {}
        self._last_lease = keyspace.revision * LEASES_PER_REVISION
        self._changed = asyncio.Event()  # a new one for each adopted draft
        self._writer = Writer(keyspace, disk, leases=self._leases, adopted=self._adopted)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: Path | None, *, quota_bytes: int = QUOTA_BYTES
    ) -> AsyncGenerator["EmbeddedStore", None]:
        """The store in the file `path`, which nobody else may have open; None: in memory, gone at the end.

        Leases of an earlier process are over: their keys go first. Raises StoreError with path and remedy.
        """
        disk, keyspace = None, Keyspace()
        if path:
            disk, keyspace = await Disk.open(path, quota_bytes=quota_bytes)
        store = cls(keyspace, disk)
        try:
            try:
                await store._write(Draft.void_leases)
            except NoSpace as full:
                raise NoSpace(
                    f"{path}: no room to begin in: the leases of an earlier process can't be ended; "
                    "free disk space there, then start again"
                ) from full
            yield store
        finally:
            await store.aclose()

    async def get(
        self, key: bytes, *, serializable: bool = False, timeout: float = TIMEOUT_S
    ) -> KV | None:
        self._writer.check_open()
        check_key(key)
        return self._keys.get(key)

    async def list(
        self, prefix: bytes, *, limit: int = 0, revision: int = 0, timeout: float = TIMEOUT_S
    ) -> Snapshot:
        self._writer.check_open()
        revision = revision if revision > 0 else self._keys.revision
        items = self._keys.at(prefix, revision)
        return Snapshot(revision, items[:limit] if limit > 0 else items)

    async def put(
        self, key: bytes, value: bytes, *, lease: int = 0, timeout: float = TIMEOUT_S
    ) -> int:
        return (await self.txn([], [Put(key, value, lease)], timeout=timeout)).revision

    async def delete(self, key: bytes, *, prefix: bool = False, timeout: float = TIMEOUT_S) -> int:
        (count,) = (await self.txn([], [Delete(key, prefix)], timeout=timeout)).results
        assert isinstance(count, int)
        return count

    async def txn(
        self,
        when: Sequence[Cmp],
        then: Sequence[Op],
        otherwise: Sequence[Op] = (),
        *,
        timeout: float = TIMEOUT_S,
    ) -> TxnResult:
        check(when, then, otherwise)
        return await self._write(lambda draft: draft.txn(when, then, otherwise), timeout)

    async def compact(self, revision: int, *, timeout: float = TIMEOUT_S) -> None:
        await self._write(lambda draft: draft.compact(revision), timeout)

    async def grant(self, ttl: int) -> EmbeddedLease:
        self._writer.check_open()
        if ttl < 1:
            raise Denied(f"a lease of {ttl} s is none; 1 s is the shortest")
        self._last_lease += 1
        lease = EmbeddedLease(self, self._last_lease, ttl)
        self._leases[lease.id] = lease
        return lease

    async def revoke(self, lease: int) -> None:
        """End a lease now; where that fails it ends by itself."""
        try:
            await self._write(lambda draft: draft.end(lease))
        except StoreError:
            self.abandon(lease)
            raise

    def abandon(self, lease: int) -> None:
        """Stop keeping a lease alive, as when its process dies: it ends by itself, `ttl` from now."""
        if (found := self._leases.get(lease)) and found.ends is None:
            loop = asyncio.get_running_loop()
            found.ends = loop.time() + found.ttl
            self._expiries[lease] = loop.call_at(found.ends, self._expire, lease)

    def campaign(
        self, key: bytes, value: bytes, *, ttl: int
    ) -> AbstractAsyncContextManager[Leadership]:
        return campaign(self, key, value, ttl=ttl)

    async def watch(
        self, prefix: bytes, *, after: int, prev: bool = False
    ) -> AsyncGenerator[Batch, None]:
        while not self._writer.closed:
            # Taken before looking: what is adopted from here on sets this one.
            changed = self._changed
            after, events = self._keys.changes(prefix, after=after, limit=WATCH_EVENTS)
            if events:
                yield Batch(
                    after, events if prev else tuple(replace(event, prev=None) for event in events)
                )
            elif after >= self._keys.revision:
                await changed.wait()

    async def aclose(self) -> None:
        """End leases and watches, let the write under way finish, refuse the rest. Idempotent."""
        for lease in tuple(self._leases):
            self._forget(lease)
        try:
            await self._writer.close()
        finally:
            self._changed.set()

    async def _write(self, act: Callable[[Draft], T], timeout: float = TIMEOUT_S) -> T:
        return await self._writer.write(act, timeout=timeout)

    def _adopted(self, draft: Draft) -> None:
        for lease in draft.ended:
            self._forget(lease)
        self._changed.set()
        self._changed = asyncio.Event()

    def _forget(self, lease: int) -> None:
        if found := self._leases.pop(lease, None):
            found.lost.set()
        if expiry := self._expiries.pop(lease, None):
            expiry.cancel()

    def _expire(self, lease: int) -> None:
        """Its time is over: nothing may hang on it from now on, and what does is deleted."""
        self._forget(lease)
        if not self._writer.closed:
            write = self._writer.enqueue(lambda draft: draft.end(lease))
            write.answer.add_done_callback(partial(self._expired, lease))

    def _expired(self, lease: int, answer: asyncio.Future[None]) -> None:
        if answer.exception() and not self._writer.closed:
            asyncio.get_running_loop().call_later(RETRY_S, self._expire, lease)
