"""What an agent's hosting side costs with 1,000 sites: CPU, memory, how long the event loop is held.

First the use of sites alone, which the goal is for: as the kernel tells it, read, reckoned, kept and told. Then all
that the agent does for its sites: their access logs read besides; each round judged; every slice looked at and held
through the cgroupfs driver; the firewall's rules. New orders come in each window. In neither are the links to
controllers, the look at php-fpm's, nginx' and Apache's configurations each minute, in a thread, and the rows that go to
the history each five minutes.

The cgroups are directories of real files with what a kernel writes into them, rewritten for those that work: this
machine's own cgroups are not touched, nor its firewall, for which a shell script stands. A kernel makes its answer when
it is asked, which costs it more than a file in memory does: the same reads of one cgroup that is there are timed
beside, and the difference is printed. On a host with systemd a cap is set by a call over D-Bus, not in a file.
"""

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from pathlib import Path

import msgspec
import psutil
import uvloop

from agent.config import Caps, Config
from agent.hosting import Hosting
from agent.layout.attached import Attached
from agent.usage.cgroup import BRIEF, READ_BYTES
from agent.usage.web import WebSide
from bench.measure import machine, row
from fleet import messages
from fleet.caps import Attachment, Level, Ruling, Tenant
from fleet.documents import read_file
from fleet.messages import Orders
from fleet.model import Caps as PlanCaps
from fleet.model import Epoch, HostId, Note, PlanId, SiteId, Why
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from runtime import clock, log
from runtime.supervise import tune
from tests.unit.cgroups import State, Tree

HOST = HostId("h1")
# A look at all slices comes each half-minute: there is one in what is measured.
SITES, SECONDS, SETTLE_S = 1000, 30.0, 12.0
# Each window has five rounds, a telling, new orders and two looks at all slices, for a penalty that ends and one that
# begins: what holds the loop by design is in each, what the machine does is not.
WINDOWS, WINDOW_S = 5, 10.0
FIRST_UID = 20_000
BARE = "--bare"
WORKING = 200  # of them; the others do nothing, as most sites of a host do at any moment
ROUNDS, EVERY_S = 20, 2.0
REQUESTS, MANY = 1, 5  # each second, of a site that works
USE = "use"
LINE = '203.0.113.7 - - [21/Nov/2026:10:00:00 +0000] "GET /a/b?c=d HTTP/1.1" 200 512 "-" "agent" 0.100\n'
TICK_S = 0.005
# What a cgroup holds of which nobody has spoken yet.
FREE = {
    "cpu.weight": "100",
    "cpu.max": "max 100000",
    "memory.high": "max",
    "memory.max": "max",
    "memory.low": "0",
    "memory.swap.max": "max",
    "io.max": "",
    "cgroup.freeze": "0",
}
NFT = """\
#!/bin/sh
case "$1" in
    -f) cp "$2" "$0.held" ;;
    -j) echo '{"nftables": []}' ;;
    *) cat "$0.held" ;;
esac
"""
CPU_RATIO, MEMORY_BYTES, BLOCK_S = 0.02, 80e6, 0.010


def main() -> None:
    print(f"  {machine()}; {SITES:,} sites on generated cgroups, {SECONDS:g} s each", flush=True)
    _kernel()
    with tempfile.TemporaryDirectory(dir=_memory()) as directory:
        tree = _host(Path(directory))
        _report(f"use, {WORKING} of them work", _measured(tree, WORKING, USE), Goal.ALL)
        _report("all, nobody works", _measured(tree, 0), Goal.NONE)
        _report(f"all, {WORKING} of them work", _measured(tree, WORKING), Goal.BUT_CPU)
        _report("all, all of them work", _measured(tree, SITES), Goal.NONE)
    _web()


def _host(root: Path) -> Tree:
    """A made-up hosting server: each site has a user and a slice of its own."""
    tree = Tree(root)
    for n in range(SITES):
        folder = tree.put(f"s{n:04}.slice", State(io={"8:0": (n, n, n, n)}))
        for file, text in FREE.items():
            (folder / file).write_text(f"{text}\n")
    (tree.root / "cgroup.controllers").write_text("cpu io memory pids\n")
    (tree.proc / "swaps").write_text(
        "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n"
    )
    (root / "logs").mkdir()
    for n in range(SITES):
        _log(root, n).touch()
    (root / "etc").mkdir()
    (root / "etc/resolv.conf").write_text("nameserver 192.0.2.53\n")
    users = (f"s{n:04}:x:{FIRST_UID + n}:100::/home/s{n:04}:/bin/sh\n" for n in range(SITES))
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n" + "".join(users))
    (root / "nft").write_text(NFT)
    (root / "nft").chmod(0o700)
    return tree


def _log(root: Path, n: int) -> Path:
    return root / f"logs/{n}.log"


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _measured(tree: Tree, working: int, *only: str) -> dict[str, float]:
    """Let some sites work while a process of its own looks at all of them; what it found of itself.

    `only`: these of an agent's services, else all.
    """
    root = tree.root.parent
    command = [sys.executable, "-m", "bench.usage", str(root), *only]
    # To a file: it logs a line for each slice, as the agent does, and a pipe that nobody empties would hold it up.
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stdout=said) as child:
        step = 0
        while child.poll() is None:
            step += 1
            for n in range(working):
                tree.change(
                    f"s{n:04}.slice",
                    cpu_us=step * 50_000,
                    io={"8:0": (step << 20, step << 19, step * 9, step * 5)},
                    memory=(64 << 20) + (step % 7 << 20),
                    cpu_wait_us=step * 2_000,
                )
                with _log(root, n).open("a") as file:
                    file.write(LINE * REQUESTS)
            time.sleep(1.0)
        said.seek(0)
        found: dict[str, float] = json.loads(said.read().splitlines()[-1])
        return found


class Goal(Enum):
    """What is promised of a row."""

    ALL = "all"
    BUT_CPU = "but CPU"
    NONE = "none"


def _report(what: str, found: dict[str, float], goal: Goal) -> None:
    def told(name: str, text: str, most: str, *, reached: bool, promised: bool = True) -> None:
        promised = promised and goal is not Goal.NONE
        row(f"{what}: {name}", text, most if promised else "", reached=reached or not promised)

    told(
        "CPU",
        f"{found['cpu_ratio']:.2%} of a core",
        f"<= {CPU_RATIO:.0%}",
        reached=found["cpu_ratio"] <= CPU_RATIO,
        promised=goal is Goal.ALL,
    )
    told(
        "memory of the whole process",
        f"{found['memory'] / 1e6:.1f} MB",
        f"<= {MEMORY_BYTES / 1e6:.0f} MB",
        reached=found["memory"] <= MEMORY_BYTES,
    )
    told(
        "event loop held",
        f"{found['block_s'] * 1e3:.1f} ms, a bare one {found['bare_s'] * 1e3:.1f}",
        f"<= {BLOCK_S * 1e3:.0f} ms",
        reached=found["block_s"] <= BLOCK_S,
    )
    told(
        "its own work at a stretch",
        f"{found['own_s'] * 1e3:.1f} ms at most",
        f"<= {BLOCK_S * 1e3:.0f} ms",
        reached=found["own_s"] <= BLOCK_S,
    )
    row(
        f"{what}: rounds; told each 10 s",
        f"{found['rounds']:.0f}; {found['told'] / 1e3:.0f} kB",
        "",
        reached=True,
    )
    if goal is not Goal.ALL:
        told(
            "slices that hold their caps",
            f"{found['held']:.0f}; {found['squeezed']:.0f} by a person's word",
            f"{SITES}; 1",
            reached=(found["held"], found["squeezed"]) == (SITES, 1),
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
    what = f"{SITES:,} access logs alone, {WORKING} with {MANY} requests/s"
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


async def _child(root: Path, *, only_use: bool) -> dict[str, float]:
    """Measure this process: its CPU, with new orders in the middle of the time, then how late its loop is.

    Of the latter the longest of WINDOWS, each with new orders: on a machine that others use too a loop that does
    nothing is late as well, which one beside it tells at the same time.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 1 << 16), limit))
    tune()  # as every daemon does
    log.configure()
    told, orders = [0], [_orders(n) for n in range(WINDOWS + 2)]

    def send(parts: Sequence[messages.Usage]) -> None:
        told[0] = sum(len(msgspec.json.encode(part)) for part in parts)

    with tempfile.TemporaryDirectory() as state:
        hosting = Hosting(_config(root, Path(state)), Exporter(AGENT), send, root)
        hosting.follow(orders[0])
        hosting.layout.attached = _attached(
            root, logs=not only_use
        )  # what its service would have found
        hosting.layout.changed.beat()
        services = hosting.services()
        for name in [*services]:
            if name == "layout" or (only_use and name not in {"attach", "usage"}):
                services.pop(name).close()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(service) for service in services.values()]
            await asyncio.sleep(SETTLE_S)
            usage = hosting.usage
            begun, used_s, began = usage.signals.count, time.process_time(), time.perf_counter()
            await asyncio.sleep(SECONDS / 2)
            hosting.follow(orders[1])
            await asyncio.sleep(SECONDS / 2)
            ratio = (time.process_time() - used_s) / (time.perf_counter() - began)
            rounds, memory = usage.signals.count - begun, psutil.Process().memory_info().rss
            late: list[Lateness] = []
            bare_s: list[float] = []
            for newer in orders[2:]:
                async with _beside() as found_s:
                    asyncio.get_running_loop().call_soon(hosting.follow, newer)
                    late.append(await _longest(WINDOW_S))
                bare_s += found_s
            kept = hosting.keeper.state().values()
            held = sum(one.held is not None and one.held == one.wanted for one in kept)
            squeezed = sum(one.because["cpu_quota_us"].code == "cap-share" for one in kept)
            for task in tasks:
                task.cancel()
    return {
        "cpu_ratio": ratio,
        "memory": memory,
        "block_s": max(each.held_s for each in late),
        "own_s": max(each.own_s for each in late),
        "bare_s": max(bare_s),
        "told": told[0],
        "rounds": rounds,
        "held": held,
        "squeezed": squeezed,
    }


def _config(root: Path, state: Path) -> Config:
    caps = Caps(driver="cgroupfs", subtree=root / "cgroup", quota=False, nft=str(root / "nft"))
    return Config(
        host=HOST,
        controllers={"c1": "https://127.0.0.1:7410"},
        token=state / "token",
        state=state,
        caps=caps,
    )


def _orders(number: int) -> Orders:
    """Every time another site is slowed down by a person."""
    fleet = read_file(Path("deploy/demo/coop.yaml")).fleet
    plans: dict[PlanId, PlanCaps] = {id: plan.caps for id, plan in fleet.plans.items()}
    names = sorted(plans)
    tenants = {
        SiteId(f"s{n:04}"): Tenant(
            plan=names[n % len(names)], users=(f"s{n:04}",), enforced_from=0.0
        )
        for n in range(SITES)
    }
    now = clock.wall()
    note = Note(owner="ana", reason="bench", since=now - 1, until=now + 3600)
    ruling = Ruling(word="quarantine", level=Level.CAP, note=note)
    return Orders(
        epoch=Epoch(1, 1 + number),
        cluster="c",
        host=HOST,
        plans=plans,
        tenants=tenants,
        rulings={SiteId(f"s{number:04}"): ruling} if number else {},
    )


def _attached(root: Path, *, logs: bool) -> dict[SiteId, Attached]:
    return {
        SiteId(f"s{n:04}"): Attached(
            attachment=Attachment.SLICE,
            why=Why("x"),
            slice=f"s{n:04}.slice",
            cgroups=(root / f"cgroup/s{n:04}.slice",),
            uids=(FIRST_UID + n,),
            logs=(_log(root, n),) if logs else (),
        )
        for n in range(SITES)
    }


class Lateness(msgspec.Struct, frozen=True):
    """`held_s`: how late a loop was for a frequent timer at most; `own_s`: what its thread itself did meanwhile."""

    held_s: float
    own_s: float


async def _longest(seconds: float) -> Lateness:
    """What the machine itself kept the loop's thread waiting for is taken off."""
    began, held_s, own_s = time.perf_counter(), 0.0, 0.0
    while (now := time.perf_counter()) - began < seconds:
        waited_s, used_s = _waited_s(), time.thread_time()
        await asyncio.sleep(TICK_S)
        late_s = time.perf_counter() - now - TICK_S
        held_s = max(held_s, late_s - (_waited_s() - waited_s))
        own_s = max(own_s, time.thread_time() - used_s)
    return Lateness(held_s, own_s)


@asynccontextmanager
async def _beside() -> AsyncGenerator[list[float], None]:
    """A loop in a process of its own that does nothing else, at the same time; how late that was, at the end."""
    found: list[float] = []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.usage", BARE), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()  # it begins
    yield found
    found.append(msgspec.json.decode((await process.communicate())[0], type=Lateness).held_s)


async def _bare() -> Lateness:
    print("begins", flush=True)
    return await _longest(WINDOW_S)


def _waited_s() -> float:
    """How long this thread could have run and had no CPU: a busy machine is no fault of what is measured."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if sys.argv[1] == BARE:
            print(msgspec.json.encode(runner.run(_bare())).decode())
        else:
            found = runner.run(_child(Path(sys.argv[1]), only_use=USE in sys.argv[2:]))
            print(json.dumps(found))
