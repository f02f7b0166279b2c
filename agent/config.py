"""The agent's configuration file, whole."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from agent.isolate.policy import Policy as Isolation
from fleet.model import HostId, Name

Url = Annotated[str, Meta(pattern=r"^https?://[^/]+$(?!\n)")]


class Service(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The web server that this host's sites need.

    `check` is asked each second; `restart` is run once when it has failed for `restart_after_s`.
    """

    check: Annotated[str, Meta(pattern=r"^http://")] = "http://127.0.0.1:80/"
    timeout_s: Annotated[float, Meta(gt=0)] = 1.0
    restart: tuple[str, ...] = ()
    restart_after_s: Annotated[float, Meta(gt=0)] = 5.0
    restart_timeout_s: Annotated[float, Meta(gt=0)] = 10.0

    def __post_init__(self) -> None:
        if not _names_a_server(self.check):
            raise ValueError(
                f'check = "{self.check}" names no server; give host and port: "http://127.0.0.1:80/"'
            )


class Edge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How this edge runs HAProxy.

    The agent writes `directory` (haproxy.cfg, maps, state) and talks to the two sockets; a service manager runs
    `haproxy -W -S MASTER_SOCKET -f DIRECTORY/haproxy.cfg`.
    """

    directory: Path = Path("/etc/haproxy/relevo")
    binary: str = "/usr/sbin/haproxy"
    socket: Path = Path("/run/haproxy/relevo.sock")
    master_socket: Path = Path("/run/haproxy-master.sock")
    bind: tuple[str, ...] = (":80", ":::80")
    bind_tls: tuple[str, ...] = ()
    certificates: Path | None = None
    max_connections: Annotated[int, Meta(ge=100)] = 20_000
    threads: Annotated[int, Meta(ge=1)] | None = None
    reload_delay_s: Annotated[float, Meta(ge=0)] = 2.0


class Caps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How this host holds its sites to their caps.

    `subtree`: a cgroup v2 directory that was delegated to the agent, where systemd does not run. `disks`: limits of
    I/O hold on the physical disks under these paths, and on those of sites' homes and document roots. `quota`:
    whether file systems hold users to what plans let them keep. `egress`: whether `nft` closes port 25 to sites,
    and shuts in those that are isolated; `mail` are the mail servers that they may still reach, `databases` the
    servers of databases, beside this host's own: addresses. Isolated sites ask `resolvers`; none: those of
    /etc/resolv.conf. `adopt`: workers of shared php-fpms are held in their sites' slices wherever that can be done;
    `relevo layout adopt SITE` and `release SITE` say so for one site.
    """

    driver: Literal["auto", "systemd", "cgroupfs", "off"] = "auto"
    subtree: Path | None = None
    disks: tuple[Path, ...] = (Path("/"), Path("/home"), Path("/srv"), Path("/var"))
    verify_s: Annotated[float, Meta(ge=1, le=600)] = 30.0
    egress: bool = True
    nft: str = "nft"
    quota: bool = True
    adopt: bool = False
    mail: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("mail", "databases", "resolvers"):
            for address in getattr(self, field):
                try:
                    ip_address(address)
                except ValueError as error:
                    raise ValueError(f"caps.{field}: {error}") from error


class Metrics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where /metrics and /healthz are served; beyond loopback only with TLS and a token."""

    address: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 7411
    certificate: Path | None = None
    key: Path | None = None
    token: Path | None = None

    @property
    def is_guarded(self) -> bool:
        """Whether a Prometheus elsewhere may ask: over TLS, with a token."""
        return None not in (self.certificate, self.key, self.token)

    @property
    def scraped_at(self) -> int | None:
        """The port, for such a Prometheus; None: nothing for it."""
        return self.port or None if self.is_guarded else None


class Usage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the use of sites is read and kept.

    `per_site`: whose series Prometheus gets: of all, of the `top` busiest, of none. `parent`: the cgroup whose stalls
    count as the sites' ("/sys/fs/cgroup/user.slice"); without it the whole host's do. The history of 1,000 sites takes
    up to 1 GB in 40 days; what is beyond `history_max_bytes` costs its oldest days.
    """

    per_site: Literal["all", "top", "off"] = "top"
    top: Annotated[int, Meta(ge=1, le=1000)] = 20
    every_s: Annotated[float, Meta(ge=0.1, le=10)] = 2.0
    parent: Path | None = None
    history_max_bytes: Annotated[int, Meta(ge=1 << 20)] = 2 << 30


class Copy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A backup or a replica: `path` is a file that each success writes, or a folder in which it leaves one."""

    name: Name
    path: Path
    stale_after_s: Annotated[float, Meta(gt=0)] = 26 * 3600.0  # a daily one, and two hours to run


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """agent.toml. `token` is the file with this host's own credential; `ca` verifies the controllers."""

    host: Annotated[HostId, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
    controllers: dict[Name, Url]
    token: Path
    ca: Path | None = None
    state: Path = Path("/var/lib/relevo/agent")
    beat_s: Annotated[float, Meta(ge=0.1, le=10)] = 0.5
    reconnect_max_s: Annotated[float, Meta(ge=0.1)] = 5.0
    shutdown_wait_s: Annotated[float, Meta(ge=0)] = 4.0  # under logind's InhibitDelayMaxSec of 5 s
    package_locks: tuple[Path, ...] = (
        Path("/var/lib/dpkg/lock-frontend"),
        Path("/var/lib/dpkg/lock"),
    )
    service: Service | None = None
    copies: tuple[Copy, ...] = ()
    edge: Edge | None = None
    caps: Caps = Caps()
    isolation: Isolation = Isolation()
    metrics: Metrics = Metrics()
    usage: Usage = Usage()
    debug: bool = False

    def __post_init__(self) -> None:
        if not self.controllers:
            raise ValueError(
                'controllers is empty; name at least one: c1 = "https://controller:7410"'
            )
        for id, url in self.controllers.items():
            if not _names_a_server(url):
                raise ValueError(
                    f'controllers.{id} = "{url}" names no server; give host and port: {id} = "https://controller:7410"'
                )


def _names_a_server(url: str) -> bool:
    """Whether `url` says whom to ask: a host, and a port that can be one if any."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, half an IPv6 address
        return False
