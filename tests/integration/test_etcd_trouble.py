"""What etcd and the network can do to a client: each trap ends in the finding that the protocol promises."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import pytest

from controller.store import (
    Ambiguous,
    Batch,
    Compacted,
    NoSpace,
    Put,
    Rewound,
    Store,
    StoreError,
    Unavailable,
)
from controller.store.etcd import EtcdStore
from tests.contract.stores import take, told
from tests.etcds import HOST, NEW, OLD, Cluster, cluster
from tests.ports import free_port
from tests.relays import Relay

pytestmark = pytest.mark.integration


@dataclass(frozen=True, slots=True)
class Behind:
    """A store that reaches its lone member through `relay`, and one that reaches it directly."""

    etcd: Cluster
    relay: Relay
    store: EtcdStore
    direct: EtcdStore


@asynccontextmanager
async def behind(version: str = NEW) -> AsyncGenerator[Behind, None]:
    async with cluster(version, size=1) as etcd:
        relay = Relay(free_port(), etcd.members[0].client_port)
        await relay.open()
        try:
            async with (
                EtcdStore.open([f"http://{HOST}:{relay.port}"]) as store,
                EtcdStore.open(etcd.urls) as direct,
            ):
                yield Behind(etcd, relay, store, direct)
        finally:
            await relay.close()


@asynccontextmanager
async def hanging() -> AsyncGenerator[str, None]:
    """A member that accepts connections and never says a word."""
    relay = Relay(free_port(), 0)
    relay.hang()
    await relay.open()
    try:
        yield f"http://{HOST}:{relay.port}"
    finally:
        await relay.close()


async def until_told(batches: AsyncGenerator[Batch, None], revision: int) -> None:
    while (await anext(batches)).revision < revision:
        pass


async def test_a_lost_answer_is_ambiguous_and_never_asked_twice() -> None:
    """The write was applied, once; who is told Ambiguous reads it and knows."""
    async with behind() as b:
        at = await b.store.put(b"a", b"1")
        b.relay.lose_answers()
        with pytest.raises(Ambiguous):
            await b.store.put(b"a", b"2")
        b.relay.mend()
        kv = await b.store.get(b"a")
        assert kv and (kv.value, kv.version, kv.mod_revision) == (b"2", 2, at + 1)


async def test_a_write_that_was_never_sent_is_unavailable() -> None:
    """Refused or silent at connecting: nothing may have happened, and nothing has."""
    async with behind() as b:
        at = await b.store.put(b"a", b"1")
        for trouble in (b.relay.hang, lambda: b.relay.refuse(b"")):
            b.relay.refuse(b"")
            await asyncio.sleep(0.05)  # the connection that was is gone
            b.relay.mend()
            trouble()
            with pytest.raises(Unavailable):
                await b.store.put(b"a", b"2", timeout=1)
            b.relay.mend()
            kv = await b.store.get(b"a", timeout=5)
            assert kv and kv.mod_revision == at


async def test_a_hanging_member_delays_once_and_hides_nothing() -> None:
    """It accepts and is silent: the first call goes on elsewhere after a moment, the next ones go there at once."""
    now = asyncio.get_running_loop().time
    async with hanging() as silent, cluster(size=1) as etcd:
        async with EtcdStore.open([silent, *etcd.urls]) as store:
            began = now()
            at = await store.put(b"a", b"1")
            assert now() - began < 1.5
            began = now()
            await store.put(b"a", b"2")
            assert now() - began < 0.5
        async with (
            EtcdStore.open([silent, *etcd.urls]) as store,
            aclosing(store.watch(b"a", after=at)) as batches,
        ):
            assert len(await take(batches, 1)) == 1


CALLS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "get": lambda store: store.get(b"a"),
    "nearby": lambda store: store.get(b"a", serializable=True),
    "list": lambda store: store.list(b""),
    "put": lambda store: store.put(b"a", b""),
    "delete": lambda store: store.delete(b"a"),
    "txn": lambda store: store.txn([], [Put(b"a", b"")]),
    "compact": lambda store: store.compact(2),
    "grant": lambda store: store.grant(3),
    "watch": lambda store: take(store.watch(b"", after=0), 1),
}


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_ends_by_its_deadline_and_at_once_when_cancelled(call: str) -> None:
    """With no member that speaks: Unavailable within the timeout (a watch goes on trying); cancelling does not wait."""
    now = asyncio.get_running_loop().time
    async with hanging() as one, hanging() as two, EtcdStore.open([one, two]) as store:
        if call != "watch":
            began = now()
            with pytest.raises(Unavailable):
                await CALLS[call](store)
            assert now() - began < 2.5
        async with asyncio.TaskGroup() as group:

            async def ask() -> None:
                await CALLS[call](store)

            task = group.create_task(ask())
            await asyncio.sleep(0.2)
            began = now()
            task.cancel()
        assert task.cancelled()
        assert now() - began < 0.1


async def test_closing_ends_what_is_under_way() -> None:
    """A call, a watch and a lease on a member that went silent: each ends, and the task that waited goes on."""
    async with behind() as b:
        lease = await b.store.grant(30)
        at = await b.store.put(b"a", b"1")
        ends: list[str] = []

        async def write() -> None:
            with pytest.raises(Ambiguous):
                await b.store.put(b"a", b"2", timeout=20)
            ends.append("write")

        async def read() -> None:
            with pytest.raises(Unavailable):
                await b.store.get(b"a", timeout=20)
            ends.append("read")

        async def listen() -> None:
            async with aclosing(b.store.watch(b"a", after=at)) as batches:
                async for _ in batches:
                    pass
            ends.append("watch")

        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(listen())
            await asyncio.sleep(0.2)
            b.relay.hang()
            group.create_task(write())
            group.create_task(read())
            await asyncio.sleep(0.2)
            await b.store.aclose()
        assert sorted(ends) == ["read", "watch", "write"]
        assert lease.lost.is_set()


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_watches_that_are_left_leave_no_watcher(version: str) -> None:
    """Cancelled, left by a break, ended by closing: etcd counts none of them a moment later."""
    async with cluster(version, size=1) as etcd:
        async with EtcdStore.open(etcd.urls) as store:
            at = await store.put(b"a", b"1")
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(take(store.watch(b"", after=at), 1)) for _ in range(100)]
                await until(lambda: watching(etcd, 100))
                for task in tasks:
                    task.cancel()
            for _ in range(20):
                async with aclosing(store.watch(b"", after=at - 1)) as batches:
                    await take(batches, 1)
            await until(lambda: watching(etcd, 0))
            async with asyncio.TaskGroup() as group:
                group.create_task(drained(store, at))
                await until(lambda: watching(etcd, 1))
                await store.aclose()
        await until(lambda: watching(etcd, 0))


async def drained(store: Store, at: int) -> None:
    async with aclosing(store.watch(b"", after=at)) as batches:
        async for _ in batches:
            pass


async def watching(etcd: Cluster, count: int) -> bool:
    return await etcd.watchers() == count


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_a_watch_that_missed_what_was_compacted_says_so(version: str) -> None:
    """Cut off while its keys change and their history goes: Compacted; listing again loses nothing."""
    async with behind(version) as b:
        at = await b.store.put(b"k/a", b"1")
        async with aclosing(b.store.watch(b"k/", after=at - 1)) as batches:
            await take(batches, 1)
            b.relay.refuse(b"")
            for value in (b"2", b"3", b"4"):
                at = await b.direct.put(b"k/a", value)
            await b.direct.compact(at)
            b.relay.mend()
            with pytest.raises(Compacted) as gone:
                async with asyncio.timeout(10):
                    await take(batches, 1)
            assert gone.value.revision == at
        snapshot = await b.store.list(b"k/")
        async with aclosing(b.store.watch(b"k/", after=snapshot.revision)) as batches:
            last = await b.direct.put(b"k/a", b"5")
            assert told(await take(batches, 1)) == [("put", b"k/a", b"5", last)]


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_a_watch_alone_notices_that_its_member_is_silent(version: str) -> None:
    """With no call under way beside it: what it waits for is told by another member within seconds."""
    async with behind(version) as b:
        urls = [f"http://{HOST}:{b.relay.port}", *b.etcd.urls]
        at = await b.direct.put(b"a", b"1")
        async with (
            EtcdStore.open(urls) as store,
            aclosing(store.watch(b"a", after=at - 1)) as batches,
        ):
            await take(batches, 1)
            b.relay.hang()
            await b.direct.put(b"a", b"2")
            async with asyncio.timeout(5):
                assert len(await take(batches, 1)) == 1


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_a_deletion_that_compaction_took_along_is_no_gap(version: str) -> None:
    """These versions drop a deletion at the compaction's own revision, and take a watch from there all the same."""
    async with behind(version) as b:
        at = await b.direct.put(b"a", b"1")
        await b.direct.delete(b"a")
        await b.direct.put(b"b", b"1")
        await b.direct.compact(at + 1)
        await asyncio.sleep(0.5)  # compaction goes on in the background
        async with aclosing(b.store.watch(b"a", after=at)) as batches, asyncio.timeout(5):
            with pytest.raises(Compacted) as gone:
                await take(batches, 1)
        assert gone.value.revision == at + 1


async def test_a_quiet_watch_that_comes_back_is_not_behind() -> None:
    """Progress is asked for while nothing happens: what others wrote, and its compaction, concern it not."""
    async with behind() as b:
        at = await b.store.put(b"quiet/a", b"1")
        async with aclosing(b.store.watch(b"quiet/", after=at)) as batches:
            for chapter in range(20):
                at = (
                    await b.direct.txn(
                        [], [Put(b"loud/%d" % i, b"%d" % chapter) for i in range(100)]
                    )
                ).revision
            async with asyncio.timeout(5):
                await until_told(batches, at)
            b.relay.refuse(b"")
            await b.direct.compact(at)
            b.relay.mend()
            last = await b.direct.put(b"quiet/a", b"2")
            async with asyncio.timeout(10):
                assert told(await take(batches, 1)) == [("put", b"quiet/a", b"2", last)]


async def test_an_old_member_s_progress_is_not_believed() -> None:
    """3.4.23 may answer before it told everything: such a watch comes back as Compacted, never with a gap."""
    async with behind(OLD) as b:
        at = await b.store.put(b"quiet/a", b"1")
        async with aclosing(b.store.watch(b"quiet/", after=at)) as batches:
            for number in range(10):
                at = await b.direct.put(b"loud", b"%d" % number)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.5):
                    await anext(batches)
        async with aclosing(b.store.watch(b"quiet/", after=at)) as batches:
            last = await b.direct.put(b"quiet/a", b"2")
            assert told(await take(batches, 1)) == [("put", b"quiet/a", b"2", last)]


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_a_full_store_refuses_writes_and_nothing_else(version: str) -> None:
    """NoSpace for what adds; reads, watches, deletions and a lease that was there go on."""
    options = ("--quota-backend-bytes", str(4 << 20))
    async with (
        cluster(version, size=1, options=options) as etcd,
        EtcdStore.open(etcd.urls) as store,
    ):
        at = await store.put(b"a", b"1")
        lease = await store.grant(1)
        with pytest.raises(NoSpace):
            for number in range(200):
                await store.put(b"b/%d" % number, b"x" * 100_000)
        with pytest.raises(NoSpace):
            await store.txn([], [Put(b"a", b"2")])
        with pytest.raises(NoSpace):
            await store.grant(3)
        assert (await store.list(b"a")).items
        async with aclosing(store.watch(b"a", after=at - 1)) as batches:
            assert len(await take(batches, 1)) == 1
            assert await store.delete(b"a") == 1
            assert [event.kind for event in await take(batches, 1)] == ["delete"]
        await asyncio.sleep(2.5)
        assert not lease.lost.is_set()
        await lease.revoke()


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_a_store_restored_from_before_is_noticed(version: str) -> None:
    """R2: its revision went back. Who knew it is told Rewound by everything; who comes anew sees the older one."""
    async with cluster(version, size=1) as etcd, EtcdStore.open(etcd.urls) as store:
        (member,) = etcd.members
        data, saved = member.directory / "data", member.directory / "saved"
        await store.put(b"commits/one", b"1")
        member.kill()
        shutil.copytree(data, saved)
        etcd.start()
        await etcd.ready()
        for number in range(10):
            at = await store.put(b"commits/two", b"%d" % number, timeout=5)
        async with aclosing(store.watch(b"commits/", after=at - 1)) as batches:
            await take(batches, 1)
            member.kill()
            shutil.rmtree(data)
            saved.rename(data)
            etcd.start()
            await etcd.ready()
            with pytest.raises(Rewound, match=f"stood at revision {at}"):
                async with asyncio.timeout(10):
                    await take(batches, 1)
        for call in ("get", "nearby", "list", "put", "txn", "grant", "watch"):
            with pytest.raises(Rewound):
                await CALLS[call](store)
        async with EtcdStore.open(etcd.urls) as anew:
            snapshot = await anew.list(b"commits/")
            assert [kv.key for kv in snapshot.items] == [b"commits/one"]
            assert snapshot.revision < at


async def test_a_write_into_a_store_that_went_back_is_in_doubt() -> None:
    """It was written, into another past: Ambiguous, and the re-read says Rewound."""
    async with cluster(size=1) as etcd, EtcdStore.open(etcd.urls) as store:
        (member,) = etcd.members
        data, saved = member.directory / "data", member.directory / "saved"
        member.kill()
        shutil.copytree(data, saved)
        etcd.start()
        await etcd.ready()
        for number in range(10):
            await store.put(b"a", b"%d" % number, timeout=5)
        member.kill()
        shutil.rmtree(data)
        saved.rename(data)
        etcd.start()
        await etcd.ready()
        with pytest.raises(Ambiguous, match="rewound"):
            await store.put(b"a", b"10")
        with pytest.raises(Rewound):
            await store.get(b"a")


async def test_another_cluster_at_the_same_place_is_noticed() -> None:
    """Its id differs, however far its revisions are: nothing is written there, everything says Rewound."""
    async with cluster(size=1) as etcd, EtcdStore.open(etcd.urls) as store:
        (member,) = etcd.members
        await store.put(b"a", b"1")
        member.kill()
        shutil.rmtree(member.directory / "data")
        etcd.token = "another"
        etcd.start()
        await etcd.ready()
        async with EtcdStore.open(etcd.urls) as other:
            for number in range(10):
                await other.put(b"b", b"%d" % number)
            with pytest.raises(Rewound, match=f"{other.cluster:x}, not to {store.cluster:x}"):
                await store.put(b"a", b"2")
            with pytest.raises(Rewound):
                await take(store.watch(b"", after=0), 1)
            assert await other.get(b"a") is None


async def test_one_member_of_another_cluster_is_left_alone() -> None:
    """One wrong endpoint of three: its data is neither read nor written, and the others serve."""
    async with cluster() as etcd, cluster(size=1) as other:
        urls = (*etcd.urls[:2], *other.urls)
        async with EtcdStore.open(urls) as store, EtcdStore.open(other.urls) as foreign:
            await store.put(b"a", b"1")
            for member in etcd.members[:2]:
                member.kill()
            with pytest.raises(StoreError, match="belongs to the etcd cluster"):
                await store.put(b"a", b"2", timeout=1.5)
            assert await foreign.get(b"a") is None
            etcd.start(*etcd.members[:2])
            await etcd.ready()
            assert await store.get(b"a", timeout=5)
