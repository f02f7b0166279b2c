"""A co-op goes from the embedded store to a real etcd and back, with real processes and a host that stays linked."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from fleet.model import Epoch
from tests.etcds import OLD, Cluster, cluster
from tests.integration.test_joining import Coop

pytestmark = pytest.mark.integration
FOLLOWED_S = 30.0


class Said(msgspec.Struct, frozen=True):
    orders: str


class Seen(msgspec.Struct, frozen=True):
    """What a controller tells of a host."""

    agent: Said | None = None


def configured(coop: Coop, name: str, before: str, *, store: str = "", state: str = "") -> Path:
    """controller.toml as another file, with another store at its end, or another place for its embedded one."""
    text = (coop.etc / before).read_text()
    if state:
        text = text.replace(str(coop.folder / "controller"), str(coop.folder / state))
        (coop.folder / state).mkdir()
    path = coop.etc / name
    path.write_text(f"{text}\n{store}")
    return path


def etcd_toml(etcd: Cluster) -> str:
    return f'[store]\nkind = "etcd"\nendpoints = {msgspec.json.encode(etcd.urls).decode()}\n'


async def moved(coop: Coop, old: Path, new: Path) -> None:
    said = await coop.done("store", "move", "--from", old, "--to", new)
    assert f"Start the controllers with {new}" in said


async def followed(coop: Coop, config: Path, generation: int) -> Epoch:
    """The epoch of the orders that the host has applied, once they are of `generation`; it was never restarted."""
    async with coop.running("controller", "--config", config), asyncio.timeout(FOLLOWED_S):
        while True:
            if told := await coop.look("/v1/hosts/web-01"):
                seen = msgspec.json.decode(told, type=Seen)
                orders = Epoch.parse(seen.agent.orders) if seen.agent else Epoch()
                if orders.generation == generation:
                    status = await coop.look("/v1/status")
                    assert b'"rewound":null' in status, status
                    return orders
            await asyncio.sleep(0.1)


@pytest.mark.long
async def test_a_store_is_moved_to_etcd_and_back_under_a_host_that_follows(
    tmp_path: Path,
) -> None:
    """Each move begins a generation; orders of the next one are applied though their revisions are lower (rule R2)."""
    coop = Coop(tmp_path)
    await coop.init()
    first = coop.etc / "controller.toml"
    async with cluster(OLD, size=1) as etcd:
        second = configured(coop, "etcd.toml", first.name, store=etcd_toml(etcd))
        third = configured(coop, "back.toml", first.name, state="again")
        async with coop.controller():
            assert (await coop.join(*await coop.token()))[0] == 0
            places = coop.places()
            places.config.write_text(places.config.read_text() + "[metrics]\nport = 0\n")
            for number in range(6):  # the embedded store's revision is above the new one's
                await coop.done("host", "rotate", "web-01", "--reason", f"{number}")
        async with coop.running("agent", "--config", places.config) as agent:
            before = await followed(coop, first, 1)
            await moved(coop, first, second)
            there = await followed(coop, second, 2)
            assert there.revision < before.revision, "or the generation proves nothing"
            await moved(coop, second, third)
            await followed(coop, third, 3)
            assert agent.returncode is None
    async with coop.running("controller", "--config", third):
        async with asyncio.timeout(FOLLOWED_S):
            while b'"leader":true' not in await coop.look("/v1/status"):
                await asyncio.sleep(0.1)
        assert "far-01" in await coop.done("fleet", "export")
        assert "rotate" in await coop.done("audit")
