"""What neighbours feel of a noisy site: the p95 of their visits while each hog of the corpus runs, against none.

In a virtual machine with eight sites (tests/vm): with relevo, that is with a plan's caps and the isolation ladder,
and without, in alternated pairs; the figure of a hog is the median over its pairs. An emulated processor is slow,
and the disk as slow as one: the ratios compare, the seconds do not.
"""

import asyncio
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.measure import percentile, row
from deploy.deb.__main__ import build
from tests.vm import neighbours
from tests.vm.capped import Capped, begin, capped, ordered
from tests.vm.hogs import CORPUS, Hog
from tests.vm.hosting import SITES
from tests.vm.image import CACHE, NotMade, debian
from tests.vm.machine import Saved

RUNS = 5
GOAL = 1.3
PLAN = "fair"
QUIET_S, HOG_S = 15.0, 30.0
# From then on it is what a hog that stays does to its neighbours; before, what the first seconds of one do.
SETTLED_S = 15.0
NOISY, *OTHERS = SITES


@dataclass(frozen=True, slots=True)
class Felt:
    """p95 of the neighbours' visits over their own without a hog: `whole` time of the hog, and once `settled`."""

    whole: float
    settled: float
    failed: int


async def feel(host: Capped, hog: Hog) -> Felt:
    vm = host.vm
    await neighbours.begin(vm, but=(NOISY,))
    await asyncio.sleep(QUIET_S / 5)  # php-fpm has its workers
    quiet = await neighbours.clock(vm)
    await asyncio.sleep(QUIET_S)
    began = await neighbours.clock(vm)
    await hog.begin(vm, NOISY)
    await asyncio.sleep(HOG_S)
    ended = await neighbours.clock(vm)
    await hog.end(vm, NOISY)
    await asyncio.sleep(2.0)  # the last visits end
    before = await neighbours.visits(vm, since=quiet, until=began)
    while_it_ran = await neighbours.visits(vm, since=began, until=ended)
    settled = [visit for visit in while_it_ran if visit.at - visit.took_s > began + SETTLED_S]
    usual = percentile([visit.took_s for visit in before], 95)
    return Felt(
        percentile([visit.took_s for visit in while_it_ran], 95) / usual,
        percentile([visit.took_s for visit in settled], 95) / usual,
        sum(visit.status != 200 for visit in while_it_ran),
    )


@dataclass(slots=True)
class Pairs:
    """What was felt of one hog, each held run beside a free one of the same minutes."""

    held: list[Felt] = field(default_factory=list)
    free: list[Felt] = field(default_factory=list)

    def print(self, name: str) -> None:
        told, without = (
            [statistics.median(getattr(one, part) for one in felt) for part in ("settled", "whole")]
            for felt in (self.held, self.free)
        )
        found = (
            f"{told[0]:.2f} (from its begin {told[1]:.2f}; "
            f"without relevo {without[0]:.2f}, {without[1]:.2f})"
        )
        row(name, found, f"<= {GOAL}", reached=told[0] <= GOAL)
        lost = [sum(one.failed for one in felt) for felt in (self.held, self.free)]
        if any(lost):
            print(f"          failed visits: {lost[0]} with relevo, {lost[1]} without")


async def measure(saved: Saved, runs: int) -> None:
    """A pair of each hog before the next of any: what the machine does beside changes over two hours."""
    felt = {hog.name: Pairs() for hog in CORPUS}
    for turn in range(1, runs + 1):
        for hog in CORPUS:
            pairs = felt[hog.name]
            async with capped(saved) as host:
                pairs.held.append(await feel(host, hog))
            async with capped(saved) as host:
                await host.remove()
                pairs.free.append(await feel(host, hog))
            print(
                f"    pair {turn} of {runs}, {hog.name}: {pairs.held[-1].settled:.2f} with relevo, "
                f"{pairs.free[-1].settled:.2f} without",
                file=sys.stderr,
                flush=True,
            )
    for name, pairs in felt.items():
        pairs.print(name)


async def prepare(folder: Path) -> Saved:
    package = build("0.1.0", folder).read_bytes()
    shadowed = folder / "shadowed"
    fair = folder / "fair"
    for place in (shadowed, fair):
        place.mkdir()
    print("    making the machine", file=sys.stderr, flush=True)
    return await ordered(await begin(debian(), shadowed, package), fair, PLAN)


async def neighbourhood(runs: int) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=CACHE) as folder:
        await measure(await prepare(Path(folder)), runs)


def main(runs: int = RUNS) -> None:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(neighbourhood(runs))
    except NotMade as error:
        print(f"  not measured: {error}")
