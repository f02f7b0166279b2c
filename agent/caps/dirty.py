"""How much of what this host writes may wait in memory for its disks: what limits of I/O need beside them.

A site that is held to its plan's I/O writes on into memory, and its disk gets all of that in one go, at the plan's
pace. On ext4 whoever saves something meanwhile waits for it: what a file got new blocks for is written out before the
journal that all files share goes on (`data=ordered`). So little may wait. The kernel divides this bound by memory: a
site with a sixteenth of the host's gets a sixteenth. Sources: ext4(5), Documentation/admin-guide/sysctl/vm.rst.
"""

from pathlib import Path

from fleet.model import Why

FOLDER = "proc/sys/vm"
# What a disk of 250 MB/s, an ordinary one, writes in a quarter of a second, and in one.
BACKGROUND_BYTES, MOST_BYTES = 64 << 20, 256 << 20


def unbounded(root: Path) -> Why | None:
    """Whether only the kernel's own share of memory bounds it, with the remedy; an admin's bytes are an admin's."""
    folder = root / FOLDER
    try:
        if int((folder / "dirty_background_bytes").read_text()):
            return None
        percent = int((folder / "dirty_background_ratio").read_text())
    except (OSError, ValueError):
        return None  # files of another host, or no Linux that we know: nothing to be said
    return Why(
        "dirty-ratio",
        {"percent": percent, "background": BACKGROUND_BYTES, "most": MOST_BYTES},
    )
