"""How often anybody may ask: a pace for each token, and one for the failures of each address.

Whoever has a right token is never held up by others behind the same address: only what failed is counted there.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address

from aiohttp import web

from controller.admission import NotAdmitted
from controller.api.auth import ADMITTED, Handler
from controller.api.problems import TooMany

KEYS_MOST = 10_000  # of a megabyte; whoever has not asked for longest is forgotten


@dataclass(frozen=True, slots=True)
class Pace:
    """`per_s` requests a second for as long as one likes, after a `burst` of them at once."""

    per_s: float
    burst: int


# A request costs a controller about a millisecond: one token that is out of its mind takes a fifth of a core, and beats
# go on. Two hundred a second are a control panel that walks through all sites of a co-op in five seconds.
ASKING = Pace(per_s=200, burst=400)
# A scrape costs as much as twenty other requests. It has a pace of its own: no script with the same token stops it.
SCRAPING = Pace(per_s=2, burst=10)
# A page of the dashboard costs fifteen requests. Ten a second are twenty open pages, each asking again as news come.
LOOKING = Pace(per_s=10, burst=60)
# A person who mistypes a token tries a few times; a program that was left with an old one is told to wait.
FAILING = Pace(per_s=1 / 3, burst=20)


@dataclass(slots=True)
class Paces:
    """Who asked how often, by the generic cell rate algorithm. Source: ITU-T I.371, annex A."""

    pace: Pace
    _due: dict[str, float] = field(default_factory=dict)  # when a steady asker's next one is due

    def take(self, key: str, now: float) -> float:
        """0.0 where `key` may ask now; else after how many s. What is refused does not count."""
        interval_s = 1 / self.pace.per_s
        due = max(self._due.pop(key, now), now)
        early_s = due - now - (self.pace.burst - 1) * interval_s
        allowed = early_s <= 0
        self._due[key] = due + interval_s if allowed else due
        if len(self._due) > KEYS_MOST:
            del self._due[next(iter(self._due))]
        return 0.0 if allowed else early_s


class Limits:
    """The paces of one controller. `refused` counts what was turned away, by reason."""

    def __init__(self, refused: Callable[[str], None], *, failing: Pace = FAILING) -> None:
        self._asking, self._scraping, self._failing = map(Paces, (ASKING, SCRAPING, failing))
        self._refused = refused

    @web.middleware
    async def failures(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Outside admission: an address that fails too often is told to wait, instead of why it failed."""
        try:
            return await handler(request)
        except NotAdmitted:
            self.failed(request)
            raise

    def failed(self, request: web.Request) -> None:
        """Note that somebody at this address was not let in. Raises TooMany."""
        wait_s = self._failing.take(network(request.remote), asyncio.get_running_loop().time())
        if wait_s:
            self._refused("failures")
            raise TooMany("Too many requests from this address were not admitted.", wait_s)

    @web.middleware
    async def asked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Inside admission. What is open to anybody, and the agents' links, have no pace."""
        if (admitted := request.get(ADMITTED)) is not None:
            paces = self._scraping if request.path == "/metrics" else self._asking
            wait_s = paces.take(admitted.caller.name, asyncio.get_running_loop().time())
            if wait_s:
                self._refused("pace")
                per_s = paces.pace.per_s
                raise TooMany(f"More than {per_s:g} requests a second with this token.", wait_s)
        return await handler(request)


def network(address: str | None) -> str:
    """Whom an address stands for: in IPv6 a /64, which one machine may have whole (RFC 7934)."""
    try:
        found = ip_address((address or "").partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return found.exploded[:19]
    return str(found)
