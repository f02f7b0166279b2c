"""A program: the store is lost and restored from a snapshot that is older than a move (rule R2).

A lone controller's own; as `… etcd`, that of three controllers, whose etcd is made anew.
"""

import asyncio
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import uvloop

from bench.controllers import THREE
from bench.stage import rest, until
from deploy.demo.lab import LONE, Kind, Machine
from deploy.demo.once import strike_and_follow
from deploy.demo.processes import Program
from deploy.demo.programs import CONTROLLER, ETCD, Outfit
from deploy.demo.show import Show, show
from deploy.demo.stage import Fault
from tests.integration.typed import Relevo, commands, say, section

MOVED, TARGET = "bakery", "web2"
OFTEN = "\n[snapshots]\nevery_s = 2.0\n"
MAY_RUN = "may-run"


class Snapshotting(Outfit):
    """Controllers that copy their store every other second, and run while a file of theirs says that they may."""

    def programs(self, machine: Machine) -> tuple[Program, ...]:
        programs = super().programs(machine)
        if machine.kind is not Kind.CONTROLLER:
            return programs
        folder = self.folder(machine)
        config = folder / "controller.toml"
        config.write_text(config.read_text() + OFTEN)
        (folder / MAY_RUN).touch()
        return tuple(
            replace(one, needs=folder / MAY_RUN) if one.name == CONTROLLER else one
            for one in programs
        )


async def main(*, etcd: bool) -> None:
    staff = THREE if etcd else LONE
    async with show(say, namespaces=True, staff=staff, tailor=Snapshotting) as it:
        await rest(it)
        machines = it.stage.lab.of(Kind.CONTROLLER)
        folders = [it.outfit.folder(machine) for machine in machines]
        relevo, folder = Relevo(it), folders[0]
        old = await _snapshot(folder)
        await relevo.run(f"relevo site move {MOVED} {TARGET} --reason later")
        await _served(it, TARGET)
        routed = await _places(it)

        for machine, own in zip(machines, folders, strict=True):
            (own / MAY_RUN).unlink()
            it.stage.powers[machine.name].kill()
            for file in (own / "state").glob("store.db*"):
                file.unlink()
            if etcd:
                shutil.rmtree(own / ETCD)
        for machine in machines:
            it.stage.powers[machine.name].start()  # of the programs, etcd
        check, restore = (
            line.replace(line.split()[-1], str(old))
            for line in commands(section("Restore the store"), "console")
            if line.endswith(".snapshot")
        )
        await relevo.run(check)
        await relevo.run(f"{restore} --config {folder / 'controller.toml'}")
        for own in folders:
            (own / MAY_RUN).touch()

        async def rewound() -> bool:
            return (await it.client.status()).rewound is not None

        await until(rewound)
        say("seen: rewound")
        told = await relevo.run("relevo store recover")
        assert f"{MOVED} is at {TARGET}" in told
        assert await rewound(), "looking recovers nothing"
        await relevo.run("relevo store recover --yes --reason 'the disk failed'")

        async def well() -> bool:
            return not await rewound()

        await until(well)
        await rest(it)
        assert await _places(it) == routed, "traffic is where it was, and the store knows it"
        await _served(it, TARGET)
        say("seen: recovered")

        await strike_and_follow(it, Fault.KILL, say)
        say("seen: a failover afterwards")


async def _snapshot(folder: Path) -> Path:
    """A copy of a snapshot that knows the fleet, which later ones can't push out."""
    kept = folder / "kept.snapshot"
    snapshots = folder / "state" / "snapshots"
    known = set(snapshots.glob("*.snapshot"))

    async def fresh() -> bool:
        found = set(snapshots.glob("*.snapshot")) - known
        if found:
            shutil.copy(max(found), kept)
        return bool(found)

    await until(fresh)
    return kept


async def _served(it: Show, host: str) -> None:
    """Every edge answers for the moved site from `host`."""
    site = next(site for site in it.stage.fleet.sites.values() if site.id == MOVED)
    doors = [edge.doors[0] for edge in it.stage.lab.of(Kind.EDGE)]
    now = asyncio.get_running_loop().time()
    await it.stage.public.served([site], doors, not_by=site.home, until=now + 20)
    assert {one.id: one.host for one in await it.client.sites()}[MOVED] == host


async def _places(it: Show) -> dict[str, str]:
    return {site.id: site.host for site in await it.client.sites()}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(etcd="etcd" in sys.argv))
