"""Names that servers answer for: which of them may be a site's domain, and why the others may not."""

import re

from fleet.model import Domain
from fleet.names import address, canonical_domain

# A literal host: one that the server fills in later begins with $ or %.
TARGET = re.compile(r"https?://([A-Za-z0-9][A-Za-z0-9.-]*)(?::\d+)?(?:[/?$%]|\Z)")
# First labels by which a host's own tools are known, not a member's site.
TOOLS = frozenset({
    "adminer", "autoconfig", "autodiscover", "cockpit", "grafana", "ispconfig", "monit", "mta-sts", "munin",
    "netdata", "phpmyadmin", "phppgadmin", "pma", "prometheus", "webmin",
})  # fmt: skip
# Reserved for other uses than public names. Source: RFC 6761, RFC 6762, RFC 8375, RFC 9476; ICANN's `internal`.
PRIVATE = (
    ".localhost",
    ".local",
    ".localdomain",
    ".internal",
    ".lan",
    ".home.arpa",
    ".invalid",
    ".alt",
)
CATCH_ALL = frozenset({"", "_", "__", "-", "default", "*"})


def redirected_to(url: str) -> str | None:
    """The host that `url` sends visitors to, where it is written out."""
    found = TARGET.match(url)
    return found[1].lower() if found else None


def bare(name: str) -> str:
    """Without a scheme and a port. Source: Apache HTTP Server 2.4, core, ServerName."""
    name = name.partition("://")[2] or name
    return name if name.startswith("~") else re.sub(r"(?<=[^:]):\d*\Z", "", name).rstrip("/")


def domain(name: str, hostnames: tuple[str, ...] = ()) -> Domain:
    """`name` as a site's domain. Raises ValueError with why it is none."""
    said = bare(name)
    if said in CATCH_ALL:
        raise ValueError("is a catch-all")
    if said.startswith("~"):
        raise ValueError("is a pattern")
    if "*" in said or "?" in said or said.startswith("."):
        raise ValueError("is a wildcard")
    if "$" in said or "%" in said:
        raise ValueError("holds a variable")
    if _is_address(said):
        raise ValueError("is an address")
    if "." not in said.removesuffix("."):
        raise ValueError("is no public name")
    found = canonical_domain(said)
    if f".{found}".endswith(PRIVATE):
        raise ValueError("is no public name")
    if found in hostnames:
        raise ValueError("is the host's own name")
    if found.partition(".")[0] in TOOLS:
        raise ValueError("is a tool's name, not a site's")
    return found


def is_open(name: str) -> bool:
    """Whether `name` stands for names that the configuration does not tell."""
    said = bare(name)
    return said not in CATCH_ALL and (said.startswith(("~", ".")) or bool({"*", "?"} & set(said)))


def _is_address(name: str) -> bool:
    try:
        address(name.strip("[]"))
    except ValueError:
        return bool(re.fullmatch(r"[\d.]+|\[[0-9A-Fa-f:.]*\]", name))
    return True


def apex(name: str) -> str:
    """`www.` and its apex go together."""
    return name.removeprefix("www.")
