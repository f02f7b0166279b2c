"""Whether a package run is under way: dpkg and apt hold POSIX locks, and asking who holds them takes none."""

import fcntl
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from runtime import log

# struct flock, with the compiler's own padding: type, whence, start, length, pid. Source: fcntl(2), F_GETLK.
FLOCK = "hhqqi"

_log = log.logger("packages")


def locked(path: Path) -> bool:
    """Whether some process holds a lock on `path`; a missing file is held by nobody. Raises OSError."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_ = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    finally:
        os.close(file)
    return bool(kind != fcntl.F_UNLCK)


class PackageSense:
    """Package runs by their lock files. A lock that can't be asked for is logged once, and is none."""

    def __init__(self, locks: Iterable[Path]) -> None:
        self._locks = tuple(locks)
        self._failing: set[Path] = set()

    def running(self) -> bool:
        return any(self._held(lock) for lock in self._locks)

    def _held(self, lock: Path) -> bool:
        try:
            return locked(lock)
        except OSError as error:
            if lock not in self._failing:
                _log.warning("can't see package runs", lock=str(lock), error=str(error))
            self._failing.add(lock)
            return False
