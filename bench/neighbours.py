"""What neighbours feel of a noisy site: the p95 of their visits while each hog of the corpus runs, against none.

In a virtual machine with eight sites (tests/vm): with relevo, that is with a plan's caps and the isolation ladder,
and without, in alternated pairs; the figure of a hog is the median over its pairs. Each run goes on from the same
instant, when the sites have been visited for a while: the first visits wait for php-fpm's workers, and who counts
them as quiet time flatters every figure. An emulated processor is slow, and the disk as slow as one: the ratios
compare, the seconds do not.
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
from tests.vm.neighbours import Visit
from tests.vm.visitors import PATIENCE_S

RUNS = 5
GOAL = 1.3
PLAN = "fair"
WARM_S, QUIET_S, HOG_S = 10.0, 10.0, 28.0
EVERY_S = 0.2  # 50 visits make a p95 in the quiet time, 80 once settled
AWAKE_S = 5.0  # a machine that goes on has its caches, and its emulator's, to fill again
# From then on it is what a hog that stays does to its neighbours; before, what the first seconds of one do.
SETTLED_S = 12.0
NOISY, *OTHERS = SITES


@dataclass(frozen=True, slots=True)
class Felt:
    """p95 of the neighbours' visits: `usual` ones (s); over it, those of the hog's `whole` time and `settled`.

    One that `failed`, or has not ended, counts as if it had waited as long as a visitor does.
    """

    usual: float
    whole: float
    settled: float
    failed: int


async def feel(host: Capped, hog: Hog) -> Felt:
    vm = host.vm
    await asyncio.sleep(AWAKE_S)
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
    usual, whole_s = _p95(before, began - quiet), ended - began
    return Felt(
        usual,
        _p95(while_it_ran, whole_s) / usual,
        _p95(settled, whole_s - SETTLED_S) / usual,
        sum(v.status != 200 for v in while_it_ran) + _waiting(while_it_ran, whole_s),
    )


def _waiting(visits: list[Visit], within_s: float) -> int:
    """Of those that began in so many seconds, how many have no end yet: they begin at their times, come what may."""
    return max(0, int(within_s / EVERY_S) - len(visits))


def _p95(visits: list[Visit], within_s: float) -> float:
    took_s = [v.took_s if v.status == 200 else PATIENCE_S for v in visits]
    return percentile([*took_s, *[PATIENCE_S] * _waiting(visits, within_s)], 95)


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


async def measure(with_relevo: Saved, without: Saved, runs: int) -> None:
    """A pair of each hog before the next of any: what the machine does beside changes over two hours."""
    felt = {hog.name: Pairs() for hog in CORPUS}
    for turn in range(1, runs + 1):
        for hog in CORPUS:
            pairs = felt[hog.name]
            async with capped(with_relevo) as host:
                pairs.held.append(await feel(host, hog))
            async with capped(without) as host:
                pairs.free.append(await feel(host, hog))
            tell(
                f"pair {turn} of {runs}, {hog.name}: {pairs.held[-1].settled:.2f} with relevo, "
                f"{pairs.free[-1].settled:.2f} without (from its begin {pairs.held[-1].whole:.2f}, "
                f"{pairs.free[-1].whole:.2f}; failed {pairs.held[-1].failed}, {pairs.free[-1].failed})"
            )
    for name, pairs in felt.items():
        pairs.print(name)
    usual = [
        1000
        * statistics.median(one.usual for pairs in felt.values() for one in getattr(pairs, kind))
        for kind in ("held", "free")
    ]
    row(
        "p95 of a visit without a hog",
        f"{usual[0]:.0f} ms, without relevo {usual[1]:.0f} ms",
        "",
        reached=True,
    )


async def prepare(folder: Path) -> tuple[Saved, Saved]:
    """The machine as its visitors find it, with relevo and without."""
    package = build("0.1.0", folder).read_bytes()
    places = [folder / name for name in ("shadowed", "capped", "held", "free")]
    for place in places:
        place.mkdir()
    shadowed, fair, held, free = places
    tell("making the machine")
    saved = await ordered(await begin(debian(), shadowed, package), fair, PLAN)
    return await visited(saved, held, relevo=True), await visited(saved, free, relevo=False)


async def visited(saved: Saved, folder: Path, *, relevo: bool) -> Saved:
    """The machine once its sites are visited and answer as they will go on to."""
    async with capped(saved) as host:
        if not relevo:
            await host.remove()
        await neighbours.begin(host.vm, but=(NOISY,), every_s=EVERY_S)
        await asyncio.sleep(WARM_S)
        await host.vm.pause()
        return await host.vm.save(folder)


def tell(what: str) -> None:
    print(f"    {what}", file=sys.stderr, flush=True)


async def neighbourhood(runs: int) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=CACHE) as folder:
        await measure(*await prepare(Path(folder)), runs)


def main(runs: int = RUNS) -> None:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(neighbourhood(runs))
    except NotMade as error:
        print(f"  not measured: {error}")
