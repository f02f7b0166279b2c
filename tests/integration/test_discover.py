"""`relevo discover` reads what the real servers read: Debian's own configuration, and virtual hosts beside it."""

import asyncio
import getpass
import re
import shutil
import subprocess
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from agent.discover.apache import Apache
from agent.discover.databases import in_folder, show
from agent.discover.files import HostFiles
from agent.discover.names import bare
from agent.discover.nginx import Nginx
from agent.discover.php import Pools
from deploy.demo.packages import Tools, bring

pytestmark = pytest.mark.integration

MODULES = (
    "mpm_event", "authz_core", "authz_host", "alias", "ssl", "socache_shmcb", "rewrite", "proxy", "proxy_fcgi",
    "macro", "mime", "dir", "setenvif", "version",
)  # fmt: skip
# Each as somebody once wrote it: upper case, tabs, folded lines, quotes, the line ends of another system.
APACHE_SITES = {
    "000-main": 'ServerName main.coop.example\nDefine LIVE\nDefine FOLDER "/srv/w e b"\n',
    "010-plain": (
        "<VirtualHost *:80>\n\tSERVERNAME plain.example:80\n\tServerAlias www.plain.example \\\n\t  old.plain.example\n"
        "ServerAlias *.plain.example ?.plain.example\n\tDocumentRoot /var/www/plain\n</VirtualHost>\n"
    ),
    "020-tls": (
        "<IfModule mod_ssl.c>\n<VirtualHost 203.0.113.7:443 [2001:db8::7]:443>\n  ServerName https://tls.example\n"
        'DocumentRoot "${FOLDER}/tls"\n<IfModule !mod_nss.c>\nServerAlias "www.tls.example"\n</IfModule>\n'
        "</VirtualHost>\n</IfModule>\n<IfModule mod_nss.c>\n<VirtualHost *:443>\nServerName nss.example\n"
        "</VirtualHost>\n</IfModule>\n"
    ),
    "030-macro": (
        "<Macro Alias $n>\nServerAlias www.$n m.$n\n</Macro>\n"
        "<Macro Host $name $name2 %port>\n"
        "<VirtualHost *:%port>\nServerName $name\nServerAlias $name2\nUse Alias $name\n"
        "</VirtualHost>\n</Macro>\nUse Host one.example uno.example 80\nUse Host two.example dos.example 8080\n"
        "UndefMacro Host\n"
    ),
    "040-defined": (
        "<IfDefine LIVE>\n<VirtualHost *:80>\nServerName live.example\nInclude site.d/*.inc\n</VirtualHost>\n"
        "</IfDefine>\n<IfDefine !LIVE>\n<VirtualHost *:80>\nServerName dead.example\n</VirtualHost>\n</IfDefine>\n"
        "UnDefine LIVE\n<IfDefine LIVE>\n"
        "<VirtualHost *:80>\nServerName undead.example\n</VirtualHost>\n</IfDefine>\n"
    ),
    "050-crlf": (
        "<VirtualHost *:80>\r\nServerName crlf.example\r\nServerAlias \\\r\n www.crlf.example\r\n"
        "</VirtualHost>\r\n"
    ),
    "060-version": (
        "<IfVersion >= 2.4>\n<VirtualHost *:80>\nServerName version.example\n"
        "# ServerAlias comment.example\n#<\n</VirtualHost>\n</IfVersion>\n<IfFile /etc/passwd>\n<VirtualHost *:80>\n"
        "ServerName file.example\n</VirtualHost>\n</IfFile>\n"
    ),
    "070-nameless": "<VirtualHost *:80>\nServerAlias nameless.example\n</VirtualHost>\n",
    # `apache2ctl -S` prints the aliases of an address only where it has several virtual hosts.
    "090-second": (
        "<VirtualHost *:8080>\nServerName second.example\n</VirtualHost>\n"
        "<VirtualHost 203.0.113.7:443 [2001:db8::7]:443>\nServerName second.example\n</VirtualHost>\n"
    ),
    "080-dir": "IncludeOptional many\nIncludeOptional none/*.conf\n",
}  # fmt: skip
APACHE_MORE = {
    "site.d/a.inc": "ServerAlias included.example\n<Directory />\nRequire all denied\n</Directory>\n",
    "site.d/b.txt": "ServerAlias not-included.example\n",
    "many/a/x.conf": "<VirtualHost *:80>\nServerName deep.example\n</VirtualHost>\n",
    "many/b": "<VirtualHost *:80>\nServerName flat.example\n</VirtualHost>\n",
}
NGINX_SITES = {
    "default": "",  # Debian's own
    "a-plain": (
        "server { listen LISTEN; server_name plain.example www.plain.example .dot.example; root /srv/plain; ANSWER }\n"
    ),
    "b-words": (
        'server{listen LISTEN;server_name "quoted.example" \'single.example\'; # server_name comment.example;\n'
        "  server_name\n    folded.example\n    *.wild.example www.open.*\n"
        '    "~^(?<name>[a-z]{2,3})\\.pattern\\.example$";\n'
        '  set $page "}{;#"; location ~ \\.php$ { return 404; } ANSWER }\n'
    ),
    "c-nested": "include snippets/more-*.conf;\n",
    "../snippets/more-a.conf": "server { listen LISTEN; server_name nested.example; include snippets/answer.conf; }\n",
    "../snippets/answer.conf": "ANSWER\n",
    "d-map": (
        'map $http_host $to { default "a}b"; "~^x{2}" c; server_name d; }\nupstream u { server 127.0.0.1:9; }\n'
        "server { listen LISTEN; server_name after.example; location / { if ($to = x) { return 403; } ANSWER } }\n"
    ),
    "e-crlf": "server {\r\n listen LISTEN;\r\n server_name crlf.example\r\n  www.crlf.example;\r\n ANSWER\r\n}\r\n",
}  # fmt: skip
SERVED = re.compile(r"^\s*(?:port \S+ namevhost|\S+:(?:\d+|\*))\s+(\S+) \((.*)\)$")
USED = re.compile(r'.* used on line (\d+) of "([^"]*)":\d+')


@pytest.fixture(scope="module")
def real() -> Tools:
    return Tools(bring(("apache2", "nginx-light", "php-fpm")))


def ran(tools: Tools, *command: object, **environment: str) -> str:
    done = subprocess.run(
        (tools.path(str(command[0])), *map(str, command[1:])),
        env={**tools.env(), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def apache_etc(real: Tools, tmp_path: Path) -> Path:
    """Debian's own, its modules enabled as `a2enmod` would, and the sites."""
    etc = tmp_path / "apache2"
    shutil.copytree(real.root / "etc/apache2", etc, symlinks=True)
    for name in MODULES:
        for available in (etc / "mods-available").glob(f"{name}.*"):
            # What is brought lies below another folder than /; the machine's own, if installed, does not.
            text = available.read_text().replace("/usr/", f"{real.root}/usr/")
            (etc / "mods-enabled" / available.name).write_text(text)
    shutil.copy(etc / "sites-available/000-default.conf", etc / "sites-enabled/000-default.conf")
    for name, text in APACHE_SITES.items():
        (etc / f"sites-enabled/{name}.conf").write_bytes(text.encode())
    for name, text in APACHE_MORE.items():
        (etc / name).parent.mkdir(parents=True, exist_ok=True)
        (etc / name).write_text(text)
    (etc / "sites-enabled/zz-link.conf").symlink_to("../sites-available/linked.conf")
    (etc / "sites-available/linked.conf").write_text(
        "<VirtualHost *:80>\nServerName linked.example\n</VirtualHost>\n"
    )
    return etc


def test_apache_s_virtual_hosts_are_those_of_apache(real: Tools, apache_etc: Path) -> None:
    """The same virtual hosts at the same lines with the same names and aliases as `apache2ctl -S` prints."""
    scratch = {
        f"APACHE_{name}": str(apache_etc.parent) for name in ("RUN_DIR", "LOG_DIR", "LOCK_DIR")
    }
    said = ran(
        real, "apache2", "-d", apache_etc, "-f", "apache2.conf", "-S", "-D", "DUMP_INCLUDES",
        APACHE_RUN_USER="www-data", APACHE_RUN_GROUP="www-data", APACHE_PID_FILE=f"{apache_etc}/pid", **scratch,
    )  # fmt: skip
    ours = Apache(HostFiles(), f"{apache_etc}/apache2.conf")

    assert served(said) == {
        # Without a ServerName Apache takes the main server's, which is no name of the site.
        (host.place, bare(name))
        for host in ours.virtual_hosts
        for name in host.names or ("main.coop.example",)
    } | {(f"{apache_etc}/sites-enabled/070-nameless.conf:1", "main.coop.example")}
    assert included(said) == ours.paths
    assert [doubt.what for doubt in ours.doubts] == [
        "whether <ifversion >= 2.4> holds is not told here: taken as true"
    ]
    by_name = {host.names[0]: host for host in ours.virtual_hosts if host.names}
    assert by_name["https://tls.example"].root == "/srv/w e b/tls"
    assert len(ours.virtual_hosts) == 15


def served(said: str) -> set[tuple[str, str]]:
    """Place and name of everything that `apache2ctl -S` lists."""
    found: set[tuple[str, str]] = set()
    place = ""
    for line in said.splitlines():
        if server := SERVED.match(line):
            used = USED.match(server[2])
            place = f"{used[2]}:{used[1]}" if used else server[2]
            found.add((place, server[1]))
        elif alias := re.match(r"\s+(?:wild )?alias (\S+)$", line):
            found.add((place, alias[1]))
    return found


def included(said: str) -> set[str]:
    return set(re.findall(r"^\s+\((?:\*|\d+)\) (\S+)$", said, re.M))


@pytest.fixture
def nginx_etc(real: Tools, tmp_path: Path) -> Path:
    """Debian's own, made to lie here and to listen on a socket here; each server answers with its first name."""
    etc = tmp_path / "nginx"
    shutil.copytree(real.root / "etc/nginx", etc, symlinks=True)
    for module in (etc / "modules-enabled").iterdir():
        module.unlink()
    for main in (etc / "nginx.conf", etc / "sites-available/default"):
        text = (
            main.read_text()
            .replace("/etc/nginx", str(etc))
            .replace("/var/log/nginx", str(tmp_path))
        )
        text = text.replace("/run/nginx.pid", f"{tmp_path}/nginx.pid")
        main.write_text(
            re.sub(
                r"listen .*default_server",
                f"listen unix:{tmp_path}/socket default_server",
                text,
                count=1,
            )
        )
    default = etc / "sites-available/default"
    default.write_text(re.sub(r"^\s*listen \[.*$", "", default.read_text(), flags=re.M))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    (etc / "conf.d/here.conf").write_text(
        "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in kinds)
    )
    for name, text in NGINX_SITES.items():
        written = (text or default.read_text()).replace("LISTEN", f"unix:{tmp_path}/socket")
        path = etc / "sites-enabled" / name
        path.unlink(missing_ok=True)
        path.write_bytes(written.replace("ANSWER", "return 200 $server_name;").encode())
    return etc


@asynccontextmanager
async def running(tools: Tools, etc: Path) -> AsyncGenerator[aiohttp.ClientSession]:
    """nginx in the foreground, and a session with its socket."""
    process = await asyncio.create_subprocess_exec(
        tools.path("nginx"), "-c", etc / "nginx.conf", "-g", "daemon off;", env=tools.env()
    )
    try:
        socket = etc.parent / "socket"
        async with asyncio.timeout(10):
            while not socket.exists():
                await asyncio.sleep(0.02)
        connector = aiohttp.UnixConnector(str(socket))
        async with aiohttp.ClientSession(connector=connector) as session:
            yield session
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 10)


async def answer(session: aiohttp.ClientSession, name: str) -> str:
    async with session.get(
        "http://nginx/", headers={"Host": name}, timeout=aiohttp.ClientTimeout(total=5)
    ) as response:
        return await response.text()


async def test_nginx_s_servers_are_those_of_nginx(real: Tools, nginx_etc: Path) -> None:
    """The same files as `nginx -T` prints; and asked for any name found, nginx answers with that server."""
    said = ran(real, "nginx", "-T", "-c", nginx_etc / "nginx.conf")
    ours = Nginx(HostFiles(), f"{nginx_etc}/nginx.conf")
    assert set(re.findall(r"^# configuration file (.*):$", said, re.M)) == ours.paths
    assert ours.doubts == []

    hosts = {host.names[0]: host for host in ours.virtual_hosts}
    assert set(hosts) == {
        "_", "plain.example", "quoted.example", "nested.example", "after.example", "crlf.example",
    }  # fmt: skip
    async with running(real, nginx_etc) as session:
        for first, host in hosts.items():
            for name in asked(host.names):
                assert await answer(session, name) == first, name
        for name in ("comment.example", "d", "u", "xx.example"):
            assert await answer(session, name) not in hosts


def asked(names: Iterable[str]) -> Iterable[str]:
    """A name that each of `names` stands for."""
    for name in names:
        if name.startswith("~"):
            yield "ab.pattern.example"
        elif name != "_":
            yield name.replace("*", "any")


def test_php_s_pools_are_those_of_php(real: Tools, tmp_path: Path) -> None:
    """Debian's own pool and others: the names, users and sockets that `php-fpm -tt` prints."""
    main = tmp_path / "php-fpm.conf"
    shutil.copytree(real.root / "etc/php/8.2/fpm/pool.d", tmp_path / "pool.d")
    (tmp_path / "pool.d/more.conf").write_text(
        '; [commented]\n[games]\nuser = games\ngroup = games\nlisten = "/run/php/$pool.sock" ; its own\npm = ondemand\n'
        "pm.max_children = 2\n[back.up]\nuser=backup\nuser = games\ngroup = games\nlisten = 127.0.0.1:9001\n"
        "pm = static\npm.max_children = 2\nphp_admin_value[open_basedir] = /srv:/tmp\n"
    )
    main.write_text(f"[global]\nerror_log = {tmp_path}/log\ninclude={tmp_path}/pool.d/*.conf\n")
    said = ran(real, "php-fpm8.2", "-n", "-tt", "-y", main)
    theirs = set()
    for pool in re.split(r"NOTICE: \[", said)[1:]:
        settings = dict(re.findall(r"NOTICE: \t(user|listen) = (.*)", pool))
        if settings:
            theirs.add((pool.partition("]")[0], settings["user"], settings["listen"]))
    ours = Pools(HostFiles(), (str(main),))
    assert {(pool.name, pool.user, pool.listen) for pool in ours.found} == theirs
    assert len(theirs) == 3


@pytest.fixture
async def mariadb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Path]:
    """A server of its own, that anybody may ask over its socket; its folder."""
    tools = Tools(bring(("mariadb-server-core", "mariadb-client-core")))
    for name, value in {
        "LD_LIBRARY_PATH": tools.env()["LD_LIBRARY_PATH"],
        "PATH": str(tools.path("mariadb").parent),
        "MYSQL_UNIX_PORT": str(tmp_path / "socket"),
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    data = tmp_path / "mysql"
    (data / "mysql").mkdir(parents=True)
    process = await asyncio.create_subprocess_exec(
        tools.path("mariadbd"), "--no-defaults", f"--datadir={data}", f"--socket={tmp_path}/socket",
        f"--pid-file={tmp_path}/pid", "--skip-networking", "--skip-grant-tables", f"--user={getpass.getuser()}",
        f"--lc-messages-dir={tools.root}/usr/share/mysql",
        f"--character-sets-dir={tools.root}/usr/share/mysql/charsets",
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            while await asyncio.to_thread(show) is None:
                assert process.returncode is None
                await asyncio.sleep(0.1)
        yield data
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)


async def test_mariadb_s_names_are_those_of_its_folder(mariadb: Path) -> None:
    """What the server says over its socket, and what its folder tells without it, agree; its own are left out."""
    names = frozenset(
        {"huerto_wp", "tienda-vieja", "a.b", "with space", "Case", "a@b", "1st", "x$y", "日本"}
    )
    for name in names:
        await asyncio.to_thread(
            subprocess.run, ("mariadb", "-e", f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4"), check=True,
            timeout=10,
        )  # fmt: skip
    assert await asyncio.to_thread(show) == names
    assert in_folder(HostFiles(), str(mariadb)) == names
