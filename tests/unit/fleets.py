"""Fleets for tests: one good file, and Hypothesis strategies for any valid fleet."""

from collections.abc import Mapping

from hypothesis import strategies as st
from msgspec import UNSET

from deploy.demo.plans import PLANS
from fleet.kinds import Item, assemble
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
    Plan,
    PlanId,
    Price,
    Role,
    Site,
    SiteCheck,
    SiteId,
    Zone,
    ZoneName,
)

GOOD = """\
version: 1
locations: {mx1: {country: MX, name: Ciudad de México}, us1: {country: US}}
hosts:
  mx1-web-01: {tag: clara, location: mx1, addresses: [10.1.0.11, "fd00:1::11"]}
  mx1-web-09: {tag: rosa, location: mx1, addresses: [10.1.0.19, "fd00:1::19"], max_sites: 60}
  us1-web-01: {tag: sauce, location: us1, addresses: [10.2.0.11, "fd00:2::11"]}
  mx1-edge-01: {tag: pino, location: mx1, addresses: [10.1.0.201], roles: [edge]}
plans:
  solidarity:
    name: Solidarity
    price: {amount: 2500, currency: USD}
    caps: {cpu_weight: 50, cpu_percent: 100, cpu_base_percent: 25, cpu_bank_s: 1800,
           memory_max_bytes: 512 MiB, memory_low_bytes: 48 MiB, tasks: 80,
           read_bytes_per_s: 10 MB, write_bytes_per_s: 5 MB, read_iops: 1000, write_iops: 500,
           php_workers: 8, in_flight: 10, queue: 50, queue_wait_s: 10, requests_per_s: 10,
           requests_burst: 60, client_requests_per_min: 300, egress_bits_per_s: 50000000,
           egress_bytes_per_month: 200 GB, disk_bytes: 5 GB, inodes: 100000,
           database_connections: 8, statement_s: 30, database_cpu_percent: [150, 100, 50, 30],
           mails_per_hour: 100, background_tasks: 20, background_cpu_s_per_day: 1800}
members:
  huerto: {name: Huerto Ñandú, language: es, email: web@huerto.example.org, dues_paid_until: 2027-01-01}
sites:
  huerto: {member: huerto, plan: solidarity, domains: [huerto.example.org], home: mx1-web-01, standbys: [us1-web-01]}
  blog: {member: huerto, plan: solidarity, domains: [blog.example.org], home: mx1-web-09, standbys: [mx1-web-01], mode: automatic, route: direct}
zones:
  example.org: {primary: {address: 10.9.0.1}, secondaries: [{address: "fd00:9::2", port: 5353}], key: relevo, ttl_s: 60}
"""  # noqa: E501  # one line for each item, as the tests count them

TRICKY = (
    "no",
    "Yes",
    "y",
    "null",
    "1e3",
    "010",
    "0x1F",
    "1_000",
    "3.5",
    "12",
    "true",
    "a",
    "T",
    "1.2.3",
)
names = st.sampled_from(TRICKY) | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
labels = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,10}[a-z0-9_])?", fullmatch=True).filter(
    lambda label: not label.startswith("xn--")
)
texts = st.text(max_size=30).filter(str.isprintable)
dates = st.dates().map(lambda d: d.isoformat())


def _plans(id: str, base: Plan, price: Price, queue_wait_s: float, name: str) -> Plan:
    caps = base.caps.__class__(
        **{f: getattr(base.caps, f) for f in base.caps.__struct_fields__}
        | {"queue_wait_s": queue_wait_s}
    )
    return Plan(id=PlanId(id), name=name, price=price, caps=caps)


prices = st.builds(
    Price,
    amount=st.integers(0, 10**9),
    currency=st.sampled_from(("EUR", "MXN", "USD")),
    per=st.sampled_from(("month", "year")),
)
plans = st.builds(
    _plans, names, st.sampled_from(tuple(PLANS.values())), prices, st.floats(1e-9, 1e9), texts
)


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """Any valid fleet: two locations and three hosts at least, one of them an edge."""
    location_ids = draw(st.lists(names, min_size=2, max_size=4, unique=True))
    host_ids = draw(st.lists(names, min_size=3, max_size=6, unique=True))
    tags = draw(st.lists(names, min_size=len(host_ids), max_size=len(host_ids), unique=True))
    locations = {
        id: Location(
            id=LocationId(id), country=draw(st.sampled_from(("MX", "NO"))), name=draw(texts)
        )
        for id in location_ids
    }
    hosts = {
        id: Host(
            id=HostId(id),
            tag=tags[n],
            location=LocationId(draw(st.sampled_from(location_ids))),
            addresses=(f"10.0.0.{n + 1}", f"fd00::{n + 1:x}")[: draw(st.integers(1, 2))],
            roles=(Role.EDGE,) if n == 0 else (Role.WEB,),
            port=draw(st.integers(1, 65535)),
            max_sites=draw(st.none() | st.integers(0, 100)),
        )
        for n, id in enumerate(host_ids)
    }
    found_plans = {p.id: p for p in draw(st.lists(plans, min_size=1, max_size=2))}
    members = {
        id: Member(
            id=MemberId(id),
            name=draw(texts),
            language=draw(st.sampled_from(("en", "es"))),
            dues_paid_until=draw(st.none() | dates),
        )
        for id in draw(st.lists(names, min_size=1, max_size=3, unique=True))
    }
    sites = {
        id: draw(_site(id, n, host_ids[1:], tuple(found_plans), tuple(members)))
        for n, id in enumerate(draw(st.lists(names, max_size=5, unique=True)))
    }
    zones = {
        name: Zone(
            name=ZoneName(name),
            primary=NameServer(address="10.9.0.1", port=draw(st.integers(1, 65535))),
            secondaries=(NameServer(address="fd00:9::1"),)[: draw(st.integers(0, 1))],
            key=draw(names),
            ttl_s=draw(st.integers(5, 86400)),
        )
        for name in draw(
            st.lists(labels.map(lambda label: f"{label}.example"), max_size=2, unique=True)
        )
    }
    parts: dict[str, Mapping[str, Item]] = {
        "locations": locations,
        "hosts": hosts,
        "plans": {str(plan.id): plan for plan in found_plans.values()},
        "members": members,
        "sites": sites,
        "zones": zones,
    }
    return assemble(parts)


@st.composite
def _site(
    draw: st.DrawFn,
    id: str,
    number: int,
    webs: list[str],
    plan_ids: tuple[str, ...],
    member_ids: tuple[str, ...],
) -> Site:
    home, *standbys = draw(st.lists(st.sampled_from(webs), min_size=1, max_size=3, unique=True))
    own = draw(st.lists(labels, min_size=1, max_size=3, unique=True))
    return Site(
        id=SiteId(id),
        member=MemberId(draw(st.sampled_from(member_ids))),
        plan=PlanId(draw(st.sampled_from(plan_ids))),
        domains=tuple(Domain(f"{label}.s{number}.example") for label in own),
        home=HostId(home),
        standbys=tuple(HostId(standby) for standby in standbys),
        mode=draw(st.none() | st.sampled_from(Mode)),
        route=draw(st.sampled_from(("edges", "direct"))),
        users=tuple(draw(st.lists(names, max_size=2))),
        databases=tuple(draw(st.lists(names, max_size=2))),
        slice=draw(st.just(UNSET) | st.just("a-b.slice") | st.just("user-1001.slice")),
        check=SiteCheck(
            path=draw(st.from_regex(r"/[!-~]{0,20}", fullmatch=True)),
            status=draw(st.none() | st.integers(100, 599)),
        ),
        max_data_loss_s=draw(st.floats(0, 1e12)),
    )
