"""The embedded store against the simplest model of etcd there is: a copy of everything per revision."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.store import (
    KV,
    Cmp,
    Compacted,
    Delete,
    Denied,
    EmbeddedStore,
    Event,
    Get,
    Op,
    Put,
)
from controller.store.limits import check

KEYS = (b"a", b"a/1", b"a/2", b"b", b"\xff")
PREFIXES = (b"", b"a", b"a/", b"\xff", b"none")

keys = st.sampled_from(KEYS)
values = st.sampled_from((b"", b"1", b"2"))
operations = st.one_of(
    st.builds(Put, keys, values),
    st.builds(Delete, keys),
    st.builds(Delete, st.sampled_from(PREFIXES[1:]), st.just(True)),
    st.builds(Get, keys),
    st.builds(Get, st.sampled_from(PREFIXES), st.just(True)),
)
compares = st.one_of(
    st.builds(Cmp, keys, st.just("value"), st.sampled_from(("=", "!=", "<", ">")), values),
    st.builds(
        Cmp,
        keys,
        st.sampled_from(("mod", "create", "version")),
        st.sampled_from(("=", "!=", "<", ">")),
        st.integers(0, 6),
    ),
)
transactions = st.tuples(
    st.lists(compares, max_size=2),
    st.lists(operations, max_size=4),
    st.lists(operations, max_size=4),
)
Transaction = tuple[list[Cmp], list[Op], list[Op]]
Keys = dict[bytes, KV]


@dataclass(slots=True)
class Model:
    """`past[r]` is the store as it stood at revision r, `events[r]` what made it so."""

    past: list[Keys] = field(default_factory=lambda: [{}, {}])
    events: list[list[Event]] = field(default_factory=lambda: [[], []])

    def txn(self, when: Sequence[Cmp], then: Sequence[Op], otherwise: Sequence[Op]) -> object:
        ok = all(self.holds(compare) for compare in when)
        now, events, results, at = (
            dict(self.past[-1]),
            list[Event](),
            list[object](),
            len(self.past),
        )
        for op in then if ok else otherwise:
            under = sorted(
                k
                for k in now
                if (k.startswith(op.key) if getattr(op, "prefix", False) else k == op.key)
            )
            if isinstance(op, Put):
                prev = now.get(op.key)
                created, version = (prev.create_revision, prev.version) if prev else (at, 0)
                now[op.key] = KV(op.key, op.value, created, at, version + 1)
                events.append(Event("put", now[op.key], prev))
                results.append(None)
            elif isinstance(op, Delete):
                events += [Event("delete", KV(k, b"", 0, at, 0), now.pop(k)) for k in under]
                results.append(len(under))
            else:
                results.append(tuple(now[k] for k in under))
        if events:
            self.past.append(now)
            self.events.append(events)
        return ok, len(self.past) - 1, tuple(results)

    def holds(self, compare: Cmp) -> bool:
        kv = self.past[-1].get(compare.key)
        if kv is None and compare.target == "value":
            return False
        kv = kv or KV(b"", b"", 0, 0, 0)
        left = {
            "value": kv.value,
            "mod": kv.mod_revision,
            "create": kv.create_revision,
            "version": kv.version,
        }[compare.target]
        sign = (left > compare.operand) - (left < compare.operand)  # type: ignore[operator]
        return {"=": sign == 0, "!=": sign != 0, "<": sign < 0, ">": sign > 0}[compare.op]

    def listing(self, prefix: bytes, revision: int) -> tuple[KV, ...]:
        then = self.past[revision]
        return tuple(then[key] for key in sorted(then) if key.startswith(prefix))

    def watch(self, prefix: bytes, after: int) -> list[Event]:
        since = [event for events in self.events[max(after + 1, 0) :] for event in events]
        return [event for event in since if event.kv.key.startswith(prefix)]


async def play(store: EmbeddedStore, model: Model, story: Sequence[Transaction]) -> None:
    for when, then, otherwise in story:
        try:
            check(when, then, otherwise)
        except Denied:
            with pytest.raises(Denied):
                await store.txn(when, then, otherwise)
            continue
        result = await store.txn(when, then, otherwise)
        assert (result.ok, result.revision, result.results) == model.txn(when, then, otherwise)


async def agree(store: EmbeddedStore, model: Model, *, oldest: int = 1) -> None:
    """Every list at every revision, and every watch from every revision, tell the model's story."""
    newest = len(model.past) - 1
    for prefix in PREFIXES:
        for revision in range(1, newest + 1):
            if revision < oldest:
                with pytest.raises(Compacted):
                    await store.list(prefix, revision=revision)
            else:
                snapshot = await store.list(prefix, revision=revision)
                assert snapshot.items == model.listing(prefix, revision)
        for after in range(max(oldest - 1, 0), newest):
            heard: list[Event] = []
            wanted = model.watch(prefix, after)
            async with aclosing(store.watch(prefix, after=after, prev=True)) as batches:
                while len(heard) < len(wanted):
                    heard += (await anext(batches)).events
            assert heard == wanted
    for key in KEYS:
        assert await store.get(key) == model.past[-1].get(key)
    assert (await store.list(b"")).revision == newest


@settings(max_examples=150, deadline=None)
@given(st.lists(transactions, max_size=12))
def test_the_store_tells_the_same_story_as_a_naive_model(story: list[Transaction]) -> None:
    """Whatever is written, every answer, every past revision and every watch are etcd's."""

    async def run() -> None:
        model = Model()
        async with EmbeddedStore.open(None) as store:
            await play(store, model, story)
            await agree(store, model)

    asyncio.run(run())


@settings(max_examples=20, deadline=None)
@given(st.lists(transactions, max_size=10), st.data())
def test_a_file_tells_the_same_story_after_compaction_and_reopening(
    story: list[Transaction], data: st.DataObject
) -> None:
    """Compacted anywhere, closed and opened again at any point, the store goes on as if nothing had been."""
    cut = data.draw(st.integers(0, len(story)))

    async def run(path: Path) -> None:
        model, oldest = Model(), 1
        async with EmbeddedStore.open(path) as store:
            await play(store, model, story[:cut])
            if len(model.past) > 2:
                oldest = data.draw(st.integers(2, len(model.past) - 1))
                await store.compact(oldest)
            await agree(store, model, oldest=oldest)
        async with EmbeddedStore.open(path) as store:
            await agree(store, model, oldest=oldest)
            await play(store, model, story[cut:])
            await agree(store, model, oldest=oldest)
            newest = len(model.past) - 1
            if newest > oldest:
                oldest = data.draw(st.integers(oldest + 1, newest))
                await store.compact(oldest)
        async with EmbeddedStore.open(path) as store:
            await agree(store, model, oldest=oldest)

    with TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory) / "store.db"))
