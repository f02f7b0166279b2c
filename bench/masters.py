"""What it costs to give each of 200 sites a php-fpm master of its own, beside one master with 200 pools: all idle.

Real php-fpm with the modules that web applications want and opcache, unpacked and run by hand; every pool `ondemand`,
so that an idle site is its master alone. Memory is PSS: what processes share is counted once among them.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import machine, row
from deploy.demo.packages import Tools, bring

SITES = 200
PROGRAM = "php-fpm8.2"
WANTED = (
    *("php8.2-fpm", "php8.2-opcache", "php8.2-mysql", "php8.2-curl"),
    *("php8.2-mbstring", "php8.2-xml", "php8.2-gd"),
)
LATER = ("mysqlnd", "pdo", "dom", "xml")  # others need them: loaded first
READY_S = 60.0
SETTLE_S = 3.0
WATCHED_S = 20.0  # php-fpm looks after its pools once a second
# A guess that a co-op can check against: what an idle master may cost before 500 of them are felt on 64 GiB.
MOST_BYTES = 16 << 20
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def main() -> None:
    print(f"  on {machine()}")
    root = bring(WANTED)
    tools = Tools(root)
    with tempfile.TemporaryDirectory(prefix="masters-") as made:
        folder = Path(made)
        ini = folder / "php.ini"
        ini.write_text(modules(root))
        figures = {}
        for name, groups in (("shared", [SITES]), ("own", [1] * SITES)):
            with masters(tools, folder, ini, groups) as pids:
                before = spent_s(pids)
                time.sleep(WATCHED_S)
                used = (spent_s(pids) - before) / WATCHED_S
                figures[name] = (sum(map(pss_bytes, pids)), used)
    own, shared = figures["own"], figures["shared"]
    each = (own[0] - shared[0]) / SITES
    row(f"one master, {SITES} pools: PSS", f"{shared[0] / 2**20:.0f} MiB", "", reached=True)
    row(f"{SITES} masters of one pool each: PSS", f"{own[0] / 2**20:.0f} MiB", "", reached=True)
    row(
        "a master of its own costs",
        f"{each / 2**20:.1f} MiB",
        f"<= {MOST_BYTES >> 20} MiB",
        reached=each <= MOST_BYTES,
    )
    row(
        "idle: share of a core",
        f"{100 * own[1]:.2f} % beside {100 * shared[1]:.2f} %",
        "<= 2 %",
        reached=own[1] <= 0.02,
    )


def modules(root: Path) -> str:
    """A php.ini with all modules that were brought; opcache at Debian's defaults."""
    folder = next(
        path.parent
        for base in (root / "usr/lib/php", Path("/usr/lib/php"))
        for path in sorted(base.glob("*/opcache.so"))
    )
    names = sorted({path.stem for path in folder.glob("*.so")} - {"opcache"})
    names.sort(key=lambda name: LATER.index(name) if name in LATER else len(LATER))
    loaded = "".join(f"extension={name}\n" for name in names)
    return f"extension_dir={folder}\nzend_extension=opcache\n{loaded}"


@contextlib.contextmanager
def masters(tools: Tools, folder: Path, ini: Path, groups: list[int]) -> Iterator[list[int]]:
    """Masters with that many pools each, started and idle; ended afterwards."""
    place = folder / f"{len(groups)}"
    place.mkdir()
    number, processes = 0, []
    try:
        for n, count in enumerate(groups):
            pools = "".join(pool(place, number + k) for k in range(count))
            number += count
            path = place / f"{n}.conf"
            path.write_text(f"[global]\nerror_log = {place}/log\n{pools}")
            processes.append(start(tools, ini, path, place))
        await_sockets(place, number)
        time.sleep(SETTLE_S)
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=READY_S)
        shutil.rmtree(place)


def pool(place: Path, number: int) -> str:
    who = "user = nobody\ngroup = nogroup\n" if os.geteuid() == 0 else ""
    return (
        f"[site{number}]\n{who}listen = {place}/{number}.sock\n"
        "pm = ondemand\npm.max_children = 8\npm.process_idle_timeout = 10s\n"
    )


def start(tools: Tools, ini: Path, main: Path, place: Path) -> subprocess.Popen[bytes]:
    command = (
        *(str(tools.path(PROGRAM)), "-c", str(ini)),
        *("--nodaemonize", "--fpm-config", str(main)),
    )
    with (place / "log").open("ab") as log:
        env = {**tools.env(), "PHP_INI_SCAN_DIR": ""}  # the modules that are named, no others
        return subprocess.Popen(command, env=env, stdout=log, stderr=log)


def await_sockets(place: Path, count: int) -> None:
    deadline = time.monotonic() + READY_S
    while len(list(place.glob("*.sock"))) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"php-fpm is not ready: {(place / 'log').read_text()[-500:]}")
        time.sleep(0.1)


def pss_bytes(pid: int) -> int:
    """Source: proc_pid_smaps(5), smaps_rollup."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0


def spent_s(pids: list[int]) -> float:
    """CPU time of these processes so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * TICK_S
