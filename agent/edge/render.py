"""What HAProxy is told: its configuration and its map as text, and the hosts read back out of that text.

HAProxy keeps no log of requests: nothing about visitors is kept (rule R16).
Source: HAProxy Configuration Manual 2.6 and 3.0.
"""

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path

from agent.config import Edge
from agent.edge import gate
from agent.edge.limits import BETWEEN
from fleet.messages import ALIVE, Target
from fleet.model import HostId

FRONTEND = "relevo:public"  # no host can be called so: a NAME has no colon
SERVER = "host"  # each backend's server: checked, and witness to whether the host answers
# The same address unchecked: a check is a witness, not a judge. A host too slow for its checks goes on serving
# whom it can, until somebody who knows more moves its sites.
LAST = "last"
CONFIG, MAP, STATE = "haproxy.cfg", "domains.map", "servers.state"

PROOF = re.compile(r"[A-Za-z0-9_=-]{8,128}")
CHECK = re.compile(r"/[!-&(-~]{0,999}")  # no quote: it stands between quotes
FOLDER = re.compile(
    r"/[A-Za-z0-9_./@+-]*"
)  # it is named on HAProxy's socket, where a space ends a word

TEXT = 'content-type "text/plain; charset=utf-8" hdr cache-control no-store'
AWAY = (
    "This site is not available right now. Please try again in a moment.\\n"
    "Este sitio no está disponible en este momento. Inténtelo de nuevo en un momento.\\n"
)
# A host that drops packets is down after the check under way, two more at the fast pace and their connect
# timeouts; one that refuses needs no timeout.
DEFAULTS = f"""\
defaults visitors
    mode http
    load-server-state-from-file global
    timeout connect 350ms
    timeout check 350ms
    timeout client 30s
    timeout client-fin 5s
    timeout http-request 10s
    timeout http-keep-alive 15s
    timeout queue 5s
    timeout server 60s
    timeout server-fin 5s
    timeout tunnel 1h
    retries 2
    retry-on conn-failure
    option httpchk
    option idle-close-on-response
    option abortonclose
    default-server check inter 500ms fastinter 250ms downinter 500ms fall 3 rise 2
    http-error status 502 {TEXT} hdr retry-after 5 string "{AWAY}"
    http-error status 503 {TEXT} hdr retry-after 5 string "{AWAY}"
    http-error status 504 {TEXT} hdr retry-after 5 string "{AWAY}"
"""
# Whoever leaves gives up a place in a site's queue (agent.edge.gate), but not what a host is already working on: that
# is under way, and counted, until the host is done with it.
DEFAULTS_OF_HOSTS = """\
defaults hosts from visitors
    no option abortonclose
"""
UNKNOWN_SITE = "There is no such site here.\\nAquí no hay ningún sitio con ese nombre.\\n"
_DIGEST = "0" * 16
_DESCRIPTION = re.compile(r"relevo ([0-9a-f]{16})( limits)?")
_BACKEND = re.compile(
    r"^backend (?P<host>\S+)\n"
    r"    http-check send meth GET uri '(?P<check>[^'\n]*)'.*\n"
    r"    http-check expect .*\n"
    rf"    server {SERVER} (?P<address>\S+):(?P<port>\d+)\n"
    rf"    server {LAST} .*$",
    re.MULTILINE,
)
_PROVED = re.compile(r"req\.hdr\(x-relevo-proof\) -m str -- '([^'\n]*)'")


def render(edge: Edge, hosts: Mapping[HostId, Target], proof: str) -> str:
    """The whole haproxy.cfg. The values must have passed `agent.edge.plan`; equal input gives equal text."""
    backends = map(_backend, *_columns(hosts))
    behind = (DEFAULTS_OF_HOSTS, gate.TABLES, *backends)
    parts = (_global(edge), DEFAULTS, _frontend(edge, proof), *behind)
    text = "# Written by relevo's agent; what is changed here by hand is lost.\n\n" + "\n".join(
        parts
    )
    digest = hashlib.sha256(text.encode()).hexdigest()[: len(_DIGEST)]
    return text.replace(f"relevo {_DIGEST}", f"relevo {digest}", 1)


def digest_of(text: str) -> str:
    """Which configuration this is: of a file's text, or of HAProxy's `description`. Empty: none of ours."""
    found = _DESCRIPTION.search(text)
    return found.group(1) if found else ""


def knows_limits(text: str) -> bool:
    """Whether this configuration, or the HAProxy of this `description`, reads more of an entry than its host."""
    found = _DESCRIPTION.search(text)
    return bool(found and found.group(2))


def read_hosts(text: str) -> dict[HostId, Target]:
    """The hosts of a configuration that `render` wrote."""
    return {
        HostId(found["host"]): Target(
            address=found["address"].strip("[]"), port=int(found["port"]), check=found["check"]
        )
        for found in _BACKEND.finditer(text)
    }


def read_proof(text: str) -> str:
    """The proof token of a configuration that `render` wrote; empty if it had none."""
    found = _PROVED.search(text)
    return found.group(1) if found else ""


def render_map(entries: Mapping[str, str]) -> str:
    """A map file: one `domain entry` per line, sorted."""
    return "".join(f"{domain} {entry}\n" for domain, entry in sorted(entries.items()))


def read_map(text: str) -> dict[str, str]:
    """What a map file says, as HAProxy reads it: the first entry of a key counts."""
    entries: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key and not key.startswith("#"):
            entries.setdefault(key, value.strip())
    return entries


def endpoint(target: Target) -> str:
    """`address:port` as HAProxy writes and shows it."""
    address = ipaddress.ip_address(target.address)
    literal = f"[{address}]" if address.version == 6 else str(address)
    return f"{literal}:{target.port}"


def map_path(edge: Edge) -> Path:
    return edge.directory / MAP


def _columns(
    hosts: Mapping[HostId, Target],
) -> tuple[tuple[HostId, ...], tuple[Target, ...]]:
    names = tuple(sorted(hosts))
    return names, tuple(hosts[name] for name in names)


def _global(edge: Edge) -> str:
    # A connection costs two descriptors: where the service manager grants fewer, an edge that serves fewer
    # visitors is better than one that refuses to start.
    threads = f"    nbthread {edge.threads}\n" if edge.threads else ""
    return f"""\
global
    description "relevo {_DIGEST} limits"
    maxconn {edge.max_connections}
{threads}\
    stats socket {edge.socket} mode 600 level admin expose-fd listeners
    stats timeout 10s
    server-state-file {edge.directory / STATE}
    hard-stop-after 5m
    mworker-max-reloads 10
    no strict-limits
{gate.load(edge.directory)}\
    ssl-default-bind-options ssl-min-ver TLSv1.2
"""


def _frontend(edge: Edge, proof: str) -> str:
    binds = [_bind(address) for address in edge.bind]
    if edge.certificates:
        tls = f"ssl crt {edge.certificates} alpn h2,http/1.1"
        binds += [f"{_bind(address)} {tls}" for address in edge.bind_tls]
    proved = (
        f"    http-request set-var(txn.proved) bool(true) if {{ req.hdr(x-relevo-proof) -m str -- '{proof}' }}\n"
        if proof
        else ""
    )
    entry = rf"req.hdr(host),lower,field(1,:),regsub(\\.$,),map_str({map_path(edge)})"
    return f"""\
frontend {FRONTEND}
{"".join(f"    bind {bind}{chr(10)}" for bind in binds)}\
    http-request return status 200 {TEXT} string "alive" if {{ path {ALIVE} }}
{proved}\
    http-request del-header x-relevo-proof
    http-request set-header x-forwarded-for %[src]
    http-request set-header x-forwarded-proto %[ssl_fc,iif(https,http)]
    http-request set-var(txn.entry) {entry}
    http-request return status 421 {TEXT} string "{UNKNOWN_SITE}" unless {{ var(txn.entry) -m found }}
    http-request set-var(txn.host) var(txn.entry),field(1,{BETWEEN})
{gate.rules(TEXT)}\
    http-response del-header x-relevo-host
    http-response set-header x-relevo-host %[be_name] if {{ var(txn.proved) -m bool }}
    use_backend %[var(txn.host)]
"""


def _bind(address: str) -> str:
    # Without v6only, `:::80` would take IPv4 too where the kernel's bindv6only is 0, beside `:80`.
    return f"{address} v6only" if address.count(":") > 1 else address


def _backend(host: HostId, target: Target) -> str:
    where = endpoint(target)
    return f"""\
backend {host}
    http-check send meth GET uri '{target.check}' ver HTTP/1.1 hdr host {where} hdr user-agent relevo
    http-check expect status 200-499
    server {SERVER} {where}
    server {LAST} {where} no-check backup
"""
