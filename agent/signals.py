"""What one round of sensing says of a host and of each of its sites: what isolation decides from, and tests replay.

None is "not known here", never zero: what can't be attributed is not called idle.
"""

import msgspec

from fleet.caps import Attachment
from fleet.model import SiteId


class HostSigns(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The victims' side. Stalls are shares of the time since the last round (0..1), from PSI's `total`."""

    cores: float
    memory_total_bytes: int
    memory_available_bytes: int
    has_swap: bool = False
    cpu_stall: float | None = None  # some
    memory_stall: float | None = None  # full
    io_stall: float | None = None  # full
    busy_cores: float | None = None  # what of its CPUs is not idle, for whomever; stolen time too
    io_bytes_per_s: float | None = None  # of its whole disks, read and written, by whomever
    io_ops_per_s: float | None = None  # the same, as requests before the disk merges them
    forks_per_s: float | None = None
    database_threads: int | None = None


class DiskSigns(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one site did on one physical disk, per second."""

    read_bytes_per_s: float = 0.0
    write_bytes_per_s: float = 0.0
    read_ops_per_s: float = 0.0
    write_ops_per_s: float = 0.0


class SiteSigns(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One site since its last reading: rates per second, events counted since then, sizes as they are now.

    What it reads and writes is the sum of all its disks; a cap holds each disk by itself: see `on_busiest_disk`.
    """

    attachment: Attachment = Attachment.NONE
    every_s: float = 0.0  # how long ago its last reading was
    cpu_cores: float | None = None
    throttled_ratio: float | None = None  # by its own quota: that is no contention
    cpu_stall: float | None = (
        None  # some: waits for a CPU, its own throttling not counted where the kernel tells
    )
    memory_bytes: int | None = None
    anon_bytes: int | None = None
    file_bytes: int | None = None
    swap_bytes: int | None = None
    memory_stall: float | None = None  # full
    scanned_per_s: float | None = None  # pages looked at by reclaim
    stolen_per_s: float | None = None  # pages that reclaim got: far fewer than scanned is futile
    read_bytes_per_s: float | None = None
    write_bytes_per_s: float | None = None
    read_ops_per_s: float | None = None
    write_ops_per_s: float | None = None
    disks: dict[str, DiskSigns] = {}  # by "major:minor": those that it ever worked on
    io_stall: float | None = None  # full
    tasks: int | None = None
    tasks_refused: int = 0  # pids.events max
    memory_high_hits: int = 0
    memory_max_hits: int = 0
    oom_hits: int = 0  # allocations that were about to fail at the maximum
    oom_kills: int = 0
    throttled_periods: int = 0  # of 100 ms, in which its own quota held it
    requests_per_s: float | None = None
    clients: int | None = (
        None  # how many different ones asked in the last minute; who is not kept (rule R16)
    )
    queue: int | None = None  # requests that wait for a worker
    busy: float | None = None  # requests in progress on average, by php-fpm's or the log's word
    workers_short: int = 0  # times that php-fpm had no worker left to start
    took_s: float | None = None  # by a request on average, in the last minute or two, by the log
    errors_per_s: float | None = None
    new_destinations_per_s: float | None = None  # addresses that its users opened connections to
    direct_mail_per_s: float | None = None  # connections to port 25 past the local mail server
    refused_mail_per_s: float | None = None  # those that the firewall refused: they leave no socket
    listens: bool = False  # a socket of its users accepts connections from elsewhere
    runs_from_uploads: bool = False  # an executable under tmp, uploads or a cache
    cron_changed: bool = False

    def on_busiest_disk(self, which: str) -> float | None:
        """Of a field of DiskSigns, what is to be compared with a cap: the most that it does on one disk.

        Both members of a mirror write each byte, and each may write as much as the cap says.
        """
        whole: float | None = getattr(self, which)
        if whole is None or len(self.disks) < 2:
            return whole
        most: float = max(getattr(disk, which) for disk in self.disks.values())
        return most


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    """One round. `at` is monotonic s, of the host that saw it."""

    at: float
    host: HostSigns
    sites: dict[SiteId, SiteSigns] = {}
