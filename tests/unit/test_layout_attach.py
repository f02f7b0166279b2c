"""How sites are attached, judged from made-up hosts: configuration, processes and cgroups in a folder."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from agent.layout.attach import attach
from agent.layout.attached import Attached
from agent.layout.keep import Layout
from agent.layout.masters import folder, slice_of
from agent.layout.running import Reader
from agent.layout.served import served
from agent.usage.sampler import own_users
from fleet.caps import Attachment, Tenant
from fleet.model import PlanId, SiteId
from runtime.words import LANGUAGES, explain
from tests.unit.hosttree import APACHE2, ENVVARS, NGINX, PASSWD, POOL, write

SHARED_FPM = "/system.slice/php8.2-fpm.service"
CGROUPS = Path("/cg")
OWN_POOL = "[libro]\nuser = libro\nlisten = /run/relevo-php/given/run/php/libro.sock\n"


def virtual(domain: str, handler: str = "", log: str = "") -> str:
    php = f"<FilesMatch x>\nSetHandler {handler}\n</FilesMatch>\n" if handler else ""
    logged = f"CustomLog {log} common\n" if log else ""
    return f"<VirtualHost *:80>\nServerName {domain}\n{php}{logged}</VirtualHost>\n"


def status(
    pid: int, uids: tuple[int, ...], gids: tuple[int, ...] | None = None, parent: int = 1
) -> str:
    """As the kernel writes it: real, effective, saved and file system's."""
    said = {"Uid": uids, "Gid": uids if gids is None else gids}
    ids = "".join("\t".join((f"{name}:", *map(str, four))) + "\n" for name, four in said.items())
    return f"Name:\tx\nPid:\t{pid}\nPPid:\t{parent}\n{ids}"


def process(pid: int, uid: int, cgroup: str, title: str = "php") -> dict[str, str]:
    return {
        f"/proc/{pid}/status": status(pid, (uid,) * 4),
        f"/proc/{pid}/cgroup": f"0::{cgroup}\n",
        f"/proc/{pid}/cmdline": f"{title}\0",
    }


def master(pid: int, main: str, cgroup: str) -> dict[str, str]:
    return process(pid, 0, cgroup, f"php-fpm: master process ({main})")


BASE = {
    "/etc/passwd": PASSWD,
    "/etc/apache2/apache2.conf": APACHE2,
    "/etc/apache2/envvars": ENVVARS,
    "/etc/apache2/ports.conf": "Listen 80\n",
    "/etc/php/8.2/fpm/php-fpm.conf": "[global]\ninclude=/etc/php/8.2/fpm/pool.d/*.conf\n",
    **process(1, 0, "/init.scope"),
    **master(700, "/etc/php/8.2/fpm/php-fpm.conf", SHARED_FPM),
    **process(701, 1001, SHARED_FPM),
}


def pool(name: str, user: str, more: str = "") -> dict[str, str]:
    text = POOL.format(user=user).replace(f"[{user}]", f"[{name}]", 1) + more
    return {f"/etc/php/8.2/fpm/pool.d/{name}.conf": text}


def vhosts(*texts: str) -> dict[str, str]:
    return {"/etc/apache2/sites-enabled/all.conf": "".join(texts)}


def fcgi(name: str) -> str:
    return f'"proxy:unix:/run/php/{name}.sock|fcgi://localhost"'


def tenant(domain: str, *users: str, slice: str | None = None) -> Tenant:
    return Tenant(plan=PlanId("standard"), domains=(domain,), users=users, slice=slice)


HUERTO, LIBRO, RADIO = SiteId("huerto"), SiteId("libro"), SiteId("radio")
TWO = {HUERTO: tenant("huerto.example", "huerto"), LIBRO: tenant("libro.example", "libro")}
TWO_VHOSTS = vhosts(
    virtual("huerto.example", fcgi("huerto"), "/var/log/apache2/huerto.log"),
    virtual("libro.example", fcgi("libro"), "/var/log/apache2/libro.log"),
)
TWO_POOLS = pool("huerto", "huerto", "pm.status_path = /status\n") | pool("libro", "libro")


def judged(
    root: Path, tree: dict[str, str], tenants: dict[SiteId, Tenant]
) -> dict[SiteId, Attached]:
    host = write(root, BASE | tree)
    found = attach(tenants, Reader(str(host)).look(), CGROUPS)
    for one in found.values():  # every reason can be said
        assert all(one.why.code not in explain(one.why, language) for language in LANGUAGES)
    return found


def test_a_pool_of_a_shared_master_is_seen_by_its_user_and_status(tmp_path: Path) -> None:
    """Neither is held; the one whose status is not set up is told so; each has its own log."""
    found = judged(tmp_path, TWO_VHOSTS | TWO_POOLS, TWO)
    huerto, libro = found[HUERTO], found[LIBRO]
    assert huerto.attachment is libro.attachment is Attachment.POOL
    assert (huerto.why.code, libro.why.code) == ("layout-pool", "layout-pool-silent")
    assert huerto.status == (Path("/run/php/huerto.sock"), "/status") and libro.status is None
    assert huerto.uids == (1001,) and huerto.slice is None and huerto.cgroups == ()
    assert huerto.logs == (Path("/var/log/apache2/huerto.log"),)


@pytest.mark.parametrize("user", ["www-data", "radio", "nobody-that-is-known"])
def test_php_that_runs_as_somebody_else_is_not_told_by_the_sites_users(
    tmp_path: Path, user: str
) -> None:
    """As all sites do, or as another person: what huerto's own processes take is no part of what its pages cost."""
    found = judged(tmp_path, TWO_VHOSTS | pool("huerto", user) | pool("libro", "libro"), TWO)
    huerto = found[HUERTO]
    assert (huerto.attachment, huerto.why.code) == (Attachment.POOL, "layout-pool-of-all")
    assert huerto.why.values["user"] == user
    assert own_users(huerto) == (), "so that nothing is called idle, and nobody is blamed"
    assert own_users(found[LIBRO]) == (1004,)


@pytest.mark.parametrize("first", ["huerto", "www-data"])
def test_of_two_pools_the_one_that_tells_less_counts(tmp_path: Path, first: str) -> None:
    """One runs as the site's user, the other as everybody: its own processes are a part of it, and no sum."""
    second = "www-data" if first == "huerto" else "huerto"
    tree = vhosts(virtual("huerto.example", fcgi("one")), virtual("huerto.example", fcgi("two")))
    found = judged(tmp_path, tree | pool("one", first) | pool("two", second), TWO)
    assert found[HUERTO].why.code == "layout-pool-of-all"
    assert own_users(found[HUERTO]) == ()


def test_a_unit_of_its_own_in_its_users_slice_is_held_whole(tmp_path: Path) -> None:
    """As `relevo layout convert` leaves it: by the socket that systemd gives, whether it runs now or not."""
    own = pool("huerto", "huerto") | {"/etc/relevo/php/libro.conf": OWN_POOL}
    unit = "/user.slice/user-1004.slice/relevo-php@libro.service"
    runs = master(800, "/etc/relevo/php/libro.conf", unit) | process(801, 1004, unit)
    drop_in = {
        "/etc/systemd/system/relevo-php@libro.service.d/site.conf": "[Service]\nSlice=user-1004.slice\n"
    }
    for n, tree in enumerate((runs, drop_in)):
        libro = judged(tmp_path / str(n), TWO_VHOSTS | own | tree, TWO)[LIBRO]
        assert libro.attachment is Attachment.SLICE and libro.slice == "user-1004.slice"
        assert libro.cgroups == (CGROUPS / "user.slice/user-1004.slice",)
        assert libro.why.code == "layout-own-slice"


def test_a_pool_that_came_back_is_told_before_it_stops_php(tmp_path: Path) -> None:
    """A control panel wrote it again: the unit still serves, but the shared php-fpm would not start any more."""
    own = {"/etc/relevo/php/libro.conf": OWN_POOL}
    unit = "/user.slice/user-1004.slice/relevo-php@libro.service"
    tree = TWO_VHOSTS | TWO_POOLS | own | master(800, "/etc/relevo/php/libro.conf", unit)
    found = judged(tmp_path, tree, TWO)
    assert found[LIBRO].attachment is Attachment.SLICE
    assert found[LIBRO].why.code == "layout-doubled"
    assert found[LIBRO].why.values["unit"] == "php8.2-fpm.service"
    assert found[HUERTO].why.code == "layout-pool"


def test_a_masters_own_configuration_is_found_by_its_title(tmp_path: Path) -> None:
    """A co-op's own units count as relevo's do: what matters is where the process is."""
    unit = "/user.slice/user-1001.slice/php@huerto.service"
    tree = {"/srv/php/huerto.conf": POOL.format(user="huerto")}
    tree |= master(900, "/srv/php/huerto.conf", unit) | process(701, 1001, unit)
    found = judged(tmp_path, TWO_VHOSTS | tree | pool("libro", "libro"), TWO)
    assert (found[HUERTO].attachment, found[HUERTO].slice) == (Attachment.SLICE, "user-1001.slice")
    assert found[LIBRO].attachment is Attachment.POOL


def test_processes_outside_the_slice_are_told(tmp_path: Path) -> None:
    """Debian's cron runs jobs in its own cgroup: what is held is not called all."""
    unit = "/user.slice/user-1001.slice/php@huerto.service"
    tree = {"/srv/php/huerto.conf": POOL.format(user="huerto")}
    tree |= master(900, "/srv/php/huerto.conf", unit) | process(701, 1001, unit)
    tree |= process(950, 1001, "/system.slice/cron.service")
    huerto = judged(tmp_path, TWO_VHOSTS | tree, TWO)[HUERTO]
    assert huerto.attachment is Attachment.SLICE
    assert huerto.why.code == "layout-slice-leaks" and huerto.why.values["where"] == "cron.service"


def test_sites_of_one_user_share_its_slice_and_are_told_apart_by_their_units(
    tmp_path: Path,
) -> None:
    """One cap holds both, which is said; what each uses is its own unit's."""
    tree: dict[str, str] = {}
    tenants = {}
    for n, name in enumerate(("huerto", "radio")):
        main = f"/srv/php/{name}.conf"
        tree[main] = POOL.format(user="huerto").replace("[huerto]", f"[{name}]", 1)
        tree |= master(900 + n, main, f"/user.slice/user-1001.slice/php@{name}.service")
        tenants[SiteId(name)] = tenant(f"{name}.example", "huerto")
    both = vhosts(
        virtual("huerto.example", fcgi("huerto")), virtual("radio.example", fcgi("radio"))
    )
    found = judged(tmp_path, tree | both, tenants)
    for name in ("huerto", "radio"):
        site = found[SiteId(name)]
        assert (site.attachment, site.slice) == (Attachment.SLICE, "user-1001.slice")
        assert site.why.code == "layout-slice-shared" and site.uids == ()
        assert site.cgroups == (CGROUPS / f"user.slice/user-1001.slice/php@{name}.service",)


def of_one_user(
    slices: dict[str, str], **named: str
) -> tuple[dict[str, str], dict[SiteId, Tenant]]:
    """Sites whose PHP runs as the user `huerto`, each in a unit of its own in the slice that is said."""
    tree: dict[str, str] = {}
    tenants = {}
    for n, (name, slice) in enumerate(slices.items()):
        main = f"/srv/php/{name}.conf"
        tree[main] = POOL.format(user="huerto").replace("[huerto]", f"[{name}]", 1)
        tree[main] += f"listen = /run/php/{name}.sock\n"
        tree |= master(900 + n, main, f"/{folder(slice)}/php@{name}.service")
        tenants[SiteId(name)] = tenant(f"{name}.example", "huerto", slice=named.get(name))
    sites = vhosts(*(virtual(f"{name}.example", fcgi(name)) for name in slices))
    return tree | sites, tenants


def test_a_site_that_has_a_slice_apart_from_others_of_its_user_is_told(tmp_path: Path) -> None:
    """Two full caps for one user: where its PHP belongs is said, unless the fleet names that slice for it."""
    slices = {"huerto": "user-1001.slice", "radio": "site-radio.slice"}
    found = judged(tmp_path / "a", *of_one_user(slices))
    huerto, radio = found[HUERTO], found[RADIO]
    assert (huerto.slice, huerto.why.code) == ("user-1001.slice", "layout-slice-shared")
    assert (radio.attachment, radio.slice) == (Attachment.SLICE, "site-radio.slice")
    assert radio.why.code == "layout-slice-apart"
    assert (
        radio.why.values["wanted"] == "user-1001.slice" and radio.why.values["others"] == "huerto"
    )
    meant = judged(tmp_path / "b", *of_one_user(slices, radio="site-radio.slice"))[RADIO]
    assert meant.why.code != "layout-slice-apart"
    outside = judged(tmp_path / "c", *of_one_user({**slices, "radio": "system.slice"}))[RADIO]
    assert outside.why.values["slice"] == "user-1001.slice", "what its unit should say"


@pytest.mark.parametrize(
    ("users", "others", "runs_as", "slice"),
    [
        (["huerto"], ["huerto"], "huerto", "user-1001.slice"),
        (["huerto", "www-data"], ["huerto"], "huerto", "user-1001.slice"),
        (["huerto", "radio"], ["huerto", "radio"], "radio", "user-1002.slice"),
        (["huerto", "radio"], ["radio", "huerto"], "www-data", "user-1001.slice"),
        (["huerto", "libro"], ["huerto"], "huerto", None),
        (["huerto"], ["radio"], "huerto", None),
        (["www-data"], ["www-data"], "www-data", None),
        (["gone"], ["gone"], "gone", None),
        ([], [], None, None),
    ],
)
def test_sites_share_a_slice_where_each_of_their_users_is_shared(
    users: list[str], others: list[str], runs_as: str | None, slice: str | None, tmp_path: Path
) -> None:
    """That of whom the PHP runs as; a site with a user of its own has a cap of its own."""
    tenants = {HUERTO: tenant("h.example", *users), RADIO: tenant("r.example", *others)}
    running = Reader(str(write(tmp_path, BASE))).look()
    assert served(tenants, running, CGROUPS).common_slice(HUERTO, runs_as) == slice


def test_a_slice_of_its_own_has_its_users_beside_it(tmp_path: Path) -> None:
    """Two users: their logins can't be in the site's slice, and their sum is the site."""
    unit = "/site.slice/site-libro.slice/php@libro.service"
    tree = {"/srv/php/libro.conf": POOL.format(user="libro")}
    tree |= master(900, "/srv/php/libro.conf", unit)
    tenants = {LIBRO: tenant("libro.example", "libro", "radio", slice="site-libro.slice")}
    libro = judged(tmp_path, TWO_VHOSTS | tree, tenants)[LIBRO]
    assert libro.attachment is Attachment.SLICE and libro.why.code == "layout-slice-beside"
    assert [str(path.relative_to(CGROUPS)) for path in libro.cgroups] == [
        "site.slice/site-libro.slice",
        "user.slice/user-1004.slice",
        "user.slice/user-1002.slice",
    ]


def test_a_slice_for_all_sites_is_no_sites_slice(tmp_path: Path) -> None:
    """One cap on it would hold them all as one; each one's use is seen by its unit. Named in the fleet, it is meant."""
    tree: dict[str, str] = {}
    for n, name in enumerate(("huerto", "libro")):
        main = f"/srv/php/{name}.conf"
        tree |= {main: POOL.format(user=name)}
        tree |= master(900 + n, main, f"/sites.slice/php@{name}.service")
    found = judged(tmp_path / "a", TWO_VHOSTS | tree, TWO)
    for name in ("huerto", "libro"):
        site = found[SiteId(name)]
        assert (site.attachment, site.why.code) == (Attachment.POOL, "layout-unit-outside")
        assert site.slice is None and site.cgroups == (CGROUPS / f"sites.slice/php@{name}.service",)
    named = {HUERTO: tenant("huerto.example", "huerto", slice="sites.slice"), LIBRO: TWO[LIBRO]}
    huerto = judged(tmp_path / "b", TWO_VHOSTS | tree, named)[HUERTO]
    assert (huerto.slice, huerto.why.code) == ("sites.slice", "layout-slice-shared")


def test_a_named_slice_that_its_php_is_not_in_holds_nothing(tmp_path: Path) -> None:
    """A unit of its own elsewhere is seen exactly and not held; a shared pool stays a pool."""
    unit = "/system.slice/php@libro.service"
    tree = {"/srv/php/libro.conf": POOL.format(user="libro")}
    tree |= master(900, "/srv/php/libro.conf", unit)
    tenants = {LIBRO: tenant("libro.example", "libro", slice="libro.slice")}
    apart = judged(tmp_path / "a", TWO_VHOSTS | tree, tenants)[LIBRO]
    assert (apart.attachment, apart.why.code) == (Attachment.POOL, "layout-unit-outside")
    assert apart.cgroups == (CGROUPS / unit.lstrip("/"),)
    pooled = judged(tmp_path / "b", TWO_VHOSTS | TWO_POOLS, tenants)[LIBRO]
    assert (pooled.attachment, pooled.cgroups) == (Attachment.POOL, ())
    app = {RADIO: tenant("radio.example", "radio", slice="radio.slice")}
    trusted = judged(tmp_path / "c", vhosts(virtual("radio.example")), app)[RADIO]
    assert (trusted.attachment, trusted.why.code) == (Attachment.SLICE, "layout-slice-named")


MOD_PHP = {
    "/etc/apache2/mods-enabled/php8.2.load": "LoadModule php_module /usr/lib/apache2/modules/libphp8.2.so\n"
}


def proxied(domain: str) -> str:
    return f"<VirtualHost *:80>\nServerName {domain}\nProxyPass / http://127.0.0.1:3000/\n</VirtualHost>\n"


def test_what_runs_inside_the_web_server_is_in_no_slice_whatever_the_fleet_names(
    tmp_path: Path,
) -> None:
    """With mod_php its pages are made in Apache's processes: its log tells of it, a login of its user does not."""
    named = {RADIO: tenant("radio.example", "radio", slice="user-1002.slice")}
    login = process(950, 1002, "/user.slice/user-1002.slice/session-1.scope")
    logged = vhosts(virtual("radio.example", log="/var/log/apache2/radio.log"))
    inside = judged(tmp_path / "a", logged | MOD_PHP | login, named)[RADIO]
    assert (inside.attachment, inside.why.code) == (Attachment.LOG, "layout-not-in-slice")
    assert inside.slice is None and inside.in_common
    unlogged = judged(tmp_path / "b", vhosts(virtual("radio.example")) | MOD_PHP, named)[RADIO]
    assert (unlogged.attachment, unlogged.why.code) == (Attachment.NONE, "layout-no-log")
    app = judged(tmp_path / "c", vhosts(proxied("radio.example")) | MOD_PHP, named)[RADIO]
    assert (app.attachment, app.in_common) == (Attachment.SLICE, False)
    none = judged(tmp_path / "d", {}, named)[RADIO]
    assert none.attachment is Attachment.SLICE, "it serves nobody over Apache"


def tls(text: str) -> str:
    return text.replace("*:80", "*:443")


OWN_UNIT = {"/srv/php/radio.conf": POOL.format(user="radio")} | master(
    900, "/srv/php/radio.conf", "/user.slice/user-1002.slice/php@radio.service"
)
ONLY_RADIO = {RADIO: tenant("radio.example", "radio")}
LOG_A, LOG_B = "/var/log/apache2/radio.log", "/var/log/apache2/radio-old.log"


@pytest.mark.parametrize("named", [None, "user-1002.slice"])
@pytest.mark.parametrize("pooled", [OWN_UNIT, pool("radio", "radio")], ids=["unit", "pool"])
def test_a_site_of_which_one_part_runs_inside_the_web_server_is_not_called_held(
    pooled: dict[str, str], named: str | None, tmp_path: Path
) -> None:
    """A virtual host on its own php-fpm, another on mod_php: that one's use is in nobody's slice, and only logged."""
    tenants = {RADIO: tenant("radio.example", "radio", slice=named)}
    tree = vhosts(
        virtual("radio.example", fcgi("radio"), LOG_A), tls(virtual("radio.example", log=LOG_A))
    )
    whole = judged(tmp_path / "a", tree | pooled, tenants)[RADIO]
    radio = judged(tmp_path / "b", tree | pooled | MOD_PHP, tenants)[RADIO]
    assert whole.attachment in {Attachment.SLICE, Attachment.POOL}
    assert (radio.attachment, radio.why.code) == (Attachment.LOG, "layout-part-inside")
    assert radio.slice is None and radio.cgroups == () and radio.in_common
    assert own_users(radio) == () and radio.logs == (Path(LOG_A),)
    assert radio.why.values["place"] == "/etc/apache2/sites-enabled/all.conf:8"
    unlogged = vhosts(virtual("radio.example", fcgi("radio")), tls(virtual("radio.example")))
    half = vhosts(virtual("radio.example", fcgi("radio"), LOG_A), tls(virtual("radio.example")))
    for n, silent in enumerate((unlogged, half)):
        none = judged(tmp_path / f"c{n}", silent | pooled | MOD_PHP, tenants)[RADIO]
        assert (none.attachment, none.why.code) == (Attachment.NONE, "layout-part-unlogged")
        assert none.logs == (), "what is told would be one part"


def test_each_virtual_host_is_told_by_one_log_of_its_own(tmp_path: Path) -> None:
    """All that is needed to see every request once: the one that most of them write first."""
    both = virtual("radio.example", log=LOG_A).replace("</V", f"CustomLog {LOG_B} common\n</V")
    third = virtual("radio.example", log="/var/log/apache2/third.log").replace("*:80", "*:8080")
    apart = tls(virtual("radio.example", log=LOG_B))
    for n, (sites, logs) in enumerate(
        {
            both + apart: [LOG_B],
            virtual("radio.example", log=LOG_A) + apart: [LOG_A, LOG_B],
            both + apart + third: [LOG_B, "/var/log/apache2/third.log"],
            apart + third + virtual("libro.example", log=LOG_B): ["/var/log/apache2/third.log"],
        }.items()
    ):
        found = judged(tmp_path / str(n), vhosts(sites) | MOD_PHP, ONLY_RADIO)[RADIO]
        assert [str(log) for log in found.logs] == logs
        assert found.attachment is Attachment.LOG and found.why.values["log"] == ", ".join(logs)


SENDS_ON = (
    "RewriteEngine on\nRewriteCond %{SERVER_NAME} =radio.example\n"
    "RewriteRule ^ https://%{SERVER_NAME}%{REQUEST_URI} [END,NE,R=permanent]\n",
    "RewriteEngine on\nRewriteRule ^(.*)$ https://%{HTTP_HOST}$1 [R=301,L]\n",
    "RewriteEngine on\nRewriteCond %{HTTPS} off\nRewriteRule (.*) https://%{HTTP_HOST}%{REQUEST_URI}\n",
    "Redirect permanent / https://radio.example/\n",
    "php_admin_flag engine off\n",
)
SERVES = (
    "RewriteEngine on\nRewriteCond %{HTTP_USER_AGENT} bot\nRewriteRule ^ https://%{SERVER_NAME}/no\n",
    "RewriteEngine on\nRewriteCond %{HTTP_HOST} !^www\nRewriteRule ^ https://www.%{HTTP_HOST}/\n",
    "RewriteEngine on\nRewriteRule ^ /index.php\n",
    "RewriteEngine on\nRewriteRule ^old https://%{SERVER_NAME}/new\n",
    "<Location /a>\nphp_admin_flag engine off\n</Location>\n",
    "php_admin_flag engine on\n",
)


@pytest.mark.parametrize("said", [*SENDS_ON, *SERVES])
def test_a_virtual_host_that_only_sends_visitors_on_runs_no_php(said: str, tmp_path: Path) -> None:
    """As certbot writes it for port 80: mod_php, loaded for other sites, has no part in it."""
    front = virtual("radio.example").replace("</Virtual", f"{said}</Virtual")
    tree = vhosts(front, tls(virtual("radio.example", fcgi("radio"), LOG_A)))
    radio = judged(tmp_path, tree | OWN_UNIT | MOD_PHP, ONLY_RADIO)[RADIO]
    assert (radio.attachment is Attachment.SLICE) is (said in SENDS_ON)
    # What a vhost for TLS reads from a file for both: it does not send on what came by TLS.
    tree = vhosts(tls(front), tls(virtual("radio.example", fcgi("radio"), LOG_A)))
    radio = judged(tmp_path / "tls", tree | OWN_UNIT | MOD_PHP, ONLY_RADIO)[RADIO]
    sends = said in SENDS_ON and "RewriteCond" not in said
    assert (radio.attachment is Attachment.SLICE) is sends


def test_a_request_that_two_servers_log_is_read_once(tmp_path: Path) -> None:
    """nginx in front of Apache: what runs the pages tells; of a name that only the front serves, the front does."""
    front = (
        "server {{ server_name {0}; access_log /var/log/nginx/{0}.log; "
        "location / {{ proxy_pass http://127.0.0.1:8080; }} }}\n"
    )
    nginx = "".join(front.format(name) for name in ("radio.example", "app.example"))
    tree = {"/etc/nginx/nginx.conf": NGINX, "/etc/nginx/sites-enabled/radio": nginx}
    tenants = {
        RADIO: msgspec.structs.replace(ONLY_RADIO[RADIO], domains=("radio.example", "app.example"))
    }
    behind, silent = virtual("radio.example", log=LOG_A), virtual("radio.example")
    app = "/var/log/nginx/app.example.log"
    for n, (sites, logs) in enumerate(
        {behind: [LOG_A, app], silent: ["/var/log/nginx/radio.example.log", app]}.items()
    ):
        radio = judged(tmp_path / str(n), tree | vhosts(sites) | MOD_PHP, tenants)[RADIO]
        assert sorted(map(str, radio.logs)) == sorted(logs)


def test_an_account_that_many_share_is_told(tmp_path: Path) -> None:
    """mod_php and a pool of www-data are the web server's; mod_php under an own user, and static pages, are not."""
    own = virtual("radio.example").replace("ServerName", "AssignUserID radio radio\nServerName")
    tree = vhosts(virtual("huerto.example", fcgi("www")), virtual("libro.example"), own)
    tenants = TWO | {RADIO: tenant("radio.example", "radio")}
    found = judged(tmp_path / "a", tree | pool("www", "www-data") | MOD_PHP, tenants)
    assert {site for site, one in found.items() if one.in_common} == {HUERTO, LIBRO}
    found = judged(tmp_path / "b", tree | pool("www", "www-data"), tenants)
    assert {site for site, one in found.items() if one.in_common} == {HUERTO}


@pytest.mark.parametrize(
    ("log", "expected", "code"),
    [
        ("/var/log/apache2/radio.log", Attachment.LOG, "layout-log"),
        ("/var/log/apache2/all.log", Attachment.NONE, "layout-no-log"),
        ("${APACHE_LOG_DIR}/radio.log", Attachment.LOG, "layout-log"),
        ("/var/log/radio.log combined env=!robot", Attachment.NONE, "layout-no-log"),
        ("syslog:local1", Attachment.NONE, "layout-no-log"),
        ('""', Attachment.NONE, "layout-no-log"),
        ("${NOWHERE}/radio.log", Attachment.NONE, "layout-no-log"),
        ('"|/usr/bin/rotatelogs /x 86400"', Attachment.NONE, "layout-no-log"),
        ("", Attachment.NONE, "layout-no-log"),
    ],
)
def test_without_a_pool_an_access_log_of_its_own_is_what_tells(
    log: str, expected: Attachment, code: str, tmp_path: Path
) -> None:
    """A log that others write too, or none, tells nothing of one site."""
    tree = vhosts(
        virtual("radio.example", log=log),
        virtual("other.example", log="/var/log/apache2/all.log"),
    )
    radio = judged(tmp_path, tree, {RADIO: tenant("radio.example", "radio")})[RADIO]
    assert (radio.attachment, radio.why.code) == (expected, code)


def test_a_pool_that_sites_share_tells_none_of_them(tmp_path: Path) -> None:
    """One pool behind two sites: their logs tell them apart, or nothing does."""
    tree = vhosts(
        virtual("huerto.example", fcgi("www"), "/var/log/apache2/huerto.log"),
        virtual("libro.example", fcgi("www")),
    )
    tree |= pool("www", "www-data")
    found = judged(tmp_path, tree, TWO)
    assert found[HUERTO].attachment is Attachment.LOG
    assert found[HUERTO].why.code == "layout-pool-shared"
    assert found[LIBRO].attachment is Attachment.NONE


def test_a_site_that_is_not_served_here_is_none(tmp_path: Path) -> None:
    """Neither a virtual host nor a pool of its user."""
    found = judged(tmp_path, TWO_VHOSTS, {RADIO: tenant("radio.example", "radio")})[RADIO]
    assert (found.attachment, found.why.code) == (Attachment.NONE, "layout-not-served")


def test_nginx_tells_the_same(tmp_path: Path) -> None:
    """Its sockets and its logs are read as Apache's are; a socket's name may be a link to where the pool listens."""
    server = (
        "server { server_name libro.example; access_log /var/log/nginx/libro.log; "
        "location ~ php { fastcgi_pass unix:/run/php/libro.sock; } }\n"
    )
    tree = {"/etc/nginx/nginx.conf": NGINX, "/etc/nginx/sites-enabled/libro": server}
    tree |= pool("libro", "libro", "listen = /run/php/libro.shared.sock\n")
    host = write(tmp_path, tree, {"/run/php/libro.sock": "libro.shared.sock"})
    (host / "run/php/libro.shared.sock").touch()
    libro = judged(host, {}, {LIBRO: TWO[LIBRO]})[LIBRO]
    assert libro.attachment is Attachment.POOL and libro.logs == (Path("/var/log/nginx/libro.log"),)


@pytest.mark.parametrize(
    ("said", "log"),
    [
        ("/var/log/nginx/libro.log main", "/var/log/nginx/libro.log"),
        ("off", None),
        ("syslog:server=unix:/dev/log", None),
        ("/var/log/nginx/$host.log", None),
        ("/var/log/nginx/libro.log main if=$loggable", None),
    ],
)
def test_of_nginx_only_a_file_with_every_request_is_its_log(
    said: str, log: str | None, tmp_path: Path
) -> None:
    """What is switched off, sent elsewhere, named by each request or filtered does not tell of it all."""
    server = f"server {{ server_name libro.example; access_log {said}; }}\n"
    tree = {"/etc/nginx/nginx.conf": NGINX, "/etc/nginx/sites-enabled/libro": server}
    libro = judged(tmp_path, tree, {LIBRO: TWO[LIBRO]})[LIBRO]
    assert libro.logs == ((Path(log),) if log else ())


def test_configuration_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """Unchanged files are not parsed again; a new one in a folder, and a new master, are seen."""
    host = write(tmp_path, BASE | TWO_VHOSTS | TWO_POOLS)
    reader = Reader(str(host))
    first = reader.look()
    assert reader.look().virtual_hosts is first.virtual_hosts
    write(host, {"/etc/apache2/sites-enabled/new.conf": virtual("radio.example")})
    assert len(reader.look().virtual_hosts) == len(first.virtual_hosts) + 1
    write(host, {"/srv/x.conf": "[x]\nlisten=/run/x.sock\n"} | master(999, "/srv/x.conf", "/x"))
    assert any(m.main == "/srv/x.conf" and m.pools for m in reader.look().masters)


@pytest.mark.parametrize(
    ("slice", "path"),
    [
        ("user-1001.slice", "user.slice/user-1001.slice"),
        ("a-b-c.slice", "a.slice/a-b.slice/a-b-c.slice"),
        ("site.slice", "site.slice"),
        ("site-a\\x2db.slice", "site.slice/site-a\\x2db.slice"),
    ],
)
def test_a_slice_lies_in_those_that_its_name_begins_with(slice: str, path: str) -> None:
    """As systemd places it; and back."""
    assert folder(slice) == path and slice_of(f"/{path}/x.service") == slice


@pytest.mark.virtual_time
async def test_the_keeper_looks_again_when_orders_change(tmp_path: Path) -> None:
    """At once for other tenants, within a minute for another layout of the same."""
    host = write(tmp_path, BASE | TWO_VHOSTS | TWO_POOLS)
    layout = Layout(str(host))
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(layout.keep())
        layout.follow(TWO)
        await layout.changed.after(0)
        assert {a.attachment for a in layout.attached.values()} == {Attachment.POOL}
        unit = "/user.slice/user-1004.slice/relevo-php@libro.service"
        (host / "etc/php/8.2/fpm/pool.d/libro.conf").unlink()
        write(host, {"/etc/relevo/php/libro.conf": OWN_POOL})
        write(host, master(800, "/etc/relevo/php/libro.conf", unit))
        await layout.changed.after(1)
        assert layout.attached[LIBRO].attachment is Attachment.SLICE
        keeping.cancel()
