"""The store's contract: leases, and the one decider that hangs on one (rule R1)."""

import asyncio
from contextlib import aclosing

import pytest

from controller.store import Cmp, Denied, Get, LeaseLost, Put, Store, Unavailable
from tests.contract.stores import Subject, take, told

pytestmark = pytest.mark.patient

LEADER = b"/leader"


async def test_a_revoked_lease_takes_its_keys_along(store: Store) -> None:
    """In one revision, in byte order; a key that was put again without the lease stays."""
    lease = await store.grant(60)
    for key in (b"c", b"a", b"b"):
        at = await store.put(key, b"1", lease=lease.id)
    at = await store.put(b"b", b"2")
    await lease.revoke()
    async with aclosing(store.watch(b"", after=at)) as batches:
        events = await take(batches, 2)
    assert told(events) == [("delete", b"a", b"", at + 1), ("delete", b"c", b"", at + 1)]
    assert [kv.key for kv in (await store.list(b"")).items] == [b"b"]


async def test_a_key_belongs_to_the_lease_it_was_last_put_with(store: Store) -> None:
    """A put names the lease anew each time: a second lease takes the key over from the first."""
    first, second = await store.grant(60), await store.grant(60)
    await store.put(b"a", b"1", lease=first.id)
    await store.put(b"a", b"2", lease=second.id)
    await first.revoke()
    kv = await store.get(b"a")
    assert kv and kv.lease == second.id != first.id
    assert (await store.txn([Cmp(b"a", "lease", "=", second.id)], [])).ok
    await second.revoke()
    assert await store.get(b"a") is None


async def test_nothing_hangs_on_a_lease_that_is_not(store: Store) -> None:
    """A put with an unknown or revoked lease raises LeaseLost, and its whole transaction is off."""
    lease = await store.grant(60)
    at = await store.put(b"a", b"1", lease=lease.id)
    await lease.revoke()
    with pytest.raises(LeaseLost):
        await store.put(b"a", b"2", lease=lease.id)
    with pytest.raises(LeaseLost):
        await store.txn([], [Put(b"b", b""), Put(b"c", b"", 4711)])
    left = await store.list(b"")
    assert (left.items, left.revision) == ((), at + 1)


async def test_a_lease_is_only_asked_for_in_the_branch_taken(store: Store) -> None:
    """A put that isn't carried out needs no lease."""
    assert (await store.txn([], [Put(b"a", b"")], [Put(b"b", b"", 4711)])).ok


async def test_an_empty_lease_ends_without_a_revision(store: Store) -> None:
    """Revoking a lease without keys changes nothing; revoking it again is fine."""
    at = (await store.list(b"")).revision
    lease = await store.grant(60)
    await lease.revoke()
    await lease.revoke()
    assert (await store.list(b"")).revision == at


async def test_a_lease_must_last(store: Store) -> None:
    """No time at all is no lease."""
    with pytest.raises(Denied):
        await store.grant(0)


async def test_a_lease_outlives_its_ttl_while_it_is_held(store: Store) -> None:
    """It's kept alive inside: longer than its ttl, the deadline always ahead."""
    lease = await store.grant(1)
    await store.put(b"a", b"1", lease=lease.id)
    await asyncio.sleep(1.3)
    assert await store.get(b"a")
    assert not lease.lost.is_set()
    assert lease.deadline > asyncio.get_running_loop().time()


async def test_the_lease_of_a_dead_process_runs_out(subject: Subject) -> None:
    """Its keys live for at least the ttl, then go in one revision; its holder learns that it's lost."""
    store, now = subject.store, asyncio.get_running_loop().time
    lease = await store.grant(1)
    await store.put(b"a", b"1", lease=lease.id)
    at = await store.put(b"b", b"1", lease=lease.id)
    subject.abandon(lease.id)
    died = now()
    async with aclosing(store.watch(b"", after=at)) as batches:
        events = await take(batches, 2)
    assert 0.95 < now() - died < 10
    assert told(events) == [("delete", b"a", b"", at + 1), ("delete", b"b", b"", at + 1)]
    await lease.lost.wait()
    assert lease.deadline <= now()
    with pytest.raises(LeaseLost):
        await store.put(b"c", b"", lease=lease.id)


async def test_a_leader_holds_the_key_and_gives_it_back(store: Store) -> None:
    """Within the body the key is ours, leased, and the fence names its creation; after it, it's gone."""
    async with store.campaign(LEADER, b"me", ttl=60) as leadership:
        kv = await store.get(LEADER)
        assert kv and kv.value == b"me" and kv.lease
        assert leadership.term == kv.create_revision
        assert leadership.fence == Cmp(LEADER, "create", "=", leadership.term)
        assert leadership.deadline > asyncio.get_running_loop().time()
        assert not leadership.lost.is_set()
    assert await store.get(LEADER) is None


async def test_a_leader_that_fails_gives_the_key_back_too(store: Store) -> None:
    """An error in the body leaves the body as it is, and no leader behind."""
    with pytest.raises(ZeroDivisionError):
        async with store.campaign(LEADER, b"me", ttl=60):
            raise ZeroDivisionError
    assert await store.get(LEADER) is None


async def test_of_twenty_contenders_one_leads_at_a_time(store: Store) -> None:
    """All of them come to lead, each alone, each with a higher term than the one before."""
    leading: list[int] = []
    terms: list[int] = []

    async def contend(name: int) -> None:
        async with store.campaign(LEADER, b"%d" % name, ttl=60) as leadership:
            leading.append(name)
            await asyncio.sleep(0.005)
            await leadership.txn([Put(b"config", b"%d" % name)])
            assert leading == [name]
            terms.append(leadership.term)
            leading.remove(name)

    async with asyncio.TaskGroup() as group:
        for name in range(20):
            group.create_task(contend(name))
    assert len(terms) == 20
    assert terms == sorted(set(terms))


async def test_a_contender_waits_for_the_key_alone(store: Store) -> None:
    """Keys that only begin like it don't matter; a contender that gives up leaves nothing behind."""
    async with store.campaign(LEADER, b"first", ttl=60), asyncio.TaskGroup() as group:

        async def contend() -> None:
            async with store.campaign(LEADER, b"second", ttl=60):
                raise AssertionError("two leaders")

        contender = group.create_task(contend())
        await store.put(LEADER + b"ship", b"")
        await store.delete(LEADER + b"ship")
        await asyncio.sleep(0.02)
        kv = await store.get(LEADER)
        assert kv and kv.value == b"first"
        contender.cancel()
    assert (await store.list(b"")).items == ()


async def test_a_leaders_transaction_keeps_its_own_compares(store: Store) -> None:
    """A compare of its own that fails is an answer, ok=False, and no loss of the leadership."""
    async with store.campaign(LEADER, b"me", ttl=60) as leadership:
        refused = await leadership.txn([Put(b"a", b"1")], when=[Cmp(b"a", "version", "=", 7)])
        assert (refused.ok, refused.results) == (False, ())
        assert await store.get(b"a") is None
        done = await leadership.txn([Put(b"a", b"1"), Get(b"a")])
        assert done.ok and done.results[0] is None
        assert not leadership.lost.is_set()


async def test_a_deposed_leader_can_not_write(store: Store) -> None:
    """R1: with the key in other hands, by the same name even, the fenced transaction raises LeaseLost."""
    async with store.campaign(LEADER, b"me", ttl=60) as leadership:
        await leadership.txn([Put(b"config", b"mine")])
        await store.delete(LEADER)
        await store.put(LEADER, b"me")
        await store.put(b"config", b"theirs")
        with pytest.raises(LeaseLost):
            await leadership.txn([Put(b"config", b"stale")])
        assert leadership.lost.is_set()
        kv = await store.get(b"config")
        assert kv and kv.value == b"theirs"
    kv = await store.get(LEADER)
    assert kv, "what the successor holds is not ours to give back"


async def test_a_leader_without_its_key_can_not_write(store: Store) -> None:
    """R1: a leader key that is gone fails the fence as one that changed hands does."""
    async with store.campaign(LEADER, b"me", ttl=60) as leadership:
        await store.delete(LEADER)
        with pytest.raises(LeaseLost):
            await leadership.txn([Put(b"config", b"stale")], when=[Cmp(b"x", "create", "=", 0)])
    assert await store.get(b"config") is None


async def test_a_dead_leader_is_followed(subject: Subject) -> None:
    """Once its lease has run out the next contender leads, and the dead one's writes are refused."""
    store = subject.store
    async with store.campaign(LEADER, b"dead", ttl=1) as dead:
        kv = await store.get(LEADER)
        assert kv
        subject.abandon(kv.lease)
        async with store.campaign(LEADER, b"next", ttl=60) as successor:
            assert successor.term > dead.term
            with pytest.raises(LeaseLost):
                await dead.txn([Put(b"config", b"stale")])
            assert (await successor.txn([Put(b"config", b"new")])).ok
            await dead.lost.wait()


async def test_a_closed_store_says_so(store: Store) -> None:
    """Every call on a closed store is Unavailable, none hangs."""
    lease = await store.grant(60)
    await store.aclose()
    assert lease.lost.is_set()
    with pytest.raises(Unavailable):
        await store.get(b"a")
    with pytest.raises(Unavailable):
        await store.list(b"")
    with pytest.raises(Unavailable):
        await store.put(b"a", b"")
    with pytest.raises(Unavailable):
        await store.grant(1)
    with pytest.raises(Unavailable):
        async with store.campaign(LEADER, b"me", ttl=1):
            raise AssertionError("led a closed store")
