"""What it costs to read, reckon, keep and tell the use of 1,000 sites: CPU, memory, how long the event loop is held.

The cgroups are directories of real files with what a kernel writes into them, rewritten for those that work: this
machine's own cgroups are not touched. A kernel makes its answer when it is asked, which costs it more than a file in
memory does: the same reads of one cgroup that is there are timed beside, and the difference is printed.
"""

import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil
import uvloop

from agent import config
from agent.layout.attached import Attached
from agent.usage.cgroup import BRIEF, READ_BYTES
from agent.usage.keep import Send, Usage
from agent.usage.report import Word
from agent.usage.sampler import Sampler
from agent.usage.web import WebSide
from bench.measure import machine, row
from fleet import messages
from fleet.caps import Attachment
from fleet.documents import read_file
from fleet.messages import Orders
from fleet.model import Caps, Epoch, HostId, PlanId, SiteId, Why
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from tests.unit.cgroups import State, Tree

HOST = HostId("h1")
SITES, SECONDS, SETTLE_S = 1000, 20.0, 12.0
# Each window has five rounds and a telling: what holds the loop by design is in each, what the machine does is not.
WINDOWS, WINDOW_S = 3, 10.0
WORKING = 200  # of them; the others do nothing, as most sites of a host do at any moment
ROUNDS, EVERY_S = 20, 2.0
LINE = '203.0.113.7 - - [21/Nov/2026:10:00:00 +0000] "GET /a/b?c=d HTTP/1.1" 200 512 "-" "agent" 0.100\n'
TICK_S = 0.005
CPU_RATIO, MEMORY_BYTES, BLOCK_S = 0.02, 80e6, 0.010


def main() -> None:
    print(f"  {machine()}; {SITES:,} sites on generated cgroups, {SECONDS:g} s each", flush=True)
    _kernel()
    with tempfile.TemporaryDirectory(dir=_memory()) as directory:
        tree = Tree(Path(directory))
        for n in range(SITES):
            tree.put(f"s{n:04}", State(io={"8:0": (n, n, n, n)}))
        _report("nobody works", _measured(tree, 0), promised=False)
        _report(f"{WORKING} of them work", _measured(tree, WORKING), promised=True)
        _report("all of them work", _measured(tree, SITES), promised=False)
    _web()


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _measured(tree: Tree, working: int) -> dict[str, float]:
    """Let some sites work while a process of its own looks at all of them; what it found of itself."""
    command = [sys.executable, "-m", "bench.usage", str(tree.root.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        step = 0
        while child.poll() is None:
            step += 1
            for n in range(working):
                tree.change(
                    f"s{n:04}",
                    cpu_us=step * 50_000,
                    io={"8:0": (step << 20, step << 19, step * 9, step * 5)},
                    memory=(64 << 20) + (step % 7 << 20),
                    cpu_wait_us=step * 2_000,
                )
            time.sleep(1.0)
        assert child.stdout is not None
        found: dict[str, float] = json.loads(child.stdout.read())
        return found


def _report(what: str, found: dict[str, float], *, promised: bool) -> None:
    def goal(text: str) -> str:
        return text if promised else ""

    row(
        f"{what}: CPU",
        f"{found['cpu_ratio']:.2%} of a core",
        goal(f"<= {CPU_RATIO:.0%}"),
        reached=found["cpu_ratio"] <= CPU_RATIO,
    )
    row(
        f"{what}: memory of the whole process",
        f"{found['memory'] / 1e6:.1f} MB",
        goal(f"<= {MEMORY_BYTES / 1e6:.0f} MB"),
        reached=found["memory"] <= MEMORY_BYTES,
    )
    row(
        f"{what}: event loop held",
        f"{found['block_s'] * 1e3:.1f} ms at most; {found['quiet_block_s'] * 1e3:.1f} without",
        goal(f"<= {BLOCK_S * 1e3:.0f} ms"),
        reached=found["block_s"] <= BLOCK_S,
    )
    row(
        f"{what}: rounds; told each 10 s",
        f"{found['rounds']:.0f}; {found['told'] / 1e3:.0f} kB",
        "",
        reached=True,
    )


def _web() -> None:
    """The other thread: every site's access log, and who waits at sockets. In this process, by its CPU time alone."""
    with tempfile.TemporaryDirectory(dir=_memory()) as directory:
        logs = [Path(directory, f"{n}.log") for n in range(SITES)]
        for path in logs:
            path.touch()
        web = WebSide()
        web.follow(
            {
                SiteId(path.name): Attached(attachment=Attachment.POOL, why=Why("x"), logs=(path,))
                for path in logs
            }
        )
        web.round(0.0, ())
        used_s = 0.0
        for n in range(1, ROUNDS + 1):
            for path in logs[:WORKING]:
                with path.open("a") as file:
                    file.write(LINE * 10)
            began = time.thread_time()
            web.round(EVERY_S * n, ())
            used_s += time.thread_time() - began
        web.close()
    ratio = used_s / ROUNDS / EVERY_S
    what = f"{SITES:,} access logs, {WORKING} with 5 requests/s"
    row(what, f"{ratio:.2%} of a core", "", reached=True)


def _kernel() -> None:
    """A real cgroup's core files beside generated ones, by held descriptors; read only."""
    real = next(iter(Path("/sys/fs/cgroup").rglob("cpu.stat")), None)
    with tempfile.TemporaryDirectory(dir=_memory()) as directory:
        made = Tree(Path(directory)).put("a", State())
        for name, folder in (("generated", made), ("this kernel's", real.parent if real else None)):
            files = [folder / file for file in BRIEF] if folder else []
            held = [os.open(file, os.O_RDONLY) for file in files if file.exists()]
            if not held:
                continue
            began = time.perf_counter()
            for _ in range(2000):
                for file in held:
                    os.pread(file, READ_BYTES, 0)
            each_s = (time.perf_counter() - began) / 2000 / len(held)
            for file in held:
                os.close(file)
            row(f"one read, {name} files ({len(held)})", f"{each_s * 1e6:.2f} us", "", reached=True)


async def _child(root: Path) -> dict[str, float]:
    """Measure this process: its CPU while nothing else happens, then how late its loop is for a frequent timer."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 1 << 16), limit))
    quiet_block_s = await _longest(WINDOW_S)
    told = [0]

    def send(parts: Sequence[messages.Usage]) -> None:
        told[0] = sum(len(msgspec.json.encode(part)) for part in parts)

    with tempfile.TemporaryDirectory() as state:
        usage = _usage(root, Path(state), send)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(usage.keep())
            await asyncio.sleep(SETTLE_S)
            begun, used_s, began = usage.signals.count, time.process_time(), time.perf_counter()
            await asyncio.sleep(SECONDS)
            ratio = (time.process_time() - used_s) / (time.perf_counter() - began)
            rounds, memory = usage.signals.count - begun, psutil.Process().memory_info().rss
            blocks_s = [await _longest(WINDOW_S) for _ in range(WINDOWS)]
            task.cancel()
    return {
        "cpu_ratio": ratio,
        "memory": memory,
        "block_s": statistics.median(blocks_s),
        "quiet_block_s": quiet_block_s,
        "told": told[0],
        "rounds": rounds,
    }


async def _longest(seconds: float) -> float:
    """How late the loop was for a timer at most, what the machine itself kept its threads waiting for taken off."""
    began, longest_s = time.perf_counter(), 0.0
    while (now := time.perf_counter()) - began < seconds:
        waited_s = _waited_s()
        await asyncio.sleep(TICK_S)
        late_s = time.perf_counter() - now - TICK_S
        longest_s = max(longest_s, late_s - (_waited_s() - waited_s))
    return longest_s


def _waited_s() -> float:
    """How long this process' threads could have run and had no CPU: a busy machine is no fault of what is measured."""
    waited_ns = 0
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended
            waited_ns += int((thread / "schedstat").read_text().split()[1])
    return waited_ns / 1e9


def _usage(root: Path, state: Path, send: Send) -> Usage:
    usage = Usage(
        HOST,
        config.Usage(),
        state,
        send=send,
        word=Word,
        exporter=Exporter(AGENT),
        sampler=Sampler(descriptors=1 << 15, proc=root / "proc", sys=root / "sys"),
    )
    fleet = read_file(Path("deploy/demo/coop.yaml")).fleet
    plans: dict[PlanId, Caps] = {id: plan.caps for id, plan in fleet.plans.items()}
    usage.follow(Orders(epoch=Epoch(1, 1), cluster="c", host=HOST, plans=plans))
    usage.attach(
        {
            SiteId(path.name): Attached(attachment=Attachment.SLICE, why=Why("x"), cgroups=(path,))
            for path in sorted((root / "cgroup").iterdir())
        }
    )
    return usage


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_child(Path(sys.argv[1])))))
