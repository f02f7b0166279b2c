"""Who looks: a session for each browser that came with a good token. Memory only: a restart asks for the token again.

The token itself is admitted anew at each request, so what is revoked ends at once, wherever tokens are kept.
"""

import asyncio
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from controller.admission import Caller, NotAdmitted
from fleet.access import may

MOST = 1000  # browsers at once; the one that was idle longest makes room
LASTS_S = 12 * 3600.0  # a working day
IDLE_S = 2 * 3600.0
TOKEN_CHARACTERS = 512
PROOF, TOLD = (
    "Relevo-Proof",
    "Relevo-Told",
)  # headers between controllers, for an order that is passed on

Admit = Callable[[str], Caller]  # whose token it is; raises NotAdmitted, NotKnownYet


@dataclass(slots=True)
class Session:
    """`proof` is in every form, so that no other site's page can send one. `told`: said once, on the next page."""

    token: str
    caller: Caller
    began_at: float
    used_at: float
    proof: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    told: str = ""


class Sessions:
    def __init__(self, admit: Admit) -> None:
        self._admit = admit
        self._open: dict[str, Session] = {}

    def begin(self, token: str) -> str:
        """The id of a new session. Raises NotAdmitted, NotKnownYet."""
        caller, now = self._watcher(token.strip()), asyncio.get_running_loop().time()
        self._forget(now)
        id = secrets.token_urlsafe(32)
        self._open[id] = Session(token=token.strip(), caller=caller, began_at=now, used_at=now)
        return id

    def of(self, id: str) -> Session | None:
        """The session, if it lasts and its token is still a good one."""
        now = asyncio.get_running_loop().time()
        if (session := self._open.get(id)) is None:
            return None
        try:
            session.caller = self._watcher(session.token)
        except NotAdmitted:
            self.end(id)
            return None
        if _over(session, now):
            self.end(id)
            return None
        session.used_at = now
        return session

    def spoken_for(self, token: str, proof: str) -> Session | None:
        """For one order that another controller passes on: it has the token, which no page of another site has."""
        now = asyncio.get_running_loop().time()
        try:
            caller = self._watcher(token)
        except NotAdmitted:
            return None
        return Session(token=token, caller=caller, began_at=now, used_at=now, proof=proof)

    def _watcher(self, token: str) -> Caller:
        """Who may see the whole co-op. Raises NotAdmitted, NotKnownYet."""
        if len(token) > TOKEN_CHARACTERS:
            raise NotAdmitted("wrong-token", "No token is that long.")
        caller = self._admit(token)
        if not may(caller.role, "viewer"):
            raise NotAdmitted("not-allowed", "A member's token shows no other member's sites.")
        return caller

    def name_of(self, id: str) -> str:
        return self._open[id].caller.name

    def end(self, id: str) -> None:
        self._open.pop(id, None)

    def __len__(self) -> int:
        return len(self._open)

    def _forget(self, now: float) -> None:
        for id in [id for id, session in self._open.items() if _over(session, now)]:
            del self._open[id]
        if len(self._open) >= MOST:
            del self._open[min(self._open, key=lambda id: self._open[id].used_at)]


def _over(session: Session, now: float) -> bool:
    return now - session.began_at > LASTS_S or now - session.used_at > IDLE_S


def cookie_name(request: web.Request) -> str:
    """`__Host-` binds the cookie to this very host, over HTTPS. Source: RFC 6265bis §4.1.3.2."""
    return "__Host-relevo" if request.secure else "relevo"


def is_same_site(request: web.Request) -> bool:
    """Whether a form was sent by a page of ours, as the browser says. Source: Fetch metadata; RFC 6454 §7."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("Origin")
    return origin is None or origin.partition("://")[2].lower() == request.host.lower()


def is_proven(session: Session, said: str) -> bool:
    return hmac.compare_digest(session.proof.encode(), said.encode("utf-8", "surrogatepass"))
