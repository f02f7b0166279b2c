"""A co-op of real shape, made up from a seed: `python -m deploy.demo.coop > deploy/demo/coop.yaml`.

Names are plants, birds and kinds of groups; addresses and domains are those reserved for documentation.
"""

import sys
from collections.abc import Iterable, Iterator
from random import Random

from deploy.demo.plans import PLANS
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
    PlanId,
    Role,
    Site,
    SiteCheck,
    SiteId,
    Zone,
    ZoneName,
)
from fleet.writing import write

SEED = 20_260_401
MEMBERS = 600
SITES = 1_050
SHARED_ZONE = "coop.example.org"
OWN_ZONE = "example"

PLACES = {  # country, name, web hosts: 86, and two edges each
    "mx1": ("MX", "Ciudad de México", 22),
    "mx2": ("MX", "Guadalajara", 14),
    "us1": ("US", "New York", 22),
    "us2": ("US", "Portland", 14),
    "es1": ("ES", "Barcelona", 14),
}
TAGS = """
    abedul acacia aguacate agave ajenjo alamo albahaca alder alerce algarrobo aliso almendro aloe amapola amaranto
    anemone apple arce arnica aspen aster avellano azahar azalea balsam bamboo barley begonia boj borage brezo
    bryony cactus calla camelia canela caoba cardamom cardo carob castano ceiba celery cerezo cedar chaya chestnut
    chicory chive cilantro ciruelo clavel clover comfrey copal coriander cowslip crocus cypress dalia damson dill
    dogwood durazno elder elm encina endive enebro eucalipto fennel fern ficus flax foxglove fresno fucsia genista
    geranio ginger girasol granado guayaba hawthorn hazel heather hibisco hickory higuera hinojo holly hop jacaranda
    jara jicama juniper
""".split()  # noqa: SIM905
GROUPS = {
    "es": ("Colectivo", "Red", "Asociación", "Cooperativa", "Radio", "Casa", "Huerto", "Escuela", "Taller"),
    "en": ("Friends", "Network", "Tenants", "Radio", "Library", "Garden", "Union", "School", "Workshop", "Archive"),
}  # fmt: skip
CAUSES = {
    "es": (
        "Maíz", "Agua", "Barrio", "Semilla", "Memoria", "Bosque", "Río", "Mar", "Tierra", "Viento", "Puente",
        "Camino", "Colibrí", "Jaguar", "Ceiba", "Milpa",
    ),
    "en": (
        "River", "Harbour", "Seed", "Meadow", "Bridge", "Forest", "Lantern", "Heron", "Otter", "Maple", "Prairie",
        "Canyon", "Willow", "Orchard", "Delta",
    ),
}  # fmt: skip
PLAIN = str.maketrans("áéíóúñ", "aeioun")


def coop(seed: int = SEED) -> Fleet:
    """5 locations in 3 countries, 96 hosts of which 10 edges, 600 members, 1,050 sites, about 1,400 domains."""
    rng = Random(seed)
    hosts = {host.id: host for host in _hosts()}
    members = {member.id: member for member in _members(rng)}
    sites = {site.id: site for site in _sites(rng, list(members.values()), list(hosts.values()))}
    return Fleet(
        locations={
            LocationId(id): Location(id=LocationId(id), country=country, name=name)
            for id, (country, name, _) in PLACES.items()
        },
        hosts=hosts,
        plans=PLANS,
        members=members,
        sites=sites,
        zones={zone.name: zone for zone in _zones(sites.values())},
    )


def _hosts() -> Iterator[Host]:
    tags = iter(TAGS)
    for place, (id, (_, _, webs)) in enumerate(PLACES.items(), start=1):
        kinds = [("web", Role.WEB, n) for n in range(1, webs + 1)] + [
            ("edge", Role.EDGE, n) for n in (1, 2)
        ]
        for name, role, number in kinds:
            last = number + (10 if role is Role.WEB else 200)
            yield Host(
                id=HostId(f"{id}-{name}-{number:02}"),
                tag=next(tags),
                location=LocationId(id),
                addresses=(f"10.{place}.0.{last}", f"2001:db8:{place}::{last:x}"),
                roles=(role,),
                max_sites=60 if role is Role.WEB else None,
            )


def _members(rng: Random) -> Iterator[Member]:
    names = {
        language: [f"{group} {cause}" for group in GROUPS[language] for cause in CAUSES[language]]
        for language in GROUPS
    }
    taken: set[str] = set()
    for number in range(MEMBERS):
        language = "es" if rng.random() < 0.6 else "en"
        name = rng.choice(names[language])
        slug = name.lower().translate(PLAIN).replace(" ", "-")
        if slug in taken:
            slug, name = f"{slug}-{number}", f"{name} {number}"
        taken.add(slug)
        year = rng.choices((2026, 2027), (1, 4))[0]
        yield Member(
            id=MemberId(slug),
            name=name,
            language="es" if language == "es" else "en",
            email=f"web@{slug}.example.org",
            dues_paid_until=f"{year}-{rng.randint(1, 12):02}-01",
        )


def _sites(rng: Random, members: list[Member], hosts: list[Host]) -> Iterator[Site]:
    webs = [host for host in hosts if not host.is_edge]
    owners = members + rng.choices(members, k=SITES - len(members))
    count: dict[MemberId, int] = {}
    for member in owners:
        number = count[member.id] = count.get(member.id, 0) + 1
        id = member.id if number == 1 else f"{member.id}-{number}"
        home = rng.choice(webs)
        static = rng.random() < 0.2
        direct = rng.random() < 0.08
        word = id.replace("-", "_").replace(".", "_")[:28]
        yield Site(
            id=SiteId(id),
            member=member.id,
            plan=PlanId(rng.choices(tuple(PLANS), (60, 28, 9, 3))[0]),
            domains=tuple(_domains(rng, id, direct)),
            home=home.id,
            standbys=_standbys(rng, home, webs),
            mode=_mode(rng, static),
            route="direct" if direct else "edges",
            users=(word,),
            databases=()
            if static
            else tuple(f"{word}_{n}" for n in range(rng.choice((1, 1, 1, 2)))),
            check=rng.choices((SiteCheck(), SiteCheck(path="/healthz", status=200)), (9, 1))[0],
            max_data_loss_s=rng.choices((300.0, 60.0, 3600.0), (8, 1, 1))[0],
        )


def _mode(rng: Random, static: bool) -> Mode | None:
    """Static sites may move by themselves; of the rest most say nothing, which is gated."""
    if static:
        return Mode.AUTOMATIC
    return rng.choices((None, Mode.GATED, Mode.MANUAL), (60, 30, 10))[0]


def _standbys(rng: Random, home: Host, webs: list[Host]) -> tuple[HostId, ...]:
    """One next door, and for two of three sites one in another location."""
    near = rng.choice([h for h in webs if h.location == home.location and h is not home])
    far = rng.choice([h for h in webs if h.location != home.location])
    return (near.id, far.id) if rng.random() < 0.67 else (near.id,)


def _domains(rng: Random, id: str, direct: bool) -> Iterator[Domain]:
    """A name below the co-op's own zone or one of the member's, some with www and more.

    A direct site keeps to zones that the co-op serves: only those can follow it.
    """
    own = Domain(f"{id}.{OWN_ZONE}")
    if rng.random() < (0.7 if direct else 0.55):
        yield Domain(f"{id}.{SHARED_ZONE}")
        extra = 0.12
    else:
        yield own
        extra = 0.55
    if not direct and rng.random() < extra:
        yield Domain(f"www.{own}")
    if not direct and rng.random() < 0.05:
        yield Domain(f"{id}.example.net")


def _zones(sites: Iterable[Site]) -> Iterator[Zone]:
    """The co-op's zone, and those that it serves for members with a direct site of their own name."""
    own = [
        s.domains[0] for s in sites if s.route == "direct" and s.domains[0].endswith(f".{OWN_ZONE}")
    ]
    for name in (SHARED_ZONE, *own):
        yield Zone(
            name=ZoneName(name),
            primary=NameServer(address="10.9.0.1"),
            secondaries=(NameServer(address="10.9.0.2"), NameServer(address="2001:db8:9::3")),
            key="relevo",
        )


HEADER = """\
# A made-up co-op of real shape: tests, benches and the manual use it.
# Written by `python -m deploy.demo.coop`: change that, not this.
"""


def document() -> str:
    return HEADER + write(coop())


if __name__ == "__main__":
    sys.stdout.write(document())
