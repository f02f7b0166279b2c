"""A made-up cgroup v2 tree of real files, and a /proc beside it, for whatever reads them.

What it can't be: a kernel. A removed cgroup's held files are emptied here, where the kernel would answer ENODEV.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

MEMORY_STAT = """\
anon {anon}
file {file}
kernel 2293760
kernel_stack 131072
pagetables 720896
sec_pagetables 0
percpu 24480
sock 0
vmalloc 0
shmem 0
zswap 0
zswapped 0
file_mapped 0
file_dirty 0
file_writeback 0
swapcached 0
anon_thp 0
inactive_anon 0
active_anon {anon}
inactive_file {file}
active_file 0
unevictable 0
slab_reclaimable 0
slab_unreclaimable 1048576
slab 1048576
workingset_refault_anon 0
workingset_refault_file 0
workingset_activate_anon 0
workingset_activate_file 0
workingset_restore_anon 0
workingset_restore_file 0
workingset_nodereclaim 0
pgscan {pgscan}
pgsteal {pgsteal}
pgscan_kswapd 0
pgscan_direct {pgscan}
pgsteal_kswapd 0
pgsteal_direct {pgsteal}
pgfault 90000
pgmajfault 12
pgrefill 0
pgactivate 0
pgdeactivate 0
pglazyfree 0
pglazyfreed 0
thp_fault_alloc 0
thp_collapse_alloc 0
"""


@dataclass(frozen=True, kw_only=True)
class State:
    """What one cgroup says; totals in µs. `io` by device: read bytes, written bytes, reads, writes."""

    cpu_us: int = 0
    throttled_us: int = 0
    memory: int = 64 << 20
    anon: int = 48 << 20
    file: int = 8 << 20
    swap: int = 0
    tasks: int = 4
    tasks_max: int | None = None
    cpu_wait_us: int = 0
    memory_wait_us: int = 0
    io_wait_us: int = 0
    pgscan: int = 0
    pgsteal: int = 0
    io: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    tasks_refused: int = 0
    high: int = 0
    max: int = 0
    oom: int = 0
    oom_kill: int = 0
    throttled: int = 0

    def files(self) -> dict[str, str]:
        return {
            "cpu.stat": (
                f"usage_usec {self.cpu_us}\nuser_usec {self.cpu_us}\nsystem_usec 0\n"
                f"nr_periods 0\nnr_throttled {self.throttled}\nthrottled_usec {self.throttled_us}\n"
                "nr_bursts 0\nburst_usec 0\n"
            ),
            "memory.current": f"{self.memory}\n",
            "memory.swap.current": f"{self.swap}\n",
            "pids.current": f"{self.tasks}\n",
            "pids.max": f"{'max' if self.tasks_max is None else self.tasks_max}\n",
            "cpu.pressure": pressure(self.cpu_wait_us, 0),
            "memory.pressure": pressure(self.memory_wait_us * 2, self.memory_wait_us),
            "io.pressure": pressure(self.io_wait_us * 2, self.io_wait_us),
            "memory.stat": MEMORY_STAT.format(
                anon=self.anon, file=self.file, pgscan=self.pgscan, pgsteal=self.pgsteal
            ),
            "memory.events": (
                f"low 0\nhigh {self.high}\nmax {self.max}\noom {self.oom}\n"
                f"oom_kill {self.oom_kill}\noom_group_kill 0\n"
            ),
            "pids.events": f"max {self.tasks_refused}\n",
            "io.stat": "".join(
                f"{device} rbytes={r} wbytes={w} rios={rn} wios={wn} dbytes=0 dios=0\n"
                for device, (r, w, rn, wn) in self.io.items()
            ),
        }


def pressure(some_us: int, full_us: int) -> str:
    return (
        f"some avg10=0.00 avg60=0.00 avg300=0.00 total={some_us}\n"
        f"full avg10=0.00 avg60=0.00 avg300=0.00 total={full_us}\n"
    )


class Tree:
    """Cgroups under `root`, and the host's own files under `proc`."""

    def __init__(self, root: Path, *, memory_bytes: int = 64 << 30) -> None:
        self.root, self.proc, self.sys = root / "cgroup", root / "proc", root / "sys"
        self._states: dict[str, State] = {}
        self._stalls = {"cpu": 0, "memory": 0, "io": 0}
        self._memory_bytes = memory_bytes
        for folder in (self.root, self.proc / "pressure", self.sys / "dev/block"):
            folder.mkdir(parents=True)
        self.host()

    def put(self, name: str, state: State) -> Path:
        """Make the cgroup `name`, or change what it says; gives its directory."""
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        was = self._states.get(name)
        before = was.files() if was else {}
        for file, text in state.files().items():
            if before.get(file) != text:
                (folder / file).write_text(text)
        self._states[name] = state
        return folder

    def change(self, name: str, **values: object) -> None:
        """As `put`, for some fields."""
        self.put(name, replace(self._states[name], **values))  # type: ignore[arg-type]

    def lacks(self, name: str, *files: str) -> None:
        """The controller of `files` is switched off there."""
        for file in files:
            (self.root / name / file).unlink()

    def remove(self, name: str) -> None:
        """The unit has ended."""
        folder = self.root / name
        for file in folder.iterdir():
            file.write_text("")
            file.unlink()
        folder.rmdir()
        del self._states[name]

    def host(
        self,
        *,
        cpu: int = 0,
        memory: int = 0,
        io: int = 0,
        forks: int = 1000,
        available: float = 0.5,
        busy_ticks: int = 6,
        disks: str = "",
    ) -> None:
        """What the host says: stalls as totals in µs, and the share of its memory that is available."""
        (self.proc / "diskstats").write_text(disks)
        for resource, total in (("cpu", cpu), ("memory", memory), ("io", io)):
            text = pressure(total, 0) if resource == "cpu" else pressure(total * 2, total)
            (self.proc / "pressure" / resource).write_text(text)
        (self.proc / "stat").write_text(
            f"cpu  {busy_ticks - 5} 2 3 4 5 0 0 0 0 0\ncpu0 1 2 3 4\nintr 5\nprocesses {forks}\nprocs_running 1\n"
        )
        total_kb = self._memory_bytes >> 10
        (self.proc / "meminfo").write_text(
            f"MemTotal:       {total_kb} kB\nMemFree: 1 kB\n"
            f"MemAvailable:   {int(total_kb * available)} kB\nSwapTotal:      1048576 kB\n"
        )

    def device(
        self, number: str, *, over: tuple[str, ...] = (), is_partition: bool = False
    ) -> None:
        """A block device; `over`: those that it is built on."""
        slaves = self.sys / "dev/block" / number / "slaves"
        slaves.mkdir(parents=True, exist_ok=True)
        for name in over:
            (slaves / name).touch()
        if is_partition:
            (slaves.parent / "partition").write_text("1\n")

    def process(
        self,
        pid: int,
        *,
        command: str = "php-fpm8.2",
        parent: int = 1,
        cpu_ticks: int = 0,
        begun: int = 1000,
        threads: int = 1,
        pages: int = 5000,
        shared: int = 1000,
    ) -> Path:
        """A process of this test's own user: no folder can be given away without root."""
        folder = self.proc / str(pid)
        folder.mkdir(exist_ok=True)
        before = f"S {parent} 1 1 0 -1 4194624 0 0 0 0"
        (folder / "stat").write_text(
            f"{pid} ({command}) {before} {cpu_ticks} 0 0 0 20 0 {threads} 0 {begun} 999 {pages}\n"
        )
        (folder / "statm").write_text(f"20000 {pages} {shared} 1 0 9000 0\n")
        return folder

    def ended(self, pid: int) -> None:
        folder = self.proc / str(pid)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
