"""What sites keep on disk, and what their host's file systems let them keep: by Unix user, as the kernel counts."""

from typing import Annotated

import msgspec
from msgspec import Meta

from fleet.model import Caps, Count, Why

UNIT_BYTES = 64 << 10  # XFS counts limits in its blocks, which are no larger
RATIO_MAX = 1e9  # of an agent's word; more is no disk
HARD_RATIO = 1.1  # what may be kept for the grace that its file system gives


class Quota(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one Unix user may keep on one file system; None: no limit.

    At the hard limits the kernel refuses to write; over the others once the grace is over. Source: quotactl(2).
    """

    disk_bytes: Count | None = None
    disk_hard_bytes: Count | None = None
    inodes: Count | None = None
    inodes_hard: Count | None = None


NO_QUOTA = Quota()


class DiskUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a site's users keep on disk; None: nobody counts it, which is not zero.

    `shared`: other sites have a user of it too, and their files are counted in. Of the user who is nearest to what
    plans allow: `ratio`, how much of that is kept, of bytes or of inodes, whichever is more (1 is all); `wanted` and
    `held`; nothing is wanted in shadow, and where nothing can be held. `because`: why, by field of Quota.
    """

    used_bytes: Count | None = None
    used_inodes: Count | None = None
    shared: bool = False
    ratio: Annotated[float, Meta(ge=0, le=RATIO_MAX)] | None = None
    wanted: Quota | None = None
    held: Quota | None = None
    because: dict[str, Why] = {}


def quota(disk_bytes: int, inodes: int) -> Quota:
    """What plans that allow so much mean to a file system."""
    return Quota(
        disk_bytes=_units(disk_bytes),
        disk_hard_bytes=_units(disk_bytes * HARD_RATIO),
        inodes=inodes,
        inodes_hard=int(inodes * HARD_RATIO),
    )


def quota_of(caps: Caps) -> Quota:
    """Of a plan by itself."""
    return quota(caps.disk_bytes, caps.inodes)


def _units(size_bytes: float) -> int:
    """Whole units, and one at least: none is no limit to a kernel."""
    return max(1, int(size_bytes) // UNIT_BYTES) * UNIT_BYTES
