"""The embedded store's leases on a virtual clock, to the second."""

import asyncio

import pytest

from controller.store import EmbeddedStore, LeaseLost, Put

pytestmark = pytest.mark.virtual_time


async def test_a_held_lease_lasts_a_virtual_year() -> None:
    """Its process lives, so it does: no keepalive can be late."""
    async with EmbeddedStore.open(None) as store:
        lease = await store.grant(3)
        await store.put(b"a", b"", lease=lease.id)
        await asyncio.sleep(365 * 86_400)
        assert await store.get(b"a")
        assert lease.deadline == pytest.approx(asyncio.get_running_loop().time() + 3)


async def test_an_abandoned_lease_ends_after_its_ttl_exactly() -> None:
    """The deadline stands still from then on, and at it the keys go."""
    now = asyncio.get_running_loop().time
    async with EmbeddedStore.open(None) as store:
        lease = await store.grant(3)
        await store.put(b"a", b"", lease=lease.id)
        await asyncio.sleep(10)
        store.abandon(lease.id)
        died = now()
        await asyncio.sleep(2.9)
        store.abandon(lease.id)  # dying twice is dying once
        assert lease.deadline == pytest.approx(died + 3)
        assert await store.get(b"a")
        await lease.lost.wait()
        assert now() == pytest.approx(died + 3)
        assert await store.get(b"a") is None


async def test_the_dead_revoke_nothing() -> None:
    """What the holder of an abandoned lease still does about it has no effect."""
    async with EmbeddedStore.open(None) as store:
        lease = await store.grant(3)
        await store.put(b"a", b"", lease=lease.id)
        store.abandon(lease.id)
        await lease.revoke()
        assert await store.get(b"a")
        await asyncio.sleep(3.1)
        assert await store.get(b"a") is None
        await lease.revoke()


async def test_a_leader_killed_in_its_body_is_followed_after_the_ttl() -> None:
    """Leaving the body doesn't give the key of a dead process back early: the next waits for the lease."""
    now = asyncio.get_running_loop().time
    async with EmbeddedStore.open(None) as store:
        async with store.campaign(b"/leader", b"dead", ttl=3) as dead:
            kv = await store.get(b"/leader")
            assert kv
            store.abandon(kv.lease)
            died = now()
        async with store.campaign(b"/leader", b"next", ttl=3) as successor:
            assert now() == pytest.approx(died + 3)
            assert successor.term > dead.term
            with pytest.raises(LeaseLost):
                await dead.txn([Put(b"a", b"")])


async def test_a_contender_whose_lease_ran_out_contends_anew() -> None:
    """Waiting longer than its lease lasted, it takes another one and still comes to lead."""
    async with EmbeddedStore.open(None) as store:
        led = asyncio.Event()

        async def contend() -> None:
            async with store.campaign(b"/leader", b"second", ttl=3) as leadership:
                led.set()
                assert (await leadership.txn([Put(b"a", b"")])).ok

        async with asyncio.TaskGroup() as group:
            async with store.campaign(b"/leader", b"first", ttl=3) as first:
                group.create_task(contend())
                await asyncio.sleep(1)
                kv = await store.get(b"/leader")
                assert kv
                store.abandon(kv.lease + 1)  # the contender's, granted next
                await asyncio.sleep(10)
                assert not led.is_set() and not first.lost.is_set()
            await asyncio.sleep(0)
        assert led.is_set()
        assert (await store.list(b"")).items[0].key == b"a"
