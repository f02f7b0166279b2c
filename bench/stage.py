"""The demo's co-op as a laboratory: running, loaded by visitors, and brought back to rest between measurements."""

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any

import uvloop

from deploy.demo.client import ApiFailed
from deploy.demo.lab import Kind, Machine
from deploy.demo.load import TELL_EVERY_S, TIMEOUT_S
from deploy.demo.network import NotPossible, has_namespaces
from deploy.demo.show import Show
from fleet.model import Site

POLL_S = 0.1
REST_S = 30.0
# An answer may take as long as a visitor waits, and is told with the next tally.
TOLD_S = TIMEOUT_S + 2 * TELL_EVERY_S
BEATS_S = 1.0  # two beats, two checks, ten rounds: somewhere in it each measurement begins
SEED = 20_261_121


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main`, where the laboratory can be: machines that can be cut off need namespaces, those need root."""
    if not has_namespaces(None):
        main.close()
        print("  not measured: this needs root and ip(8), for network namespaces")
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def say(text: str) -> None:
    print(f"    {text}", file=sys.stderr, flush=True)


def quiet(text: str) -> None:
    del text


@dataclass(frozen=True, slots=True)
class Count:
    """Requests that have ended, and those that failed, by site."""

    requests: int
    failed: Counter[str]


async def counted(it: Show) -> Count:
    """All that was due until now, once its end is known."""
    await asyncio.sleep(TOLD_S)
    return Count(it.visitors.requests, it.visitors.failed.copy())


def split(before: Count, after: Count, own: tuple[Site, ...]) -> tuple[int, int]:
    """Failed requests between two counts: of `own` sites, and of all others."""
    failed = after.failed - before.failed
    mine = sum(failed[site.id] for site in own)
    return mine, failed.total() - mine


async def at_random(random: Random) -> None:
    """Wait for an instant that no beat, check or round of the loop has chosen."""
    await asyncio.sleep(random.uniform(0, BEATS_S))


async def rest(it: Show) -> None:
    """Wait until every host is up and no incident is open. Raises TimeoutError."""

    async def quiet() -> bool:
        hosts = await it.client.hosts()
        over = all(i.closed_at is not None for i in await it.client.incidents())
        return over and all(host.verdict == "up" for host in hosts)

    await until(quiet)


async def bring_home(it: Show, machine: Machine) -> None:
    """Undo what befell `machine`, and let its sites come home. Raises TimeoutError."""

    async def on() -> bool:
        await it.stage.back(machine)
        return True

    async def up() -> bool:
        return all(host.verdict == "up" for host in await it.client.hosts())

    async def home() -> bool:
        await it.client.activate(machine.name)
        return all(site.host == site.home for site in await it.client.sites())

    for condition in (on, up, home):
        await until(condition)
    await rest(it)
    deadline = asyncio.get_running_loop().time() + REST_S
    doors = [door for edge in it.stage.lab.of(Kind.EDGE) for door in edge.doors]
    sites = it.stage.fleet.sites.values()
    await it.stage.public.served(sites, doors, until=deadline)
    await it.stage.public.announced(sites, until=deadline)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so, and what is refused meanwhile again. Raises TimeoutError."""
    async with asyncio.timeout(REST_S):
        while True:
            try:
                if await condition():
                    return
            except (ApiFailed, NotPossible):
                pass
            await asyncio.sleep(POLL_S)
