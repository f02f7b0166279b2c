"""Which virtual hosts are one site, whose it is, and what is none."""

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.discover.accounts import accounts
from agent.discover.draft import Wishes, draft, site_id, text
from agent.discover.found import Account, Configured, Pool, Seen, VirtualHost
from agent.discover.sites import group
from fleet.documents import BadDocument, read
from fleet.model import NAMED, SiteId
from fleet.yamltree import compose

ANA, EVA = (Account(user=u, uid=n, home=f"/home/{u}") for n, u in ((1001, "ana"), (1002, "eva")))
WORDS = st.sampled_from(
    [
        "a.example", "www.a.example", "b.example", "www.b.example", "*.a.example", "_", "", "localhost", "10.0.0.1",
        "[::1]:80", "A.Example:443", "muñeca.example", "~^(.+)$", "$hostname", "web7", "phpmyadmin.a.example", "..",
        "x" * 64 + ".example", ".".join(["y" * 60] * 4) + ".example", "_dmarc.a.example", "-a.example", "https://c.example",
    ]
)  # fmt: skip
ROOTS = st.sampled_from(
    [None, "/srv/a", "/srv/b", "/var/www/html", "/usr/share/phpmyadmin", "/home/ana/web"]
)
USERS = st.sampled_from(["ana", "eva", "www-data", "odd user", "x" * 80])
HOSTS = st.lists(
    st.builds(
        VirtualHost,
        server=st.sampled_from(["apache", "nginx"]),
        place=st.sampled_from(["/etc/x:1", "/etc/x:2", "/etc/\udc80\n- y:3"]),
        names=st.lists(WORDS | st.text(max_size=6), max_size=4).map(tuple),
        listens=st.lists(
            st.sampled_from(["80", "*:443", "[::]:8080", "unix:/x", "*", "99999"]) | st.text(max_size=4),
            max_size=2,
        ).map(tuple),
        root=ROOTS,
        users=st.lists(USERS, max_size=2).map(tuple),
        sockets=st.lists(st.sampled_from(["/run/a.sock", "127.0.0.1:9000"]), max_size=2).map(tuple),
        proxies=st.lists(st.sampled_from(["http://127.0.0.1:8080/", "http://far.example/"]), max_size=1).map(tuple),
        redirect=st.sampled_from([None, None, "a.example", "b.example", "gone.example"]),
        doubts=st.lists(st.text(max_size=5), max_size=1).map(tuple),
    ),
    max_size=8,
)  # fmt: skip
DATABASES = st.sampled_from(["ana_wp", "shop", "odd name", "ü", "ana"])


@st.composite
def hosts_seen(draw: st.DrawFn) -> Seen:
    configured = st.builds(
        Configured,
        database=DATABASES,
        place=st.just("/srv/a/wp-config.php"),
        server=st.sampled_from(["", "db1"]),
    )
    return Seen(
        virtual_hosts=tuple(draw(HOSTS)),
        pools=(Pool(name="a", place="/p:1", user=draw(USERS), listen="/run/a.sock"),),
        accounts={"ana": ANA, "eva": EVA},
        owners=draw(st.dictionaries(st.sampled_from(["/srv/a", "/srv/b"]), st.sampled_from(["ana", "eva"]))),
        applications={"/srv/a": tuple(draw(st.lists(configured, max_size=2)))},
        databases=draw(st.none() | st.frozensets(DATABASES)),
        hostnames=draw(st.sampled_from([(), ("web7", "web7.coop.example"), ("odd name",)])),
        addresses=draw(st.sampled_from([(), ("10.0.0.7",), ("203.0.113.7", "203.0.113.8")])),
    )  # fmt: skip


def seen(*hosts: VirtualHost, **more: object) -> Seen:
    said = {"accounts": {"ana": ANA, "eva": EVA}, "owners": {}, "applications": {}, **more}
    return Seen(virtual_hosts=hosts, **said)  # type: ignore[arg-type]


def host(*names: str, root: str | None = None, **more: object) -> VirtualHost:
    place = f"/etc/{'-'.join(names)}:{len(root or '')}"
    return VirtualHost(server="apache", place=place, names=names, root=root, **more)  # type: ignore[arg-type]


def domains(*hosts: VirtualHost, **more: object) -> list[tuple[str, ...]]:
    return [site.domains for site in group(seen(*hosts, **more)).sites]


@settings(deadline=None)
@given(hosts_seen())
def test_a_domain_is_in_one_site_and_no_name_is_lost(found: Seen) -> None:
    """Each domain once; each virtual host is in a site or told to be none."""
    grouped = group(found)
    every = [domain for site in grouped.sites for domain in site.domains]
    assert len(every) == len(set(every))
    places = {place for site in grouped.sites for place in site.places}
    places |= {doubt.about for doubt in grouped.not_sites}
    assert places >= {host.place for host in found.virtual_hosts} - {
        host.place for host in found.virtual_hosts if host.names
    }
    assert {host.place for host in found.virtual_hosts} <= places


@settings(deadline=None)
@given(hosts_seen())
def test_the_document_is_yaml_whatever_the_host_says(found: Seen) -> None:
    """A document always, with unique ids; every problem that the fleet has with it is a mark of its own."""
    drawn = draft(found, Wishes())
    written = text(drawn)
    tree = compose(written)
    assert tree.root is not None, written
    assert tree.found == [], written
    with pytest.raises(BadDocument) as bad:
        read(written, "web7.yaml")
    for problem in bad.value.problems:
        assert problem.value == "?" or '"?"' in str(problem), written


@settings(deadline=None)
@given(hosts_seen())
def test_answered_marks_make_a_fleet(found: Seen) -> None:
    """With the "?" filled in, and what they name declared, the document is accepted as it stands."""
    read(answered(text(draft(found, Wishes()))), "web7.yaml")


def answered(written: str) -> str:
    """What a person does: says where, whose and what for, once each."""
    plan = (
        "  basic: {name: Basic, price: {amount: 1, currency: EUR}, caps: {cpu_weight: 100, cpu_percent: 100, "
        "cpu_base_percent: 20, cpu_bank_s: 60, memory_max_bytes: 512 MiB, memory_low_bytes: 64 MiB, tasks: 64, "
        "read_bytes_per_s: 10 MiB, write_bytes_per_s: 10 MiB, read_iops: 100, write_iops: 100, php_workers: 4, "
        "in_flight: 8, queue: 8, queue_wait_s: 5, requests_per_s: 50, requests_burst: 100, "
        "client_requests_per_min: 600, egress_bits_per_s: 10000000, egress_bytes_per_month: 10 GiB, "
        "disk_bytes: 5 GiB, inodes: 100000, database_connections: 4, statement_s: 10, "
        "database_cpu_percent: [80, 60, 40, 20], mails_per_hour: 50, background_tasks: 4, "
        "background_cpu_s_per_day: 600}}"
    )
    return (
        written.replace("locations:\n", "locations:\n  es1: {country: ES}\n", 1)
        .replace("plans:\n", f"plans:\n{plan}\n", 1)
        .replace("members:\n", "members:\n  us: {name: Us}\n", 1)
        .replace('location: "?"', "location: es1")
        .replace('member: "?"', "member: us")
        .replace('plan: "?"', "plan: basic")
        .replace('addresses: ["?"]', 'addresses: ["203.0.113.7"]')
        .replace('tag: "?"', "tag: web7")
        .replace('home: "?"', "home: web7")
        .replace('  "?":', "  web7:")
    )


def test_the_same_files_of_one_user_are_one_site() -> None:
    """Several virtual hosts, several domains, one folder: one site."""
    assert domains(
        host("a.example", root="/srv/a", users=("ana",)),
        host("b.example", root="/srv/a", users=("ana",)),
        host("c.example", root="/srv/c", users=("ana",)),
    ) == [("a.example", "b.example"), ("c.example",)]


def test_the_same_files_of_two_users_are_two_sites() -> None:
    """Whose scripts run as other users stay apart only where their files differ too."""
    ana, eva = (
        host("a.example", root="/srv/a", users=("ana",)),
        host("b.example", root="/srv/b", users=("eva",)),
    )
    both = host("a.example", "b.example", root="/srv/b", users=("eva",))
    assert domains(ana, eva) == [("a.example",), ("b.example",)]
    # The second has a name of the first one's: it keeps to the first, and is told.
    grouped = group(seen(ana, both))
    assert [site.domains for site in grouped.sites] == [("a.example",), ("b.example",)]
    assert "a.example" in grouped.sites[1].marks[-1]


def test_www_goes_with_its_apex() -> None:
    """Also where only one of them has files, and where a redirect leads to the other."""
    for hosts in permutations(
        [
            host("a.example", root="/srv/a", users=("ana",)),
            host("www.a.example", redirect="a.example"),
            host("b.example", redirect="a.example"),
            host("www.c.example", root="/srv/c"),
            host("c.example"),
        ]
    ):
        found = {frozenset(names): names[0] for names in domains(*hosts)}
        assert found[frozenset({"a.example", "www.a.example", "b.example"})] == "a.example"
        assert set(found) == {
            frozenset({"a.example", "www.a.example", "b.example"}),
            frozenset({"c.example", "www.c.example"}),
        }


def test_first_pages_do_not_join() -> None:
    """Two sites in the folder that packages put their first page in are two."""
    assert (
        len(
            domains(
                host("a.example", root="/var/www/html"), host("b.example", root="/var/www/html")
            )
        )
        == 2
    )


def test_a_redirect_to_elsewhere_is_a_site_with_a_mark() -> None:
    """Its domain must go on answering; where it leads is told."""
    (site,) = group(seen(host("a.example", redirect="gone.example"))).sites
    assert site.domains == ("a.example",)
    assert any("gone.example" in mark for mark in site.marks)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("_", "catch-all"),
        ("localhost", "no public name"),
        ("10.0.0.7", "an address"),
        ("[2001:db8::7]:80", "an address"),
        ("web7.coop.example", "the host's own name"),
        ("nas.local", "no public name"),
        ("phpmyadmin.coop.example", "a tool"),
        ("*.coop.example", "a wildcard"),
        ("~^(.+)$", "a pattern"),
        ("$hostname", "a variable"),
        ("${NAME}", "a variable"),
        ("-a.example", "not a domain name"),
    ],
)
def test_what_is_no_site_is_told_with_its_reason(name: str, why: str) -> None:
    """Nothing is dropped in silence, and nothing that visitors can't ask for becomes a domain."""
    grouped = group(seen(host(name, root="/srv/a"), hostnames=("web7", "web7.coop.example")))
    assert grouped.sites == ()
    assert why in grouped.not_sites[0].what


def test_a_tool_s_folder_is_no_site() -> None:
    """phpMyAdmin under a good name is the host's, not a member's."""
    grouped = group(seen(host("db.coop.example", root="/usr/share/phpmyadmin")))
    assert grouped.sites == ()
    assert "db.coop.example" in grouped.not_sites[0].what


def test_the_user_is_whom_it_runs_as_then_whose_files_they_are() -> None:
    """The virtual host's word, its pool's, the owner of its files, the home they are in; never a shared one."""
    pools = (
        Pool(name="e", place="p:1", user="eva", listen="/run/e.sock"),
        Pool(name="www", place="p:2", user="www-data", listen="/run/w.sock"),
    )
    sites = group(
        seen(
            host("a.example", root="/srv/a", users=("ana",)),
            host("b.example", root="/srv/b", sockets=("/run/e.sock",)),
            host("c.example", root="/srv/c", sockets=("/run/w.sock",)),
            host("d.example", root="/home/ana/web"),
            host("e.example", root="/srv/e"),
            pools=pools,
            owners={"/srv/a": "eva", "/srv/c": "eva"},
        )
    ).sites
    assert [site.users for site in sites] == [("ana",), ("eva",), ("eva",), ("ana",), ()]
    assert any("no Unix user" in mark for mark in sites[4].marks)


def test_databases_by_the_application_s_word_then_by_the_user_s_name() -> None:
    """Named ones are sure; those that begin like the only site's user are a guess, and said to be one."""
    found = seen(
        host("a.example", root="/srv/a", users=("ana",)),
        host("b.example", root="/srv/b", users=("eva",)),
        applications={
            "/srv/a": (
                Configured(database="shop", place="/srv/a/wp-config.php"),
                Configured(database="gone", place="/srv/a/wp-config.php"),
                Configured(database="far", place="/srv/a/wp-config.php", server="db1"),
            )
        },
        databases=frozenset({"shop", "eva_blog", "evangelina", "odd name", "old"}),
    )
    grouped = group(found)
    assert [site.databases for site in grouped.sites] == [("shop",), ("eva_blog",)]
    told = " ".join(grouped.sites[0].marks)
    assert "gone" in told
    assert "db1" in told
    assert "eva_blog" in " ".join(grouped.sites[1].marks)
    assert grouped.loose == ("evangelina", "odd name", "old")


def test_a_server_behind_another_of_the_host_is_the_same_site() -> None:
    """nginx before Apache: one site, with the user and the files of the one behind, and no mark for passing on."""
    front = VirtualHost(
        server="nginx", place="n:1", names=("a.example",), proxies=("http://127.0.0.1:8080",)
    )
    behind = host("a.example", root="/srv/a", users=("ana",), listens=("127.0.0.1:8080",))
    (site,) = group(seen(front, behind)).sites
    assert (site.users, site.marks) == (("ana",), ())
    (alone,) = group(seen(front)).sites
    assert "8080" in alone.marks[0]


@settings(deadline=None)
@given(st.lists(st.from_regex(r"(www\.)?[a-z0-9_-]{1,80}\.example", fullmatch=True), unique=True))
def test_ids_are_names_and_unique(names: list[str]) -> None:
    """Whatever the domains, no two sites share an id."""
    taken: list[SiteId] = []
    for name in names:
        id = site_id(name, taken)
        assert NAMED.match(id)
        assert id not in taken
        taken.append(id)


@settings(deadline=None)
@given(st.text())
def test_passwd_of_any_kind_is_read(said: str) -> None:
    """Lines that are none are left out."""
    assert "ana" in accounts(f"{said}\nana:x:1001:1001:Ana,,,:/home/ana:/bin/sh\n+::::::\n")
