"""On which file system a path is, and whether its kind can hold users to a quota.

Source: quotactl(2).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.caps.devices import real
from agent.caps.mountinfo import MOUNTS, mounted
from fleet.model import Why

EXT = frozenset({"ext2", "ext3", "ext4"})
# Their quota of users is asked for by the calls that ours are. btrfs and ZFS count otherwise, with words of their own.
KINDS = EXT | {"xfs", "f2fs", "jfs", "reiserfs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A file system at the first place where it can be written; `source`: what it lies on, as mount(8) has it."""

    place: str
    kind: str
    source: str

    @property
    def has_quota(self) -> bool:
        """Whether there is any for this kind of file system."""
        return self.kind in KINDS


def mounts(paths: Iterable[Path], root: Path = Path("/")) -> dict[Path, Mount]:
    """By path, links followed; a path that is not there counts where it would be.

    Raises OSError.
    """
    known = [*mounted((root / MOUNTS).read_text())]
    at = {each.place: each.number for each in known}
    first: dict[str, Mount] = {}
    for each in sorted(known, key=lambda each: (each.read_only, len(each.place.parts))):
        if at[each.place] == each.number:
            mount = Mount(place=str(each.place), kind=each.kind, source=each.source)
            first.setdefault(each.number, mount)
    return {path: found for path in paths if (found := _mount_of(real(path, root), at, first))}


def _mount_of(path: Path, at: Mapping[Path, str], first: Mapping[str, Mount]) -> Mount | None:
    place = next((each for each in (path, *path.parents) if each in at), None)
    return first.get(at[place]) if place else None


def unheld(mount: Mount, state: str) -> Why | None:
    """Why this file system holds nobody, and the remedy; None: it does. `state` as `quotactl.Kernel` says it."""
    if state == "enforced":
        return None
    if not mount.has_quota:
        return Why("quota-kind", {"mount": mount.place, "kind": mount.kind})
    if state not in ("off", "counted"):
        return Why("quota-unseen", {"mount": mount.place, "error": state})
    values: dict[str, str | int | float] = {
        "mount": mount.place,
        "kind": mount.kind,
        "source": mount.source,
    }
    if mount.place == "/":
        return Why("quota-root", values)
    if mount.kind not in EXT:
        return Why("quota-mount", values)
    return Why("quota-counted", values) if state == "counted" else Why("quota-off", values)
