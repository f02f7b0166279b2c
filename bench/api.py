"""Reads of the API on one real controller over TLS while 300 agents beat: how many a second, and how long they take.

Readers keep their connections and ask one thing after the other, as control panels, dashboards and scripts do.
"""

import asyncio
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

READERS = 16  # connections, each with a token of its own: no pace slows them
SETTLE_S, SECONDS = 8.0, 15.0  # within the 30 s that the agents beat
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
    _told(found, cpu, memory, beats["late"])


def _told(found: Mapping[str, list[float]], cpu: float, memory: float, late: list[float]) -> None:
    every = [seconds for times in found.values() for seconds in times]
    rate, p99 = len(every) / SECONDS, percentile(every, 99)
    row("reads answered", f"{rate:,.0f}/s", ">= 1,000/s", reached=rate >= 1000)
    row("a read takes, p99", f"{p99 * 1000:.1f} ms", "<= 50 ms", reached=p99 <= 0.05)
    for what, times in found.items():
        print(f"          {what:<28} {spread(times)}")
    print(f"          controller: {cpu:.0%} of a core, {memory:.0f} MB")
    print(f"          beats acknowledged after: {spread(late)}")
    row(
        "latest beat acknowledged after", f"{max(late):.3f} s", "<= 1.5 s", reached=max(late) <= 1.5
    )


async def _process(module: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments), stdout=asyncio.subprocess.PIPE
    )


async def _tokens(url: str, authority: Authority) -> list[str]:
    """A viewer's token for each reader."""
    tls = ssl.create_default_context(cafile=authority.path)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    found = []
    async with aiohttp.ClientSession(headers=bearer) as session:
        for n in range(READERS):
            order = {"name": f"reader-{n}", "role": "viewer", "for_s": 3600, "reason": "bench"}
            async with session.post(f"{url}/v1/tokens", json=order, ssl=tls) as answer:
                answer.raise_for_status()
                found.append((await answer.json())["token"])
    return found


# --- the readers, in a process of their own


async def _readers(url: str, ca: str, asked: str) -> None:
    said = json.loads(asked)
    found: dict[str, list[float]] = {what: [] for what in MIX}
    async with asyncio.TaskGroup() as group:
        for n, token in enumerate(said["tokens"]):
            group.create_task(_reader(url, ca, token, said["sites"], random.Random(n), found))
    print(json.dumps(found))


async def _reader(
    url: str,
    ca: str,
    token: str,
    sites: list[str],
    lots: random.Random,
    found: dict[str, list[float]],
) -> None:
    """Bare HTTP/1.1: a client library would take more of the machine than the controller does."""
    host, port = url.removeprefix("https://").split(":")
    tls = ssl.create_default_context(cafile=ca)
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
    head = f"Host: {host}\r\nAuthorization: Bearer {token}\r\nAccept: application/json\r\n\r\n"
    now = asyncio.get_running_loop().time
    until = now() + SECONDS
    while (began := now()) < until:
        (what,) = lots.choices(list(MIX), weights=list(MIX.values()))
        path = {
            "GET /v1/hosts/{id}": f"/v1/hosts/{_name(lots.randrange(AGENTS))}",
            "GET /v1/sites/{id}": f"/v1/sites/{lots.choice(sites)}",
            "GET /v1/sites, 100 of them": "/v1/sites",
            "GET /v1/status": "/v1/status",
            "GET /v1/hosts, 100 of them": "/v1/hosts",
            "GET /v1/incidents": "/v1/incidents",
        }[what]
        writer.write(f"GET {path} HTTP/1.1\r\n{head}".encode())
        answered = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert answered.startswith("HTTP/1.1 200 "), answered
        length = answered.lower().partition("content-length: ")[2].partition("\r\n")[0]
        await reader.readexactly(int(length))
        found[what].append(now() - began)
    writer.close()


if __name__ == "__main__":
    asyncio.run(_readers(*sys.argv[1:]))
