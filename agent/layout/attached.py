"""Where the processes of a site are on this host, and so how much of it can be seen and held."""

from dataclasses import dataclass
from pathlib import Path

from fleet.caps import Attachment
from fleet.model import Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoptable:
    """A pool of a shared php-fpm master whose workers could be held in a slice while the master stays where it is.

    `uids`: whose processes are the site's alone. `main`: the master's configuration, `cgroup` where it runs, as the
    kernel says it, `unit` the last of that. `slice`: what is to hold them.
    """

    uids: tuple[int, ...]
    main: str
    cgroup: str
    unit: str
    slice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSize:
    """How many workers a site's one pool may have, by its own `pm.max_children`; None: it does not say."""

    pool: str
    place: str
    unit: str
    most: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """One site as this host runs it.

    `slice`: the systemd slice that holds it all, for SLICE, and for a POOL that is `adopted`. `cgroups`: directories
    whose sum is the site, as far as the kernel tells it apart. `uids`: whose processes are its own alone. `socket`:
    where its own FPM pool takes requests, `status`: FPM's status by its socket and path, where there are such, and
    `logs`: access logs of its virtual hosts, no request in two of them. `roots`: the document roots of these.
    `in_common`: its PHP runs as the web server's account, or as another one that is nobody's own. `adoptable`: how its
    pool could be held where it is. `size`: of its pool. `why`: what was found, and what would better it.
    """

    attachment: Attachment
    why: Why
    slice: str | None = None
    cgroups: tuple[Path, ...] = ()
    uids: tuple[int, ...] = ()
    socket: Path | None = None
    status: tuple[Path, str] | None = None
    logs: tuple[Path, ...] = ()
    roots: tuple[Path, ...] = ()
    in_common: bool = False
    adoptable: Adoptable | None = None
    adopted: bool = False
    size: PoolSize | None = None
