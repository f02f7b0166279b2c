"""The dashboard as one application under /ui: who may come in, in which language, and what all answers carry."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlencode

from aiohttp import web

from controller.admission import NotAdmitted, NotKnownYet
from controller.api.auth import bearer
from controller.api.pace import LOOKING, Paces
from controller.api.past import Pasts
from controller.api.problems import TooMany
from controller.audited import NotLeading
from controller.store import Ambiguous
from controller.web.frame import LANGUAGE_COOKIE, SESSION, Frame, speech, tongue
from controller.web.live import Live
from controller.web.look import look
from controller.web.orders import Orders, read
from controller.web.pages import Pages
from controller.web.past import PastPages
from controller.web.render import HEADERS, page, see_other, serve_static, set_up
from controller.web.sessions import (
    LASTS_S,
    PROOF,
    TOLD,
    Session,
    Sessions,
    cookie_name,
    is_proven,
    is_same_site,
)
from controller.web.words import NAMES
from runtime import log
from runtime.clock import wall
from runtime.words import LANGUAGES

if TYPE_CHECKING:
    from controller.parts import Controller

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ROOT = "/ui"
_log = log.logger("dashboard")
WAYS_IN = ("/", ROOT)
OPEN = ("/ui/login", "/ui/language", "/ui/static/")
YEAR_S = 365 * 86_400
REFUSALS = {  # by the reason of NotAdmitted
    "ended": "That token has ended; ask an admin for another one.",
    "not-allowed": "A member's token opens the members' pages, not this one.",
    "host-credential": "That is a server's credential, not a person's token.",
}


@dataclass(frozen=True, slots=True)
class PassOn:
    """Asks the controller that leads, with these headers and this body. Raises NotLeading, Ambiguous."""

    ask: Callable[[Mapping[str, str], bytes], Awaitable[web.Response]]


PASS_ON = web.RequestKey("pass-on", PassOn)  # on orders that come while another controller leads


def serve(
    app: web.Application, controller: "Controller", failed: Callable[[web.Request], None]
) -> None:
    """Add the dashboard to `app`, under ROOT; it has its own door, and asks nothing of the API's.

    `failed` is told who was not let in; it raises TooMany where that was too often.
    """
    for path in WAYS_IN:
        app.router.add_get(path, _way_in)
    app.add_subapp(ROOT, Dashboard(controller, failed).app())


def is_ours(request: web.Request) -> bool:
    """Whether the dashboard lets its readers in itself."""
    return request.path.startswith(f"{ROOT}/") or request.path in WAYS_IN


async def _way_in(request: web.Request) -> web.Response:
    return see_other(f"{ROOT}/")


class Dashboard:
    def __init__(self, controller: "Controller", failed: Callable[[web.Request], None]) -> None:
        self._controller, self._failed = controller, failed
        self._looking = Paces(LOOKING)
        self._sessions = Sessions(lambda token: controller.admission.caller(token, wall()))

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._told, self._known])
        set_up(app)
        live = Live(self._controller)
        frame = Frame(lambda: look(self._controller), live.digest)
        app.router.add_routes(
            [
                web.get("/login", self.door),
                web.post("/login", self.enter),
                web.post("/logout", self.leave),
                web.get("/language", self.choose),
                web.get("/static/{name}", serve_static),
                web.get("/live", live.stream),
                *Pages(frame).routes(),
                *PastPages(frame, Pasts(self._controller).of).routes(),
                *Orders(frame, self._controller.commands, self._controller.holding).routes(),
            ]
        )
        return app

    # --- around every answer

    @web.middleware
    async def _told(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What goes wrong is told as a page, and every answer carries the headers."""
        try:
            response = await handler(request)
        except web.HTTPException as error:
            values = {"say": speech(request), "t": speech(request).t, "n": speech(request).n}
            response = page(
                request, "trouble", {**values, "status": error.status}, status=error.status
            )
            if wait_s := error.headers.get("Retry-After"):
                response.headers["Retry-After"] = wait_s
        if not response.prepared:
            response.headers.update(HEADERS)
            if response.content_type == "text/html":
                response.headers["Content-Language"] = tongue(request)
                response.headers["Vary"] = "Accept-Language, Cookie"
        return response

    @web.middleware
    async def _known(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Only those who came in by the door; others are shown it."""
        if request.path.startswith(OPEN):
            return await handler(request)
        try:
            if proof := request.headers.get(PROOF):
                session = self._sessions.spoken_for(bearer(request), proof)
            else:
                session = self._sessions.of(request.cookies.get(cookie_name(request), ""))
        except NotKnownYet:
            raise web.HTTPServiceUnavailable from None
        if session is None:
            if request.path == f"{ROOT}/live":
                return web.Response(status=401)
            wanted = request.path_qs if request.method == "GET" else f"{ROOT}/"
            return see_other(f"{ROOT}/login?{urlencode({'to': wanted})}")
        self._raise_if_hasty(session)
        request[SESSION] = session
        return await self._passed_on(request, session) or await handler(request)

    def _raise_if_hasty(self, session: Session) -> None:
        """A pace for all sessions of one token, as for its requests to the API."""
        wait_s = self._looking.take(session.caller.name, asyncio.get_running_loop().time())
        if wait_s:
            self._controller.exporter.count("relevo_api_refused_total", reason="pace")
            raise web.HTTPTooManyRequests(headers={"Retry-After": str(ceil(wait_s))})

    async def _passed_on(self, request: web.Request, session: Session) -> web.Response | None:
        """An order for the controller that leads, given there in the reader's name; None: it is for this one."""
        pass_on: PassOn | None = request.get(PASS_ON)
        if pass_on is None or request.path == f"{ROOT}/logout":
            return None
        form = await read(request)
        if not is_same_site(request) or not is_proven(session, form.get("proof", "")):
            return None  # refused here
        try:
            response = await pass_on.ask(_spoken(request, session), urlencode(form).encode())
        except NotLeading:
            return None  # said here, by the same order
        except Ambiguous:
            raise web.HTTPGatewayTimeout from None
        session.told = unquote(response.headers.pop(TOLD, ""))
        return response

    # --- the door

    async def door(self, request: web.Request) -> web.Response:
        return self._door(request, _back(request.query.get("to", "")))

    def _door(
        self, request: web.Request, to: str, *, error: str = "", status: int = 200
    ) -> web.Response:
        say = speech(request)
        values = {
            "say": say,
            "t": say.t,
            "to": to,
            "error": error,
            "languages": NAMES,
            "controller": self._controller.config.id,
        }
        return page(request, "login", values, status=status)

    async def enter(self, request: web.Request) -> web.Response:
        form, say = await read(request), speech(request)
        to = _back(form.get("to", ""))
        if not is_same_site(request):
            raise web.HTTPForbidden
        try:
            id = self._sessions.begin(form.get("token", ""))
        except NotAdmitted as refused:
            try:
                self._failed(request)
            except TooMany as many:
                error = say.t("Too many wrong tokens came from your address. Wait a minute.")
                response = self._door(request, to, error=error, status=429)
                response.headers["Retry-After"] = f"{many.wait_s:.0f}"
                return response
            self._controller.exporter.count("relevo_api_refused_total", reason=refused.reason)
            said = refused.reason
            error = say.t(REFUSALS.get(said, "This controller does not know that token."))
            return self._door(request, to, error=error, status=401)
        except NotKnownYet:
            error = say.t("This controller has not read its store yet. Try again in a moment.")
            return self._door(request, to, error=error, status=503)
        _log.info("entered", who=self._sessions.name_of(id), remote=request.remote)
        response = see_other(to)
        response.set_cookie(
            cookie_name(request),
            id,
            path="/",
            max_age=int(LASTS_S),
            secure=request.secure,
            httponly=True,
            samesite="Strict",
        )
        return response

    async def leave(self, request: web.Request) -> web.Response:
        form = await read(request)
        if not is_same_site(request) or not is_proven(request[SESSION], form.get("proof", "")):
            raise web.HTTPForbidden
        self._sessions.end(request.cookies.get(cookie_name(request), ""))
        response = see_other(f"{ROOT}/login")
        response.del_cookie(cookie_name(request), path="/", secure=request.secure, httponly=True)
        return response

    async def choose(self, request: web.Request) -> web.Response:
        """GET /ui/language?to=es&back=/ui/: the reader's language from now on."""
        response = see_other(_back(request.query.get("back", "")))
        if (chosen := request.query.get("to", "")) in LANGUAGES:
            response.set_cookie(
                LANGUAGE_COOKIE,
                chosen,
                path=ROOT,
                max_age=YEAR_S,
                secure=request.secure,
                httponly=True,
                samesite="Strict",
            )
        return response


def _spoken(request: web.Request, session: Session) -> dict[str, str]:
    """What is said to the controller that leads: whose token, which proof the form has, in which language."""
    return {
        "Authorization": f"Bearer {session.token}",
        PROOF: session.proof,
        "Content-Type": request.headers["Content-Type"],
        "Accept-Language": tongue(request),
    }


def _back(path: str) -> str:
    """A page of ours, whatever was asked for: nobody is sent elsewhere by a link to here."""
    inside = path.startswith(f"{ROOT}/") and path.isprintable() and "\\" not in path
    return path if inside else f"{ROOT}/"
