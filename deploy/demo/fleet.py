"""The demo's fleet: 24 sites on 4 web hosts, 20 of them behind 2 edges and 4 direct, all free to move."""

from typing import Any

import msgspec
import yaml

from deploy.demo.lab import LOCATIONS, Kind, Lab
from fleet.model import (
    Caps,
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
    Plan,
    PlanId,
    Price,
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
CAPS = Caps(
    cpu_weight=100,
    cpu_percent=100,
    cpu_base_percent=20,
    cpu_bank_s=600,
    memory_max_bytes=512 << 20,
    memory_low_bytes=32 << 20,
    tasks=128,
    read_bytes_per_s=20 << 20,
    write_bytes_per_s=10 << 20,
    read_iops=500,
    write_iops=250,
    php_workers=4,
    in_flight=16,
    queue=32,
    queue_wait_s=5.0,
    requests_per_s=50,
    requests_burst=200,
    client_requests_per_min=600,
    egress_bits_per_s=100_000_000,
    egress_bytes_per_month=100 << 30,
    disk_bytes=5 << 30,
    inodes=100_000,
    database_connections=4,
    statement_s=30.0,
    database_cpu_percent=(100, 50, 25, 20),
    mails_per_hour=100,
    background_tasks=2,
    background_cpu_s_per_day=3600,
)


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
        plans={
            PlanId("basic"): Plan(
                id=PlanId("basic"),
                name="Basic",
                price=Price(amount=6000, currency="EUR"),
                caps=CAPS,
            )
        },
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
                        plan=PlanId("basic"),
                        domains=(Domain(f"{name}.{ZONES[len(found) % 2]}"),),
                        home=home,
                        standbys=(*others[turn:], *others[:turn]),
                        mode=Mode.AUTOMATIC,
                        route=route,  # type: ignore[arg-type] # one of the two literals above
                        users=(name,),
                    )
                )
    return found


def document(whole: Fleet) -> str:
    """`whole` as a fleet file: mappings keyed by id, what is the default left out."""
    collections = msgspec.structs.asdict(whole)
    plain = {
        kind: {key: _plain(value) for key, value in items.items()}
        for kind, items in collections.items()
    }
    text: str = yaml.safe_dump({"version": 1, **plain}, sort_keys=False)
    return text


def _plain(value: msgspec.Struct) -> dict[str, Any]:
    key = "name" if isinstance(value, Zone) else "id"
    declared = {
        field.name: getattr(value, field.name)
        for field in msgspec.structs.fields(value)
        if field.name != key and getattr(value, field.name) != field.default
    }
    plain: dict[str, Any] = msgspec.to_builtins(declared)
    return plain
