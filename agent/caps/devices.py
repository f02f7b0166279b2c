"""From a path to the physical disks under it: through partitions, LVM, dm-crypt and md, whatever lies between.

systemd resolves one step and gives up at RAID and volumes; a limit on a volume's own number holds nothing at all.
Source: kernel, admin-guide/devices and ABI/stable/sysfs-block.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from agent.caps.mountinfo import MOUNTS, Mounted, mounted
from agent.usage.kernel import is_no_disk

# No stack of volumes is deeper; a sysfs that says so is not followed for ever.
DEEPEST = 16


def disks(paths: Collection[Path], root: Path = Path("/")) -> tuple[str, ...]:
    """The disks that hold `paths`, as "major:minor", sorted. Raises OSError if there is no telling which."""
    known = mounts((root / MOUNTS).read_text())
    places = frozenset[Path]().union(*places_of(paths, known).values())
    return in_order(each for place in places for each in under(place, known, root))


def in_order(numbers: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*numbers}, key=lambda number: [int(part) for part in number.split(":")]))


def places_of(
    paths: Collection[Path], known: Mapping[Path, Mounted]
) -> dict[Path, frozenset[Path]]:
    """Where the file systems of each of `paths` are mounted. One that is not there counts where it would be.

    What is mounted below a path counts too; below "/" it does not: not every disk of a machine is its sites'.
    """
    found: dict[Path, set[Path]] = {path: set() for path in paths}
    for path, places in found.items():
        places |= {place for place in (_holder(path, known),) if place}
    for place in known:
        for above in place.parents[:-1]:
            if above in found:
                found[above].add(place)
    return {path: frozenset(places) for path, places in found.items()}


def _holder(path: Path, known: Mapping[Path, Mounted]) -> Path | None:
    return next((place for place in (path, *path.parents) if place in known), None)


def under(place: Path, known: Mapping[Path, Mounted], root: Path = Path("/")) -> frozenset[str]:
    """The disks under what is mounted at `place`."""
    blocks = root / "sys/dev/block"
    return frozenset[str]().union(*(_physical(blocks, n) for n in _numbers(known[place], root)))


def is_diskless(place: Path, known: Mapping[Path, Mounted], root: Path = Path("/")) -> bool:
    """Whether files there are on no disk that the kernel could limit: on a network, on ZFS, in a container's layers."""
    if known[place].is_elsewhere or under(place, known, root):
        return False
    return not any(
        _drives_nothing(root / "sys/dev/block" / n) for n in _numbers(known[place], root)
    )


def real(path: Path, root: Path) -> Path:
    """Links followed, below `root`."""
    base = os.path.realpath(root)
    real = Path(os.path.realpath(root / path.relative_to("/")))
    return Path("/") / real.relative_to(base) if real.is_relative_to(base) else real


def scheduled_fairly(device: str, root: Path = Path("/")) -> bool:
    """Whether weights of I/O mean something on this disk: under BFQ, or with iocost switched on."""
    disk = root / "sys/dev/block" / device
    scheduler = _read(disk / "queue/scheduler")
    if "[bfq]" in scheduler:
        return True
    lines = _read(root / "sys/fs/cgroup/io.cost.qos").splitlines()
    return any(line.startswith(f"{device} ") and "enable=1" in line for line in lines)


def mounts(mountinfo: str) -> dict[Path, Mounted]:
    """By place."""
    return {each.place: each for each in mounted(mountinfo)}


def _numbers(mounted: Mounted, root: Path) -> Iterator[str]:
    """The block devices of a file system. btrfs shows a number of its own: its source is asked, and who is with it."""
    if not mounted.number.startswith("0:"):
        yield mounted.number
    elif mounted.source.startswith("/dev/"):
        name = Path(mounted.source).name
        one = _read(root / "sys/class/block" / name / "dev")
        # /dev/mapper's names are not the kernel's
        for number in (one,) if one else _by_name(root / "sys/class/block", name):
            yield number
            name = (root / "sys/dev/block" / number).resolve().name
            for member in (root / "sys/fs/btrfs").glob(f"*/devices/{name}"):
                yield from (_read(each / "dev") for each in member.parent.iterdir())


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
    return set() if _drives_nothing(device) else {number}


def _drives_nothing(device: Path) -> bool:
    return is_no_disk(device.resolve().name)


def _read(path: Path) -> str:
    """Without its line end; empty where it can't be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
