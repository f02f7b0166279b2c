"""A host's files, read within bounds: nothing is written, no file that would hang or never end is opened."""

import errno
import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Protocol

from agent.discover.found import Doubt

FILE_LIMIT_BYTES = 4 << 20  # the largest passwd or map of a hosting server is well below
FILES_LIMIT = 50_000  # 300 sites make some 2,000
FOLDER_LIMIT = 20_000
LINKS_LIMIT = 40  # as the kernel's own. Source: path_resolution(7)
MAGIC = frozenset("*?[")


class Files(Protocol):
    """What the readers of configuration need. Paths are absolute, as the host itself says them."""

    def read(self, path: str) -> str | None:
        """The text; None where there is none, or it can't be read, which is then told."""

    def glob(self, pattern: str) -> tuple[str, ...]:
        """The files that `pattern` names, sorted; empty where there are none."""

    def is_folder(self, path: str) -> bool: ...

    def exists(self, path: str) -> bool: ...


class HostFiles:
    """The files below `root`, where the host's `/` is. What could not be read is in `doubts`, each once."""

    def __init__(self, root: str = "/") -> None:
        self._root = root.rstrip("/")
        self._unread: dict[str, str] = {}
        self._opened = 0

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        return tuple(Doubt(about=path, what=what) for path, what in self._unread.items())

    @property
    def refused(self) -> int:
        """How many files and folders this user may not read."""
        return sum(what.endswith(os.strerror(errno.EACCES)) for what in self._unread.values())

    def read(self, path: str, limit_bytes: int | None = None) -> str | None:
        try:
            raw = self._bytes(self._real(path), limit_bytes or FILE_LIMIT_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            self._tell(path, error)
            return None
        # Bytes that are no UTF-8, such as Latin-1 in a comment, must not hide the rest.
        return raw.decode(errors="surrogateescape")

    def _bytes(self, path: str, limit_bytes: int) -> bytes:
        self._opened += 1
        if self._opened > FILES_LIMIT:
            raise ValueError(f"more than {FILES_LIMIT} files were named: the rest is not read")
        # Members place links: to a pipe that holds whoever opens it, to a device that acts when it is opened.
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(place).st_mode):
                raise ValueError("is not an ordinary file")
            file = _open(f"/proc/self/fd/{place}")
        finally:
            os.close(place)
        with os.fdopen(file, "rb", buffering=0) as opened:
            raw = b""
            while more := opened.read(limit_bytes + 1 - len(raw)):
                raw += more
        if len(raw) > limit_bytes:
            raise ValueError(f"is larger than {limit_bytes} bytes")
        return raw

    def glob(self, pattern: str) -> tuple[str, ...]:
        found = [""]
        for part in PurePosixPath(pattern).parts[1:]:
            if MAGIC & set(part):
                found = [
                    f"{folder}/{name}" for folder in found for name in self._match(folder, part)
                ]
            else:
                found = [f"{folder}/{part}" for folder in found]
            if len(found) > FILES_LIMIT:
                self._unread[pattern] = f"names more than {FILES_LIMIT} files: the rest is not read"
                found = found[:FILES_LIMIT]
        return tuple(path for path in found if self.exists(path))

    def _match(self, folder: str, pattern: str) -> Iterator[str]:
        for name in self.names(folder or "/"):
            if fnmatchcase(name, pattern) and name.startswith(".") <= pattern.startswith("."):
                yield name

    def names(self, folder: str) -> tuple[str, ...]:
        """What lies in `folder`, sorted; empty where it is none, or can't be read, which is then told."""
        try:
            with os.scandir(self._real(folder)) as entries:
                names = [
                    entry.name for entry, _ in zip(entries, range(FOLDER_LIMIT + 1), strict=False)
                ]
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except (OSError, ValueError) as error:
            self._tell(folder, error)
            return ()
        if len(names) > FOLDER_LIMIT:
            self._unread[folder] = f"holds more than {FOLDER_LIMIT} files: the rest is not read"
        return tuple(sorted(names[:FOLDER_LIMIT]))

    def is_folder(self, path: str) -> bool:
        seen = self._stat(path)
        return seen is not None and stat.S_ISDIR(seen.st_mode)

    def exists(self, path: str) -> bool:
        return self._stat(path) is not None

    def stamp(self, path: str) -> tuple[int, int, int] | None:
        """What changes when `path` does: its inode, its size, the ns of its last change; None where there is none."""
        seen = self._stat(path)
        return (seen.st_ino, seen.st_size, seen.st_mtime_ns) if seen else None

    def real(self, path: str) -> str:
        """Where `path` leads, its links followed, as the host itself would say it."""
        try:
            if self._root:
                return self._real(path).removeprefix(self._root)
            return os.path.realpath(path)
        except (OSError, ValueError) as error:
            self._tell(path, error)
            return path

    def owner(self, path: str) -> int | None:
        """The numeric id of the user whom `path` belongs to."""
        seen = self._stat(path)
        return seen.st_uid if seen else None

    def _stat(self, path: str) -> os.stat_result | None:
        try:
            return os.stat(self._real(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            self._tell(path, error)
            return None

    def _real(self, path: str) -> str:
        """Where `path` is on this machine: its links followed as the host itself would. Raises OSError, ValueError."""
        if not self._root:
            return path
        todo, done, links = list(PurePosixPath(path).parts[::-1]), "", 0
        while todo:
            part = todo.pop()
            if part in {"/", "//", "."}:
                continue
            if part == "..":
                done = done.rpartition("/")[0]
                continue
            try:
                target = os.readlink(f"{self._root}{done}/{part}")
            except OSError:  # no link, or nothing there: the caller's own call tells
                done += f"/{part}"
                continue
            links += 1
            if links > LINKS_LIMIT:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            done = "" if target.startswith("/") else done
            todo += PurePosixPath(target).parts[::-1]
        return f"{self._root}{done}" or "/"

    def _tell(self, path: str, error: Exception) -> None:
        said = error.strerror if isinstance(error, OSError) else str(error)
        self._unread.setdefault(path, f"can't be read: {said}")


def _open(path: str) -> int:
    """Without a trace in the file's time of access, where this user may choose."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
