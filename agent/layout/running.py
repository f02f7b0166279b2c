"""What serves sites on this host: its web server's virtual hosts, php-fpm's masters, whose processes run where.

Read from configuration, /proc and the cgroups' names; nothing is asked, nothing is changed.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from agent.discover import apache, nginx
from agent.discover.accounts import FIRST_UID, LAST_UID, accounts
from agent.discover.files import HostFiles
from agent.discover.found import Account, Pool, VirtualHost
from agent.discover.php import MAINS, Pools

CGROUPS = "/sys/fs/cgroup"
OWN = "/etc/relevo/php"  # configuration of masters of one pool each, as `relevo layout convert` writes it
# What a master of php-fpm calls itself. Source: php-src, sapi/fpm/fpm/fpm_env.c.
TITLE = re.compile(r"php-fpm: master process \((/[^)]*)\)")
SLICE = re.compile(r"^[ \t]*Slice[ \t]*=[ \t]*(\S+)", re.M)
UID = re.compile(r"^Uid:\s+\d+\s+(\d+)", re.M)
# Where files that were not there may appear, beside the folders of those that are.
FOLDERS = (
    *("/etc/apache2/sites-enabled", "/etc/apache2/conf-enabled", "/etc/apache2/mods-enabled"),
    *("/etc/nginx/sites-enabled", "/etc/nginx/conf.d", OWN),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Master:
    """One php-fpm master. `main` is its configuration; `cgroup` where it runs, or would, as the kernel says it."""

    main: str
    cgroup: str
    pools: tuple[Pool, ...]
    pid: int | None = None

    @property
    def unit(self) -> str:
        """`php8.2-fpm.service`; a scope or a plain cgroup where systemd does not run it."""
        return self.cgroup.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What files say. `links`: sockets whose name is a symbolic link, and where that leads."""

    virtual_hosts: tuple[VirtualHost, ...] = ()
    pools: Mapping[str, tuple[Pool, ...]] = field(default_factory=dict)  # by the main file
    accounts: Mapping[str, Account] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    slices: Mapping[str, str] = field(default_factory=dict)  # by the main file of a pool of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process: its effective uid, its cgroup, the main file if it is a master of php-fpm."""

    pid: int
    uid: int
    cgroup: str
    main: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """All of it. `people`: by uid, the cgroups in which processes of that user run; only people's uids."""

    virtual_hosts: tuple[VirtualHost, ...] = ()
    masters: tuple[Master, ...] = ()
    accounts: Mapping[str, Account] = field(default_factory=dict)
    people: Mapping[int, frozenset[str]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


class Reader:
    """Reads one host below `root`; configuration that did not change is not read again."""

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._stamps: dict[str, object] = {"/": None}  # of no host
        self._read = Configuration()

    def look(self, *, afresh: bool = False) -> Running:
        """Some 10 ms for a host of 1,000 processes; a second when 300 sites' configuration changed, or `afresh`."""
        files = HostFiles(self._root)
        seen = tuple(processes(files))
        known = all(process.main in self._read.pools for process in seen if process.main)
        if afresh or not known or self._stamps != self._stamped(files, self._stamps):
            self._read, paths = configuration(files, seen)
            folders = {path.rpartition("/")[0] or "/" for path in paths}
            self._stamps = self._stamped(files, {*paths, *folders, *FOLDERS})
        return running(self._read, seen)

    def _stamped(self, files: HostFiles, paths: Iterable[str]) -> dict[str, object]:
        return {path: files.stamp(path) for path in paths}


def configuration(
    files: HostFiles, seen: Iterable[Process] = ()
) -> tuple[Configuration, frozenset[str]]:
    """What files say now, and which were read."""
    servers: list[apache.Apache | nginx.Nginx] = []
    if files.exists(apache.MAIN):
        servers.append(apache.Apache(files))
    if files.exists(nginx.MAIN):
        servers.append(nginx.Nginx(files))
    mains = {main for pattern in MAINS for main in files.glob(pattern)}
    mains |= {process.main for process in seen if process.main}  # a co-op's own masters too
    pools = {main: Pools(files, (main,)) for main in sorted(mains)}
    hosts = tuple(host for server in servers for host in server.virtual_hosts)
    sockets = {socket for host in hosts for socket in host.sockets if socket.startswith("/")}
    real = {socket: files.real(socket) for socket in sockets}
    found = Configuration(
        virtual_hosts=hosts,
        pools={main: read.found for main, read in pools.items()},
        accounts=accounts(files.read("/etc/passwd") or ""),
        links={socket: path for socket, path in real.items() if path != socket},
        slices={main: said for main in mains if (said := _slice(files, main))},
    )
    paths = {path for read in (*servers, *pools.values()) for path in read.paths}
    return found, frozenset(paths | {"/etc/passwd"})


def _slice(files: HostFiles, main: str) -> str | None:
    if not main.startswith(f"{OWN}/"):
        return None
    name = main.rpartition("/")[2].removesuffix(".conf")
    folder = f"/etc/systemd/system/relevo-php@{name}.service.d"
    texts = [files.read(path) or "" for path in files.glob(f"{folder}/*.conf")]
    said = [value for text in texts for value in SLICE.findall(text)]
    return said[-1] if said else None


def processes(files: HostFiles) -> Iterator[Process]:
    """All that can be read; one that ends while it is looked at is left out."""
    for name in files.names("/proc"):
        if not name.isdecimal():
            continue
        uid = UID.search(files.read(f"/proc/{name}/status") or "")
        cgroup = _cgroup(files.read(f"/proc/{name}/cgroup") or "")
        if uid is None or cgroup is None:
            continue
        main = None
        if uid[1] == "0":
            title = TITLE.match((files.read(f"/proc/{name}/cmdline") or "").replace("\0", " "))
            main = title[1] if title else None
        yield Process(pid=int(name), uid=int(uid[1]), cgroup=cgroup, main=main)


def _cgroup(text: str) -> str | None:
    """In the unified hierarchy. Source: cgroups(7), /proc/PID/cgroup."""
    return next((line[3:] for line in text.splitlines() if line.startswith("0::")), None)


def running(read: Configuration, seen: Iterable[Process]) -> Running:
    """What files say, where the kernel says that it runs."""
    seen = tuple(seen)
    masters = {process.main: process for process in seen if process.main}
    people: dict[int, set[str]] = {}
    for process in seen:
        if FIRST_UID <= process.uid <= LAST_UID:
            people.setdefault(process.uid, set()).add(process.cgroup)
    return Running(
        virtual_hosts=read.virtual_hosts,
        masters=tuple(
            _master(main, pools, masters.get(main), read.slices.get(main))
            for main, pools in read.pools.items()
        ),
        accounts=read.accounts,
        people={uid: frozenset(cgroups) for uid, cgroups in people.items()},
        links=read.links,
    )


def _master(
    main: str, pools: tuple[Pool, ...], process: Process | None, slice: str | None
) -> Master:
    if process:
        return Master(main=main, cgroup=process.cgroup, pools=pools, pid=process.pid)
    if main.startswith(f"{OWN}/"):
        name = main.rpartition("/")[2].removesuffix(".conf")
        return Master(
            main=main,
            cgroup=f"/{folder(slice or 'system.slice')}/relevo-php@{name}.service",
            pools=pools,
        )
    version = main.split("/")[3]  # /etc/php/8.2/fpm/php-fpm.conf
    return Master(main=main, cgroup=f"/system.slice/php{version}-fpm.service", pools=pools)


def folder(slice: str) -> str:
    """Where systemd puts a slice, below the root: "a-b.slice" is in "a.slice". Source: systemd.slice(5)."""
    parts = slice.removesuffix(".slice").split("-")
    return "/".join(f"{'-'.join(parts[: n + 1])}.slice" for n in range(len(parts)))


def slice_of(cgroup: str) -> str:
    """The innermost slice that `cgroup` is in; "-.slice" is the root."""
    return next(
        (part for part in reversed(cgroup.split("/")) if part.endswith(".slice")), "-.slice"
    )
