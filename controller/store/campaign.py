"""Election by one key, over any store: whoever creates it decides, for as long as it exists (rule R1)."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress

from controller.store.protocol import (
    TIMEOUT_S,
    Ambiguous,
    Cmp,
    Get,
    Lease,
    LeaseLost,
    Op,
    Put,
    Store,
    StoreError,
    TxnResult,
)


@asynccontextmanager
async def campaign(
    store: Store, key: bytes, value: bytes, *, ttl: int
) -> AsyncGenerator["Elected", None]:
    """Wait until `key` is ours, hold it for the body, give it back. See Store.campaign."""
    lease = await store.grant(ttl)
    try:
        term = None
        while term is None:
            try:
                term = await win(store, key, value, lease)
            except LeaseLost:  # while we waited; nothing hung on it yet
                lease = await store.grant(ttl)
        yield Elected(store, key, term, lease)
    finally:
        # A lease that can't be revoked ends by itself; the body's own error matters more.
        with suppress(StoreError):
            await lease.revoke()


async def win(store: Store, key: bytes, value: bytes, lease: Lease) -> int:
    """The revision at which we created `key`. Raises LeaseLost."""
    while True:
        try:
            result = await store.txn(
                [Cmp(key, "create", "=", 0)], [Put(key, value, lease.id)], [Get(key)]
            )
        except Ambiguous:
            continue  # the next answer shows whose key it is
        if result.ok:
            return result.revision
        (found,) = result.results
        assert isinstance(found, tuple)
        if found[0].lease == lease.id:
            return found[0].create_revision
        await vacancy(store, key, after=result.revision)


async def vacancy(store: Store, key: bytes, *, after: int) -> None:
    """Wait until `key` is deleted after revision `after`."""
    batches = store.watch(key, after=after)
    async with aclosing(batches):
        async for batch in batches:
            if any(event.kv.key == key and event.kind == "delete" for event in batch.events):
                return


class Elected:
    """Being the one decider: a Leadership."""

    def __init__(self, store: Store, key: bytes, term: int, lease: Lease) -> None:
        self.fence = Cmp(key, "create", "=", term)
        self.term = term
        self.lost = lease.lost
        self._store, self._lease = store, lease

    @property
    def deadline(self) -> float:
        return self._lease.deadline

    async def txn(self, then: Sequence[Op], when: Sequence[Cmp] = ()) -> TxnResult:
        left_s = self.deadline - asyncio.get_running_loop().time()
        if self.lost.is_set() or left_s <= 0:
            raise self._deposed()
        result = await self._store.txn(
            [self.fence, *when], then, [Get(self.fence.key)], timeout=min(TIMEOUT_S, left_s)
        )
        if result.ok:
            return result
        (found,) = result.results
        assert isinstance(found, tuple)
        if not found or found[0].create_revision != self.term:
            self.lost.set()
            raise self._deposed()
        return TxnResult(False, result.revision, ())

    def _deposed(self) -> LeaseLost:
        return LeaseLost(f"no longer the leader by {self.fence.key!r} of term {self.term}")
