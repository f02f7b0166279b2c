"""The demo's view of the controller: as much of its API as the stage, the measuring and the picture need."""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec

from fleet.model import HeldSite, MovedSite, Phase

TIMEOUT_S = 5.0
T = TypeVar("T")


class ApiFailed(Exception):
    """The controller could not be asked, or refused; the message is one line."""


class Reason(msgspec.Struct, frozen=True):
    """A reason as the API tells it: the code, and a sentence."""

    code: str = ""
    text: str = ""


class HostItem(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tag: str
    location: str
    verdict: str
    since_s: float | None = None
    why: Reason | None = None
    sites_home: int = 0
    sites_here: int = 0


class SiteItem(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    home: str
    host: str
    route: str


class EntryItem(msgspec.Struct, frozen=True, kw_only=True):
    phase: Phase
    at: float
    offset_s: float
    subject: str = ""
    why: Reason = Reason()


class IncidentItem(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    subject: str
    verdict: str
    began_at: float
    moved: tuple[MovedSite, ...] = ()
    held: tuple[HeldSite, ...] = ()
    timeline: tuple[EntryItem, ...] = ()
    complete: bool = False
    closed_at: float | None = None

    def at(self, phase: Phase) -> float | None:
        """When `phase` was first reached (Unix s)."""
        return next((entry.at for entry in self.timeline if entry.phase is phase), None)


class StatusItem(msgspec.Struct, frozen=True, kw_only=True):
    controller: str
    leader: bool
    paused: dict[str, object] | None = None
    rewound: Reason | None = None
    led_by: str | None = None
    doubts_itself: bool = False


class _Listing(msgspec.Struct, frozen=True):
    """What a list's answer may hold, one of them at a time."""

    hosts: tuple[HostItem, ...] = ()
    sites: tuple[SiteItem, ...] = ()
    incidents: tuple[IncidentItem, ...] = ()
    next: str | None = None


class Client:
    """Asks the controller that answered last; when it is gone, the next one."""

    def __init__(
        self, session: aiohttp.ClientSession, bases: Iterable[str], tls: ssl.SSLContext
    ) -> None:
        self._session, self._bases, self._tls = session, deque(bases), tls

    async def hosts(self) -> tuple[HostItem, ...]:
        return tuple([host async for page in self._pages("/v1/hosts") for host in page.hosts])

    async def sites(self) -> tuple[SiteItem, ...]:
        return tuple([site async for page in self._pages("/v1/sites") for site in page.sites])

    async def incidents(self) -> tuple[IncidentItem, ...]:
        """Newest last."""
        pages = self._pages("/v1/incidents")
        found = [incident async for page in pages for incident in page.incidents]
        return tuple(sorted(found, key=lambda incident: incident.began_at))

    async def incident(self, id: str) -> IncidentItem:
        return _decode(await self._ask("GET", f"/v1/incidents/{id}"), IncidentItem)

    async def ready(self) -> bool:
        """Whether the controller is ready to be used."""
        try:
            await self._ask("GET", "/readyz")
        except ApiFailed:
            return False
        return True

    async def led(self) -> bool:
        """Whether somebody decides."""
        return (await self.status()).led_by is not None

    async def status(self) -> StatusItem:
        return _decode(await self._ask("GET", "/v1/status"), StatusItem)

    async def apply(self, fleet: str) -> None:
        await self._ask("PUT", "/v1/fleet", data=fleet.encode(), kind="application/yaml")

    async def arm(self) -> None:
        await self._send("PUT", "/v1/failover/arming", scope="all", arming="arm", reason="demo")

    async def pause(self) -> None:
        await self._send("POST", "/v1/failover/pause", reason="demo", for_s=3600)

    async def resume(self) -> None:
        await self._send("DELETE", "/v1/failover/pause", reason="demo")

    async def activate(self, host: str) -> None:
        """`host` may serve again, and its sites come home."""
        await self._send("POST", f"/v1/hosts/{host}/activate", reason="demo", bring_home=True)

    async def _pages(self, path: str) -> AsyncIterator[_Listing]:
        there = f"{path}?limit=1000"
        while True:
            page = _decode(await self._ask("GET", there), _Listing)
            yield page
            if page.next is None:
                return
            there = f"{path}?limit=1000&cursor={page.next}"

    async def _send(self, method: str, path: str, **body: Any) -> None:
        await self._ask(method, path, data=msgspec.json.encode(body), kind="application/json")

    async def _ask(
        self, method: str, path: str, data: bytes | None = None, kind: str = ""
    ) -> bytes:
        headers = {"Content-Type": kind} if kind else {}
        for left in reversed(range(len(self._bases))):
            try:
                async with self._session.request(
                    method, f"{self._bases[0]}{path}", data=data, headers=headers, ssl=self._tls
                ) as response:
                    body = await response.read()
                break
            except (aiohttp.ClientError, TimeoutError) as error:
                self._bases.rotate(-1)
                if not left:
                    raise ApiFailed(f"{method} {path}: {error!r}") from error
        if response.status >= 300:
            said = body.decode(errors="replace").strip()[:1000]
            raise ApiFailed(f"{method} {path}: status {response.status}: {said}")
        return body


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise ApiFailed(f"the controller's answer is not what the demo expects: {error}") from error


@asynccontextmanager
async def client(bases: Iterable[str], *, ca: Path, token: str) -> AsyncIterator[Client]:
    """A client of the controllers at `bases`, whose certificates `ca` has signed."""
    tls = await asyncio.to_thread(ssl.create_default_context, cafile=str(ca))
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        yield Client(session, bases, tls)
