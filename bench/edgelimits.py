"""What limits cost an edge, and what they spare the neighbours of a flooded site: a real HAProxy, on loopback.

Both states of the same worker take turns, so that a busy machine is a busy machine for both. CPU is HAProxy's own.
"""

import asyncio
import multiprocessing
import statistics
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count, cycle
from multiprocessing.connection import Connection
from random import Random
from time import perf_counter
from typing import cast

import msgspec
import psutil
import uvloop

from bench.measure import machine, percentile, row
from deploy.demo.packages import TESTS, Tools, bring
from deploy.demo.plans import PLANS
from failover.limits import edge_limits
from fleet.messages import EdgeLimit, Routes, Target
from fleet.model import Domain, Epoch, HostId, PlanId, SiteId
from tests.integration.edges import PROOF, Rig, running

RUNS = 5  # alternated pairs
SITES = (1_000, 10_000)
SECONDS = 2.0
CLIENTS = 8
FLOOD = 60  # connections that ask without a pause
WORKERS, PAGE_S = 8, 0.03  # of the host: PHP workers, and how long each takes
MANY_CLIENTS = 4_000  # addresses, for the memory of one
W1 = HostId("w1")
SEED = 4
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
# Nobody is held by these: what is measured is the price of asking.
STANDARD = msgspec.structs.replace(
    edge_limits(PLANS[PlanId("standard")].caps, enforced_from=0.0)[0],
    requests_per_s=1_000_000,
    requests_burst=1_000_000,
    client_requests_per_min=10_000_000,
)
# What holds the flooded site: a quarter of the host's workers.
HELD = msgspec.structs.replace(STANDARD, in_flight=2, queue=20, queue_wait_s=1)


def main(runs: int = RUNS) -> None:
    print(f"  {machine()}; {CLIENTS} connections; medians of {runs} pairs, limits off and on")
    with served(0, 0.0) as quick, served(WORKERS, PAGE_S) as slow:
        uvloop.run(_all(Tools(bring(TESTS)), quick, slow, runs))


async def _all(tools: Tools, quick: int, slow: int, runs: int) -> None:
    for sites in SITES:
        async with edge(tools, quick, sites) as rig:
            await _price(rig, quick, sites, runs)
    async with edge(tools, slow, 2) as rig:
        await _neighbours(rig, slow, runs)
    async with edge(tools, quick, 2) as rig:
        await _memory(rig, quick)


async def _price(rig: Rig, port: int, sites: int, runs: int) -> None:
    """Requests of all sites, in whatever order; and the time of one change of one site's limit."""
    ways = {"off": routes(port, sites, None), "on": routes(port, sites, STANDARD)}
    found: dict[str, list[Load]] = {"off": [], "on": []}
    epochs = count(11)
    random = Random(SEED)
    names = [f"site{random.randrange(sites):05}.example" for _ in range(sites)]
    for _ in range(runs):
        for way, orders in ways.items():
            await rig.driver.follow(orders, Epoch(1, next(epochs)))
            found[way].append(await load(rig, names))
    for what, of in (
        ("requests/s", lambda it: it.per_s),
        ("p50", lambda it: 1000 * percentile(it.took_s, 50)),
        ("p99", lambda it: 1000 * percentile(it.took_s, 99)),
        ("HAProxy's CPU per request", lambda it: it.cpu_us),
    ):
        off, on = (statistics.median(map(of, found[way])) for way in ("off", "on"))
        unit = {"requests/s": "", "HAProxy's CPU per request": " us"}.get(what, " ms")
        row(
            f"{sites:,} sites: {what}",
            f"off {off:,.2f}{unit}  on {on:,.2f}{unit}",
            "",
            reached=True,
        )
    now = asyncio.get_running_loop().time
    changes = []
    for turn in range(runs):
        began = now()
        slower = msgspec.structs.replace(STANDARD, in_flight=5 + turn)
        limits = {**ways["on"].limits, SiteId("site00001"): (slower,)}
        changed = msgspec.structs.replace(ways["on"], limits=limits)
        await rig.driver.follow(changed, Epoch(1, next(epochs)))
        changes.append(now() - began)
    took_ms = 1000 * statistics.median(changes)
    row(
        f"{sites:,} sites: one limit changed",
        f"{took_ms:.0f} ms, the map as a whole",
        "",
        reached=True,
    )


async def _neighbours(rig: Rig, port: int, runs: int) -> None:
    """One site flooded by far more than its host can do; the other one has one visitor after another."""
    found: dict[str, list[float]] = {"alone": [], "off": [], "on": []}
    failed = dict.fromkeys(found, 0)
    epochs = count(11)
    limits = {"alone": None, "off": None, "on": HELD}
    for _ in range(runs):
        for way, limit in limits.items():
            flooded = routes(port, 2, limit, only=0)
            await rig.driver.follow(flooded, Epoch(1, next(epochs)))
            async with flood(rig, "site00000.example", 0 if way == "alone" else FLOOD):
                seen = await load(rig, ["site00001.example"], clients=2)
            found[way].append(1000 * percentile(seen.took_s, 95))
            failed[way] += seen.failed
    alone, off, on = (statistics.median(found[way]) for way in ("alone", "off", "on"))
    shown = f"{alone:.0f} ms; flooded: off {off:.0f}, on {on:.0f}"
    row(
        "a flooded site's neighbour, p95 alone",
        shown,
        f"on <= {1.3 * alone:.0f} ms",
        reached=on <= 1.3 * alone,
    )
    row(
        "its failed requests",
        f"off {failed['off']}, on {failed['on']}",
        "0",
        reached=not failed["on"],
    )


async def _memory(rig: Rig, port: int) -> None:
    """What HAProxy grows by for each client address it remembers."""
    await rig.driver.follow(routes(port, 2, STANDARD), Epoch(1, 11))
    await load(rig, ["site00001.example"])
    worker = psutil.Process(await rig.worker())
    before = worker.memory_info().rss
    for number in range(MANY_CLIENTS):
        source = f"127.1.{number >> 8}.{number & 255}"
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", _port(rig), local_addr=(source, 0)
        )
        writer.write(b"GET / HTTP/1.1\r\nhost: site00001.example\r\nconnection: close\r\n\r\n")
        await reader.read()
        writer.close()
    grown = (worker.memory_info().rss - before) / MANY_CLIENTS
    row("memory of one client's address", f"{grown:.0f} bytes", "", reached=True)
    most = grown * 102_400 / 1e6
    row("of as many as are remembered, 102,400", f"{most:.0f} MB", "<= 50 MB", reached=most <= 50)


def routes(port: int, sites: int, limit: EdgeLimit | None, *, only: int | None = None) -> Routes:
    names = [f"site{number:05}" for number in range(sites)]
    held = names if only is None else names[only : only + 1]
    return Routes(
        hosts={W1: Target(address="127.0.0.1", port=port, check="/")},
        domains={Domain(f"{name}.example"): W1 for name in names},
        proof=PROOF,
        limits={SiteId(name): (limit,) for name in held} if limit else {},
        sites={Domain(f"{name}.example"): SiteId(name) for name in held} if limit else {},
    )


@asynccontextmanager
async def edge(tools: Tools, port: int, sites: int) -> AsyncIterator[Rig]:
    async with running(tools, routes(port, sites, None), Epoch(1, 10)) as rig:
        await rig.up(W1)
        yield rig


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    per_s: float
    took_s: Sequence[float]
    cpu_us: float
    failed: int


async def load(rig: Rig, names: Sequence[str], *, clients: int = CLIENTS) -> Load:
    """Closed-loop: each connection asks again when it was answered, for SECONDS."""
    loop = asyncio.get_running_loop()
    worker = psutil.Process(await rig.worker())
    used = sum(worker.cpu_times()[:2])
    asking = [Asking(names[at::clients] or names, loop.time() + SECONDS) for at in range(clients)]
    for one in asking:
        await loop.create_connection(lambda one=one: one, "127.0.0.1", _port(rig))  # type: ignore[misc]
    async with asyncio.timeout(SECONDS + 30):
        for one in asking:
            await one.done
    took_s = [took for one in asking for took in one.took_s]
    cpu_s = sum(worker.cpu_times()[:2]) - used
    return Load(
        per_s=len(took_s) / SECONDS,
        took_s=took_s,
        cpu_us=1e6 * cpu_s / len(took_s),
        failed=sum(one.failed for one in asking),
    )


@asynccontextmanager
async def flood(rig: Rig, name: str, connections: int) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    asking = [Asking([name], float("inf"), pause_s=0.01) for _ in range(connections)]
    for one in asking:
        await loop.create_connection(lambda one=one: one, "127.0.0.1", _port(rig))  # type: ignore[misc]
    await asyncio.sleep(0.5)
    try:
        yield
    finally:
        for one in asking:
            one.until = 0.0
        async with asyncio.timeout(30):
            for one in asking:
                await one.done


class Asking(asyncio.Protocol):
    """One connection that asks for `names` in turn until `until`; refused, it pauses as a bad client would."""

    def __init__(self, names: Sequence[str], until: float, *, pause_s: float = 0.0) -> None:
        self.took_s: list[float] = []
        self.failed = 0
        self.until, self._pause_s = until, pause_s
        self._loop = asyncio.get_running_loop()
        self.done = self._loop.create_future()
        self._names = cycle(f"GET / HTTP/1.1\r\nhost: {name}\r\n\r\n".encode() for name in names)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass
        self._ask()

    def _ask(self) -> None:
        self._began = perf_counter()  # uvloop's own clock stands still for a millisecond
        self._transport.write(next(self._names))

    def data_received(self, data: bytes) -> None:
        self.took_s.append(perf_counter() - self._began)
        refused = not data.startswith(b"HTTP/1.1 200")
        self.failed += refused
        if self._loop.time() >= self.until:
            self._transport.close()
        elif refused and self._pause_s:
            self._loop.call_later(self._pause_s, self._ask)
        else:
            self._ask()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def _port(rig: Rig) -> int:
    return int(rig.url.rpartition(":")[2])


@contextmanager
def served(workers: int, page_s: float) -> Iterator[int]:
    """A web host in a process of its own; `workers` pages at a time, each for `page_s`; 0: at once. Gives its port."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs, workers, page_s), daemon=True
    )
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join(10)


def _serve(told: Connection, workers: int, page_s: float) -> None:
    uvloop.run(_host(told, workers, page_s))


async def _host(told: Connection, workers: int, page_s: float) -> None:
    turns = asyncio.Semaphore(workers) if workers else None
    async with asyncio.TaskGroup() as group:

        class Serving(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass

            def data_received(self, _: bytes) -> None:
                if turns is None:
                    self._transport.write(ANSWER)
                else:
                    group.create_task(self._page(turns))

            async def _page(self, turns: asyncio.Semaphore) -> None:
                async with turns:
                    await asyncio.sleep(page_s)
                self._transport.write(ANSWER)

        loop = asyncio.get_running_loop()
        server = await loop.create_server(Serving, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()
