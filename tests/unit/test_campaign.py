"""What a leader knows by itself (rule R1): past its deadline it asks the store nothing, whatever the store thinks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controller.store import EmbeddedStore, LeaseLost, Put
from controller.store.campaign import Elected

pytestmark = pytest.mark.virtual_time

KEY, WROTE = b"/leader", b"/wrote"


class Given:
    """A lease of which only `deadline` and `lost` matter: the store of these tests never ends it."""

    def __init__(self, deadline: float) -> None:
        self.id, self.ttl, self.deadline, self.lost = 0, 3, deadline, asyncio.Event()

    async def revoke(self) -> None:
        self.deadline = 0.0


@asynccontextmanager
async def leading(for_s: float) -> AsyncIterator[tuple[EmbeddedStore, Elected, Given]]:
    """A leader by a key that stands: the store's own fence lets each of its commits pass."""
    async with EmbeddedStore.open(None) as store:
        term = await store.put(KEY, b"c1")
        lease = Given(asyncio.get_running_loop().time() + for_s)
        yield store, Elected(store, KEY, term, lease), lease


async def test_r1_a_leader_past_its_deadline_writes_nothing_though_its_key_stands() -> None:
    """A store ends a lease no sooner than promised, and may end it later: the deadline is the leader's own."""
    async with leading(3.0) as (store, leadership, _):
        await asyncio.sleep(2.9)
        assert (await leadership.txn([Put(WROTE, b"before")])).ok
        await asyncio.sleep(0.1)
        with pytest.raises(LeaseLost):
            await leadership.txn([Put(WROTE, b"after")])
        kept = await store.get(WROTE)
        assert kept and kept.value == b"before"


async def test_r1_a_leader_that_was_told_so_writes_nothing_though_its_key_stands() -> None:
    """The lease is known to be lost, long before its deadline."""
    async with leading(3600.0) as (store, leadership, lease):
        lease.lost.set()
        with pytest.raises(LeaseLost):
            await leadership.txn([Put(WROTE, b"after")])
        assert await store.get(WROTE) is None


async def test_r1_a_deposed_leader_knows_it_from_the_first_answer_on() -> None:
    """The fence refuses once; from then on the leader itself does, even if a key of its term came back."""
    async with leading(3600.0) as (store, leadership, lease):
        await store.delete(KEY)
        with pytest.raises(LeaseLost):
            await leadership.txn([Put(WROTE, b"after")])
        assert lease.lost.is_set()
        assert await store.get(WROTE) is None
