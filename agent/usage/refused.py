"""Forks that were refused in a cgroup and below it, on every kernel.

| kernel         | `max` of a cgroup's own `pids.events` counts           | so, of a site's slice |
|----------------|--------------------------------------------------------|-----------------------|
| 6.11 and later | how often a limit was hit, its own or one below it     | its own file is read  |
| before (6.1)   | forks refused to its own processes, by any limit       | those below are added |

A slice has no process of its own: before 6.11 its file stays at zero through any fork bomb. The two kernels are told
apart by `pids.events.local`, which came with the change. Looking below opens files, so it is done when it may pay: at
each reading of a site that is near its limit, else seldom, and never where nothing ran since.
Source: kernel, cgroup-v2.rst "PID Interface Files"; 73e75e6fc352 ("Separate semantics of pids.events").
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent.usage import kernel
from agent.usage.rates import events

SELDOM_S = 10.0
EARLY_S = 0.5  # a round that comes a little early is still the one that was meant
NEAR_RATIO = 0.8  # of its limit: caps.md D.1
WORKED_US = 10_000  # fewer than the 80 forks that fill the smallest plan take
# A user's slice has his manager, its slices and their units: four levels, and a few dozen units where many log in.
LEVELS, FOLDERS = 4, 64
READ_BYTES = 256


class Refused:
    """Of the cgroup at `path`. What is counted here only grows, though units below it come and go."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._total = 0
        self._known: dict[str, int] | None = None  # by folder, at the last look
        self._is_local: bool | None = None
        self._limit: int | None = None
        self._at = float("-inf")
        self._cpu_us = 0

    def total(
        self, own: int | None, *, at: float, tasks: int | None, cpu_us: int | None
    ) -> int | None:
        """How many were, as far as is known at `at` (monotonic s); `own`: by its own file, None: that tells nothing.

        Of what was refused before the first look nobody knows when: it does not count.
        """
        if own is None:
            return None
        if self._is_local is None:
            self._is_local = not (self._path / "pids.events.local").exists()
        if not self._is_local:
            return own
        told, known = {"": own}, self._known or {}
        if self._is_due(at, tasks, cpu_us):
            self._at, self._cpu_us = at, cpu_us or 0
            self._limit = kernel.size(_read(self._path / "pids.max"))
            told.update(self._below())
            known = {name: known[name] for name in known.keys() & told.keys()}
        if self._known is not None:  # a unit that is new has had no refusals of another time
            self._total += sum(events(known.get(name, 0), count) for name, count in told.items())
        self._known = known | told
        return self._total

    def forget(self) -> None:
        """The cgroup is gone; what takes its name begins anew."""
        self._known, self._is_local, self._total = None, None, 0
        self._at = float("-inf")

    def _is_due(self, at: float, tasks: int | None, cpu_us: int | None) -> bool:
        if self._known is None:
            return True
        if self._limit is not None and tasks is not None and tasks >= NEAR_RATIO * self._limit:
            return True
        used_us = None if cpu_us is None else cpu_us - self._cpu_us
        worked = used_us is None or used_us < 0 or used_us >= WORKED_US
        return worked and at - self._at >= SELDOM_S - EARLY_S

    def _below(self) -> Iterator[tuple[str, int]]:
        """Folder -> refused to its own processes; the nearest first, as many as FOLDERS."""
        left, level = FOLDERS, [self._path]
        for _ in range(LEVELS):
            level = [folder for above in level for folder in _folders(above)][:left]
            left -= len(level)
            for folder in level:
                count = kernel.tasks_refused(_read(folder / "pids.events"))
                if count is not None:
                    yield str(folder.relative_to(self._path)), count


def _folders(above: Path) -> list[Path]:
    with suppress(OSError), os.scandir(above) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    return []


def _read(path: Path) -> bytes | None:
    with suppress(OSError):
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(opened, READ_BYTES)
        finally:
            os.close(opened)
    return None
