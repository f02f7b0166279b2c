"""Reads of the API on one real controller over TLS while 300 agents beat: how many a second, and how long they take.

First as many as it answers: each reader asks as soon as it is answered. Then 1,000 a second, each at its time, and what
one takes counts from when it was due: a reader that had to wait for the one before does not hide it.
"""

import asyncio
import itertools
import json
import random
import ssl
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from bench.beats import AGENTS, _fleet, _name
from bench.daemons import TOKEN, controller
from bench.measure import machine, percentile, row, spread
from deploy.demo.certificates import Authority
from fleet.writing import write

READERS = 16  # connections, each with two tokens of its own: no pace slows them
SETTLE_S, SECONDS = 8.0, 9.0  # twice; all within the 30 s that the agents beat
DUE_PER_S = 1000
LATE_S = 1.0  # what is due and was not even asked by then is missed
# What is asked, and how often of a hundred.
MIX = {
    "GET /v1/hosts/{id}": 40,
    "GET /v1/sites/{id}": 25,
    "GET /v1/sites, 100 of them": 15,
    "GET /v1/status": 10,
    "GET /v1/hosts, 100 of them": 5,
    "GET /v1/incidents": 5,
}


def main() -> None:
    asyncio.run(_run())


async def _run() -> None:
    fleet = _fleet()
    print(f"  {machine()}; {AGENTS} agents, {len(fleet.sites):,} sites, {READERS} readers, TLS")
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        authority = Authority(home)
        tokens = {host: f"token-{host}" for host in map(_name, range(AGENTS))}
        async with controller(home, agents=tokens, authority=authority) as daemon:
            await daemon.until_ready()
            await daemon.put_fleet(write(fleet))
            readers = await _tokens(daemon.url, authority)
            agents = await _process("bench.beats", daemon.url, str(authority.path))
            await asyncio.sleep(SETTLE_S)
            used, began = daemon.process.cpu_times(), time.monotonic()
            asked = {"sites": sorted(fleet.sites), "tokens": readers}
            load = await _process("bench.api", daemon.url, str(authority.path), json.dumps(asked))
            found = json.loads((await load.communicate())[0])
            now = daemon.process.cpu_times()
            cpu = (now.user + now.system - used.user - used.system) / (time.monotonic() - began)
            memory = daemon.process.memory_info().rss / 2**20
            beats = json.loads((await agents.communicate())[0])
    rate = sum(map(len, found["most"].values())) / SECONDS
    row("reads answered, as many as it can", f"{rate:,.0f}/s", ">= 1,000/s", reached=rate >= 1000)
    _spread(found["most"])
    paced = [seconds for times in found["due"].values() for seconds in times]
    rate, p99 = len(paced) / SECONDS, percentile(paced, 99)
    what = f"a read takes at {rate:,.0f}/s, p99"
    row(what, f"{p99 * 1000:.1f} ms", "<= 50 ms", reached=p99 <= 0.05 and rate > 0.99 * DUE_PER_S)
    _spread(found["due"])
    late, reads = beats["late"], sum(len(t) for how in found.values() for t in how.values())
    each_ms = 1000 * (now.user + now.system - used.user - used.system) / reads
    print(f"          controller: {cpu:.0%} of a core, {memory:.0f} MB")
    print(f"          of its time {each_ms:.2f} ms for each read, what the beats take included")
    print(f"          beats acknowledged after: {spread(late)}")
    row(
        "latest beat acknowledged after", f"{max(late):.3f} s", "<= 1.5 s", reached=max(late) <= 1.5
    )


def _spread(found: Mapping[str, list[float]]) -> None:
    for what, times in found.items():
        print(f"          {what:<28} {spread(times)}")


async def _process(module: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments), stdout=asyncio.subprocess.PIPE
    )


async def _tokens(url: str, authority: Authority) -> list[str]:
    """Two viewers' tokens for each reader."""
    tls = ssl.create_default_context(cafile=authority.path)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    found = []
    async with aiohttp.ClientSession(headers=bearer) as session:
        for n in range(2 * READERS):
            order = {"name": f"reader-{n}", "role": "viewer", "for_s": 3600, "reason": "bench"}
            async with session.post(f"{url}/v1/tokens", json=order, ssl=tls) as answer:
                answer.raise_for_status()
                found.append((await answer.json())["token"])
    return found


# --- the readers, in a process of their own


async def _readers(url: str, ca: str, asked: str) -> None:
    said = json.loads(asked)
    told = {}
    for how, per_s in (("most", None), ("due", DUE_PER_S / READERS)):
        found: dict[str, list[float]] = {what: [] for what in MIX}
        async with asyncio.TaskGroup() as group:
            for n in range(READERS):
                reader = _Reader(url, said["tokens"][2 * n : 2 * n + 2], said["sites"], n, found)
                group.create_task(reader.run(ca, per_s))
        told[how] = found
    print(json.dumps(told))


class _Reader:
    """Bare HTTP/1.1: a client library would take more of the machine than the controller does."""

    def __init__(
        self, url: str, tokens: list[str], sites: list[str], n: int, found: dict[str, list[float]]
    ) -> None:
        self._host, _, self._port = url.removeprefix("https://").partition(":")
        self._sites, self._lots, self._found = sites, random.Random(n), found
        self._heads = itertools.cycle(
            f"Host: {self._host}\r\nAuthorization: Bearer {token}\r\n\r\n" for token in tokens
        )

    async def run(self, ca: str, per_s: float | None) -> None:
        """Ask for SECONDS: at once when answered, or `per_s`."""
        tls = ssl.create_default_context(cafile=ca)
        reader, writer = await asyncio.open_connection(self._host, int(self._port), ssl=tls)
        now = asyncio.get_running_loop().time
        began, count = now() + self._lots.random() / (per_s or 1000), 0
        until = began + SECONDS
        while (due := now() if per_s is None else began + count / per_s) < until:
            if now() > until + LATE_S:
                break
            await asyncio.sleep(max(0.0, due - now()))
            (what,) = self._lots.choices(list(MIX), weights=list(MIX.values()))
            writer.write(f"GET {self._path(what)} HTTP/1.1\r\n{next(self._heads)}".encode())
            answered = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert answered.startswith("HTTP/1.1 200 "), answered
            length = answered.lower().partition("content-length: ")[2].partition("\r\n")[0]
            await reader.readexactly(int(length))
            self._found[what].append(now() - due)
            count += 1
        writer.close()

    def _path(self, what: str) -> str:
        match what.removeprefix("GET "):
            case "/v1/hosts/{id}":
                return f"/v1/hosts/{_name(self._lots.randrange(AGENTS))}"
            case "/v1/sites/{id}":
                return f"/v1/sites/{self._lots.choice(self._sites)}"
            case path:
                return path.partition(",")[0]


if __name__ == "__main__":
    asyncio.run(_readers(*sys.argv[1:]))
