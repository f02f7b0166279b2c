"""The simulated co-op: a handful of hosts in two locations, sites of every mode, one zone."""

from dataclasses import dataclass

from deploy.demo.plans import SOLIDARITY
from fleet.model import (
    Domain,
    Fleet,
    Host,
    HostId,
    Location,
    LocationId,
    Member,
    MemberId,
    Mode,
    NameServer,
    Role,
    Site,
    SiteId,
    Zone,
    ZoneName,
)

ZONE = Zone(
    name=ZoneName("coop.example"),
    primary=NameServer(address="192.0.2.53"),
    secondaries=(NameServer(address="192.0.2.54"),),
    key="relevo",
)
PLACES = (LocationId("mx"), LocationId("es"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large the co-op is. Sites of each web host: `automatic` behind the edges, and four of other kinds."""

    web: int = 4
    edges: int = 2
    controllers: int = 3
    automatic: int = 2


def fleet_of(shape: Shape) -> Fleet:
    hosts = [_host(n, "web", n, Role.WEB) for n in range(shape.web)]
    hosts += [_host(n, "edge", 100 + n, Role.EDGE) for n in range(shape.edges)]
    sites = [site for n in range(shape.web) for site in _sites(n, shape)]
    return Fleet(
        locations={id: Location(id=id, country=id.upper()) for id in PLACES},
        hosts={host.id: host for host in hosts},
        plans={SOLIDARITY.id: SOLIDARITY},
        members={MemberId("choir"): Member(id=MemberId("choir"), name="Choir")},
        sites={site.id: site for site in sites},
        zones={ZONE.name: ZONE},
    )


def _host(n: int, role: str, last: int, kind: Role) -> Host:
    return Host(
        id=HostId(f"{role}{n + 1}"),
        tag=f"{role}{n + 1}",
        location=PLACES[n % 2],
        addresses=(f"10.0.0.{last + 1}", f"fd00::{last + 1:x}"),
        roles=(kind,),
    )


def _sites(n: int, shape: Shape) -> list[Site]:
    """The `direct` one's names carry its host's addresses; nobody arms `watched`."""
    home = HostId(f"web{n + 1}")
    others = [HostId(f"web{(n + step) % shape.web + 1}") for step in range(1, shape.web)]
    behind = [f"site{k}" for k in range(shape.automatic)]
    modes = dict.fromkeys((*behind, "direct", "watched"), Mode.AUTOMATIC)
    modes |= {"gated": Mode.GATED, "manual": Mode.MANUAL}
    return [
        Site(
            id=SiteId(f"{name}-{home}"),
            member=MemberId("choir"),
            plan=SOLIDARITY.id,
            domains=(Domain(f"{name}-{home}.coop.example"),),
            home=home,
            standbys=tuple(others[:2]),
            mode=mode,
            route="direct" if name == "direct" else "edges",
        )
        for name, mode in modes.items()
    ]


def moves_by_itself(site: Site) -> bool:
    """Whether the simulation armed it and its mode lets it go."""
    return site.effective_mode is Mode.AUTOMATIC and not site.id.startswith("watched")
