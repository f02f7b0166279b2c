"""Copies of a store: what is moved, restored or kept aside is whole, and nothing is written over."""

import asyncio
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from click.testing import CliRunner, Result

from cli.main import main
from controller import copies
from controller.copies import BadCopy
from controller.mirror import Mirror
from controller.snapshots import Keeper, Snapshots, restored
from controller.store import EmbeddedStore
from controller.store.journal import Journal
from controller.store.protocol import KV, Event
from fleet import keys
from fleet.model import StoreId
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from tests.integration.controllers import served_over

pytestmark = pytest.mark.integration
SERVICE = 54_321  # a user and a group that nobody has


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def configured(state: Path) -> Path:
    """controller.toml of a lone controller whose store lies in `state`."""
    state.mkdir(exist_ok=True)
    path = state / "controller.toml"
    path.write_text(f'id = "c1"\nstate = "{state}"\n')
    return path


async def a_coop(state: Path) -> None:
    """A store in `state` with a fleet declared by a controller that has ended since."""
    async with EmbeddedStore.open(state / "store.db") as store, served_over(store, state) as served:
        await served.placed()


async def known(state: Path) -> Mirror:
    async with EmbeddedStore.open(state / "store.db") as store:
        return await restored(await copies.take(store, 0.0))


def test_a_moved_store_knows_all_and_begins_a_generation_that_agents_follow(tmp_path: Path) -> None:
    """The old one is left as it was; agents that were ordered by the new one do not follow it any more (rule R2)."""
    old, new = configured(tmp_path / "old"), configured(tmp_path / "new")
    asyncio.run(a_coop(old.parent))
    moved = run("store", "move", "--from", old, "--to", new)
    assert moved.exit_code == 0, moved.output
    before, after = asyncio.run(known(old.parent)), asyncio.run(known(new.parent))
    assert (after.fleet, after.places) == (before.fleet, before.places)
    assert after.id == StoreId(cluster=before.id.cluster, generation=before.id.generation + 1)
    assert f"as generation {after.id.generation}" in moved.output

    back = run("store", "move", "--from", new, "--to", configured(tmp_path / "third"))
    assert f"as generation {after.id.generation + 1}" in back.output


def test_a_store_that_holds_something_is_not_written_over(tmp_path: Path) -> None:
    old, new = configured(tmp_path / "old"), configured(tmp_path / "new")
    asyncio.run(a_coop(old.parent))
    asyncio.run(a_coop(new.parent))
    there = asyncio.run(known(new.parent))
    refused = run("store", "move", "--from", old, "--to", new)
    assert refused.exit_code == 1
    assert "the new store is not empty: nothing was written over what is there" in refused.output
    assert asyncio.run(known(new.parent)).id == there.id


def test_a_store_that_a_controller_uses_is_left_alone(tmp_path: Path) -> None:
    old, new = configured(tmp_path / "old"), configured(tmp_path / "new")

    async def story() -> Result:
        async with (
            EmbeddedStore.open(old.parent / "store.db") as store,
            served_over(store, old.parent),
        ):
            return await asyncio.to_thread(run, "store", "move", "--from", old, "--to", new)

    refused = asyncio.run(story())
    assert refused.exit_code == 1
    assert "another process" in refused.output, refused.output


def test_an_empty_store_is_nothing_to_move(tmp_path: Path) -> None:
    refused = run(
        *("store", "move", "--from", configured(tmp_path / "old")),
        *("--to", configured(tmp_path / "new")),
    )
    assert refused.exit_code == 1
    assert "holds no co-op: there is nothing to move" in refused.output


async def test_snapshots_are_taken_restored_and_thinned_out(tmp_path: Path) -> None:
    """Each is handed to the command that takes it elsewhere; the newest ones stay."""
    taken = tmp_path / "taken"
    settings = Snapshots(every_s=1.0, keep=2, command=("/bin/sh", "-c", f'echo "$0" >> {taken}'))
    exporter = Exporter(CONTROLLER)
    async with (
        EmbeddedStore.open(None) as store,
        served_over(store, tmp_path) as served,
        asyncio.TaskGroup() as group,
    ):
        await served.apply()
        keeper = Keeper(settings, tmp_path, served.controller.mirror, store, exporter)
        keeping = group.create_task(keeper.keep())
        async with asyncio.timeout(20):
            while not taken.exists() or len(taken.read_text().splitlines()) < 3:
                await asyncio.sleep(0.1)
        keeping.cancel()
        fleet = served.controller.mirror.fleet
    kept = sorted((tmp_path / "snapshots").glob("*.snapshot"))
    assert len(kept) == 2
    assert str(kept[0]) in taken.read_text()
    assert kept[0].stat().st_mode & 0o077 == 0, "it holds the digests of credentials"
    assert (await restored(copies.read(kept[-1]))).fleet == fleet
    assert "relevo_snapshot_failures_total 0.0" in exporter.render().decode()


async def test_a_snapshot_whose_command_fails_is_handed_over_again(tmp_path: Path) -> None:
    """The same one, soon, until it is taken; each failure is counted, and the hour for the next one stays."""
    gone, seen = tmp_path / "is-back", tmp_path / "seen"
    script = f'echo "$0" >> {seen}; test -e {gone}'
    settings = Snapshots(every_s=3600.0, command=("/bin/sh", "-c", script))
    exporter = Exporter(CONTROLLER)
    async with (
        EmbeddedStore.open(None) as store,
        served_over(store, tmp_path) as served,
        asyncio.TaskGroup() as group,
    ):
        mirror = served.controller.mirror
        keeper = Keeper(settings, tmp_path, mirror, store, exporter, again_s=0.05)
        keeping = group.create_task(keeper.keep())
        async with asyncio.timeout(20):
            while "relevo_snapshot_failures_total 2.0" not in exporter.render().decode():
                await asyncio.sleep(0.02)
        gone.touch()
        tried = 0
        async with asyncio.timeout(20):
            while tried != (tried := len(seen.read_text().splitlines())):
                await asyncio.sleep(1.0)
        (path,) = (tmp_path / "snapshots").glob("*.snapshot")
        assert set(seen.read_text().splitlines()) == {str(path)} and tried >= 3
        keeping.cancel()


def test_a_snapshot_is_looked_into_and_restored_into_an_empty_store(tmp_path: Path) -> None:
    """As it was, in the generation that it had: agents then say what it has forgotten."""
    state, path = configured(tmp_path / "state"), tmp_path / "copy.snapshot"
    asyncio.run(a_coop(state.parent))

    async def copied() -> None:
        async with EmbeddedStore.open(state.parent / "store.db") as store:
            path.write_bytes((await copies.take(store, 1_800_000_000.0)).packed)

    asyncio.run(copied())
    looked = run("store", "check", path)
    assert looked.exit_code == 0, looked.output
    assert "4 hosts, 2 sites, 2 of them placed" in looked.output
    new = configured(tmp_path / "new")
    given = run("store", "restore", path, "--config", new)
    assert given.exit_code == 0, given.output
    assert asyncio.run(known(new.parent)).id == asyncio.run(known(state.parent)).id


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for somebody else")
def test_a_store_that_root_restored_is_opened_by_the_user_of_the_service(tmp_path: Path) -> None:
    """Whose folder it is, its file is: the log beside it too, and nobody else reads them."""
    state, path = configured(tmp_path / "state"), tmp_path / "copy.snapshot"
    asyncio.run(a_coop(state.parent))

    async def copied() -> None:
        async with EmbeddedStore.open(state.parent / "store.db") as store:
            path.write_bytes((await copies.take(store, 1_800_000_000.0)).packed)

    asyncio.run(copied())
    with TemporaryDirectory(prefix="relevo-") as folder:  # others can't look into pytest's own
        new = configured(Path(folder))
        os.chown(folder, SERVICE, SERVICE)
        given = run("store", "restore", path, "--config", new)
        assert given.exit_code == 0, given.output
        for file in new.parent.glob("store.db*"):
            assert (file.stat().st_uid, file.stat().st_mode & 0o077) == (SERVICE, 0), file
        assert _as_the_service(new.parent / "store.db") == 0


def _as_the_service(store: Path) -> int:
    """Open `store` as the user SERVICE and write to it; the status that this ended with."""
    child = os.fork()
    if child == 0:  # in place of exec: another user may not see this interpreter
        status = 1
        try:
            os.setgroups([])
            os.setgid(SERVICE)
            os.setuid(SERVICE)
            journal = Journal(store)
            revision = journal.load().revision + 1
            put = Event("put", KV(b"a", b"b", revision, revision, 1, 0))
            journal.write([(put,)], oldest=0, superseded=())
            journal.close()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_snapshot_is_called_one(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "copy.snapshot"
    copy = copies.Copy(
        id=StoreId(cluster="c", generation=0),
        revision=7,
        taken_at=0.0,
        items=((keys.STORE, msgspec.json.encode(StoreId(cluster="c", generation=0))),) * 50,
    )
    whole = copy.packed
    middle = len(whole) // 2
    path.write_bytes(
        {
            "cut": whole[:middle],
            "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
            "empty": b"",
            "other": b"#!/bin/sh\n",
        }[damage]
    )
    with pytest.raises(BadCopy, match="not a whole copy of a store"):
        copies.read(path)
    said = run("store", "check", path)
    assert said.exit_code == 1
    assert "not a whole copy of a store" in said.output
