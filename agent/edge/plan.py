"""What HAProxy should have, from what is ordered and what it has: pure, and never an injection.

Rule R7: what is neither ordered nor told to be removed stays, and is said. What is ordered but can't be done is
refused by name, and what was there before in its place stays.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.edge.limits import FREE, Held
from agent.edge.render import CHECK, PROOF
from fleet.messages import LINE_MAX, Routes, Target
from fleet.model import DOMAIN, NAME, HostId

SAID_AT_MOST = 100  # what a frame to the controller may list
_NAME = re.compile(NAME)
_KEY = re.compile(r"[A-Za-z0-9*_.-]{1,253}")  # a foreign entry that can be written back as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What HAProxy has, or would start with: hosts and proof of its configuration, the hosts of its map."""

    hosts: Mapping[HostId, Target]
    domains: Mapping[str, str]
    proof: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What it should have. `strays` are neither ordered nor removed; `refused` says what can't be done and why."""

    hosts: Mapping[HostId, Target]
    domains: Mapping[str, str]
    proof: str
    held: Held
    strays: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    @property
    def said(self) -> tuple[str, ...]:
        """Refusals, then strays, for people: at most SAID_AT_MOST."""
        return clip(
            (*self.refused, *(f"{stray}: not ordered, not removed, left" for stray in self.strays))
        )


def plan(routes: Routes, served: Served, limits: Held = FREE) -> Wanted:
    """Merge the orders into what is there. `limits` are those of `routes` now; a stray has none."""
    refused: list[str] = []
    hosts = _hosts(routes, served, refused)
    domains = _domains(routes, served, hosts, refused)
    strays = [domain for domain in domains if domain not in routes.domains]
    in_use = frozenset(domains.values())
    for host in sorted(served.hosts.keys() - routes.hosts.keys()):
        if host in in_use:
            hosts[host] = served.hosts[host]  # removed, yet a stray domain is still served there
        if host in hosts:
            strays.append(f"host {host}")
    return Wanted(
        hosts=hosts,
        domains=domains,
        proof=_proof(routes, served, refused),
        held=limits,
        strays=tuple(sorted(strays)),
        refused=(*refused, *limits.refused),
    )


def placed(
    domains: Mapping[str, str], hosts: Iterable[str], had: Mapping[str, str]
) -> dict[str, str]:
    """`domains` as far as their hosts are among `hosts`: what goes elsewhere keeps the place it had, if any."""
    known = frozenset(hosts)
    return {
        domain: place
        for domain, host in domains.items()
        if (place := host if host in known else had.get(domain))
    }


def clip(texts: Iterable[str]) -> tuple[str, ...]:
    """The first ones, and how many more."""
    all_of_them = tuple(text[:LINE_MAX] for text in texts)
    if len(all_of_them) <= SAID_AT_MOST:
        return all_of_them
    rest = len(all_of_them) - (SAID_AT_MOST - 1)
    return (*all_of_them[: SAID_AT_MOST - 1], f"and {rest} more")


def _hosts(routes: Routes, served: Served, refused: list[str]) -> dict[HostId, Target]:
    removed = frozenset(routes.removed_hosts)
    hosts = {
        host: target
        for host, target in served.hosts.items()
        if host not in removed or host in routes.hosts
    }
    for host, target in routes.hosts.items():
        if why := _unusable(host, target):
            refused.append(f"host {_shown(host)}: {why}")
        else:
            hosts[host] = target
    return hosts


def _unusable(host: str, target: Target) -> str:
    """Why this host can't be a backend; empty if it can."""
    if not _NAME.fullmatch(host):
        return "the id may have letters, digits, '_', '.', '-' only"
    try:
        ipaddress.ip_address(target.address)
    except ValueError:
        return f"{_shown(target.address)} is no IPv4 or IPv6 address"
    if "%" in target.address:
        return f"{_shown(target.address)} is bound to one link; give a global address"
    if not 1 <= target.port <= 65535:
        return f"{target.port} is no port"
    if not CHECK.fullmatch(target.check):
        return f"check {_shown(target.check)} must be a path of printable ASCII without quotes"
    return ""


def _domains(
    routes: Routes, served: Served, hosts: Mapping[HostId, Target], refused: list[str]
) -> dict[str, str]:
    removed = frozenset(routes.removed_domains)
    domains: dict[str, str] = {}
    for domain, was in served.domains.items():
        if domain in removed and domain not in routes.domains:
            continue
        if _KEY.fullmatch(domain) and _NAME.fullmatch(was):
            domains[domain] = was
        else:
            refused.append(f"entry {_shown(domain)}: not ours and not readable, dropped")
    for name, host in routes.domains.items():
        if served.domains.get(name) == host and host in hosts:
            continue  # 20,000 of them, seen before
        if not DOMAIN.fullmatch(name):
            refused.append(f"domain {_shown(name)}: not a domain name")
        elif host not in hosts:
            refused.append(f"domain {name}: its host {_shown(host)} has no usable address")
        else:
            domains[name] = host
    return domains


def _proof(routes: Routes, served: Served, refused: list[str]) -> str:
    if PROOF.fullmatch(routes.proof):
        return routes.proof
    if routes.proof:
        refused.append("proof: 8 to 128 letters, digits, '_', '=' or '-'")  # its value is a secret
    return served.proof


def _shown(text: str) -> str:
    """A hostile text for a log: quoted, and short."""
    shown = ascii(text)
    return shown if len(shown) <= 80 else shown[:77] + "..."
