"""What configuration says, before anybody judges what it means."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Something that could not be told, or should be looked at. `about`: a file with its line, or a fleet's field."""

    about: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualHost:
    """One server block. Names are as written, `ServerName` first; None of `root` is declared where none is.

    `place`: file:line. `users`: whom its scripts run as by its own word. `sockets`: where its PHP is handed to,
    as `php.socket` writes them. `redirect`: the host that all its requests are sent to. `listens`: as written.
    `logs`: files of its own that its requests are written to. `inside`: its PHP runs in the web server's own processes.
    """

    server: Literal["apache", "nginx"]
    place: str
    names: tuple[str, ...] = ()
    listens: tuple[str, ...] = ()
    root: str | None = None
    users: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    redirect: str | None = None
    logs: tuple[str, ...] = ()
    inside: bool = False
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A php-fpm pool; `listen` as `php.socket` writes it. `status`: where FPM tells of it, a socket and a path.

    `workers`: the most that it may have, `pm.max_children`; None: not said.
    """

    name: str
    place: str
    user: str | None
    listen: str | None
    status: tuple[str, str] | None = None
    workers: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A line of passwd; `name` is the first part of its comment field, for people."""

    user: str
    uid: int
    home: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """A database that an application's own configuration names; `server` as written, empty for this host's."""

    database: str
    place: str
    server: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Everything that was read of one host.

    `owners`: by document root, the user whom it belongs to. `applications`: by document root, what is
    installed there. `databases`: None where they could not be told. `hostnames`: the host's own names.
    """

    virtual_hosts: tuple[VirtualHost, ...] = ()
    pools: tuple[Pool, ...] = ()
    accounts: Mapping[str, Account]
    owners: Mapping[str, str]
    applications: Mapping[str, tuple[Configured, ...]]
    databases: frozenset[str] | None = None
    hostnames: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
