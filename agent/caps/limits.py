"""What the kernel should hold for one site: its plan, an override, a penalty and the host, in one table."""

import msgspec


class IoLimit(msgspec.Struct, frozen=True, kw_only=True):
    """Of one physical device. Source: kernel, cgroup-v2 io.max."""

    read_bytes_per_s: int
    write_bytes_per_s: int
    read_ops_per_s: int
    write_ops_per_s: int


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a slice should hold. None: no limit. `io` by resolved physical device, "major:minor".

    `egress`: open; no-mail, port 25 outward closed; closed, all but DNS, the local mail server and the database.
    """

    cpu_weight: int
    cpu_quota_us: int | None  # of CPU time per second
    memory_high_bytes: int | None
    memory_max_bytes: int | None
    memory_low_bytes: int
    swap_max_bytes: int | None
    tasks_max: int | None
    io: dict[str, IoLimit] = {}
    egress_closed: bool = False
    frozen: bool = False
