"""Configuration of Knot DNS as relevo needs it: a primary that takes signed updates, a secondary that follows.

Pure text; everything Knot writes lies below one folder, and no privilege is needed above port 1023.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A TSIG key. `secret` is base64."""

    name: str
    secret: str
    algorithm: str = "hmac-sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One knotd: `addresses` are IP literals, each listened on at `port`; the first is where its peer finds it."""

    directory: Path
    addresses: tuple[str, ...] = ("127.0.0.1", "::1")
    port: int

    @property
    def config(self) -> Path:
        return self.directory / "knot.conf"


def primary(server: Server, key: Key, zones: Iterable[str], secondaries: Sequence[Server]) -> str:
    """The configuration of the server that `key` may update and that notifies `secondaries`."""
    names = [f"secondary{number}" for number, _ in enumerate(secondaries)]
    remotes = zip(names, secondaries, strict=True)
    rules = [_rule("update", "update", key), _rule("transfer", "transfer", key)]
    options = ["acl: [update, transfer]", *([f"notify: [{', '.join(names)}]"] if names else [])]
    return "\n".join(
        [
            *_server(server, key),
            *_remotes(remotes, key),
            "acl:",
            *rules,
            *_zones(zones, server, options),
        ]
    )


def secondary(server: Server, key: Key, zones: Iterable[str], primary: Server) -> str:
    """The configuration of a server that follows `primary` by NOTIFY and (I)XFR."""
    return "\n".join(
        [
            *_server(server, key),
            *_remotes([("primary", primary)], key),
            "acl:",
            _rule("notify", "notify", key),
            *_zones(zones, server, ["master: primary", "acl: [notify]"]),
        ]
    )


def empty_zone(zone: str, servers: Sequence[Server]) -> str:
    """A zone file with nothing but what every zone needs: SOA, and a name server for each of `servers`."""
    lines = [
        f"$ORIGIN {zone}.",
        "$TTL 60",
        f"@ SOA ns0 hostmaster.{zone}. 1 3600 600 604800 5",
    ]
    for number, server in enumerate(servers):
        lines.append(f"@ NS ns{number}")
        lines += [
            f"ns{number} {'AAAA' if ':' in address else 'A'} {address}"
            for address in server.addresses
        ]
    return "\n".join([*lines, ""])


def zone_file(server: Server, zone: str) -> Path:
    """Where `server` reads `zone` from, and keeps it."""
    return server.directory / f"{zone}.zone"


def _server(server: Server, key: Key) -> list[str]:
    listen = ", ".join(f"{address}@{server.port}" for address in server.addresses)
    return [
        "server:",
        f"  rundir: {server.directory}",
        f"  listen: [{listen}]",
        "  udp-workers: 1",
        "  tcp-workers: 2",
        "  background-workers: 1",
        "log:",
        "  - target: stderr",
        "    any: info",
        "database:",
        f"  storage: {server.directory}",
        "  journal-db-max-size: 64M",  # the default reserves 20 GiB of address space
        "key:",
        f"  - id: {key.name}",
        f"    algorithm: {key.algorithm}",
        f"    secret: {key.secret}",
    ]


def _remotes(remotes: Iterable[tuple[str, Server]], key: Key) -> list[str]:
    lines = [
        line
        for name, peer in remotes
        for line in (
            f"  - id: {name}",
            f"    address: {peer.addresses[0]}@{peer.port}",
            f"    key: {key.name}",
        )
    ]
    return ["remote:", *lines] if lines else []


def _rule(id: str, action: str, key: Key) -> str:
    return f"  - id: {id}\n    key: {key.name}\n    action: {action}"


def _zones(zones: Iterable[str], server: Server, options: Iterable[str]) -> list[str]:
    lines = ["zone:"]
    for zone in zones:
        lines += [
            f"  - domain: {zone}",
            f"    file: {zone_file(server, zone)}",
            "    journal-max-usage: 16M",
            *(f"    {option}" for option in options),
        ]
    return [*lines, ""]
