"""Each controller's way to the store: latency, outages, lost answers; and what becomes of a dead holder's leases."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from random import Random

from controller.store import (
    KV,
    Ambiguous,
    Batch,
    Cmp,
    Delete,
    EmbeddedStore,
    Leadership,
    Lease,
    Op,
    Put,
    Snapshot,
    TxnResult,
    Unavailable,
)
from controller.store.campaign import campaign
from controller.store.protocol import TIMEOUT_S
from runtime.pulse import Pulse
from tests.simulation.processes import Process

ANSWER_S = (0.0005, 0.005)

Committed = Callable[[str, Sequence[Op], int], None]
"""Told of each transaction that wrote: by whom, what, at which revision."""


class Weather:
    """How the store is for everybody. `lossy`: the share of writes whose answer is lost."""

    def __init__(self) -> None:
        self.away = False
        self.lossy = 0.0
        self.changed = Pulse()

    def leave(self) -> None:
        self.away = True

    def come_back(self) -> None:
        self.away = False
        self.changed.beat()


class Client:
    """A Store, as one controller's process reaches it."""

    def __init__(
        self,
        base: EmbeddedStore,
        process: Process,
        weather: Weather,
        random: Random,
        committed: Committed,
    ) -> None:
        self._base, self._process, self.weather = base, process, weather
        self._random, self._committed = random, committed
        self._leases: list[int] = []

    def abandon(self) -> None:
        """Its process is gone, or cut off for longer than a lease lasts: nobody keeps its leases alive."""
        for lease in self._leases:
            self._base.abandon(lease)

    async def get(
        self, key: bytes, *, serializable: bool = False, timeout: float = TIMEOUT_S
    ) -> KV | None:
        await self._reach(timeout)
        return await self._base.get(key)

    async def list(
        self, prefix: bytes, *, limit: int = 0, revision: int = 0, timeout: float = TIMEOUT_S
    ) -> Snapshot:
        await self._reach(timeout)
        return await self._base.list(prefix, limit=limit, revision=revision)

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
        await self._reach(timeout)
        lost = self._random.random() < self.weather.lossy
        if lost and self._random.random() < 0.5:
            raise Ambiguous("the question was lost")
        result = await self._base.txn(when, then, otherwise)
        if result.ok and any(not hasattr(op, "prefix") or isinstance(op, Delete) for op in then):
            self._committed(self._process.name, then, result.revision)
        if lost:
            raise Ambiguous("the answer was lost")
        return result

    async def grant(self, ttl: int) -> Lease:
        await self._reach(TIMEOUT_S)
        lease = await self._base.grant(ttl)
        self._leases.append(lease.id)
        return lease

    async def watch(
        self, prefix: bytes, *, after: int, prev: bool = False
    ) -> AsyncGenerator[Batch, None]:
        async with aclosing(self._base.watch(prefix, after=after, prev=prev)) as batches:
            async for batch in batches:
                await asyncio.sleep(self._random.uniform(*ANSWER_S))
                while self.weather.away:
                    await self.weather.changed.after(self.weather.changed.count)
                yield batch

    def campaign(
        self, key: bytes, value: bytes, *, ttl: int
    ) -> AbstractAsyncContextManager[Leadership]:
        return campaign(self, key, value, ttl=ttl)

    async def compact(self, revision: int, *, timeout: float = TIMEOUT_S) -> None:
        await self._reach(timeout)
        await self._base.compact(revision)

    async def aclose(self) -> None:
        """The world closes the store."""

    async def _reach(self, timeout: float) -> None:
        await asyncio.sleep(self._random.uniform(*ANSWER_S))
        if self._process.killed:
            raise Unavailable("this process is dead")
        if self.weather.away:
            await asyncio.sleep(min(timeout, 1.0))
            raise Unavailable("the store is away")
