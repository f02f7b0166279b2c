"""Databases by name, and which of them an application's own configuration says it uses."""

import re
import subprocess
from collections.abc import Iterable

from agent.discover.files import HostFiles
from agent.discover.found import Configured

FOLDER = "/var/lib/mysql"
SYSTEM = frozenset(
    {"mysql", "information_schema", "performance_schema", "sys", "phpmyadmin", "test"}
)
CLIENTS = ("mariadb", "mysql")
ASK = (
    "--batch",
    "--skip-column-names",
    "--protocol=socket",
    "--connect-timeout=3",
    "-e",
    "SHOW DATABASES",
)
TIMEOUT_S = 5.0
APPLICATION_LIMIT_BYTES = 256 << 10  # members write these files; the longest of use is 40 KB
# As MariaDB writes a name into the file system: letters, digits, _ and $ stay, the rest is @ and 4 hex digits.
# Accented letters have codes of two characters, left as they are: a fleet can't hold such names anyway.
ENCODED = re.compile(r"@([0-9a-fA-F]{4})")
FILE_NAME = re.compile(r"(?:[0-9A-Za-z_$]|@[0-9a-fA-F]{4}|@[0-9a-zA-Z]{2})+")

# PHP as people write it: a value in quotes after a define, an arrow or an equals sign.
QUOTED = r"""(?:'((?:[^'\\]|\\.){0,200})'|"((?:[^"\\]|\\.){0,200})")"""
COMMENTS = re.compile(r"^[ \t]*/\*.*?(?:\*/|\Z)|^[ \t]*(?://|#|\*)[^\n]*", re.S | re.M)


def show() -> frozenset[str] | None:
    """Ask the running server over its socket; None where it gives no answer to this user."""
    for client in CLIENTS:
        try:
            done = subprocess.run(  # noqa: S603 - a fixed command, read-only
                (client, *ASK),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return members_own(done.stdout.decode(errors="replace").splitlines())
    return None


def in_folder(files: HostFiles, folder: str = FOLDER) -> frozenset[str] | None:
    """By the server's own folder; None where it is not there or may not be read."""
    if not files.is_folder(folder):
        return None
    names = [name for name in files.names(folder) if files.is_folder(f"{folder}/{name}")]
    if not names:  # MariaDB has its own there, so nothing was readable
        return None
    return members_own(decoded(name) for name in names if FILE_NAME.fullmatch(name))


def members_own(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in names if name and name.lower() not in SYSTEM)


def decoded(name: str) -> str:
    """A database's name from its folder's. Source: MariaDB, "Identifier to File Name Mapping"."""
    return ENCODED.sub(lambda found: chr(int(found[1], 16)), name)


def _setting(*before: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{'|'.join(before)}){QUOTED}", re.I)


WORDPRESS = (
    _setting(r"define\s*\(\s*['\"]DB_NAME['\"]\s*,\s*"),
    _setting(r"define\s*\(\s*['\"]DB_HOST['\"]\s*,\s*"),
)
DRUPAL = (
    _setting(r"['\"](?:database|dbname)['\"]\s*=>\s*"),
    _setting(r"['\"](?:host|dbhost)['\"]\s*=>\s*"),
)
JOOMLA = (
    _setting(r"public\s+\$db\s*=\s*"),
    _setting(r"public\s+\$host\s*=\s*"),
)
# .env files have no quotes of need: Laravel's and PrestaShop's are read by name.
DOTENV = (
    re.compile(r"^DB_DATABASE[ \t]*=[ \t]*['\"]?([^'\"\s#]*)()", re.M),
    re.compile(r"^DB_HOST[ \t]*=[ \t]*['\"]?([^'\"\s#]*)()", re.M),
)
DATABASE_URL = re.compile(
    r"^DATABASE_URL[ \t]*=[ \t]*['\"]?mysql2?://(?:[^@\s]*@)?([^/:\s]+)(?::\d+)?/([\w$-]+)", re.M
)

# By a pattern below the document root: whose file it is.
APPLICATIONS: tuple[tuple[str, tuple[re.Pattern[str], re.Pattern[str]]], ...] = (
    ("wp-config.php", WORDPRESS),
    ("../wp-config.php", WORDPRESS),  # WordPress looks there too
    ("sites/*/settings.php", DRUPAL),
    ("config/config.php", DRUPAL),  # Nextcloud
    ("configuration.php", JOOMLA),
    (".env", DOTENV),
    ("../.env", DOTENV),
)  # fmt: skip
LOCAL = frozenset({"", "localhost", "127.0.0.1", "::1", "[::1]"})


def applications(files: HostFiles, root: str) -> tuple[Configured, ...]:
    """What the applications at the document root `root` say of their databases."""
    found: dict[str, Configured] = {}
    for pattern, settings in APPLICATIONS:
        folder = root.rpartition("/")[0] if pattern.startswith("../") else root
        for path in files.glob(f"{literal(folder)}/{pattern.removeprefix('../')}"):
            if text := files.read(path, APPLICATION_LIMIT_BYTES):
                for configured in configured_in(text, path, settings):
                    found.setdefault(configured.database, configured)
    return tuple(found.values())


def literal(folder: str) -> str:
    """`folder` as a pattern that names only itself."""
    return re.sub(r"([*?[])", r"[\1]", folder)


def configured_in(
    text: str, place: str, settings: tuple[re.Pattern[str], re.Pattern[str]]
) -> tuple[Configured, ...]:
    """Databases named in `text`, comments left out. An empty or computed name is none."""
    if settings is DOTENV:
        urls = [
            Configured(database=u[2], place=place, server=_far(u[1]))
            for u in DATABASE_URL.finditer(text)
        ]
    else:
        text, urls = COMMENTS.sub("", text), []
    names = [single or double for single, double in settings[0].findall(text)]
    servers = [single or double for single, double in settings[1].findall(text)]
    server = _far(servers[0]) if servers else ""
    plain = (name for name in names if re.fullmatch(r"[^\s/$\\]{1,64}", name))
    return (*(Configured(database=name, place=place, server=server) for name in plain), *urls)


def _far(server: str) -> str:
    """Empty for this host: a name, a port or a socket of it."""
    if server.startswith("/"):
        return ""
    host = server if server.startswith("[") or server.count(":") > 1 else server.partition(":")[0]
    return "" if host.lower() in LOCAL else server
