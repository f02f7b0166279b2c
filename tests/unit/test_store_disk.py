"""The embedded store's file: durable, locked, private, bounded, and plain about what is wrong with it."""

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from controller.store import (
    Ambiguous,
    Compacted,
    EmbeddedStore,
    LeaseLost,
    NoSpace,
    StoreError,
    Unavailable,
)
from controller.store.journal import Journal
from controller.store.keyspace import KEPT_REVISIONS, SLACK_REVISIONS, Keyspace, Revision
from controller.store.writer import Disk

# Sixteen writers, each counting up in a key of its own; a line per write that was acknowledged.
WRITER = """
import asyncio, sys
from pathlib import Path
from controller.store import EmbeddedStore

async def count(store, name):
    number = int(kv.value) if (kv := await store.get(name)) else 0
    while True:
        number += 1
        await store.put(name, b"%d" % number)
        sys.stdout.write(f"{name.decode()} {number}\\n")
        sys.stdout.flush()

async def main():
    async with EmbeddedStore.open(Path(sys.argv[1])) as store, asyncio.TaskGroup() as group:
        for i in range(16):
            group.create_task(count(store, b"w%d" % i))

asyncio.run(main())
"""

# A store whose disk takes no more at 256 KiB per file: the write fails with EFBIG, an I/O error to SQLite.
FAILING = """
import asyncio, resource, sys
from pathlib import Path
from controller.store import Ambiguous, EmbeddedStore, Unavailable

async def main():
    async with EmbeddedStore.open(Path(sys.argv[1])) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 10, resource.RLIM_INFINITY))
        written = 0
        try:
            while True:
                await store.put(b"a%d" % written, bytes(10_000))
                written += 1
        except Ambiguous as error:  # it failed at the commit
            assert sys.argv[1] in str(error), error
        assert len((await store.list(b"a")).items) == written > 5
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        try:
            await store.put(b"b", b"")
        except Unavailable as error:
            assert "restart" in str(error)
            print(written)

asyncio.run(main())
"""


SLOW_S = 0.2


class SlowJournal(Journal):
    """A disk that takes its time."""

    def write(
        self, revisions: Sequence[Revision], *, oldest: int, superseded: Sequence[tuple[int, bytes]]
    ) -> None:
        time.sleep(SLOW_S)
        super().write(revisions, oldest=oldest, superseded=superseded)


@asynccontextmanager
async def slow(path: Path) -> AsyncGenerator[EmbeddedStore, None]:
    thread = ThreadPoolExecutor(1)
    journal = await asyncio.get_running_loop().run_in_executor(thread, SlowJournal, path)
    store = EmbeddedStore(Keyspace(), Disk(journal, thread))
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_what_was_written_is_there_after_reopening(path: Path) -> None:
    """Keys, versions, history and the revision go on where they were."""
    async with EmbeddedStore.open(path) as store:
        await store.put(b"a", b"1")
        await store.put(b"a", b"2")
        await store.put(b"empty", b"")
        await store.delete(b"a")
        whole = await store.list(b"")
    async with EmbeddedStore.open(path) as store:
        assert await store.list(b"") == whole
        assert (await store.list(b"a", revision=3)).items[0].value == b"2"
        assert await store.put(b"b", b"") == whole.revision + 1


def test_a_killed_process_loses_no_acknowledged_write(path: Path) -> None:
    """kill -9 in the middle, three times: what was acknowledged is there, and at most one write more each."""
    acknowledged: dict[str, int] = {}
    for lines in (200, 500, 50):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout
            for _, line in zip(range(lines), writer.stdout, strict=False):
                name, number = line.split()
                acknowledged[name] = int(number)
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout.read().split("\n")[:-1]:  # the last may be cut short
                name, number = line.split()
                acknowledged[name] = int(number)
        found = asyncio.run(counters(path))
        # One write of each may have been on its way.
        assert all(found[name] >= last for name, last in acknowledged.items())
        acknowledged = found
    assert sum(acknowledged.values()) >= 750 - 16 * 3


async def counters(path: Path) -> dict[str, int]:
    async with EmbeddedStore.open(path) as store:
        items = (await store.list(b"w")).items
        assert sum(kv.version for kv in items) == (await store.list(b"")).revision - 1
        return {kv.key.decode(): int(kv.value) for kv in items}


async def test_leases_of_an_earlier_process_are_void(path: Path, tmp_path: Path) -> None:
    """Whoever held them is gone: their keys go in one revision at opening, and no lease id comes twice."""
    copy = tmp_path / "copy"
    copy.mkdir()
    async with EmbeddedStore.open(path) as store:
        lease = await store.grant(60)
        await store.put(b"kept", b"")
        await store.put(b"leader", b"", lease=lease.id)
        at = await store.put(b"observer", b"", lease=(await store.grant(60)).id)
        for file in path.parent.glob("store.db*"):  # as a crash would leave it
            shutil.copy(file, copy / file.name)
    async with EmbeddedStore.open(copy / "store.db") as store:
        now = await store.list(b"")
        assert ([kv.key for kv in now.items], now.revision) == ([b"kept"], at + 1)
        with pytest.raises(LeaseLost):
            await store.put(b"leader", b"", lease=lease.id)
        assert (await store.grant(60)).id > lease.id


async def test_two_processes_can_not_share_a_file(path: Path) -> None:
    """The second is told which file and what to do; the first doesn't notice; afterwards it's free."""
    opening = f"""
import asyncio
from pathlib import Path
from controller.store import EmbeddedStore, Unavailable
async def main():
    try:
        async with EmbeddedStore.open(Path({str(path)!r})):
            print("opened")
    except Unavailable as error:
        print(error)
asyncio.run(main())
"""

    async def other() -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", opening, stdout=subprocess.PIPE
        )
        return (await process.communicate())[0].decode()

    async with EmbeddedStore.open(path) as store:
        refused = await other()
        assert str(path) in refused and "another process" in refused
        with pytest.raises(Unavailable, match="another process"):
            async with EmbeddedStore.open(path):
                raise AssertionError("shared")
        await store.put(b"a", b"1")
        assert "another process" in await other()
    assert await other() == "opened\n"


async def test_the_file_is_for_our_eyes_only(path: Path) -> None:
    """It holds the co-op's secrets: nobody else may read it, or its log."""
    async with EmbeddedStore.open(path) as store:
        await store.put(b"a", b"1")
        modes = {file.stat().st_mode & 0o777 for file in path.parent.glob("store.db*")}
        assert modes == {0o600}


def test_a_file_that_is_no_store_is_left_alone(path: Path) -> None:
    """Garbage, somebody else's database, a later format, a missing directory: refused, named, untouched."""
    path.write_bytes(b"not a database, however long the text may be " * 100)
    refused(path, "damaged")
    path.unlink()

    db = sqlite3.connect(path)
    db.execute("CREATE TABLE cookies (host TEXT)")
    db.close()
    before = path.read_bytes()
    refused(path, "name another file")
    assert path.read_bytes() == before
    path.unlink()

    asyncio.run(filled(path))
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    refused(path, "format 99")

    refused(path.parent / "nowhere" / "store.db", "directory must exist")
    refused(path.parent, "can't open")


def test_a_damaged_file_is_refused(path: Path) -> None:
    """Pages that were overwritten, or a revision that is missing: found at opening, not when it matters."""
    asyncio.run(filled(path))
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xaa" * 8192 + whole[16384:])
    refused(path, "damaged")
    path.write_bytes(whole)
    db = sqlite3.connect(path)
    with db:
        db.execute("DELETE FROM versions WHERE revision = 50")
    db.close()
    refused(path, "revision 50 is missing")


async def filled(path: Path) -> None:
    async with EmbeddedStore.open(path) as store:
        for i in range(200):
            await store.put(b"k%d" % i, bytes(500))


def refused(path: Path, why: str) -> None:
    async def opened() -> None:
        async with EmbeddedStore.open(path):
            raise AssertionError("opened")

    with pytest.raises(StoreError, match=why) as finding:
        asyncio.run(opened())
    assert str(path) in str(finding.value)


async def test_a_full_store_reads_and_recovers(path: Path) -> None:
    """Past the quota a write is NoSpace and changes nothing; after a compaction writes go on."""
    async with EmbeddedStore.open(path, quota_bytes=1 << 20) as store:
        written = 0
        with pytest.raises(NoSpace, match=r"store\.db.*compact"):
            while True:
                await store.put(b"a", b"%d" % written + bytes(50_000))
                written += 1
        assert written > 5
        before = await store.list(b"")
        assert before.revision == written + 1
        assert before.items[0].value.startswith(b"%d\0" % (written - 1))
        await store.put(b"small", b"1")
        with pytest.raises(NoSpace):
            await store.put(b"a", bytes(100_000))
        await store.compact(before.revision)
        await store.put(b"a", bytes(100_000))
    async with EmbeddedStore.open(path) as store:
        assert (await store.list(b"")).revision == before.revision + 2


def test_after_an_io_error_nothing_is_written_before_a_restart(path: Path) -> None:
    """Memory shows what the disk took and no more; the restarted store has exactly that."""
    failing = subprocess.run(
        [sys.executable, "-c", FAILING, str(path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert failing.returncode == 0, failing.stderr

    async def items() -> int:
        async with EmbeddedStore.open(path) as store:
            await store.put(b"c", b"")
            return len((await store.list(b"a")).items)

    # The write that failed was Ambiguous: a restart may find it.
    assert asyncio.run(items()) - int(failing.stdout) in (0, 1)


async def test_a_write_whose_caller_left_is_written_whole(path: Path) -> None:
    """Cancelled or timed out while the disk works: done if it was begun, and the store goes on."""
    async with slow(path) as store:
        async with asyncio.TaskGroup() as group:
            begun = group.create_task(store.put(b"begun", b"1"))
            await asyncio.sleep(0)
            waiting = group.create_task(store.put(b"waiting", b"1"))
            await asyncio.sleep(0)
            begun.cancel()
            waiting.cancel()
        at = await store.put(b"after", b"1")
        assert [kv.key for kv in (await store.list(b"")).items] == [b"after", b"begun"]
        assert at == 3
    async with EmbeddedStore.open(path) as store:
        assert [kv.key for kv in (await store.list(b"")).items] == [b"after", b"begun"]


async def test_closing_finishes_what_was_begun_and_refuses_the_rest(path: Path) -> None:
    """No caller is left waiting: the write in hand is done, those in line are Unavailable and never happen."""
    async with slow(path) as store:
        async with asyncio.TaskGroup() as group:
            begun = group.create_task(outcome(store.put(b"begun", b"")))
            await asyncio.sleep(0)
            waiting = group.create_task(outcome(store.put(b"waiting", b"")))
            await asyncio.sleep(0)
            await store.aclose()
        assert (begun.result(), waiting.result()) == (None, Unavailable)
    async with EmbeddedStore.open(path) as store:
        assert [kv.key for kv in (await store.list(b"")).items] == [b"begun"]


@pytest.mark.patient
async def test_a_lease_ends_in_time_on_a_full_disk(path: Path) -> None:
    """It's lost at its deadline though its keys can't be deleted yet; they go once there is room."""
    async with EmbeddedStore.open(path, quota_bytes=64 << 10) as store:
        lease = await store.grant(1)
        await store.put(b"leased", b"", lease=lease.id)
        with pytest.raises(NoSpace):
            while True:  # to the last page, whatever it takes
                await store.put(b"fill", bytes(3_000))
        with pytest.raises(NoSpace):
            while True:
                await store.put(b"f", b"")
        store.abandon(lease.id)
        await lease.lost.wait()
        await asyncio.sleep(0.1)
        assert await store.get(b"leased")
        with pytest.raises(LeaseLost):
            await store.put(b"leased", b"", lease=lease.id)
        at = (await store.list(b"")).revision
        await store.compact(at)
        async with asyncio.timeout(5), aclosing(store.watch(b"leased", after=at)) as batches:
            assert [event.kind for event in (await anext(batches)).events] == ["delete"]


async def test_a_store_without_room_to_begin_in_says_what_to_do(path: Path) -> None:
    """An earlier process left a lease and a full disk: opening fails, says so with the remedy, and works with room."""
    quota_bytes = 64 << 10
    async with EmbeddedStore.open(path, quota_bytes=quota_bytes) as store:
        lease = await store.grant(1)
        await store.put(b"leased", b"", lease=lease.id)
        for size in (3_000, 0):
            with pytest.raises(NoSpace, match="the store is full"):
                while True:
                    await store.put(b"fill", bytes(size))
    with pytest.raises(NoSpace, match=r"store\.db: no room to begin in: .*; free disk space there"):
        async with EmbeddedStore.open(path, quota_bytes=quota_bytes):
            raise AssertionError("opened")
    async with EmbeddedStore.open(path) as store:
        assert await store.get(b"leased") is None


async def test_a_slow_disk_is_told_apart_from_one_not_asked(path: Path) -> None:
    """A write under way when time is up is Ambiguous, one still in line is Unavailable and never happens."""
    async with slow(path) as store:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(outcome(store.put(b"first", b"", timeout=SLOW_S / 4)))
            await asyncio.sleep(0)
            second = group.create_task(outcome(store.put(b"second", b"", timeout=SLOW_S / 4)))
        assert first.result() is Ambiguous
        assert second.result() is Unavailable
        await store.put(b"third", b"")
        assert [kv.key for kv in (await store.list(b"")).items] == [b"first", b"third"]


async def outcome(write: "asyncio.Future[int] | object") -> type[StoreError] | None:
    try:
        await write  # type: ignore[misc]
    except StoreError as error:
        return type(error)
    return None


async def test_the_line_of_writers_is_bounded(path: Path) -> None:
    """Beyond a thousand waiting writes the next is refused; the others are all written."""
    async with EmbeddedStore.open(path) as store:
        async with asyncio.TaskGroup() as group:
            writes = [
                group.create_task(outcome(store.put(b"%d" % i, b"", timeout=30)))
                for i in range(1_100)
            ]
        outcomes = [write.result() for write in writes]
        assert set(outcomes) == {None, Unavailable}
        assert len((await store.list(b"")).items) == outcomes.count(None) >= 1_000


async def test_the_loop_goes_on_while_the_disk_works(path: Path) -> None:
    """A slow write holds up nobody but its caller: timers fire, reads and watches are answered."""
    loop = asyncio.get_running_loop()
    async with slow(path) as store, asyncio.TaskGroup() as group:
        writing, rounds, began = group.create_task(store.put(b"a", b"1")), 0, loop.time()
        while not writing.done():
            assert await store.get(b"a") is None
            await asyncio.sleep(0.01)
            rounds += 1
    assert loop.time() - began >= SLOW_S
    assert rounds > 3


async def test_writes_that_wait_share_one_fsync(path: Path) -> None:
    """Fifty writers on a slow disk take two turns, not fifty; each write has a revision of its own."""
    loop = asyncio.get_running_loop()
    async with slow(path) as store:
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            writes = [group.create_task(store.put(b"a", b"%d" % i)) for i in range(50)]
        assert loop.time() - began < 5 * SLOW_S
    assert sorted(write.result() for write in writes) == list(range(2, 52))


async def test_history_is_kept_within_bounds(path: Path) -> None:
    """Ten thousand revisions and some, no more, in memory as in the file; the keys stay."""
    writes = KEPT_REVISIONS + SLACK_REVISIONS + 500

    async with EmbeddedStore.open(path) as store:
        await store.put(b"old", b"1")

        async def write(name: int) -> None:
            for i in range(writes // 50):
                await store.put(b"k%d" % name, b"%d" % i)

        async with asyncio.TaskGroup() as group:
            for name in range(50):
                group.create_task(write(name))
        newest = (await store.list(b"")).revision
        with pytest.raises(Compacted) as finding:
            await anext(store.watch(b"", after=1))
        oldest = finding.value.revision
        assert KEPT_REVISIONS <= newest - oldest + 1 <= KEPT_REVISIONS + SLACK_REVISIONS
        assert len((await store.list(b"", revision=oldest)).items) == 51
        whole = await store.list(b"")
    db = sqlite3.connect(path)
    (rows,) = db.execute("SELECT count(*) FROM versions").fetchone()
    db.close()
    assert rows <= newest - oldest + 1 + 51
    async with EmbeddedStore.open(path) as store:
        assert await store.list(b"") == whole
        with pytest.raises(Compacted):
            await store.list(b"", revision=oldest - 1)


async def test_large_values_shorten_the_history() -> None:
    """Thirty-two mebibytes of history are enough, however few revisions that is."""
    async with EmbeddedStore.open(None) as store:
        for _ in range(100):
            await store.put(b"large", bytes(1_000_000))
        with pytest.raises(Compacted) as finding:
            await anext(store.watch(b"", after=1))
        assert 101 - 33 <= finding.value.revision <= 101
        kv = await store.get(b"large")
        assert kv and kv.version == 100
