"""The committed co-op and one ten times its size applied to a real etcd of three; then a fresh controller on it."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from bench.daemons import Daemon, controller
from bench.measure import machine, row
from deploy.demo.coop import coop, document
from fleet.model import Domain, Fleet, Site, SiteId
from fleet.writing import write
from tests.etcds import NEW, cluster

RUNS = 3
TIMES = 10  # 10,500 sites, on the same hosts
APPLIED_S = {1: 3.0, TIMES: 20.0}
MIRRORED_S, MIRRORED_MB = 2.0, 200
PATIENCE_S = 60.0


def main(runs: int = RUNS) -> None:
    print(
        f"  {machine()}; etcd {NEW}, three members with default limits; median of {runs}",
        flush=True,
    )
    asyncio.run(_run(runs))


async def _run(runs: int) -> None:
    for times, goal_s in APPLIED_S.items():
        text = document() if times == 1 else write(larger(coop(), times))
        applied, ready, memory = list[float](), list[float](), list[int]()
        for _ in range(runs):
            with tempfile.TemporaryDirectory() as directory:
                async with cluster(NEW) as members:
                    urls = ", ".join(f'"{url}"' for url in members.urls)
                    store = f'[store]\nkind = "etcd"\nendpoints = [{urls}]'
                    home = Path(directory)
                    async with controller(home, store=store) as first:
                        applied.append(await _applied(first, text))
                    began = time.perf_counter()
                    async with controller(home, store=store) as second:
                        await second.until_ready(every_s=0.01)
                        ready.append(time.perf_counter() - began)
                        await asyncio.sleep(2.0)
                        memory.append(second.process.memory_info().rss >> 20)
        sites = f"{1_050 * times:,} sites"
        _row(f"{sites} validated and applied", applied, goal_s)
        _row(f"{sites}: a fresh controller ready", ready, MIRRORED_S if times > 1 else None)
        most = max(memory)
        goal = f"<= {MIRRORED_MB} MB" if times > 1 else ""
        row(f"{sites}: its memory", f"{most} MB", goal, reached=most <= MIRRORED_MB)


def _row(what: str, values: list[float], goal_s: float | None) -> None:
    median = statistics.median(values)
    goal = f"<= {goal_s:g} s" if goal_s else ""
    row(what, f"{median:.2f} s", goal, reached=goal_s is None or median <= goal_s)


async def _applied(daemon: Daemon, text: str) -> float:
    """Seconds until the API has answered; everything is placed when this ends."""
    await daemon.until_ready()
    await _until(lambda: _leads(daemon))
    began = time.perf_counter()
    await daemon.put_fleet(text)
    took = time.perf_counter() - began
    await _until(lambda: _placed(daemon))
    return took


async def _leads(daemon: Daemon) -> bool:
    return bool((await daemon.get("/v1/status"))["leader"])


async def _placed(daemon: Daemon) -> bool:
    """The last site that is placed is placed."""
    page = await daemon.get("/v1/sites?limit=1000")
    sites = page["sites"]
    assert isinstance(sites, list)
    return bool(sites) and all(site["host"] for site in sites)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - it is asked over the network
            await asyncio.sleep(0.05)


def larger(fleet: Fleet, times: int) -> Fleet:
    """The same hosts with every site `times` over."""
    sites = {}
    for site in fleet.sites.values():
        for number in range(times):
            copy = _copy(site, number) if number else site
            sites[copy.id] = copy
    hosts = {
        id: msgspec.structs.replace(host, max_sites=host.max_sites and host.max_sites * times)
        for id, host in fleet.hosts.items()
    }
    return msgspec.structs.replace(fleet, sites=sites, hosts=hosts)


def _copy(site: Site, number: int) -> Site:
    return msgspec.structs.replace(
        site,
        id=SiteId(f"{site.id}-{number}"),
        domains=tuple(Domain(f"n{number}.{domain}") for domain in site.domains),
        users=tuple(f"{user}{number}" for user in site.users),
        databases=tuple(f"{database}{number}" for database in site.databases),
    )
