"""Fleet files: what is read, and what is said of a file that cannot be."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.demo.coop import document
from fleet import yamltree
from fleet.documents import BadDocument, load, read
from fleet.model import Domain, HostId, MemberId, Mode, PlanId, SiteId
from fleet.writing import write
from tests.unit.fleets import GOOD

# What is replaced in the good file, by what, and the lines that are said then.
BAD: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "unknown home": (
        "home: mx1-web-09",
        "home: mx1-web-99",
        ("24: sites.blog.home: 'mx1-web-99' is not a host; did you mean 'mx1-web-09'?",),
    ),
    "unknown standby, plan and member at once": (
        "member: huerto, plan: solidarity, domains: [blog.example.org], home: mx1-web-09, standbys: [mx1-web-01]",
        "member: tierra, plan: solidarty, domains: [blog.example.org], home: mx1-web-09, standbys: [quux]",
        (
            "24: sites.blog.member: 'tierra' is not a member; declare it under members",
            "24: sites.blog.plan: 'solidarty' is not a plan; did you mean 'solidarity'?",
            "24: sites.blog.standbys[0]: 'quux' is not a host; declare it under hosts",
        ),
    ),
    "everybody's slice": (
        "mode: automatic, route: direct",
        "mode: automatic, route: direct, slice: system.slice",
        (
            "24: sites.blog.slice: 'system.slice' holds more than a site; "
            "name a slice of the site's own",
        ),
    ),
    "no slice": (
        "mode: automatic, route: direct",
        "mode: automatic, route: direct, slice: ../blog.slice",
        (
            "24: sites.blog.slice: '../blog.slice' is not text that matches "
            r"^[A-Za-z0-9][A-Za-z0-9_.:@\\-]{0,248}\.slice",
        ),
    ),
    "unknown location": (
        "tag: clara, location: mx1",
        "tag: clara, location: mx3",
        ("4: hosts.mx1-web-01.location: 'mx3' is not a location; did you mean 'mx1'?",),
    ),
    "home without role web": (
        "home: mx1-web-09",
        "home: mx1-edge-01",
        (
            "24: sites.blog.home: 'mx1-edge-01' serves no sites: its roles are edge; "
            "name a host with role web",
        ),
    ),
    "standby is the home": (
        "standbys: [mx1-web-01]",
        "standbys: [mx1-web-09]",
        ("24: sites.blog.standbys[0]: 'mx1-web-09' is the home itself; name another host",),
    ),
    "standby twice": (
        "standbys: [mx1-web-01]",
        "standbys: [mx1-web-01, mx1-web-01]",
        ("24: sites.blog.standbys[1]: 'mx1-web-01' is there twice; keep one",),
    ),
    "domain of two sites": (
        "[blog.example.org]",
        "[blog.example.org, Huerto.Example.Org.]",
        (
            "24: sites.blog.domains[1]: 'huerto.example.org' belongs to the site huerto already; "
            "one domain, one site",
        ),
    ),
    "domain twice": (
        "[blog.example.org]",
        "[blog.example.org, BLOG.example.org]",
        ("24: sites.blog.domains[1]: 'blog.example.org' is there twice; keep one",),
    ),
    "not a domain": (
        "[blog.example.org]",
        "[blog..org, 'xn--zzzzzz.example.org', localhost]",
        (
            "24: sites.blog.domains[0]: 'blog..org' is not a domain name: a label is empty: "
            "two dots together, or one at an end; write it like www.example.org",
            "24: sites.blog.domains[1]: 'xn--zzzzzz.example.org' is not an internationalized domain name: "
            "Invalid A-label; write it like www.example.org",
            "24: sites.blog.domains[2]: 'localhost' is not a domain name: it has one label only, "
            "and no top-level domain; write it like www.example.org",
        ),
    ),
    "no domain": ("[blog.example.org]", "[]", ("24: sites.blog.domains: a site needs a domain",)),
    "tag twice": (
        "tag: rosa",
        "tag: clara",
        ("5: hosts.mx1-web-09.tag: 'clara' is also the tag of mx1-web-01; choose another",),
    ),
    "bad addresses": (
        '[10.1.0.11, "fd00:1::11"]',
        '[10.1.0.300, "fe80::1%eth0", 10.1.0.19, 224.0.0.1, "::ffff:10.0.0.1", 10.4.4.4, 10.4.4.4]',
        (
            "4: hosts.mx1-web-01.addresses[0]: '10.1.0.300' is not an IP address",
            "4: hosts.mx1-web-01.addresses[1]: 'fe80::1%eth0' has a zone index, "
            "which only one machine understands",
            "4: hosts.mx1-web-01.addresses[3]: '224.0.0.1' is not the address of one host",
            "4: hosts.mx1-web-01.addresses[4]: '::ffff:10.0.0.1' is an IPv4 address in disguise: write 10.0.0.1",
            "4: hosts.mx1-web-01.addresses[6]: '10.4.4.4' is there twice; keep one",
            "5: hosts.mx1-web-09.addresses[0]: '10.1.0.19' is also an address of mx1-web-01; "
            "one address, one host",
        ),
    ),
    "no address": (
        '[10.1.0.11, "fd00:1::11"]',
        "[]",
        ("4: hosts.mx1-web-01.addresses: a host needs an address",),
    ),
    "an address that is not a list": (
        "[10.1.0.201]",
        "10.1.0.201",
        ("7: hosts.mx1-edge-01.addresses: '10.1.0.201' is not a list; write [10.1.0.201]",),
    ),
    "a check of a host with a blank": (
        "tag: rosa,",
        "tag: rosa, check: '/a b',",
        ("5: hosts.mx1-web-09.check: '/a b' is not a path; begin with \"/\", without spaces",),
    ),
    "roles": (
        "roles: [edge]",
        "roles: [edge, edge, webb]",
        (
            "7: hosts.mx1-edge-01.roles[2]: 'webb' is not one of web, edge, database, mail; did you mean 'web'?",
            "23: sites.huerto.route: no host of the fleet is an edge; "
            "give a host the role edge, or write route: direct",
        ),
    ),
    "role twice": (
        "roles: [edge]",
        "roles: [edge, edge]",
        ("7: hosts.mx1-edge-01.roles: names a role twice; keep one",),
    ),
    "no edge": (
        "roles: [edge]",
        "roles: [mail]",
        (
            "23: sites.huerto.route: no host of the fleet is an edge; "
            "give a host the role edge, or write route: direct",
        ),
    ),
    "unknown field": (
        "location: us1,",
        "location: us1, adresses: [10.0.0.1],",
        ("6: hosts.us1-web-01.adresses: is not a field of a host; did you mean 'addresses'?",),
    ),
    "unknown part": (
        "zones:",
        "zonas:",
        ("25: zonas: is not a part of a fleet; did you mean 'zones'?",),
    ),
    "missing field": (
        "tag: sauce, ",
        "",
        ("6: hosts.us1-web-01.tag: is missing",),
    ),
    "the id again": (
        "tag: sauce",
        "id: us1-web-01, tag: sauce",
        ("6: hosts.us1-web-01.id: is said twice; remove it: the key says it",),
    ),
    "types, ranges and choices, in one object": (
        "mode: automatic, route: direct",
        "mode: autmatic, route: edge, max_data_loss_s: -1, users: root, check: {path: x, status: 1}",
        (
            "24: sites.blog.mode: 'autmatic' is not one of automatic, gated, manual; did you mean 'automatic'?",
            "24: sites.blog.route: 'edge' is not one of edges, direct; did you mean 'edges'?",
            "24: sites.blog.max_data_loss_s: '-1' is not a number >= 0.0",
            "24: sites.blog.users: 'root' is not a list; write [root]",
            "24: sites.blog.check.path: 'x' is not a path: \"/\" first, no spaces",
            "24: sites.blog.check.status: '1' is not a whole number >= 100",
        ),
    ),
    "a name with a line end": (
        "mode: automatic",
        'users: ["a\\n"]',
        (
            "24: sites.blog.users[0]: 'a\\n' is not a name: letters, digits and _ . -, "
            "a letter or digit first, 63 at most",
        ),
    ),
    "no is not text": (
        "us1: {country: US}",
        "us1: {country: NO}",
        ("2: locations.us1.country: 'NO' is not text; quote it: \"NO\"",),
    ),
    "an id that YAML takes for something else": (
        "us1: {country: US}",
        "us1: {country: US}, no: {country: US}, 1e3: {country: US}, 010: {country: US}, ~: {country: US}",
        (
            "2: locations.no: 'no' is not text to YAML; quote it: \"no\"",
            "2: locations.1e3: '1e3' is not text to YAML; quote it: \"1e3\"",
            "2: locations.010: '010' is not text to YAML; quote it: \"010\"",
            "2: locations.~: '~' is not text to YAML; quote it: \"~\"",
            "2: locations.~: '~' is not usable as an id; letters, digits and _ . -, "
            "a letter or digit first, 63 at most",
        ),
    ),
    "numbers that readers disagree about": (
        "max_sites: 60",
        "max_sites: 060, port: 1:20",
        tuple(
            f"5: hosts.mx1-web-09.{field}: '{value}' is one number to some readers of YAML and another, or text, "
            "to others; write it in decimal, or quote it if it is text"
            for field, value in (("max_sites", "060"), ("port", "1:20"))
        ),
    ),
    "a number without end": (
        "max_sites: 60",
        "max_sites: .inf",
        (
            "5: hosts.mx1-web-09.max_sites: '.inf' is not a number that can be used; "
            "write it in decimal, or quote it if it is text",
        ),
    ),
    "a field without its value": (
        "max_sites: 60",
        "port: ~",
        ("5: hosts.mx1-web-09.port: has no value; leave it out, or give one",),
    ),
    "the same key twice": (
        "  blog: {member",
        "  huerto: {member",
        ("24: sites.huerto: is there twice, first in line 23; keep one",),
    ),
    "anchor and alias": (
        "home: mx1-web-09, standbys: [mx1-web-01]",
        "home: &a mx1-web-09, standbys: [*a]",
        (
            "24: sites.blog.home: '&a' is an anchor or an alias, which fleet files do without; write it out",
            "24: sites.blog.standbys[0]: '*a' is an anchor or an alias, which fleet files do without; "
            "write it out",
        ),
    ),
    "a tag of YAML": (
        "home: mx1-web-09",
        "home: !!python/name:os.system mx1-web-09",
        (
            "24: sites.blog.home: 'tag:yaml.org,2002:python/name:os.system' is a tag, "
            "which fleet files do without; remove it",
        ),
    ),
    "a list as a key": (
        "us1: {country: US}",
        "us1: {country: US}, ? [a, b] : c",
        (
            "2: locations.?: '?' has a mapping or a list where a key should be; use a name as the key",
        ),
    ),
    "a site that is no mapping": (
        "members:\n",
        "members:\n  tierra: Tierra\n",
        ("21: members.tierra: 'Tierra' must be a mapping from ids to what they stand for",),
    ),
    "dues and mail": (
        "email: web@huerto.example.org, dues_paid_until: 2027-01-01",
        "email: web, dues_paid_until: 2027-02-30",
        (
            "21: members.huerto.email: 'web' is not a mail address; write name@domain",
            "21: members.huerto.dues_paid_until: '2027-02-30' is not a date; "
            "write year-month-day: 2026-12-31",
        ),
    ),
    "a name that commands the terminal": (
        "name: Huerto Ñandú",
        'name: "Huerto\\e[2J"',
        ("21: members.huerto.name: 'Huerto\\x1b[2J' holds a control character; remove it",),
    ),
    "price": (
        "price: {amount: 2500, currency: USD}",
        "price: {amount: 25.5, currency: usd}",
        (
            "11: plans.solidarity.price.amount: '25.5' is not a whole number",
            "11: plans.solidarity.price.currency: 'usd' is not a currency: "
            "three capital letters (ISO 4217), such as EUR",
        ),
    ),
    "relations between caps": (
        "php_workers: 8, in_flight: 10",
        "php_workers: 65, in_flight: 10",
        (
            "13: plans.solidarity.caps.memory_max_bytes: '536870912' must be at least 32 MiB "
            "for each of 65 php_workers = 2181038080",
            "13: plans.solidarity.caps.tasks: '80' must be more than php_workers + 15 = 80",
            "15: plans.solidarity.caps.in_flight: '10' must be at least php_workers = 65: "
            "the rest would never work",
        ),
    ),
    "more relations between caps": (
        "database_connections: 8, statement_s: 30, database_cpu_percent: [150, 100, 50, 30]",
        "database_connections: 9, statement_s: 30, database_cpu_percent: [150, 100, 150, 30]",
        (
            "18: plans.solidarity.caps.database_connections: '9' must not exceed php_workers = 8",
            "18: plans.solidarity.caps.database_cpu_percent: '150, 100, 150, 30' must be positive "
            "and never grow with the window",
        ),
    ),
    "caps below what they rest on": (
        "cpu_percent: 100, cpu_base_percent: 25",
        "cpu_percent: 100, cpu_base_percent: 101",
        ("12: plans.solidarity.caps.cpu_base_percent: '101' must not exceed cpu_percent = 100",),
    ),
    "more memory kept than allowed": (
        "memory_low_bytes: 48 MiB",
        "memory_low_bytes: 1 GiB",
        (
            "13: plans.solidarity.caps.memory_low_bytes: '1073741824' must not exceed "
            "memory_max_bytes = 536870912",
        ),
    ),
    "memory kept that is taken back": (
        "memory_low_bytes: 48 MiB",
        "memory_low_bytes: 512 MiB",
        (
            "13: plans.solidarity.caps.memory_low_bytes: '536870912' must not exceed "
            "memory_high_ratio 0.9 of 536870912 = 483183820",
        ),
    ),
    "a burst of less than a second": (
        "requests_burst: 60",
        "requests_burst: 9",
        ("16: plans.solidarity.caps.requests_burst: '9' must be at least requests_per_s = 10",),
    ),
    "a database busier than its site for long": (
        "[150, 100, 50, 30]",
        "[150, 150, 150, 101]",
        (
            "18: plans.solidarity.caps.database_cpu_percent: '150, 150, 150, 101' over 300 s "
            "must not exceed cpu_percent = 100",
        ),
    ),
    "more background tasks than tasks": (
        "background_tasks: 20",
        "background_tasks: 81",
        ("19: plans.solidarity.caps.background_tasks: '81' must not exceed tasks = 80",),
    ),
    "a plan that cannot be read hides no other problem": (
        "[150, 100, 50, 30]",
        "[150, 100, x, 30]",
        ("18: plans.solidarity.caps.database_cpu_percent[2]: 'x' is not a whole number",),
    ),
    "a size without meaning": (
        "disk_bytes: 5 GB",
        "disk_bytes: 5 gigs",
        (
            "17: plans.solidarity.caps.disk_bytes: '5 gigs' is not a size; write a number of bytes, "
            "or one with a unit: TiB, GiB, MiB, KiB, TB, GB, MB, kB, B",
        ),
    ),
    "zones": (
        '{address: 10.9.0.1}, secondaries: [{address: "fd00:9::2", port: 5353}]',
        '{address: ns.example.org}, secondaries: [{address: "fd00:9::2"}, {address: "fd00:9::2"}]',
        (
            "26: zones.example.org.primary.address: 'ns.example.org' is not an IP address",
            "26: zones.example.org.secondaries[1].address: 'fd00:9::2' is there twice; keep one",
        ),
    ),
    "a zone without a name": (
        "  example.org: {primary",
        "  -org: {primary",
        (
            "26: zones.-org: '-org' is not a domain name: the label '-org' begins or ends with a hyphen; "
            "write it like www.example.org",
        ),
    ),
    "a server's port": (
        "port: 5353",
        "port: 70000",
        ("26: zones.example.org.secondaries[0].port: '70000' is not a whole number <= 65535",),
    ),
    "no version": ("version: 1\n", "\n", ("2: does not say its version; begin with `version: 1`",)),
    "another version": (
        "version: 1",
        "version: 2",
        ("1: version: '2' is not a version that is understood here: 1",),
    ),
    "two documents": (
        "zones:",
        "---\nzones:",
        ("25: a second document begins here; one file, one fleet",),
    ),
    "tabs": (
        "  huerto: {name",
        "\thuerto: {name",
        (
            "21: is not YAML: while scanning for the next token, found character that cannot start any token; "
            "indent with spaces, not with tabs",
        ),
    ),
    "a control character": (
        "Huerto Ñandú",
        "Huerto \x07",
        ("21: holds the control character U+0007; remove it, or write it as an escape in quotes",),
    ),
}


def said(text: str | bytes) -> list[str]:
    with pytest.raises(BadDocument) as caught:
        read(text, "fleet.yaml")
    return str(caught.value).split("\n")


def test_a_good_file_is_read_without_a_warning() -> None:
    """Ids come from the keys, domains become canonical, sizes become bytes; nothing is complained about."""
    document = load(GOOD, "fleet.yaml")
    assert document.warnings == ()
    fleet = document.fleet
    assert fleet.hosts[HostId("mx1-web-09")].max_sites == 60
    assert fleet.plans[PlanId("solidarity")].caps.memory_max_bytes == 512 << 20
    assert fleet.members[MemberId("huerto")].dues_paid_until == "2027-01-01"
    assert fleet.sites[SiteId("blog")].mode is Mode.AUTOMATIC
    assert fleet.sites[SiteId("huerto")].effective_mode is Mode.GATED


@pytest.mark.parametrize("case", BAD)
def test_each_problem_names_line_field_value_and_remedy(case: str) -> None:
    """The lines said of a bad file are exactly these: every problem, and nothing that follows from one."""
    old, new, expected = BAD[case]
    assert GOOD.count(old) == 1
    assert said(GOOD.replace(old, new)) == [f"fleet.yaml:{line}" for line in expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1: the file is empty"),
        ("# nothing\n", "1: the file is empty"),
        ("- a\n- b\n", "1: a fleet file is a mapping; begin with `version: 1`"),
        (b"version: 1\nmembers: {a: {name: \xf1}}\n", "2: is not UTF-8: the byte 0xF1 has no meaning there; "
         "save the file as UTF-8"),
        ("version: 1\nmembers: {a: {name: \ud800}}\n", "2: holds half a character; save the file as UTF-8"),
        ("version: 1\nx: " + "[" * 17 + "]" * 17, "2: x[0][0]: is nested deeper than 16 levels"),
        ("a: " + "[" * 100_000, "1: a[0][0]: is nested deeper than 16 levels"),
        ("# " + "x" * yamltree.TEXT_LIMIT_BYTES,
         "1: the file has 16777218 bytes; 16777216 is the most that is read"),
        ("[" + "1," * 1001 + "]", "1: a list has more than 1000 values"),
        ("{" + ", ".join(f"k{n}: 1" for n in range(700_000)) + "}", "1: the file holds more than 600000 values"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_on_is_one_problem(text: str | bytes, expected: str) -> None:
    """Unreadable, bottomless and oversized files are refused with one line."""
    assert said(text) == [f"fleet.yaml:{expected}"]


def test_internationalized_domains_become_a_labels() -> None:
    """A U-label, capitals and a trailing dot are brought into the form of the network."""
    fleet = read(GOOD.replace("[blog.example.org]", "[Ñandú.Example.Org., _a.example.org]"), "f")
    assert fleet.sites[SiteId("blog")].domains == (
        Domain("xn--and-6ma2c.example.org"),
        "_a.example.org",
    )


def test_a_slice_is_kept_and_one_that_is_not_said_is_not_written() -> None:
    """A site may name where its processes are; a release that knows nothing of slices reads all other sites."""
    fleet = read(GOOD.replace("mode: automatic,", "mode: automatic, slice: blog.slice,"), "x.yaml")
    stored = {id: msgspec.json.encode(site) for id, site in fleet.sites.items()}
    assert b'"slice":"blog.slice"' in stored[SiteId("blog")]
    assert b"slice" not in stored[SiteId("huerto")]
    assert read(write(fleet), "x.yaml") == fleet


def test_a_zone_written_in_two_ways_is_one_zone() -> None:
    """Two keys that name one zone are a problem, not a silent choice."""
    text = GOOD + "  Example.ORG.: {primary: {address: 10.9.0.5}, key: relevo}\n"
    assert said(text) == [
        "fleet.yaml:27: zones.Example.ORG.: is the zone example.org again; keep one"
    ]


def test_warnings_leave_the_fleet_usable() -> None:
    """What people should weigh is told with its line, and the fleet is read."""
    text = GOOD.replace("tag: clara, location: mx1, addresses: [10.1.0.11, \"fd00:1::11\"]",
                        "tag: clara, location: mx1, addresses: [10.1.0.11]")  # fmt: skip
    text = text.replace("[blog.example.org]", "[blog.example.net]").replace(
        "max_sites: 60", "max_sites: 0"
    )
    text = text.replace("standbys: [us1-web-01]", "mode: automatic")
    text = text.replace("[10.2.0.11,", "[10.1.0.11,").replace(
        "tag: sauce", "tag: sauce, port: 8080"
    )
    document = load(text, "fleet.yaml")
    assert set(map(str, document.warnings)) == {
        "fleet.yaml:5: hosts.mx1-web-09.max_sites: '0' is home to 1 sites",
        "fleet.yaml:6: hosts.us1-web-01.addresses[0]: '10.1.0.11' is also an address of mx1-web-01: "
        "DNS cannot tell their direct sites apart",
        "fleet.yaml:23: sites.huerto.mode: 'automatic' has no standby to move to; name a standby",
        "fleet.yaml:24: sites.blog.standbys[0]: 'mx1-web-01' has no IPv6 address: "
        "a move there would take the site's AAAA records away",
        "fleet.yaml:24: sites.blog.domains[0]: 'blog.example.net' is in no declared zone: "
        "a move would not change its address",
    }


def test_a_plan_with_less_disk_than_a_site_needs_is_doubted() -> None:
    """A number that lost its unit would make every write of its sites fail; it is told, and what people say counts."""
    text = GOOD.replace("disk_bytes: 5 GB, inodes: 100000", "disk_bytes: 5, inodes: 300")
    at, why = "fleet.yaml:17: plans.solidarity.caps", "is less than one WordPress needs, some"
    assert list(map(str, load(text, "fleet.yaml").warnings)) == [
        f"{at}.disk_bytes: '5' {why} 104857600; give more",
        f"{at}.inodes: '300' {why} 5000; give more",
    ]


def test_a_high_mark_without_swap_is_doubted() -> None:
    """The plan is taken, for its maximum holds; what it says of a high mark means nothing, and that is told."""
    at = "fleet.yaml:13: plans.solidarity.caps.swap_max_ratio"
    dry = GOOD.replace("tasks: 80", "tasks: 80, swap_max_ratio: 0")
    assert list(map(str, load(dry, "fleet.yaml").warnings)) == [
        f"{at}: '0' leaves memory_high_ratio 0.9 without effect: the maximum alone holds; "
        "allow some swap, or say memory_high_ratio: 1"
    ]
    assert not load(dry.replace("ratio: 0", "ratio: 0, memory_high_ratio: 1"), "f.yaml").warnings


def test_very_many_problems_are_counted_not_listed() -> None:
    """A thousand problems are told, the rest by number."""
    lines = said("version: 1\nsites:\n" + "".join(f"  s{n}: {{home: x{n}}}\n" for n in range(1200)))
    assert len(lines) == 1001
    assert lines[-1].endswith("and 3801 more problems from here on")


PIECES = ("{", "}", "[", "]", ":", ",", "&a ", "*a", "!!int ", "\n", "\t", "  ", "- ", "? ", "| ", '"', "'", "#",
          "~", "no", "1e999", "0x1", "\x00", "\ud800", "é", "---\n", "...\n", "<<: ", "%YAML 1.1\n", "\ufeff",
          "9" * 5000, "x" * 300, "\u2028")  # fmt: skip


@given(st.randoms(use_true_random=False), st.integers(1, 8))
@settings(max_examples=400, deadline=None)
def test_no_mutation_of_a_file_breaks_the_reader(rng: random.Random, times: int) -> None:
    """Whatever a file holds, it is read or it is refused with lines to act on."""
    text = GOOD
    for _ in range(times):
        at = rng.randrange(len(text) + 1)
        until = min(len(text), at + rng.choice((0, 0, 1, 5, 40)))
        text = text[:at] + rng.choice(("", *PIECES)) + text[until:]
    _reads_or_refuses(text)


@given(st.binary(max_size=200) | st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_input_breaks_the_reader(text: bytes | str) -> None:
    """Bytes and text of any kind are refused in the same way."""
    _reads_or_refuses(text)


def _reads_or_refuses(text: str | bytes) -> None:
    try:
        read(text, "fleet.yaml")
    except BadDocument as bad:
        assert bad.problems
        for problem in bad.problems:
            assert problem.line >= 1
            assert "\n" not in str(problem)
            assert problem.message


def test_a_large_file_with_one_wrong_reference_everywhere_is_judged_quickly() -> None:
    """Suggestions are bounded: a renamed host of a thousand sites costs one look-up, not a thousand."""
    text = document().replace("  mx1-web-07: {tag", "  mx1-web-7: {tag")
    lines = said(text)
    assert len(lines) > 10
    assert all(line.endswith("'mx1-web-07' is not a host; did you mean 'mx1-web-17'?") or "mx1-web-7" in line
               for line in lines)  # fmt: skip
