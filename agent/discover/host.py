"""Reads all that one host says of itself."""

import os
import re
import socket as network
from ipaddress import IPv4Address, IPv6Address, ip_address

import psutil

from agent.discover import apache, nginx
from agent.discover.accounts import accounts, is_person
from agent.discover.databases import applications, in_folder, show
from agent.discover.files import HostFiles
from agent.discover.found import Doubt, Seen, VirtualHost
from agent.discover.php import Pools

PROGRAMS = {apache.MAIN: "/usr/sbin/apache2", nginx.MAIN: "/usr/sbin/nginx"}


class NothingToRead(Exception):
    """Without the web server's configuration there is no use in the rest; the message says what to do."""


def look(root: str) -> Seen:
    """Raises NothingToRead."""
    files = HostFiles(root)
    here = not root.rstrip("/")
    servers, doubts = _servers(files)
    pools = Pools(files)
    passwd = accounts(files.read("/etc/passwd") or "")
    users = {account.uid: account for account in passwd.values()}
    hosts = tuple(host for server in servers for host in server.virtual_hosts)
    roots = sorted({host.root for host in hosts if host.root})
    owners = {}
    for folder in roots:
        owner = users.get(files.owner(folder) or 0)
        if owner and is_person(owner):
            owners[folder] = owner.user
    databases = show() if here else None
    if databases is None:
        databases = in_folder(files)
    found = Seen(
        virtual_hosts=hosts,
        pools=pools.found,
        accounts=passwd,
        owners=owners,
        applications={folder: applications(files, folder) for folder in roots},
        databases=databases,
        hostnames=_hostnames(files, here),
        addresses=public(_addresses()) if here else (),
        doubts=(*doubts, *(d for s in servers for d in s.doubts), *pools.doubts, *files.doubts),
    )
    if files.refused and not found.virtual_hosts:
        raise NothingToRead("the web server's configuration may not be read; run this as root")
    return found


def _servers(files: HostFiles) -> tuple[list[apache.Apache | nginx.Nginx], list[Doubt]]:
    servers: list[apache.Apache | nginx.Nginx] = []
    doubts: list[Doubt] = []
    for main, program in PROGRAMS.items():
        if not files.exists(main):
            continue
        if not files.exists(program):
            what = f"is there, but {program} is not: is it left over from a server that is gone?"
            doubts.append(Doubt(about=main, what=what))
        servers.append(apache.Apache(files) if main == apache.MAIN else nginx.Nginx(files))
    if not servers:
        what = (
            f"neither {' nor '.join(PROGRAMS)} is there: does another web server serve sites here?"
        )
        doubts.append(Doubt(about="sites", what=what))
    return servers, doubts


def _hostnames(files: HostFiles, here: bool) -> tuple[str, ...]:
    """The host's own names, the short one first; empty where it has none."""
    name = (files.read("/etc/hostname") or "").strip() or (os.uname().nodename if here else "")
    if not name:
        return ()
    short = name.partition(".")[0]
    names = [short, name]
    for line in (files.read("/etc/hosts") or "").splitlines():
        said = line.partition("#")[0].split()[1:]
        if short in said or name in said:
            names += said
    return tuple(dict.fromkeys(n.lower() for n in names if n != "localhost"))


def _addresses() -> list[str]:
    """Of all interfaces, IPv4 first."""
    families = (network.AF_INET, network.AF_INET6)
    seen = [a for of_one in psutil.net_if_addrs().values() for a in of_one if a.family in families]
    return [a.address for a in sorted(seen, key=lambda a: families.index(a.family))]


def public(literals: list[str]) -> tuple[str, ...]:
    """Those that visitors can reach; without any, the private ones."""
    parsed = [ip_address(re.sub(r"%.*", "", literal)) for literal in literals]
    usable = [
        a for a in dict.fromkeys(parsed) if not (a.is_loopback or a.is_link_local or a.is_multicast)
    ]
    reached = [a for a in usable if is_public(a)]
    return tuple(str(a) for a in reached or usable)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global


def served_ports(hosts: tuple[VirtualHost, ...]) -> tuple[int, ...]:
    """The ports that virtual hosts are declared for, where the world can reach them."""
    ports = set()
    for host in hosts:
        for listen in host.listens:
            found = re.fullmatch(r"(?:(.*?)[:])?(\d{1,5})", listen)
            address = found[1] or "" if found else listen
            if listen.startswith("unix:") or address.startswith(("127.", "localhost", "[::1")):
                continue
            ports.add(int(found[2]) if found else 80)
    return tuple(sorted(ports))
