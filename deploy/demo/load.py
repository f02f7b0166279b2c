"""The demo's visitors: an open-loop load in a process of its own, counted per site, told as JSON lines.

Open loop: the schedule is fixed beforehand, so a slow answer delays no later request, and each latency counts
from the instant the request was due. Reads one JSON document (`Crowd`) on stdin, then runs until stdin ends.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from itertools import count, product
from random import Random
from typing import TypeVar

import msgspec
import uvloop
from dns.rdatatype import AAAA, A, RdataType

from deploy.demo.lab import Door
from deploy.demo.visit import NoAnswer, resolve, visit

T = TypeVar("T")
Send = Callable[[float], Coroutine[None, None, None]]

TIMEOUT_S = 2.0
TELL_EVERY_S = 0.5
FOLLOW_EVERY_S = 1.0
FAILURES_KEPT = 2000


class Target(msgspec.Struct, frozen=True):
    site: str
    domain: str


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """Who visits what. `rate` (1/s) is spread over all pairs of `sites` and `doors`; `direct_rate` over `direct`.

    A door that the DNS names no more is not visited.
    A direct site's address is asked of one of `name_servers` each time, as if by a resolver that keeps nothing.
    """

    sites: tuple[Target, ...]
    doors: tuple[Door, ...]
    rate: float = 200.0
    direct: tuple[Target, ...] = ()
    name_servers: tuple[Door, ...] = ()
    direct_port: int = 80
    direct_ipv6: bool = True
    direct_rate: float = 20.0
    seed: int = 1


class Failure(msgspec.Struct, frozen=True):
    """A request that was due at `due` (loop time, s; one clock for all processes of a machine)."""

    due: float
    site: str
    door: str
    reason: str


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What has ended since the last tally: per site [ok, failed]; latencies of all that ended."""

    at: float
    sites: dict[str, tuple[int, int]]
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    failures: tuple[Failure, ...] = ()
    last: bool = False


class Visitors:
    def __init__(self, crowd: Crowd) -> None:
        self._crowd, self._random = crowd, Random(crowd.seed)
        self._now = asyncio.get_running_loop().time
        self._ok: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._latencies: list[float] = []
        self._failures: list[Failure] = []
        self._withdrawn: set[Door] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop`, then wait for what is under way; the last tally says so."""
        async with asyncio.TaskGroup() as group:
            company = [group.create_task(self._tell()), group.create_task(self._follow())]
            async with asyncio.TaskGroup() as visits:
                senders = [visits.create_task(sender) for sender in self._senders(visits)]
                await stop.wait()
                for sender in senders:
                    sender.cancel()
            for task in company:
                task.cancel()
        self._write(last=True)

    def _senders(self, visits: asyncio.TaskGroup) -> Iterator[Coroutine[None, None, None]]:
        crowd = self._crowd
        pairs = self._open_doors(self._endless(product(crowd.sites, crowd.doors)))
        yield self._pace(crowd.rate, lambda due: self._visit(due, *next(pairs)), visits)
        if crowd.direct:
            kinds = (A, AAAA) if crowd.direct_ipv6 else (A,)
            asked = self._endless(product(crowd.direct, crowd.name_servers, kinds))
            yield self._pace(
                crowd.direct_rate, lambda due: self._look_up(due, *next(asked)), visits
            )

    async def _pace(self, rate: float, send: Send, visits: asyncio.TaskGroup) -> None:
        """One `send` each 1/`rate` s, whatever becomes of those before."""
        begin = self._now()
        for number in count():
            due = begin + number / rate
            if (wait := due - self._now()) > 0:
                await asyncio.sleep(wait)
            visits.create_task(send(due))

    def _endless(self, items: Iterable[T]) -> Iterator[T]:
        """Every item once, in a new order each time round: even, and without a beat."""
        order = list(items)
        while True:
            self._random.shuffle(order)
            yield from tuple(order)

    def _open_doors(self, pairs: Iterator[tuple[Target, Door]]) -> Iterator[tuple[Target, Door]]:
        """Those of `pairs` whose door the DNS still names."""
        for target, door in pairs:
            if door not in self._withdrawn:
                yield target, door

    async def _follow(self) -> None:
        """Learn from the DNS, as every visitor does sooner or later, which edges to come to."""
        servers, doors = self._crowd.name_servers, self._crowd.doors
        for turn in count() if servers else ():
            for kind in (A, AAAA):
                own = {door for door in doors if (":" in door.address) is (kind is AAAA)}
                named = self._crowd.sites[0].domain
                with suppress(NoAnswer):
                    server = servers[turn % len(servers)]
                    found = await resolve(server, named, kind, timeout_s=TIMEOUT_S)
                    if here := {door for door in own if door.address in found}:
                        self._withdrawn = self._withdrawn - here | (own - here)
            await asyncio.sleep(FOLLOW_EVERY_S)

    async def _visit(self, due: float, target: Target, door: Door) -> None:
        try:
            answer = await visit(door, target.domain, until=due + TIMEOUT_S)
        except NoAnswer as finding:
            self._note(due, target.site, str(door), str(finding))
        else:
            good = answer.is_from(target.site)
            self._note(due, target.site, str(door), "" if good else f"status {answer.status}")

    async def _look_up(self, due: float, target: Target, server: Door, kind: RdataType) -> None:
        try:
            timeout_s = due + TIMEOUT_S - self._now()
            addresses = await resolve(server, target.domain, kind, timeout_s=timeout_s)
        except NoAnswer as finding:
            self._note(due, target.site, str(server), f"dns {finding}")
            return
        if addresses:
            address = self._random.choice(sorted(addresses))
            await self._visit(due, target, Door(address, self._crowd.direct_port))
        else:
            self._note(due, target.site, str(server), f"no {kind.name}")

    def _note(self, due: float, site: str, door: str, reason: str) -> None:
        self._latencies.append(self._now() - due)
        if not reason:
            self._ok[site] += 1
            return
        self._failed[site] += 1
        if len(self._failures) < FAILURES_KEPT:
            self._failures.append(Failure(due, site, door, reason))

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            self._write()

    def _write(self, *, last: bool = False) -> None:
        latencies = sorted(self._latencies) or [0.0]
        tally = Tally(
            at=self._now(),
            sites={s: (self._ok[s], self._failed[s]) for s in {*self._ok, *self._failed}},
            p50_ms=1000 * latencies[len(latencies) // 2],
            p99_ms=1000 * latencies[len(latencies) * 99 // 100],
            failures=tuple(self._failures),
            last=last,
        )
        for kept in (self._ok, self._failed, self._latencies, self._failures):
            kept.clear()
        sys.stdout.buffer.write(msgspec.json.encode(tally) + b"\n")
        sys.stdout.buffer.flush()


async def main() -> None:
    """Read the crowd, be it, and end when stdin ends."""
    loop = asyncio.get_running_loop()
    crowd = msgspec.json.decode(sys.stdin.buffer.readline(), type=Crowd)
    stop = asyncio.Event()
    # Only the end of stdin is awaited; a demo that is killed ends it too.
    loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(0, 4096) else stop.set())
    await Visitors(crowd).run(stop)
    loop.remove_reader(sys.stdin.fileno())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
