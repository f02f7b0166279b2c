"""A host's files, read within bounds, and the document that comes of a whole tree of them."""

import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.discover import apache, nginx
from agent.discover import files as bounds
from agent.discover.apache import Apache
from agent.discover.databases import APPLICATIONS, configured_in, decoded, in_folder
from agent.discover.files import HostFiles
from agent.discover.found import VirtualHost
from agent.discover.host import public, served_ports
from agent.discover.nginx import Nginx
from agent.discover.php import Pools, sections, socket
from fleet.documents import read
from fleet.model import MemberId
from tests.unit.commands import relevo
from tests.unit.hosttree import DRUPAL, LINKS, TREE, WORDPRESS, Texts, write
from tests.unit.test_discover_sites import answered

ROOT = os.geteuid() == 0
SETTINGS = dict(APPLICATIONS)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write(tmp_path / "host", TREE, LINKS)


def everything(root: Path) -> dict[str, tuple[object, ...]]:
    """All that could have been changed, times of access among it."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        seen = path.lstat()
        held = path.read_bytes() if stat.S_ISREG(seen.st_mode) else b""
        found[str(path)] = (seen.st_mode, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, held)
    return found


async def test_the_document_of_a_whole_host(tree: Path) -> None:
    """Apache with macros and variables, nginx, two versions of PHP, WordPress, Drupal: said as people would."""
    before = everything(tree)
    said = await relevo("discover", "--root", str(tree), "--location", "es1", "--plan", "basic")
    assert said.code == 0
    assert said.err == ""
    assert everything(tree) == before
    fleet = read(answered(said.out), "web7.yaml")
    assert {
        id: (site.member, site.domains, site.users, site.databases) for id, site in fleet.sites.items()
    } == {
        "huerto.example": (
            "huerto", ("huerto.example", "www.huerto.example", "huerta.example"), ("huerto",), ("huerto_wp",),
        ),
        "libro.example": (
            "libro", ("libro.example", "www.libro.example", "libros.example"), ("libro",), ("libro_d10",),
        ),
        "radio.example": ("radio", ("radio.example", "www.radio.example"), ("radio",), ("radio_emisora",)),
        "xn--mueca-pta.example": (
            "teatro", ("xn--mueca-pta.example", "www.xn--mueca-pta.example"), ("teatro",), (),
        ),
    }  # fmt: skip
    assert fleet.members[MemberId("libro")].name == "Cooperativa del Libro"
    assert "never printed" not in said.out
    for mark in (
        "*.huerto.example is a wildcard",
        "/run/php/teatro.sock, where no pool",
        "radio_emisora may be its database",
        "No site is known to use them: tienda-vieja",
        "000-default.conf:1: it has no name",
        "sites-enabled/default:1: _ is a catch-all",
    ):
        assert mark in said.out


HOSTILE: dict[str, Callable[[int], str]] = {
    "spaces": lambda n: "<a" + " " * n + "b" + " " * n,
    "lines": lambda n: "\n" * n + "x",
    "comments": lambda n: "/*\n" * (n // 3),
    "quotes": lambda n: "'database' => \"" * (n // 15),
    "sections": lambda n: "<a>\n" * (n // 4),
    "blocks": lambda n: "a {" * (n // 3),
    "doubling": lambda n: "Define A x\n" + "Define A ${A}${A}\n" * (n // 17) + "ServerName ${A}\n",
    "macros": lambda n: "<Macro M $a>\nUse M $a$a\n</Macro>\n" + "Use M x\n" * (n // 100),
    "slashes": lambda n: "a \\\n" * (n // 4),
    "sockets": lambda n: "SetHandler " + "fcgi://" * (n // 14) + ":" * (n // 2),
    "words": lambda n: "server { server_name " + "a " * (n // 2) + ";",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_text_takes_long(kind: str) -> None:
    """Members write some of these files: what is long or nested is read in seconds, or not at all."""
    hostile = HOSTILE[kind](256 << 10)
    began = time.process_time()
    Apache(Texts({apache.MAIN: hostile, "/etc/apache2/envvars": hostile}))
    Nginx(Texts({nginx.MAIN: hostile}))
    Pools(Texts({"/etc/php/8.2/fpm/php-fpm.conf": hostile}))
    for of_one in SETTINGS.values():
        configured_in(hostile, "/x", of_one)
    assert time.process_time() - began < 10


async def test_twice_it_says_the_same(tree: Path) -> None:
    """Ids and their order do not change between runs."""
    first = await relevo("discover", "--root", str(tree))
    assert await relevo("discover", "--root", str(tree)) == first


async def test_json_holds_the_same(tree: Path) -> None:
    """The fleet, its marks, what was not taken, for programs."""
    said = await relevo(
        "discover", "--root", str(tree), "--member", "us", "--route", "edges", "--json"
    )
    found = json.loads(said.out)
    assert set(found["fleet"]["sites"]) == {
        "huerto.example", "libro.example", "radio.example", "xn--mueca-pta.example",
    }  # fmt: skip
    assert {site["member"] for site in found["fleet"]["sites"].values()} == {"us"}
    assert found["fleet"]["members"] == {}
    assert found["loose_databases"] == ["tienda-vieja"]
    assert any(mark["about"] == "sites.huerto.example" for mark in found["marks"])


async def test_several_hosts_make_one_document(tree: Path) -> None:
    """The lines of one section go below the heading of another host's document; nothing of theirs is lost."""
    wishes = ("--location", "es1", "--plan", "basic", "--member", "us")
    sites = await relevo(
        "discover", "--root", str(tree), *wishes, "--host", "web7", "--only", "sites"
    )
    hosts = await relevo(
        "discover", "--root", str(tree), *wishes, "--host", "web7", "--only", "hosts"
    )
    other = write(
        tree.parent / "other",
        {"/etc/hostname": "web8", "/etc/apache2/apache2.conf": "ServerName b.example"},
    )
    first = answered((await relevo("discover", "--root", str(other), *wishes)).out)
    hosts_out = hosts.out.replace('"?"', '"203.0.113.8"')
    both = first.replace("hosts:\n", f"hosts:\n{hosts_out}").replace(
        "sites:\n", f"sites:\n{sites.out}"
    )
    fleet = read(both, "coop.yaml")
    assert {id: site.home for id, site in fleet.sites.items()} == {
        "b.example": "web8", "huerto.example": "web7", "libro.example": "web7", "radio.example": "web7",
        "xn--mueca-pta.example": "web7",
    }  # fmt: skip
    assert "not taken as a site" in sites.out


async def test_an_empty_host_is_a_document_too(tmp_path: Path) -> None:
    """No web server, no name: said, with status 0; an id that is none is refused with 2."""
    said = await relevo("discover", "--root", str(tmp_path))
    assert said.code == 0
    assert "does another web server serve sites here?" in said.out
    assert (await relevo("discover", "--root", str(tmp_path), "--plan", "a b")).code == 2
    assert (await relevo("discover", "--root", str(tmp_path / "none"))).code == 2


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Without root's power to read everything."""
    if ROOT:
        os.seteuid(65534)
    try:
        yield
    finally:
        if ROOT:
            os.seteuid(0)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """The same tree, where an ordinary user comes to."""
    with TemporaryDirectory(prefix="relevo-discover-") as folder:
        Path(folder).chmod(0o755)
        yield write(Path(folder), TREE, LINKS)


async def test_a_configuration_that_may_not_be_read_fails(reachable: Path) -> None:
    """Half a document would pass for a whole one: status 1, the remedy, and nothing on standard output."""
    assert (await relevo("discover", "--root", str(reachable))).code == 0
    for folder in ("etc/apache2", "etc/nginx"):
        (reachable / folder).chmod(0)
    with ordinary_user():
        said = await relevo("discover", "--root", str(reachable))
    for folder in ("etc/apache2", "etc/nginx"):
        (reachable / folder).chmod(0o755)
    assert (said.code, said.out) == (1, "")
    assert "run this as root" in said.err


async def test_an_ordinary_user_is_told_what_stays_hidden(reachable: Path) -> None:
    """An application's secrets and MariaDB's folder: the sites are found, what could not be read is named."""
    warm = await relevo("discover", "--root", str(reachable))
    (reachable / "home/huerto/public_html/wp-config.php").chmod(0)
    (reachable / "var/lib/mysql").chmod(0)
    with ordinary_user():
        said = await relevo("discover", "--root", str(reachable))
    (reachable / "var/lib/mysql").chmod(0o755)
    assert said.code == 0
    assert read(answered(said.out), "x").sites.keys() == read(answered(warm.out), "x").sites.keys()
    assert "wp-config.php: can't be read: Permission denied" in said.out
    assert "databases: they could not be listed (run as root?)" in said.out


async def test_one_broken_file_costs_only_itself(tree: Path) -> None:
    """A dangling link, a pipe, a folder, a file of zeros, Latin-1: named where it matters, and the rest is read."""
    enabled = tree / "etc/apache2/sites-enabled"
    (enabled / "gone.conf").symlink_to("../sites-available/gone.conf")
    (enabled / "loop.conf").symlink_to("loop.conf")
    os.mkfifo(enabled / "pipe.conf")
    (enabled / "zeros.conf").write_bytes(bytes(1000))
    (enabled / "latin.conf").write_bytes(
        "<VirtualHost *>\n# año\nServerName latin.example\n</VirtualHost>\n".encode("latin-1")
    )
    said = await relevo("discover", "--root", str(tree))
    assert said.code == 0
    assert "latin.example:" in said.out
    assert "huerto.example:" in said.out
    assert "pipe.conf: can't be read: is not an ordinary file" in said.out


def test_links_lead_where_the_host_would_follow_them(tmp_path: Path) -> None:
    """An absolute link of the host begins at the host's own /, and `..` never leaves it."""
    (tmp_path / "secret").write_text("outside")
    root = tmp_path / "host"
    (root / "etc").mkdir(parents=True)
    (root / "etc/inside").write_text("inside")
    for name, target in {
        "absolute": "/etc/inside", "relative": "inside", "up": "../../secret", "far": "../../../../etc/inside",
        "loop": "loop",
    }.items():  # fmt: skip
        (root / "etc" / name).symlink_to(target)
    files = HostFiles(str(root))
    assert [files.read(f"/etc/{name}") for name in ("absolute", "relative", "up", "far", "loop")] == [
        "inside", "inside", None, "inside", None,
    ]  # fmt: skip
    assert files.read("/../secret") is None
    assert [doubt.about for doubt in files.doubts] == ["/etc/loop"]


def test_what_is_too_large_is_told_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file beyond the limit, a folder with too many, more files than a host can have."""
    monkeypatch.setattr(bounds, "FILE_LIMIT_BYTES", 10)
    monkeypatch.setattr(bounds, "FOLDER_LIMIT", 3)
    (tmp_path / "large").write_bytes(bytes(11))
    (tmp_path / "fits").write_bytes(b"0123456789")
    files = HostFiles(str(tmp_path))
    assert files.read("/large") is None
    assert files.read("/fits") == "0123456789"
    for number in range(4):
        (tmp_path / f"f{number}").touch()
    assert len(files.names("/")) == 3
    monkeypatch.setattr(bounds, "FILES_LIMIT", 2)
    assert files.read("/fits") is None
    assert [doubt.about for doubt in files.doubts] == ["/large", "/", "/fits"]


def test_patterns_find_what_the_servers_would(tmp_path: Path) -> None:
    """In the order of names, hidden files only where they are asked for."""
    for name in ("b.conf", "a.conf", ".hidden.conf", "c.conf~", "x[1].conf"):
        (tmp_path / name).touch()
    files = HostFiles(str(tmp_path))
    assert files.glob("/*.conf") == ("/a.conf", "/b.conf", "/x[1].conf")
    assert files.glob("/.*.conf") == ("/.hidden.conf",)
    assert files.glob("/b.conf") == ("/b.conf",)
    assert files.glob("/none") == ()


@pytest.mark.parametrize(
    ("folder", "name"),
    [("tienda@002dvieja", "tienda-vieja"), ("a_b$1", "a_b$1"), ("a@0040b", "a@b")],
)
def test_a_database_s_folder_tells_its_name(folder: str, name: str) -> None:
    """As MariaDB writes what a file system may not hold."""
    assert decoded(folder) == name


def test_the_server_s_own_databases_are_nobody_s(tree: Path) -> None:
    """Nor is what is no database: lost+found, files."""
    found = in_folder(HostFiles(str(tree)))
    assert sorted(found or ()) == ["huerto_wp", "libro_d10", "radio_emisora", "tienda-vieja"]
    assert in_folder(HostFiles(str(tree / "etc"))) is None


@pytest.mark.parametrize(
    ("file", "said", "database", "server"),
    [
        ("wp-config.php", WORDPRESS, "huerto_wp", ""),
        ("wp-config.php", 'define("DB_NAME","x");define("DB_HOST","10.0.0.9:3306");', "x", "10.0.0.9:3306"),
        ("wp-config.php", "define('DB_NAME', getenv('DB'));", None, ""),
        ("sites/*/settings.php", DRUPAL, "libro_d10", ""),
        ("configuration.php", "<?php class JConfig { public $db = 'j'; public $host = 'localhost'; }", "j", ""),
        ("config/config.php", "'dbname' => 'cloud', 'dbhost' => 'db.internal',", "cloud", "db.internal"),
        (".env", "DB_HOST=127.0.0.1\nDB_DATABASE=laravel\n", "laravel", ""),
        (".env", "#DB_DATABASE=no\nDATABASE_URL=\"mysql://u:p@db2:3306/symfony?x=1\"\n", "symfony", "db2"),
        (".env", "DB_DATABASE=\nDB_USERNAME=x\n", None, ""),
    ],
)  # fmt: skip
def test_an_application_names_its_database(
    file: str, said: str, database: str | None, server: str
) -> None:
    """Comments name none; another host's is told as such."""
    found = configured_in(said, "/x", SETTINGS[file])
    assert [(c.database, c.server) for c in found] == ([(database, server)] if database else [])


@settings(deadline=None)
@given(st.sampled_from(sorted(SETTINGS)), st.text())
def test_no_application_s_text_breaks_the_reader(file: str, said: str) -> None:
    """Whatever lies there."""
    for found in configured_in(said, "/x", SETTINGS[file]):
        assert found.database


@settings(deadline=None)
@given(st.text())
def test_no_pool_s_text_breaks_the_reader(said: str) -> None:
    """Whatever lies there, a pool before it is found."""
    names = [name for name, _, _ in sections(f"[first]\nuser = ana\n{said}")]
    assert names[:2] == ["global", "first"]


def test_pools_of_all_versions_are_found() -> None:
    """The last word on a setting counts, $pool is filled in, an include that loops ends."""
    main = "/etc/php/8.2/fpm/php-fpm.conf"
    pool = "[a]\nuser = x\nuser=ana ; her own\nlisten = 9001\n;listen = no\n[b]\nlisten=/var/run/$pool.sock\n"
    pools = Pools(
        Texts({main: "[global]\ninclude = /p/*.conf\n", "/p/a.conf": f"include=/p/*.conf\n{pool}"})
    )
    assert [(p.name, p.place, p.user, p.listen) for p in pools.found] == [
        ("a", "/p/a.conf:2", "ana", "127.0.0.1:9001"),
        ("b", "/p/a.conf:7", None, "/run/b.sock"),
    ]


@pytest.mark.parametrize(
    "same", ["9000", "127.0.0.1:9000", "localhost:9000", "[::]:9000", "0.0.0.0:9000"]
)
def test_one_place_to_listen_is_written_one_way(same: str) -> None:
    """A pool and the server before it write it differently."""
    assert socket(same) == "127.0.0.1:9000"


def test_visitors_reach_public_addresses() -> None:
    """Loopback and link-local ones are never meant; private ones only where there are no others."""
    assert public(["127.0.0.1", "10.0.0.7", "203.0.114.7", "::1", "fe80::1%eth0", "2a00::7"]) == (
        "203.0.114.7", "2a00::7",
    )  # fmt: skip
    assert public(["127.0.0.1", "10.0.0.7", "fd00::7"]) == ("10.0.0.7", "fd00::7")


def test_the_ports_are_those_that_the_world_reaches() -> None:
    """Behind a cache or a proxy of the same host is not the world."""
    listens = (
        "80",
        "*:443",
        "[::]:8080",
        "127.0.0.1:81",
        "[::1]:82",
        "unix:/x",
        "_default_",
        "10.0.0.1",
    )
    assert served_ports((VirtualHost(server="nginx", place="x:1", listens=listens),)) == (
        80,
        443,
        8080,
    )
