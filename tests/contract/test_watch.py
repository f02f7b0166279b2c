"""The store's contract: a watch never skips, repeats or reorders; what it can't know it calls Compacted."""

import asyncio
from contextlib import aclosing

import pytest

from controller.store import KV, Compacted, Delete, Event, Put, Store
from tests.contract.stores import take, told


async def test_a_watch_begins_after_its_revision(store: Store) -> None:
    """History first, then what happens: each change once, in order."""
    first = await store.put(b"p/a", b"1")
    await store.put(b"p/b", b"2")
    await store.put(b"other", b"")
    await store.delete(b"p/a")
    async with aclosing(store.watch(b"p/", after=first)) as batches:
        past = await take(batches, 2)
        await store.put(b"p/c", b"3")
        present = await take(batches, 1)
    assert told(past) == [("put", b"p/b", b"2", first + 1), ("delete", b"p/a", b"", first + 3)]
    assert told(present) == [("put", b"p/c", b"3", first + 4)]


async def test_a_watch_tells_what_was_there_before_if_asked(store: Store) -> None:
    """With `prev` every event carries the key as it stood; without, never."""
    at = await store.put(b"a", b"1")
    await store.put(b"a", b"2")
    await store.delete(b"a")
    async with aclosing(store.watch(b"a", after=at - 1, prev=True)) as batches:
        events = await take(batches, 3)
    one, two = KV(b"a", b"1", at, at, 1), KV(b"a", b"2", at, at + 1, 2)
    assert [event.prev for event in events] == [None, one, two]
    assert events[2] == Event("delete", KV(b"a", b"", 0, at + 2, 0), two)
    async with aclosing(store.watch(b"a", after=at - 1)) as batches:
        assert {event.prev for event in await take(batches, 3)} == {None}


async def test_a_transaction_arrives_whole_and_in_its_order(store: Store) -> None:
    """All changes of one revision are in one batch, in the order of the operations."""
    await store.put(b"d/2", b"")
    at = await store.put(b"d/1", b"")
    await store.txn([], [Put(b"z", b"1"), Delete(b"d/", prefix=True), Put(b"a", b"2")])
    async with aclosing(store.watch(b"", after=at)) as batches:
        batch = await anext(batches)
    assert batch.revision == at + 1
    assert [event.kv.key for event in batch.events] == [b"z", b"d/1", b"d/2", b"a"]


async def test_a_watch_of_the_future_waits_for_it(store: Store) -> None:
    """What happens before its revision is not told, also when it was asked for early."""
    at = (await store.list(b"")).revision
    async with aclosing(store.watch(b"", after=at + 2)) as batches:
        async with asyncio.TaskGroup() as group:
            heard = group.create_task(take(batches, 1))
            for value in (b"1", b"2", b"3"):
                await asyncio.sleep(0.01)
                await store.put(b"a", value)
        assert told(heard.result()) == [("put", b"a", b"3", at + 3)]


async def test_a_watch_of_the_compacted_past_says_so(store: Store) -> None:
    """Compacted with the oldest revision kept; a watch from there on works."""
    for value in (b"1", b"2", b"3"):
        at = await store.put(b"a", value)
    await store.compact(at - 1)
    async with aclosing(store.watch(b"", after=at - 3)) as batches:
        with pytest.raises(Compacted) as finding:
            await anext(batches)
    assert finding.value.revision == at - 1
    async with aclosing(store.watch(b"", after=at - 1)) as batches:
        assert [event.kv.value for event in await take(batches, 1)] == [b"3"]


async def test_a_deletion_at_the_compacted_revision_is_no_gap(store: Store) -> None:
    """A watch that resumes exactly at the compaction tells it, or that it can't know; it never passes over it."""
    await store.put(b"a", b"1")
    gone = await store.put(b"b", b"1") + 1
    await store.delete(b"a")
    await store.compact(gone)
    async with aclosing(store.watch(b"a", after=gone - 1)) as batches:
        try:
            assert told(await take(batches, 1)) == [("delete", b"a", b"", gone)]
        except Compacted as finding:
            assert finding.revision == gone


async def test_a_quiet_watch_survives_compaction(store: Store) -> None:
    """A watcher of a prefix where nothing happens isn't behind, however much happens elsewhere."""
    at = (await store.list(b"")).revision
    async with aclosing(store.watch(b"quiet/", after=at)) as batches:
        async with asyncio.TaskGroup() as group:
            heard = group.create_task(take(batches, 1))
            for _ in range(20):
                at = await store.put(b"loud", b"")
                await asyncio.sleep(0.005)
            await store.compact(at)
            await store.put(b"quiet/a", b"1")
        assert told(heard.result()) == [("put", b"quiet/a", b"1", at + 1)]


async def test_watchers_of_a_busy_store_hear_the_same_story(store: Store) -> None:
    """Fast and slow watchers, joined early or late, see every revision once and in order."""
    start = (await store.list(b"")).revision
    writes = 200

    async def write(name: int) -> None:
        for i in range(writes // 4):
            await store.put(b"k/%d" % name, b"%d" % i)

    async def listen(pause_s: float) -> list[int]:
        heard: list[int] = []
        async with aclosing(store.watch(b"k/", after=start)) as batches:
            while len(heard) < writes:
                heard += [e.kv.mod_revision for e in (await anext(batches)).events]
                await asyncio.sleep(pause_s)
        return heard

    async with asyncio.TaskGroup() as group:
        listeners = [group.create_task(listen(pause_s)) for pause_s in (0, 0.001, 0.02)]
        for name in range(4):
            group.create_task(write(name))
    story = list(range(start + 1, start + 1 + writes))
    assert [listener.result() for listener in listeners] == [story] * 3


async def test_a_long_story_comes_in_whole_revisions(store: Store) -> None:
    """However much there is to catch up with, a batch is bounded and never ends within a revision."""
    at = (await store.list(b"")).revision
    for chapter in range(30):
        await store.txn([], [Put(b"%d/%d" % (chapter, i), b"") for i in range(100)])
    heard: list[int] = []
    async with aclosing(store.watch(b"", after=at)) as batches:
        while len(heard) < 3_000:
            batch = await anext(batches)
            assert len(batch.events) < 3_000
            assert len(batch.events) % 100 == 0
            assert batch.revision == batch.events[-1].kv.mod_revision
            heard += [event.kv.mod_revision for event in batch.events]
    assert heard == sorted(heard)


async def test_a_cancelled_watch_ends_at_once(store: Store) -> None:
    """Cancelling a watcher that waits ends it, and the store goes on for the others."""
    at = (await store.list(b"")).revision
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(take(store.watch(b"", after=at), 1))
        await asyncio.sleep(0.01)
        waiting.cancel()
    assert waiting.cancelled()
    await store.put(b"a", b"1")
    async with aclosing(store.watch(b"", after=at)) as batches:
        assert told(await take(batches, 1)) == [("put", b"a", b"1", at + 1)]


async def test_closing_the_store_ends_its_watches(store: Store) -> None:
    """A watch of a closed store is over, and closing twice is closing once."""
    at = (await store.list(b"")).revision
    async with asyncio.TaskGroup() as group:
        heard = group.create_task(drained(store, at))
        await asyncio.sleep(0.01)
        await store.aclose()
        await store.aclose()
    assert heard.result() == 0


async def drained(store: Store, at: int) -> int:
    async with aclosing(store.watch(b"", after=at)) as batches:
        return len([batch async for batch in batches if batch.events])
