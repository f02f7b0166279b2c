"""Slices capped over D-Bus by the keeper, beside the same number of bare calls; the last line is of JSON.

It makes slices by the hundred on the machine that it runs on, which must be made for that: bench.caps has one.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from dbus_fast import BusType, Variant
from dbus_fast.aio import MessageBus

from agent.caps.choose import facts
from agent.caps.keeper import Keeper
from agent.caps.limits import Case, limits
from agent.caps.properties import IO, NUMBERS
from agent.caps.siting import Siting
from agent.caps.systemd import MANAGER, PATH, SYSTEMD, Systemd
from agent.config import Caps
from agent.layout.attached import Attached
from agent.systembus import call
from deploy.demo.plans import STANDARD
from fleet.caps import Attachment, Limits, Tenant
from fleet.messages import Orders
from fleet.model import Epoch, HostId, SiteId, Why
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from runtime import log
from runtime.pulse import Pulse

CGROUPS = Path("/sys/fs/cgroup")
AT_ONCE = 8
AT_A_TIME = 100
LONGEST_S = 900.0


async def each(names: list[str], work: Callable[[str], Awaitable[object]]) -> None:
    """All of them, as many at once as the keeper has in flight."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> None:
        async with gate:
            await work(name)

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(one(name))


async def make(names: list[str]) -> None:
    """By unit files and systemctl, which ends: the bus lets one caller wait for some hundred jobs of systemd's."""
    units = Path("/run/systemd/system")
    for name in names:
        (units / name).write_text("[Slice]\n")
    await systemctl("daemon-reload")
    for first in range(0, len(names), AT_A_TIME):
        await systemctl("start", *names[first : first + AT_A_TIME])


async def systemctl(*arguments: str) -> None:
    """Raises AssertionError."""
    done = await asyncio.create_subprocess_exec("systemctl", *arguments)
    assert await done.wait() == 0, arguments


def properties(wanted: Limits) -> list[list[object]]:
    """What the keeper sets, with nothing around it."""
    numbers = ((name, getattr(wanted, field)) for field, name in NUMBERS.items())
    told: list[list[object]] = [
        [name, Variant("t", 2**64 - 1 if value is None else value)] for name, value in numbers
    ]
    for field, name in IO.items():
        disks = [[f"/dev/block/{disk}", getattr(limit, field)] for disk, limit in wanted.io.items()]
        told.append([name, Variant("a(st)", disks)])
    return told


async def bare(bus: MessageBus, names: list[str], wanted: Limits) -> float:
    loop = asyncio.get_running_loop()
    told, began = properties(wanted), loop.time()

    async def cap(name: str) -> None:
        await call(bus, SYSTEMD, PATH, MANAGER, "SetUnitProperties", "sba(sv)", name, True, told)

    await each(names, cap)
    return loop.time() - began


async def kept(names: list[str], state: Path) -> float:
    """From orders that arrive until the kernel was seen to hold them all."""
    loop, pulse = asyncio.get_running_loop(), Pulse()
    driver = Systemd(CGROUPS, Path("/run/systemd"), pulse)
    keeper = Keeper(
        driver,
        None,
        unable=None,
        facts=facts(Caps(), Siting(Caps().disks)),
        people=dict,
        state=state / "caps.json",
        exporter=Exporter(AGENT),
        changed=pulse,
    )
    tenant = Tenant(plan=STANDARD.id, enforced_from=0.0)
    orders = Orders(
        epoch=Epoch(1, 1),
        cluster="bench",
        host=HostId("h1"),
        plans={STANDARD.id: STANDARD.caps},
        tenants={SiteId(name): tenant for name in names},
    )
    here = {
        SiteId(name): Attached(attachment=Attachment.SLICE, why=Why(""), slice=name)
        for name in names
    }
    async with asyncio.timeout(LONGEST_S), asyncio.TaskGroup() as group:
        task = group.create_task(keeper.keep())
        await pulse.after(0)  # systemd is there
        began, told = loop.time(), keeper.told.count
        keeper.follow(orders)
        keeper.attach(here)
        while not keeper.state() or any(one.held != one.wanted for one in keeper.state().values()):
            told = await keeper.told.after(told)
        took = loop.time() - began
        task.cancel()
    return took


async def measure(number: int, pairs: int) -> dict[str, list[float]]:
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    wanted = limits(Case(caps=STANDARD.caps, facts=facts(Caps(), Siting(Caps().disks))())).limits
    found: dict[str, list[float]] = {"bare_s": [], "kept_s": []}
    for pair in range(pairs):
        ours = [f"kept{pair}-{n}.slice" for n in range(number)]
        theirs = [f"bare{pair}-{n}.slice" for n in range(number)]
        await make(ours + theirs)
        with tempfile.TemporaryDirectory() as folder:
            for what in ("bare", "kept") if pair % 2 else ("kept", "bare"):
                if what == "bare":
                    found["bare_s"].append(await bare(bus, theirs, wanted))
                else:
                    found["kept_s"].append(await kept(ours, Path(folder)))
        await systemctl("stop", f"kept{pair}.slice", f"bare{pair}.slice")  # and all that is in them
    bus.disconnect()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=1)
    arguments = parser.parse_args()
    log.configure()  # as the agent does: a line for each slice is a part of what it costs
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(measure(arguments.slices, arguments.pairs))))


if __name__ == "__main__":
    main()
