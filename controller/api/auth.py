"""Who asks, and whether they may: each route says what role it needs, and what says nothing is served to nobody."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Middleware

from controller.admission import Admission, Caller, NotAdmitted
from fleet.access import ACCESS_ROLES, may
from runtime import log
from runtime.clock import wall

__all__ = [
    "ADMITTED",
    "OPEN",
    "WHO",
    "Admitted",
    "Handler",
    "NotAdmitted",
    "NotAllowed",
    "admit",
    "bearer",
]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Health tells nothing. Hosts have tokens of their own, which the handlers look at.
OPEN = frozenset({"open", "host"})
WHO = web.RequestKey("who", str)

_log = log.logger("auth")


@dataclass(frozen=True, slots=True)
class Admitted:
    """Somebody who was let in to a route that needs a role."""

    caller: Caller
    admission: Admission
    token: str
    needs: str

    def still(self) -> bool:
        """For what is served for long: whether they would be let in now."""
        try:
            return _may(self.admission.caller(self.token, wall()), self.needs)
        except NotAdmitted:
            return False


ADMITTED = web.RequestKey("admitted", Admitted)


class NotAllowed(Exception):
    """Known, but without the role that this needs."""

    def __init__(self, caller: Caller, needs: str | None) -> None:
        who = f"{caller.name} has the role `{caller.role}`"
        super().__init__(
            f"{who}; this needs `{needs}`." if needs else f"{who}; this is served to nobody."
        )


def bearer(request: web.Request) -> str:
    """The request's token; empty where there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def admit(
    admission: Admission,
    role_of: Callable[[web.Request], str | None],
    refused: Callable[[str], None],
) -> Middleware:
    """A middleware that lets in who may, and notes them as ADMITTED and WHO; `refused` counts the others by reason.

    `role_of`: the role that a route needs; None where no line of the table serves it.
    """

    @web.middleware
    async def admitted(request: web.Request, handler: Handler) -> web.StreamResponse:
        needs = role_of(request)
        if request.match_info.http_exception is not None or needs in OPEN:
            return await handler(request)
        token = bearer(request)
        try:
            caller = admission.caller(token, wall())
        except NotAdmitted as error:
            refused(error.reason)
            raise
        if needs is None or not _may(caller, needs):
            refused("not-allowed")
            _log.warning("not allowed", who=caller.name, path=request.path, needs=needs)
            raise NotAllowed(caller, needs)
        request[ADMITTED] = Admitted(caller, admission, token, needs)
        request[WHO] = caller.name
        return await handler(request)

    return admitted


def _may(caller: Caller, needs: str) -> bool:
    return any(role == needs and may(caller.role, role) for role in ACCESS_ROLES)
