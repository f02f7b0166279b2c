"""The programs of each machine: started and restarted as systemd would, and what faults do to them."""

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from deploy.demo.lab import Machine
from deploy.demo.network import is_alive

FOLDER = "relevo-demo-"
RESTART_S = 0.1  # systemd's default RestartSec
QUICK_ENDS = 10  # as many ends within 10 s are no accident; systemd's default is 5
QUICK_S = 10.0
STOP_S = 3.0
POLL_S = 0.02
LOG_TAIL_BYTES = 600


class Ended(Exception):
    """A program that should live has ended; the message has its last words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program of a machine. It starts when the file `needs` is there; `restart`: again whenever it ends.

    `stop`: the signal that asks it to end in good order.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    needs: Path | None = None
    restart: bool = False
    stop: signal.Signals = signal.SIGTERM


Attendant = Callable[[], Coroutine[None, None, None]]


class Power:
    """One machine: off, on or frozen, with all its programs. Each program leads a process group of its own."""

    def __init__(
        self,
        machine: Machine,
        programs: tuple[Program, ...],
        *,
        prefix: tuple[str, ...],
        directory: Path,
        group: asyncio.TaskGroup,
        attendants: tuple[Attendant, ...] = (),
    ) -> None:
        """`attendants` are what we do for the machine while it is on; a power cut ends them too."""
        self.machine, self.directory = machine, directory
        self._programs, self._prefix, self._group = programs, prefix, group
        self._attendants = attendants
        self._keepers: list[asyncio.Task[None]] = []
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._frozen = self._halting = False

    @property
    def is_on(self) -> bool:
        return bool(self._keepers)

    @property
    def is_frozen(self) -> bool:
        return self._frozen

    def start(self) -> None:
        """Power on. Idempotent."""
        if not self._keepers:
            work = (
                *(attend() for attend in self._attendants),
                *(self._keep(program) for program in self._programs),
            )
            self._keepers = [self._group.create_task(one) for one in work]

    def kill(self) -> None:
        """Every process of the machine ends in this instant, as when its power fails. Idempotent."""
        for process in self._running.values():
            _signal_group(process.pid, signal.SIGKILL)
        self._off()

    def freeze(self) -> None:
        self._frozen = True
        for process in self._running.values():
            _signal_group(process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        self._frozen = False
        for process in self._running.values():
            _signal_group(process.pid, signal.SIGCONT)

    def signal(self, program: str, number: signal.Signals) -> int:
        """Send `number` to that program's first process alone; gives its pid. Raises KeyError where it does not run."""
        process = self._running[program]
        process.send_signal(number)
        return process.pid

    def pid(self, program: str) -> int | None:
        """The first process of `program`, while it runs."""
        process = self._running.get(program)
        return process.pid if process else None

    async def halt(self) -> None:
        """Ask every program to end, as systemd does at a shutdown; kill what is left after `STOP_S`."""
        self._halting = True
        for keeper in self._keepers:
            keeper.cancel()
        for program in self._programs:
            if process := self._running.get(program.name):
                _signal_group(process.pid, program.stop)
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=STOP_S)
        self.kill()

    def _off(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        self._keepers, self._frozen, self._halting = [], False, False

    async def _keep(self, program: Program) -> None:
        """Start `program`, again and again if it is to live. Raises Ended."""
        now = asyncio.get_running_loop().time
        ends: deque[float] = deque(maxlen=QUICK_ENDS)
        while True:
            while program.needs and not program.needs.exists():  # noqa: ASYNC110 - files have no event
                await asyncio.sleep(POLL_S)
            status = await self._run(program)
            ends.append(now())
            tries_too_often = len(ends) == QUICK_ENDS and ends[-1] - ends[0] < QUICK_S
            if not program.restart or tries_too_often:
                raise Ended(self._obituary(program, status))
            await asyncio.sleep(RESTART_S)

    async def _run(self, program: Program) -> int:
        with self.log(program.name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                # Should the demo be killed, the kernel ends what it started. Source: prctl(2).
                *("setpriv", "--pdeathsig", "KILL", "--", *self._prefix, *program.command),
                env={**os.environ, **program.env},
                cwd=self.directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running[program.name] = process
        try:
            return await process.wait()
        except asyncio.CancelledError:
            if not self._halting:
                _signal_group(process.pid, signal.SIGKILL)
            await process.wait()
            raise
        finally:
            _signal_group(process.pid, signal.SIGKILL)  # its children, should any be left
            self._running.pop(program.name, None)

    def log(self, program: str) -> Path:
        return self.directory / f"{program}.log"

    def _obituary(self, program: Program, status: int) -> str:
        log = self.log(program.name)
        said = log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        return (
            f"{program.name} on {self.machine.name} ended with status {status}; {log} ends:\n{said}"
        )


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


@contextmanager
def folder() -> Iterator[Path]:
    """A private folder for everything the demo writes, gone at the end with every process that lives in it."""
    path = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-"))
    try:
        yield path
    finally:
        remove(path)


def remove(path: Path) -> None:
    """End every process whose working directory is in `path`, and remove it."""
    _end_all_in(path)
    shutil.rmtree(path, ignore_errors=True)
    # What was between fork and chdir at the first look has either arrived by now or finds no folder.
    _end_all_in(path)


def _end_all_in(path: Path) -> None:
    end = time.monotonic() + STOP_S
    while own := [process for process in psutil.process_iter() if _lives_in(process, path)]:
        for process in own:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(own, timeout=STOP_S)
        if time.monotonic() > end:
            return


def _lives_in(process: psutil.Process, path: Path) -> bool:
    # nginx overwrites its environment with its title: the working directory is what every program keeps.
    with suppress(psutil.Error, OSError):
        return process.pid != os.getpid() and Path(process.cwd()).is_relative_to(path)
    return False


def keep_logs(path: Path, kept: Path) -> None:
    """Copy every log below `path` to the folder `kept`, in place of what was there."""
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for log in path.glob("*/*.log"):
        shutil.copy(log, kept / f"{log.parent.name}-{log.name}")


def remove_stale() -> None:
    """Remove what killed demos of this user left: their folders, and the processes that live in them."""
    for path in Path(tempfile.gettempdir()).glob(f"{FOLDER}*-*"):
        pid = path.name.removeprefix(FOLDER).partition("-")[0]
        ours = path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.geteuid()
        if ours and pid.isdigit() and not is_alive(int(pid)):
            remove(path)
