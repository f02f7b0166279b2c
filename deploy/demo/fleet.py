"""The demo's fleet: 24 sites on 4 web hosts, 20 of them behind 2 edges and 4 direct, all free to move."""

from deploy.demo.lab import LOCATIONS, Kind, Lab
from deploy.demo.plans import STANDARD
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

ZONES = (ZoneName("coop.example"), ZoneName("barrio.example"))
KEY = "relevo"
# home: its sites behind the edges, then its direct ones. web1 has clearly the most: ONCE kills it.
SITES = {
    "web1": ("bakery choir cinema clinic cycling drama farm forum", "library mural"),
    "web2": ("garden history housing kitchen ludoteca", "museum"),
    "web3": ("news orchard poetry quilt", "radio"),
    "web4": ("school theatre union", ""),
}


def fleet(lab: Lab) -> Fleet:
    """What the co-op of `lab` declares."""
    primary, secondary = (NameServer(address=d.address, port=d.port) for d in lab.name_servers)
    sites = tuple(_sites())
    return Fleet(
        locations={
            LocationId(id): Location(id=LocationId(id), country=country, name=name)
            for id, (country, name) in LOCATIONS.items()
        },
        hosts={
            HostId(m.name): Host(
                id=HostId(m.name),
                tag=m.tag,
                location=LocationId(m.location),
                addresses=m.addresses,
                roles=(Role.EDGE if m.kind is Kind.EDGE else Role.WEB,),
                port=lab.http_port,
            )
            for m in lab.hosts
        },
        plans={STANDARD.id: STANDARD},
        members={
            site.member: Member(id=site.member, name=site.member.title(), language="en")
            for site in sites
        },
        sites={site.id: site for site in sites},
        zones={
            name: Zone(name=name, primary=primary, secondaries=(secondary,), key=KEY, ttl_s=5)
            for name in ZONES
        },
    )


def _sites() -> list[Site]:
    found: list[Site] = []
    homes = [HostId(home) for home in SITES]
    for home, names in zip(homes, SITES.values(), strict=True):
        # The other location first, then every other host: site by site the next one begins.
        others = [*homes[2:], *homes[:2]] if home in homes[:2] else [*homes[:2], *homes[2:]]
        others.remove(home)
        for route, some in zip(("edges", "direct"), names, strict=True):
            for name in some.split():
                turn = len(found) % 3
                found.append(
                    Site(
                        id=SiteId(name),
                        member=MemberId(name),
                        plan=STANDARD.id,
                        domains=(Domain(f"{name}.{ZONES[len(found) % 2]}"),),
                        home=home,
                        standbys=(*others[turn:], *others[:turn]),
                        mode=Mode.AUTOMATIC,
                        route=route,  # type: ignore[arg-type] # one of the two literals above
                        users=(name,),
                    )
                )
    return found
