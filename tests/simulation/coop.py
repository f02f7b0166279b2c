"""The simulated co-op: a handful of hosts in two locations, sites of every mode, one zone."""

from dataclasses import dataclass

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
        plans={PlanId("small"): PLAN},
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
            plan=PLAN.id,
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
    disk_bytes=10 << 30,
    inodes=200_000,
    database_connections=10,
    statement_s=30.0,
    database_cpu_percent=(100, 80, 60, 40),
    mails_per_hour=100,
    background_tasks=8,
    background_cpu_s_per_day=3600,
)
PLAN = Plan(id=PlanId("small"), name="Small", price=Price(amount=6000, currency="EUR"), caps=CAPS)
