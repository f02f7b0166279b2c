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
from agent.layout.masters import OWN, Process, believed, is_own, main_of, place_of, status

CGROUPS = "/sys/fs/cgroup"
SLICE = re.compile(r"^[ \t]*Slice[ \t]*=[ \t]*(\S+)", re.M)
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
        self._known: dict[str, Process] = {}  # masters, as they were last seen

    def look(self, *, afresh: bool = False) -> Running:
        """Some 10 ms for a host of 1,000 processes; a second when 300 sites' configuration changed, or `afresh`."""
        files = HostFiles(self._root)
        seen = tuple(processes(files))
        mains = {process.main for process in seen if process.main}
        is_known = mains <= self._read.pools.keys()
        if afresh or not is_known or self._stamps != self._stamped(files, self._stamps):
            self._read, paths = configuration(files, mains)
            folders = {path.rpartition("/")[0] or "/" for path in paths}
            self._stamps = self._stamped(files, {*paths, *folders, *FOLDERS})
        now = believed(seen, self._known, self._read.slices)
        known = {**self._known, **now}
        self._known = {main: one for main, one in known.items() if main in self._read.pools}
        return running(self._read, seen, now, self._known)

    def _stamped(self, files: HostFiles, paths: Iterable[str]) -> dict[str, object]:
        return {path: files.stamp(path) for path in paths}


def configuration(
    files: HostFiles, running: Iterable[str] = ()
) -> tuple[Configuration, frozenset[str]]:
    """What files say now, and which were read. `running`: main files of masters, wherever they are."""
    servers: list[apache.Apache | nginx.Nginx] = []
    if files.exists(apache.MAIN):
        servers.append(apache.Apache(files))
    if files.exists(nginx.MAIN):
        servers.append(nginx.Nginx(files))
    mains = {main for pattern in MAINS for main in files.glob(pattern)} | {*running}
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
    if not is_own(main):
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
        told = status(files.read(f"/proc/{name}/status") or "")
        cgroup = _cgroup(files.read(f"/proc/{name}/cgroup") or "")
        if told is None or cgroup is None:
            continue
        main = None
        if told.is_root:
            title = (files.read(f"/proc/{name}/cmdline") or "").replace("\0", " ")
            main = main_of(title, cgroup)
        yield Process(pid=int(name), uid=told.uid, cgroup=cgroup, parent=told.parent, main=main)


def _cgroup(text: str) -> str | None:
    """In the unified hierarchy. Source: cgroups(7), /proc/PID/cgroup."""
    return next((line[3:] for line in text.split("\n") if line.startswith("0::")), None)


def running(
    read: Configuration,
    seen: Iterable[Process],
    masters: Mapping[str, Process],
    known: Mapping[str, Process],
) -> Running:
    """What files say, where the kernel says that it runs. `known`: where masters ran that do not run now."""
    people: dict[int, set[str]] = {}
    for process in seen:
        if FIRST_UID <= process.uid <= LAST_UID:
            people.setdefault(process.uid, set()).add(process.cgroup)
    return Running(
        virtual_hosts=read.virtual_hosts,
        masters=tuple(
            _master(main, read, masters.get(main), known.get(main)) for main in read.pools
        ),
        accounts=read.accounts,
        people={uid: frozenset(cgroups) for uid, cgroups in people.items()},
        links=read.links,
    )


def _master(main: str, read: Configuration, now: Process | None, known: Process | None) -> Master:
    pools = read.pools[main]
    if now:
        return Master(main=main, cgroup=now.cgroup, pools=pools, pid=now.pid)
    if known and not is_own(main):  # the slice of our own units is in a file
        return Master(main=main, cgroup=known.cgroup, pools=pools)
    return Master(main=main, cgroup=place_of(main, read.slices.get(main)), pools=pools)
