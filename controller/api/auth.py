"""Who asks: a bearer token against the digests of the admins' tokens; every route but the open ones wants one."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from aiohttp.typedefs import Middleware

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Health tells nothing, and an agent's link has tokens of its own.
OPEN = frozenset({"open", "host"})
WHO = web.RequestKey("who", str)


class NotAdmitted(Exception):
    """No token, or not one of ours."""


def bearer(request: web.Request) -> str:
    """The request's token; empty where there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def admit(admins: Mapping[str, str], role_of: Callable[[web.Request], str | None]) -> Middleware:
    """A middleware that lets admins in, and notes their name as WHO. `admins`: name -> SHA-256 (hex) of a token.

    `role_of`: who may ask; a path that is in no line of the table is open to admins only.
    """

    @web.middleware
    async def admission(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.match_info.http_exception is None and role_of(request) not in OPEN:
            request[WHO] = name_of(bearer(request), admins)
        return await handler(request)

    return admission


def name_of(token: str, admins: Mapping[str, str]) -> str:
    """Whose token it is, in a time that does not tell how near a guess was. Raises NotAdmitted."""
    digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
    found = [name for name, known in admins.items() if hmac.compare_digest(digest, known)]
    if not token or not found:
        raise NotAdmitted
    return found[0]
