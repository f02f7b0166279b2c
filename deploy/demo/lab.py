"""The miniature co-op as plain values: its machines, where they stand, and where each one listens."""

import ipaddress
from dataclasses import dataclass
from enum import Enum
from typing import Literal

LOCATIONS = {"lyon": ("FR", "Lyon"), "porto": ("PT", "Porto")}
OUTSIDE = ""  # not in a data centre: the visitors, and what the co-op runs elsewhere


class Kind(Enum):
    WEB = "web"
    EDGE = "edge"
    CONTROLLER = "controller"
    PRIMARY = "primary"
    SECONDARY = "secondary"
    VISITORS = "visitors"


# name, kind, public tag, location. The two authoritative servers stand outside, as a co-op's secondaries do.
MACHINES: tuple[tuple[str, Kind, str, str], ...] = (
    ("web1", Kind.WEB, "clara", "lyon"),
    ("web2", Kind.WEB, "emma", "lyon"),
    ("web3", Kind.WEB, "rosa", "porto"),
    ("web4", Kind.WEB, "ines", "porto"),
    ("edge1", Kind.EDGE, "rhone", "lyon"),
    ("edge2", Kind.EDGE, "douro", "porto"),
    ("c1", Kind.CONTROLLER, "c1", OUTSIDE),
    ("dns1", Kind.PRIMARY, "dns1", OUTSIDE),
    ("dns2", Kind.SECONDARY, "dns2", OUTSIDE),
    ("visitors", Kind.VISITORS, "visitors", OUTSIDE),
)
MORE_CONTROLLERS = tuple((name, Kind.CONTROLLER, name, OUTSIDE) for name in ("c2", "c3"))


class Store(Enum):
    """Where the controllers keep their state."""

    EMBEDDED = "embedded"
    ETCD = "etcd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Staff:
    """How many controllers there are, and what they share."""

    store: Store = Store.EMBEDDED
    controllers: Literal[1, 3] = 1

    def __post_init__(self) -> None:
        if self.controllers > 1 and self.store is Store.EMBEDDED:
            raise ValueError("three controllers need a store that they share: etcd")


LONE = Staff()


@dataclass(frozen=True, slots=True)
class Door:
    """An address literal and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"{bracketed(self.address)}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine. `addresses` are those the fleet declares; `doors`: where it serves HTTP, IPv4 first."""

    name: str
    kind: Kind
    tag: str
    location: str
    addresses: tuple[str, ...]
    doors: tuple[Door, ...]

    @property
    def address(self) -> str:
        return self.addresses[0]

    @property
    def is_host(self) -> bool:
        return self.kind in (Kind.WEB, Kind.EDGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    machines: dict[str, Machine]
    http_port: int
    dns_port: int
    api_port: int = 7410
    agent_port: int = 7411
    etcd_port: int = 12379
    etcd_peer_port: int = 12380
    staff: Staff = LONE

    def of(self, *kinds: Kind) -> tuple[Machine, ...]:
        return tuple(machine for machine in self.machines.values() if machine.kind in kinds)

    def the(self, kind: Kind) -> Machine:
        """The one machine of its kind."""
        (machine,) = self.of(kind)
        return machine

    @property
    def hosts(self) -> tuple[Machine, ...]:
        """The machines that run an agent."""
        return self.of(Kind.WEB, Kind.EDGE)

    @property
    def apis(self) -> dict[str, str]:
        """Where each controller is reached."""
        return {
            machine.name: f"https://{machine.address}:{self.api_port}"
            for machine in self.of(Kind.CONTROLLER)
        }

    @property
    def name_servers(self) -> tuple[Door, ...]:
        return tuple(
            Door(machine.address, self.dns_port)
            for machine in self.of(Kind.PRIMARY, Kind.SECONDARY)
        )


def in_namespaces(staff: Staff = LONE) -> Lab:
    """Every machine has a network of its own, so all use the usual ports, on IPv4 and IPv6."""
    machines = {}
    for number, (name, kind, tag, location) in enumerate(_machines(staff), start=1):
        net = list(LOCATIONS).index(location) + 1 if location else 0
        addresses = (f"10.77.{net}.{number}", f"fd00:77::{net}:{number}")
        machines[name] = Machine(
            name=name,
            kind=kind,
            tag=tag,
            location=location,
            addresses=addresses,
            doors=tuple(Door(address, 80) for address in addresses),
        )
    return Lab(machines=machines, http_port=80, dns_port=53, staff=staff)


def on_loopback(net: int, ipv6_ports: list[int], staff: Staff = LONE) -> Lab:
    """Machines are addresses in 127.`net`.0.0/16 on one loopback.

    There is one IPv6 loopback address only, so there a machine is a port, one of `ipv6_ports`; what needs one
    port on every address (a site's AAAA, the health checks) has IPv4 alone.
    """
    machines = {}
    for number, (name, kind, tag, location) in enumerate(_machines(staff), start=1):
        address = f"127.{net}.0.{number}"
        machines[name] = Machine(
            name=name,
            kind=kind,
            tag=tag,
            location=location,
            addresses=(address,),
            doors=(Door(address, 18080), Door("::1", ipv6_ports[number - 1])),
        )
    return Lab(machines=machines, http_port=18080, dns_port=15353, staff=staff)


def _machines(staff: Staff) -> tuple[tuple[str, Kind, str, str], ...]:
    return MACHINES + MORE_CONTROLLERS[: staff.controllers - 1]


def bracketed(address: str) -> str:
    """`address` as it stands before a colon and a port."""
    return f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
