"""What stands beside a penalty: the site's busiest processes, without a word that could name a visitor (rule R16).

Kept for 14 days in files of their own, then deleted: what is not there can't be seized or leaked.
"""

import os
import pwd
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from agent.layout.attached import Attached
from agent.ports import DriverError
from agent.usage.processes import PAGE_BYTES, TICK_S
from fleet.caps import Evidence, Process
from fleet.model import SiteId

KEEP_S = 14 * 86_400.0
FILES_MAX = 2000  # some 4 kB each: a host that penalizes a hundred times a day for a fortnight
LOOK_S = 0.4  # between two looks, which make a rate; well within the 2 s that evidence may take
PROCESSES_MAX = 4000  # looked at: a fork bomb has no more to tell than that it is one
TOLD = 10
STAT_FIELDS = 52  # of /proc/PID/stat: proc(5)


def processes(attached: Attached | None, proc: Path = Path("/proc")) -> tuple[Process, ...]:
    """The busiest processes of a site, by CPU then memory; blocks for LOOK_S. Empty where none is its own alone."""
    if attached is None:
        return ()
    before = _looks(attached, proc)
    began = time.monotonic()
    time.sleep(LOOK_S)
    passed_s = time.monotonic() - began
    found = [
        Process(
            pid=pid,
            user=_user(uid),
            command=command,
            cpu_cores=round(max(0, ticks - before[pid][1]) * TICK_S / passed_s, 3)
            if pid in before
            else 0.0,
            memory_bytes=memory,
        )
        for pid, (uid, ticks, memory, command) in _looks(attached, proc).items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.cpu_cores, -one.memory_bytes))[:TOLD])


def _looks(attached: Attached, proc: Path) -> dict[int, tuple[int, int, int, str]]:
    """pid -> uid, CPU ticks, memory, command."""
    found = {}
    for pid in _pids(attached, proc):
        with suppress(OSError, ValueError, IndexError):  # it has ended
            found[pid] = _look(proc / str(pid))
        if len(found) >= PROCESSES_MAX:
            break
    return found


def _pids(attached: Attached, proc: Path) -> Iterator[int]:
    if attached.cgroups:
        for folder in attached.cgroups:
            yield from _members(folder)
        return
    uids = frozenset(attached.uids)
    for name in os.listdir(proc) if uids else ():
        with suppress(OSError):
            if name.isdigit() and (proc / name).stat().st_uid in uids:
                yield int(name)


def _members(cgroup: Path) -> Iterator[int]:
    for folder, _, _ in os.walk(cgroup):
        with suppress(OSError, ValueError):
            yield from map(int, Path(folder, "cgroup.procs").read_text().split())


def _look(folder: Path) -> tuple[int, int, int, str]:
    """Raises OSError, ValueError, IndexError. The command is the program's name: arguments and titles are not read."""
    stat = (folder / "stat").read_text(errors="replace")
    name, fields = (
        stat[stat.index("(") + 1 : stat.rindex(")")],
        stat[stat.rindex(")") + 2 :].split(),
    )
    memory = int(fields[21]) * PAGE_BYTES
    with suppress(OSError):
        name = Path(os.readlink(folder / "exe")).name
    command = "".join(letter if letter.isprintable() else "?" for letter in name)[:200]
    return folder.stat().st_uid, int(fields[11]) + int(fields[12]), memory, command


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name[:64]
    except KeyError:
        return str(uid)


class Shelf:
    """The files of evidence under `folder`. Every call blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, evidence: Evidence) -> None:
        """Raises DriverError."""
        path = self._folder / f"{evidence.at:.0f}-{evidence.site}.json"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.encode(evidence))
        except OSError as error:
            raise DriverError(f"can't keep the evidence at {path}: {error}") from error

    def of(self, sites: Iterable[SiteId], since: float) -> tuple[Evidence, ...]:
        """The newest of each of `sites`, not older than `since` (Unix s), oldest first; what can't be read is none."""
        found: dict[str, Evidence] = {}
        wanted = set(sites)
        for at, site, path in self._files():
            if site in wanted and at >= since:
                with suppress(OSError, ValueError):
                    found[site] = msgspec.json.decode(path.read_bytes(), type=Evidence)
        return tuple(sorted(found.values(), key=lambda one: one.at))

    def clear(self, now: float) -> int:
        """Delete what is older than KEEP_S at `now` (Unix s), and the oldest beyond FILES_MAX; gives how many."""
        files = self._files()
        old = [path for at, _, path in files if now - at > KEEP_S]
        old += [path for _, _, path in files[len(old) : max(len(old), len(files) - FILES_MAX)]]
        for path in old:
            with suppress(OSError):
                path.unlink()
        return len(old)

    def _files(self) -> list[tuple[float, str, Path]]:
        """Oldest first: when, of which site, where."""
        found = []
        with suppress(OSError):
            for path in self._folder.glob("*.json"):
                at, _, site = path.stem.partition("-")
                if at.isdigit():
                    found.append((float(at), site, path))
        return sorted(found)
