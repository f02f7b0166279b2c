"""Agents at rest: CPU over 30 s and memory, linked over TLS to a real controller that has nothing to tell them.

The web host's agent checks its service; the edge's also looks at HAProxy, which serves the visitors meanwhile.
Needs root, for network namespaces.
"""

import asyncio

import psutil

from bench.measure import machine, row
from bench.stage import quiet, rest, run
from deploy.demo.lab import Kind
from deploy.demo.programs import AGENT
from deploy.demo.show import show

SECONDS = 30.0
SETTLE_S = 10.0
CPU_RATIO, MEMORY_BYTES = 0.01, 60e6


def main() -> None:
    print(f"  {machine()}; {SECONDS:g} s, a fleet of 6 hosts and 24 sites", flush=True)
    run(_run())


async def _run() -> None:
    async with show(quiet, namespaces=True) as it:
        await rest(it)
        await asyncio.sleep(SETTLE_S)
        found = {}
        for kind in (Kind.WEB, Kind.EDGE):
            pid = it.stage.powers[it.stage.lab.of(kind)[0].name].pid(AGENT)
            assert pid
            found[kind] = psutil.Process(pid)
        before = {kind: _cpu_s(process) for kind, process in found.items()}
        await asyncio.sleep(SECONDS)
        for kind, process in found.items():
            ratio = (_cpu_s(process) - before[kind]) / SECONDS
            memory = process.memory_info().rss
            # The goal is for an agent at rest; an edge that serves visitors is not.
            promised = kind is Kind.WEB
            row(
                f"{kind.value} host's agent: CPU",
                f"{ratio:.2%} of a core",
                f"<= {CPU_RATIO:.0%}" if promised else "",
                reached=ratio <= CPU_RATIO,
            )
            row(
                f"{kind.value} host's agent: memory",
                f"{memory / 1e6:.1f} MB",
                f"<= {MEMORY_BYTES / 1e6:.0f} MB" if promised else "",
                reached=memory <= MEMORY_BYTES,
            )


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
