"""The store's contract: keys, revisions, compares, transactions and what they refuse."""

import pytest

from controller.store import KV, Cmp, Compacted, Delete, Denied, Get, Put, Store, TxnResult
from controller.store.protocol import MAX_OPERATIONS, MAX_REQUEST_BYTES


async def test_a_write_raises_the_revision_by_one(store: Store) -> None:
    """Rule 1: whatever the key, the store's one counter goes on by exactly one."""
    before = (await store.list(b"")).revision
    assert await store.put(b"a", b"1") == before + 1
    assert await store.put(b"b", b"1") == before + 2
    assert (await store.list(b"")).revision == before + 2


async def test_a_key_remembers_its_creation_and_counts_its_writes(store: Store) -> None:
    """create_revision stays, mod_revision and version grow; deletion begins a new life at version 1."""
    first = await store.put(b"a", b"1")
    second = await store.put(b"a", b"2")
    assert await store.get(b"a") == KV(b"a", b"2", first, second, 2)
    await store.delete(b"a")
    assert await store.get(b"a") is None
    third = await store.put(b"a", b"")
    assert await store.get(b"a", serializable=True) == KV(b"a", b"", third, third, 1)


async def test_reading_raises_no_revision(store: Store) -> None:
    """Reads, a transaction of reads, and a deletion that deletes nothing leave the counter alone."""
    at = await store.put(b"a", b"1")
    await store.get(b"a")
    assert await store.delete(b"nothing") == 0
    result = await store.txn([], [Get(b"a"), Delete(b"none", prefix=True)])
    assert (result.revision, result.results[1]) == (at, 0)
    assert (await store.list(b"")).revision == at


async def test_a_list_is_in_byte_order_and_keeps_to_its_prefix(store: Store) -> None:
    """Byte order, not insertion order; the prefix is bytes, 0xff included; a limit takes the first ones."""
    for key in (b"p\xff\xff", b"p/b", b"p", b"p/\x00", b"q", b"o\xff", b"p/a"):
        await store.put(key, b"")
    listed = [kv.key for kv in (await store.list(b"p")).items]
    assert listed == [b"p", b"p/\x00", b"p/a", b"p/b", b"p\xff\xff"]
    assert [kv.key for kv in (await store.list(b"p", limit=2)).items] == listed[:2]
    assert [kv.key for kv in (await store.list(b"p\xff")).items] == [b"p\xff\xff"]
    assert len((await store.list(b"")).items) == 7


async def test_a_list_at_an_old_revision_shows_what_was(store: Store) -> None:
    """Keys written, changed or deleted since then appear as they stood, whole."""
    first = await store.put(b"p/a", b"1")
    second = await store.put(b"p/b", b"1")
    await store.put(b"p/a", b"2")
    await store.delete(b"p/b")
    last = await store.put(b"p/c", b"1")
    then = await store.list(b"p/", revision=second)
    assert then.revision == second
    assert then.items == (KV(b"p/a", b"1", first, first, 1), KV(b"p/b", b"1", second, second, 1))
    assert [kv.key for kv in (await store.list(b"p/", revision=first)).items] == [b"p/a"]
    assert [kv.key for kv in (await store.list(b"p/", revision=last)).items] == [b"p/a", b"p/c"]


async def test_a_future_revision_is_denied(store: Store) -> None:
    """What isn't yet can't be listed or compacted, and the message has the numbers."""
    at = await store.put(b"a", b"1")
    with pytest.raises(Denied, match="future"):
        await store.list(b"", revision=at + 1)
    with pytest.raises(Denied, match="future"):
        await store.compact(at + 1)


async def test_compaction_forgets_the_past_and_keeps_the_keys(store: Store) -> None:
    """Before the compacted revision: Compacted, with the oldest one kept. From it on: as ever."""
    await store.put(b"a", b"1")
    kept = await store.put(b"a", b"2")
    last = await store.put(b"a", b"3")
    await store.compact(kept)
    with pytest.raises(Compacted) as finding:
        await store.list(b"", revision=kept - 1)
    assert finding.value.revision == kept
    (then,) = (await store.list(b"a", revision=kept)).items
    assert (then.value, then.mod_revision, then.version) == (b"2", kept, 2)
    (now,) = (await store.list(b"a")).items
    assert (now.value, now.mod_revision, now.version) == (b"3", last, 3)
    assert (await store.list(b"")).revision == last


async def test_a_compaction_can_not_go_back(store: Store) -> None:
    """Compacting again at the same revision or an older one answers Compacted and changes nothing."""
    for value in (b"1", b"2", b"3"):
        at = await store.put(b"a", value)
    await store.compact(at - 1)
    for revision in (at - 1, at - 2):
        with pytest.raises(Compacted):
            await store.compact(revision)
    assert (await store.list(b"", revision=at - 1)).items[0].value == b"2"


async def test_a_deleted_prefix_goes_in_one_revision(store: Store) -> None:
    """All keys of the prefix, and no other, at once; the answer is their number."""
    for key in (b"p/a", b"p/b", b"p", b"q"):
        at = await store.put(key, b"")
    assert await store.delete(b"p/", prefix=True) == 2
    left = await store.list(b"")
    assert ([kv.key for kv in left.items], left.revision) == ([b"p", b"q"], at + 1)
    assert await store.delete(b"", prefix=True) == 2


async def test_a_transaction_takes_one_branch_whole(store: Store) -> None:
    """`then` if every compare holds, otherwise `otherwise`; one revision for all of its writes."""
    at = await store.put(b"a", b"1")
    taken = await store.txn(
        [Cmp(b"a", "mod", "=", at), Cmp(b"b", "create", "=", 0)],
        [Put(b"b", b"2"), Delete(b"a"), Get(b"", prefix=True), Get(b"a")],
        [Put(b"c", b"3")],
    )
    b = KV(b"b", b"2", at + 1, at + 1, 1)
    assert taken == TxnResult(True, at + 1, (None, 1, (b,), ()))
    other = await store.txn(
        [Cmp(b"b", "value", "=", b"2"), Cmp(b"a", "version", ">", 0)],
        [Put(b"b", b"0")],
        [Get(b"b"), Put(b"c", b"3")],
    )
    assert other == TxnResult(False, at + 2, ((b,), None))
    assert [kv.value for kv in (await store.list(b"")).items] == [b"2", b"3"]


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (Cmp(b"a", "value", "=", b"m"), True),
        (Cmp(b"a", "value", "!=", b"m"), False),
        (Cmp(b"a", "value", "<", b"n"), True),
        (Cmp(b"a", "value", ">", b"lzzz"), True),
        (Cmp(b"a", "value", ">", b"m"), False),
        (Cmp(b"a", "version", "=", 2), True),
        (Cmp(b"a", "version", "<", 2), False),
        (Cmp(b"a", "create", ">", 0), True),
        (Cmp(b"a", "lease", "=", 0), True),
        (Cmp(b"a", "lease", "!=", 0), False),
        (Cmp(b"none", "create", "=", 0), True),
        (Cmp(b"none", "mod", "=", 0), True),
        (Cmp(b"none", "version", "=", 0), True),
        (Cmp(b"none", "lease", "=", 0), True),
        (Cmp(b"none", "mod", "<", 1), True),
        (Cmp(b"none", "create", "!=", 0), False),
        (Cmp(b"none", "value", "=", b""), False),
        (Cmp(b"none", "value", "!=", b"x"), False),
        (Cmp(b"none", "value", "<", b"x"), False),
    ],
    ids=str,
)
async def test_a_compare_holds_as_etcd_says(store: Store, compare: Cmp, holds: bool) -> None:
    """A missing key has create, mod, version and lease 0, and fails every compare of its value."""
    await store.put(b"a", b"l")
    await store.put(b"a", b"m")
    assert (await store.txn([compare], [], [])).ok is holds


@pytest.mark.parametrize(
    "operations",
    [
        [Put(b"p/a", b"1"), Put(b"p/a", b"1")],
        [Put(b"p/a", b"1"), Delete(b"p/a")],
        [Delete(b"p/", prefix=True), Put(b"p/a", b"1")],
    ],
    ids=["put twice", "put and deleted", "put into a deleted prefix"],
)
async def test_a_key_changes_once_in_a_transaction(store: Store, operations: list[Put]) -> None:
    """Two changes of one key in one revision are denied, in either branch, and nothing is written."""
    at = (await store.list(b"")).revision
    with pytest.raises(Denied, match="duplicate key"):
        await store.txn([], operations)
    with pytest.raises(Denied, match="duplicate key"):
        await store.txn([], [Put(b"x", b"")], operations)
    assert (await store.list(b"")).revision == at


async def test_the_branches_may_write_the_same_key(store: Store) -> None:
    """Only one of them is taken, so they don't meet; overlapping deletions don't either."""
    await store.txn([Cmp(b"a", "create", "=", 0)], [Put(b"a", b"new")], [Put(b"a", b"old")])
    result = await store.txn([], [Delete(b"a"), Delete(b"a"), Delete(b"", prefix=True)])
    assert result.results == (1, 0, 0)


async def test_a_transaction_has_at_most_128_operations(store: Store) -> None:
    """etcd counts the longest of compares, `then` and `otherwise`; one more is denied, with the numbers."""
    full = [Put(b"%d" % i, b"") for i in range(MAX_OPERATIONS)]
    compares = [Cmp(b"none", "create", "=", 0)] * MAX_OPERATIONS
    assert (await store.txn(compares, full, full)).ok
    one_more = Put(b"more", b"")
    for request in (
        [[], [*full, one_more]],
        [[], [], [*full, one_more]],
        [[*compares, compares[0]], []],
    ):
        with pytest.raises(Denied, match=r"too many operations.*129"):
            await store.txn(*request)
    assert await store.get(b"more") is None


async def test_a_request_has_at_most_one_and_a_half_mebibytes(store: Store) -> None:
    """Below the limit all is well; a value of the limit itself no longer fits its request."""
    await store.put(b"large", bytes(MAX_REQUEST_BYTES - 1024))
    with pytest.raises(Denied, match="too large"):
        await store.put(b"larger", bytes(MAX_REQUEST_BYTES))
    half = bytes(MAX_REQUEST_BYTES // 2)
    with pytest.raises(Denied, match="too large"):
        await store.txn([], [Put(b"a", half), Put(b"b", half)])
    assert [kv.key for kv in (await store.list(b"")).items] == [b"large"]


async def test_a_key_is_never_empty(store: Store) -> None:
    """The empty prefix is every key; the empty key is none, and denied."""
    for operation in (Put(b"", b"1"), Get(b""), Delete(b"")):
        with pytest.raises(Denied, match="key is not provided"):
            await store.txn([], [operation])
    with pytest.raises(Denied, match="key is not provided"):
        await store.get(b"")
    with pytest.raises(Denied, match="key is not provided"):
        await store.txn([Cmp(b"", "create", "=", 0)], [])
