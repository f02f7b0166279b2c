"""What is mounted where. Source: proc_pid_mountinfo(5)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNTS = "proc/1/mountinfo"  # the machine's: a confined agent has mounts of its own

_ESCAPED = re.compile(r"\\([0-7]{3})")
_NO_FILES = {"tmpfs", "ramfs", "autofs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """A file system at one place: its number, `kind` and `source` as mountinfo has them."""

    place: Path
    number: str
    kind: str
    source: str
    read_only: bool = False

    @property
    def is_elsewhere(self) -> bool:
        """Whether what is written there is no disk's: memory, or what is not mounted before it is used."""
        return self.kind in _NO_FILES


def mounted(mountinfo: str) -> Iterator[Mounted]:
    """In its order: of what is mounted twice at one place the last counts."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) >= 6 and len(rest) >= 2:
            yield Mounted(
                place=Path(_unescaped(fields[4])),
                number=fields[2],
                kind=rest[0],
                source=_unescaped(rest[1]),
                read_only="ro" in fields[5].split(","),
            )


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
