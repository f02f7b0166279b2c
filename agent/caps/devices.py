"""From a path to the physical disks under it: through partitions, LVM, dm-crypt and md, whatever lies between.

systemd resolves one step and gives up at RAID and volumes; a limit on a volume's own number holds nothing at all.
Source: kernel, admin-guide/devices and ABI/stable/sysfs-block; proc_pid_mountinfo(5).
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

# No stack of volumes is deeper; a sysfs that says so is not followed for ever.
DEEPEST = 16
ESCAPED = re.compile(r"\\([0-7]{3})")
DRIVES_NOTHING = {"loop", "ram", "zram"}  # memory, or a file on a disk that is held already


def disks(paths: Iterable[Path], root: Path = Path("/")) -> tuple[str, ...]:
    """The disks that hold `paths`, as "major:minor", sorted. A path that is not there counts where it would be.

    What is mounted below a path counts too; below "/" it does not: not every disk of a machine is its sites'.
    Mounts are those that the machine's first process sees: a confined agent sees other ones. Raises OSError if
    there is no telling which.
    """
    mounted = dict(_mounts((root / "proc/1/mountinfo").read_text()))
    found: set[str] = set()
    for path in paths:
        below = (place for place in mounted if path in place.parents and path != Path("/"))
        for place in (path, *below):
            for number in _numbers(mounted, place, root):
                found |= _physical(root / "sys/dev/block", number)
    return tuple(sorted(found, key=lambda number: [int(part) for part in number.split(":")]))


def scheduled_fairly(device: str, root: Path = Path("/")) -> bool:
    """Whether weights of I/O mean something on this disk: under BFQ, or with iocost switched on."""
    disk = root / "sys/dev/block" / device
    scheduler = _read(disk / "queue/scheduler")
    if "[bfq]" in scheduler:
        return True
    lines = _read(root / "sys/fs/cgroup/io.cost.qos").splitlines()
    return any(line.startswith(f"{device} ") and "enable=1" in line for line in lines)


def _mounts(mountinfo: str) -> Iterator[tuple[Path, tuple[str, str]]]:
    """Where, and by which number and source; of what is mounted twice at one place the last counts."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, source = before.split(), after.split()
        if len(fields) >= 5 and len(source) >= 2:
            yield Path(_unescaped(fields[4])), (fields[2], _unescaped(source[1]))


def _unescaped(text: str) -> str:
    return ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


def _numbers(mounted: dict[Path, tuple[str, str]], path: Path, root: Path) -> Iterator[str]:
    """The block device that `path` is on. btrfs and ZFS show a number of their own: their source is asked instead."""
    for place in (path, *path.parents):
        if place in mounted:
            number, source = mounted[place]
            if not number.startswith("0:"):
                yield number
            elif source.startswith("/dev/"):
                name = Path(source).name
                if number := _read(root / "sys/class/block" / name / "dev"):
                    yield number
                else:  # /dev/mapper's names are not the kernel's
                    yield from _by_name(root / "sys/class/block", name)
            return


def _by_name(blocks: Path, name: str) -> Iterator[str]:
    for block in blocks.glob("dm-*"):
        if _read(block / "dm/name") == name:
            yield _read(block / "dev")


def _physical(blocks: Path, number: str, depth: int = 0) -> set[str]:
    device = (blocks / number).resolve()
    if depth > DEEPEST or not device.is_dir():
        return set()
    if (device / "partition").exists():
        return _physical(blocks, _read(device.parent / "dev"), depth + 1)
    if slaves := [*(device / "slaves").glob("*")]:
        below = (_read(slave / "dev") for slave in slaves)
        return set[str]().union(*(_physical(blocks, each, depth + 1) for each in below))
    return set() if device.name.rstrip("0123456789") in DRIVES_NOTHING else {number}


def _read(path: Path) -> str:
    """Without its line end; empty where it can't be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
