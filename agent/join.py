"""`relevo agent join`: a host gets its own credential and its configuration from a controller that it can't mistake.

The token carries the fingerprint of the controllers' CA. The CA's certificate is the one thing that is fetched without
knowing from whom; from then on a man in the middle would have to have its key. The host makes its secret itself.
"""

import asyncio
import json
import os
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import click
import msgspec
import psutil

from agent.config import Config
from agent.credential import make, put_in_force, write_secret
from agent.websocket import is_loopback
from fleet.access import Joined, Joining, JoinOffer, NewCredential, digest, read_joining
from runtime.certificates import fingerprint_of
from runtime.clock import iso, wall
from runtime.config import BadConfig, load

ANSWER_S = 15.0
ANSWER_BYTES = 64 << 10
NOT_YET, EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
SAME_AGAIN = "The same command can be repeated."


class CantJoin(Exception):
    """Why not, and what to do, for the person at the terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things are written."""

    config: Path
    state: Path

    @property
    def ca(self) -> Path:
        return self.config.with_name("ca.pem")

    @property
    def token(self) -> Path:
        return self.state / "token"


class _Problem(msgspec.Struct):
    type: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Door:
    """One controller, verified; the join token goes to nobody else."""

    url: str
    secret: str
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, said: object = None) -> bytes:
        """The answer's body. Raises CantJoin."""
        body = None if said is None else msgspec.json.encode(said)
        try:
            async with self.session.request(
                method,
                self.url + path,
                data=body,
                headers={"Authorization": f"Bearer {self.secret}"},
                allow_redirects=False,
            ) as response:
                text = await response.content.read(ANSWER_BYTES)
                status = response.status
        except (OSError, aiohttp.ClientError) as error:
            raise CantJoin(_unreached(self.url, error)) from error
        if status == 200:
            return text
        raise CantJoin(_refused(self.url, status, text))


def _refused(url: str, status: int, text: bytes) -> str:
    try:
        problem = msgspec.json.decode(text, type=_Problem)
    except msgspec.DecodeError:
        return f"{url}: status {status}, and no answer of relevo's. Is this a controller?"
    if status == 401:
        return f"{problem.detail} Ask for another one: relevo host token HOST"
    if problem.type.endswith("/not-leading"):
        return f"{url} does not lead now. {SAME_AGAIN}"
    return f"{url}: {problem.detail or f'status {status}'}"


def _unreached(url: str, error: Exception) -> str:
    """Also what a wrong clock looks like from here."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            found = error.certificate_error
            code = getattr(found, "verify_code", 0)
            if code in (NOT_YET, EXPIRED):
                which = "not valid yet" if code == NOT_YET else "no longer valid"
                return (
                    f"the certificate of {url} is {which} by this machine's clock, which says {iso(wall())[:16]}Z. "
                    "If that is wrong, set it (timedatectl set-ntp true) and repeat the command; "
                    "if it is right, renew the certificate: relevo controller renew"
                )
            said = getattr(found, "verify_message", "") or str(found)
            return (
                f"{url} does not show a certificate of the CA that this token was made for ({said}). "
                "Somebody may stand between; the token was not sent."
            )
        case aiohttp.ClientConnectorError():
            said = error.os_error.strerror or str(error.os_error)
            return (
                f"can't reach {url}: {said}. Is the address right, and its port open for this host?"
            )
        case TimeoutError():
            return f"no answer from {url} within {ANSWER_S:g} s. {SAME_AGAIN}"
    return f"{url}: {error or type(error).__name__}. {SAME_AGAIN}"


# --- who the controller is


async def fetch_ca(url: str, wanted: str) -> str:
    """The CA in PEM, fetched from anybody, good only if its fingerprint is `wanted`. Raises CantJoin."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{url}/v1/ca", ssl=False, allow_redirects=False) as response,
        ):
            status, text = response.status, await response.content.read(ANSWER_BYTES)
    except (OSError, aiohttp.ClientError) as error:
        raise CantJoin(_unreached(url, error)) from error
    if status != 200:
        raise CantJoin(_refused(url, status, text))
    try:
        pem = text.decode("ascii")
        found = fingerprint_of(pem)
    except ValueError:  # UnicodeDecodeError is one
        raise CantJoin(f"{url} sent no CA certificate. Is this a controller?") from None
    if found != wanted:
        raise CantJoin(
            f"{url} shows another CA than the one this token was made for "
            f"({found[:16]}…, not {wanted[:16]}…). "
            "Either the address is wrong, or somebody stands between; the token was not sent."
        )
    return pem


@asynccontextmanager
async def opened(url: str, joining: Joining, pem: str) -> AsyncGenerator[Door, None]:
    tls: ssl.SSLContext | bool = ssl.create_default_context(cadata=pem) if pem else True
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls), timeout=aiohttp.ClientTimeout(total=ANSWER_S)
    ) as session:
        yield Door(url, joining.secret, session)


def raise_unless_safe(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise CantJoin(f"{url} is no controller's address; it looks like https://controller:7410")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise CantJoin(f"{url}: the token would travel in the clear; use https://")


# --- who this host is


def own_addresses() -> frozenset[str]:
    """Every address of this machine's interfaces, as literals."""
    found = set()
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            try:
                found.add(str(ip_address(address.address.partition("%")[0])))
            except ValueError:
                continue  # a MAC address
    return frozenset(found)


def raise_if_elsewhere(offer: JoinOffer, own: frozenset[str]) -> None:
    """A token that is pasted on the wrong host would let it speak for another one."""
    declared = [str(ip_address(address)) for address in offer.addresses]
    if declared and own.isdisjoint(declared):
        raise CantJoin(
            f"the token is for {offer.host} ({', '.join(declared)}), and this machine has none of these addresses. "
            "If it is the wrong machine, run the command on the right one. If this host is behind NAT, say --anyway."
        )


def raise_if_taken(places: Places, offer: JoinOffer, pem: str) -> bool:
    """Whether this host has a configuration, which then is kept. Raises CantJoin for one of another host, or CA."""
    if pem and places.ca.exists() and fingerprint_of(places.ca.read_text()) != fingerprint_of(pem):
        raise CantJoin(
            f"{places.ca} is another CA's certificate; move it away if it is not used any more"
        )
    if not places.config.exists():
        return False
    try:
        known = load(places.config, Config)
    except BadConfig as error:
        raise CantJoin(
            f"there is a configuration already, and it can't be used: {error}"
        ) from error
    if known.host != offer.host:
        raise CantJoin(
            f"the token is for {offer.host}, but {places.config} says that this is {known.host}; "
            f"if that is over: mv {places.config} {places.config}.old"
        )
    if known.token != places.token:
        raise CantJoin(
            f"{places.config} says token = {str(known.token)!r}; make that {str(places.token)!r}, "
            "where the agent may write, and repeat the command"
        )
    return True


# --- the whole


async def joined(url: str, joining: Joining, places: Places, *, anyway: bool) -> str:
    """Join, and say what was done. Every step can be repeated. Raises CantJoin."""
    raise_unless_safe(url)
    pem = await fetch_ca(url, joining.fingerprint) if joining.fingerprint else ""
    async with opened(url, joining, pem) as door:
        offer = msgspec.json.decode(await door.ask("GET", "/v1/join"), type=JoinOffer)
        if not anyway:
            raise_if_elsewhere(offer, own_addresses())
        kept = raise_if_taken(places, offer, pem)
        made = _prepared(places)
        others = [other for other in offer.controllers.values() if other != url]
        await _accepted(door, made, others)
    try:
        put_in_force(places.token)
        if pem and not places.ca.exists():
            _write(places.ca, pem)
        if not kept:
            _write(places.config, configuration(offer, url, places, with_ca=bool(pem)))
    except OSError as error:
        raise CantJoin(f"{error.filename}: {error.strerror}. {SAME_AGAIN}") from error
    return offer.host


async def _accepted(door: Door, made: str, others: list[str]) -> None:
    """Tell the digest to the controller that decides now. Raises CantJoin."""
    doors = [door, *(Door(other, door.secret, door.session) for other in others)]
    failures = []
    for tried in doors:
        try:
            answer = await tried.ask("POST", "/v1/join", NewCredential(digest=digest(made)))
            msgspec.json.decode(answer, type=Joined)
            return
        except CantJoin as error:
            failures.append(error)
    raise failures[0]


def _prepared(places: Places) -> str:
    """The secret, on disk before anybody hears of it, so that what was begun can be finished. Raises CantJoin."""
    try:
        places.config.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        places.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(places.config.parent, os.W_OK):
            raise PermissionError(13, "Permission denied", str(places.config.parent))
        return make(places.token)
    except OSError as error:
        remedy = " Run it as root." if os.geteuid() != 0 else ""
        raise CantJoin(f"can't write {error.filename}: {error.strerror}.{remedy}") from error


def _write(path: Path, text: str) -> None:
    """Whole or not at all, readable by everybody. Raises OSError."""
    write_secret(path, text.rstrip("\n"))
    path.chmod(0o644)


def configuration(offer: JoinOffer, url: str, places: Places, *, with_ca: bool) -> str:
    """agent.toml of this host."""
    controllers: Mapping[str, str] = offer.controllers or {"controller": url}
    ca = (
        f"ca = {json.dumps(str(places.ca))}                   # by which it knows its controllers\n"
    )
    return f"""\
# This host's agent. Written by `relevo agent join` on {iso(wall())[:10]}; yours from now on.
# After a change: systemctl restart relevo-agent
host = {json.dumps(offer.host)}
token = {json.dumps(str(places.token))}  # this host's own secret; the agent makes another one when it is asked to
{ca if with_ca else ""}state = {json.dumps(str(places.state))}

[controllers]
{"".join(f"{id} = {json.dumps(address)}" + chr(10) for id, address in controllers.items())}
# The web server that this host's sites need. When it is down for 15 s, and a restart did not help, sites move.
# [service]
# check = "http://127.0.0.1:80/"
# restart = ["systemctl", "restart", "nginx.service"]
"""


@click.command()
@click.argument("url")
@click.option(
    "--token", required=True, help="what `relevo host token HOST` printed; one use, one hour"
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/etc/relevo/agent.toml"),
    show_default=True,
    help="where to write the agent's configuration; the CA goes beside it",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/var/lib/relevo/agent"),
    show_default=True,
    help="the agent's own folder, with this host's secret",
)
@click.option(
    "--anyway", is_flag=True, help="even though the host's addresses are not on this machine"
)
def join(url: str, token: str, config: Path, state: Path, anyway: bool) -> None:
    """Let this host in at the controller URL, and write the agent's configuration."""
    joining = read_joining(token)
    if joining is None:
        click.echo(
            "relevo agent join: this is no join token, or not all of one; "
            "copy the whole line that `relevo host token HOST` printed",
            err=True,
        )
        raise SystemExit(2)
    places = Places(config=config.absolute(), state=state.absolute())
    try:
        host = asyncio.run(joined(url.rstrip("/"), joining, places, anyway=anyway))
    except CantJoin as error:
        click.echo(f"relevo agent join: {error}", err=True)
        raise SystemExit(1) from error
    click.echo(f"This host is {host} now; its configuration is {places.config}.")
    click.echo("Start the agent:  systemctl enable relevo-agent && systemctl restart relevo-agent")
