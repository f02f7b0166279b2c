"""What the files of one cgroup say: bytes in, counters out. None where this kernel does not tell it.

Source: kernel, Documentation/admin-guide/cgroup-v2.rst and Documentation/accounting/psi.rst.
"""

from collections.abc import Callable

import msgspec


class Brief(msgspec.Struct, frozen=True, gc=False):
    """What is read most often; times are totals in µs. A struct of msgspec, as a thousand are made each round."""

    at: float
    cpu_us: int | None = None
    throttled_us: int | None = None
    memory_bytes: int | None = None
    tasks: int | None = None
    cpu_wait_us: int | None = None  # some
    memory_wait_us: int | None = None  # full
    io_wait_us: int | None = None  # full
    tasks_refused: int | None = None
    memory_high_hits: int | None = None
    memory_max_hits: int | None = None
    oom_hits: int | None = None
    oom_kills: int | None = None
    throttled_periods: int | None = None


class Io(msgspec.Struct, frozen=True, gc=False):
    """Totals of one physical device."""

    read_bytes: int = 0
    write_bytes: int = 0
    read_ops: int = 0
    write_ops: int = 0


class Full(msgspec.Struct, frozen=True, gc=False):
    """What is read seldom: the larger files. `io` by "major:minor"."""

    at: float
    anon_bytes: int | None = None
    file_bytes: int | None = None
    swap_bytes: int | None = None
    scanned: int | None = None
    stolen: int | None = None
    io: dict[str, Io] | None = None


def value(data: bytes | None, key: bytes) -> int | None:
    """The number of the line `key number`; None if there is no such line.

    `data` and `key` begin with a newline, so that `file` is not found in `inactive_file`.
    """
    if data is None or (found := data.find(key)) < 0:
        return None
    begin = found + len(key)
    end = data.find(b"\n", begin)
    return _int(data[begin:end] if end >= 0 else data[begin:])


def size(data: bytes | None) -> int | None:
    """A file of one number; `max` is none."""
    return None if data is None else _int(data)


def some(data: bytes | None) -> int | None:
    """The total stall of any task, in µs, of a pressure file."""
    return None if data is None else _total(data, data.find(b"total="))


def full(data: bytes | None) -> int | None:
    """The total stall of all tasks, in µs, of a pressure file: its last line."""
    return None if data is None else _total(data, data.rfind(b"total="))


def _total(data: bytes, found: int) -> int | None:
    if found < 0:
        return None
    end = data.find(b"\n", found)
    return _int(data[found + 6 : end if end >= 0 else len(data)])


def cpu(data: bytes | None) -> tuple[int | None, int | None, int | None]:
    """Of `cpu.stat`: time used, and time that its own quota held it, both in µs; and in how many periods it did.

    Ancestors' quotas, which `cpu.stat.local` counts too, are left out: where a parent of many sites is full, a site
    waits for its neighbours, not for itself.
    """
    lines = _lines(data)
    used, throttled = value(lines, b"\nusage_usec "), value(lines, b"\nthrottled_usec ")
    return used, throttled, value(lines, b"\nnr_throttled ")


def memory_events(
    data: bytes | None,
) -> tuple[int | None, int | None, int | None, int | None]:
    """Of `memory.events`: `high`, `max`, `oom` and `oom_kill`."""
    lines = _lines(data)
    high, most = value(lines, b"\nhigh "), value(lines, b"\nmax ")
    return high, most, value(lines, b"\noom "), value(lines, b"\noom_kill ")


def memory(data: bytes | None) -> tuple[int | None, int | None, int | None, int | None]:
    """Of `memory.stat`: `anon` and `file` in bytes, `pgscan` and `pgsteal` in pages."""
    lines = _lines(data)
    anon, file = value(lines, b"\nanon "), value(lines, b"\nfile ")
    return anon, file, value(lines, b"\npgscan "), value(lines, b"\npgsteal ")


def tasks_refused(data: bytes | None) -> int | None:
    """Of `pids.events`: `max`."""
    return value(_lines(data), b"\nmax ")


def io(data: bytes | None, counts: Callable[[str], bool]) -> dict[str, Io] | None:
    """`io.stat` by device, of those that `counts`: what dm or md passes on is counted below it again."""
    if data is None:
        return None
    found = {}
    for line in data.decode("ascii", "replace").splitlines():
        device, *fields = line.split() or [""]
        if ":" not in device or not counts(device):
            continue
        told = dict(field.split("=", 1) for field in fields if "=" in field)
        try:
            found[device] = Io(
                int(told.get("rbytes", 0)),
                int(told.get("wbytes", 0)),
                int(told.get("rios", 0)),
                int(told.get("wios", 0)),
            )
        except ValueError:
            return None
    return found


# Memory, or a file on a disk that is counted already.
NO_DISKS = ("loop", "ram", "zram")
SECTOR_BYTES = 512  # of /proc/diskstats, whatever the disk's own are


def disks(data: bytes | None, counts: Callable[[str], bool]) -> dict[str, Io] | None:
    """`/proc/diskstats` by device, of those that `counts`.

    Requests are counted as cgroups count them, before neighbouring ones are merged into one.
    Source: kernel, Documentation/admin-guide/iostats.rst.
    """
    if data is None:
        return None
    found = {}
    for line in data.splitlines():
        fields = line.split()
        if len(fields) < 11 or is_no_disk(fields[2].decode("ascii", "replace")):
            continue
        device = b":".join(fields[:2]).decode("ascii", "replace")
        if not counts(device):
            continue
        try:
            reads, near, read, _, writes, near_writes, written = map(int, fields[3:10])
        except ValueError:
            return None
        found[device] = Io(
            read * SECTOR_BYTES, written * SECTOR_BYTES, reads + near, writes + near_writes
        )
    return found


def is_no_disk(name: str) -> bool:
    """Of the kernel's name of a block device."""
    return name.rstrip("0123456789") in NO_DISKS


def busy_ticks(data: bytes | None) -> int | None:
    """Of `/proc/stat`: CPU time that was not idle, of all CPUs, in ticks; what the hypervisor took of them too.

    Guests' time is in that of users. Source: proc_stat(5).
    """
    first = (data or b"").split(b"\n", 1)[0].split()
    if len(first) < 6 or first[0] != b"cpu":
        return None
    try:
        user, nice, system, _, _, *rest = map(int, first[1:9])
    except ValueError:
        return None
    return user + nice + system + sum(rest)


def _lines(data: bytes | None) -> bytes | None:
    """Each line after a newline, as `value` wants them."""
    return b"\n" + data if data else data


def _int(text: bytes) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
