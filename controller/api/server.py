"""One listener for all of HTTP: the agents' links, the API, metrics and health."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Never

from aiohttp import web
from aiohttp.typedefs import Middleware

from controller.admission import NotAdmitted, NotKnownYet
from controller.api import link
from controller.api.access import Access
from controller.api.auth import Handler, admit, bearer
from controller.api.caps import CapsRoutes
from controller.api.changes import FleetLog
from controller.api.connections import Hall, doors
from controller.api.events import Stream
from controller.api.fleet import FleetFile
from controller.api.forward import passing_on
from controller.api.heads import LIMITS
from controller.api.items import Items
from controller.api.mine import Mine
from controller.api.notifiers import Notifiers
from controller.api.pace import FAILING, Limits, Pace
from controller.api.past import PastRoutes
from controller.api.problems import problems
from controller.api.reads import Reads
from controller.api.routes import Call, Content, Nothing, Table, route
from controller.api.store import StoreRoutes
from controller.api.writes import Writes
from controller.config import Listen
from controller.web import dashboard
from fleet.access import digest
from fleet.model import HostId
from runtime import log
from runtime.certificates import Shown, ends_at
from runtime.config import BadConfig

if TYPE_CHECKING:
    from controller.parts import Controller

_log = log.logger("api")
WIRE = Content(
    "application/json", "A WebSocket of JSON frames: beats one way, orders the other.", status=101
)
IDLE_S = 75.0  # between two requests of one connection, as browsers and proxies expect
GOODBYE_S = 1.0  # for requests under way when the controller ends


class Api:
    """The routes over one controller. `failing`: how often an address may fail to be let in."""

    def __init__(self, controller: "Controller", failing: Pace = FAILING) -> None:
        self.controller = controller
        self.hall, self.limits = Hall(self._refused), Limits(self._refused, failing=failing)

    def app(self, *inner: Middleware) -> web.Application:
        """The application; `inner` middlewares see only what was admitted."""
        controller = self.controller
        lines = [route("GET", "/v1/link/{host}", self.link, role="host", gives=(WIRE,))]
        for part in (
            Reads,
            Writes,
            CapsRoutes,
            PastRoutes,
            Access,
            Mine,
            Items,
            FleetFile,
            FleetLog,
            StoreRoutes,
            Notifiers,
            Stream,
        ):
            lines += part(controller).routes()
        table = Table(lines)

        def role_of(request: web.Request) -> str | None:
            return "open" if dashboard.is_ours(request) else table.role_of(request)

        admission = admit(controller.admission, role_of, self._refused)
        outer = (self.hall.attended, self._counted, problems, self.limits.failures, admission)
        app = web.Application(middlewares=[*outer, self.limits.asked, *inner])
        table.register(app)
        dashboard.serve(app, controller, self.limits.failed)
        return app

    @web.middleware
    async def _counted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        status = 500
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            self.controller.exporter.count("relevo_api_requests_total", status=f"{status // 100}xx")

    def _refused(self, reason: str) -> None:
        self.controller.exporter.count("relevo_api_refused_total", reason=reason)

    def measure(self, name: str, ends_at: float) -> None:
        """When a certificate of this controller ends."""
        self.controller.exporter.set(
            "relevo_certificate_expires_timestamp_seconds", ends_at, certificate=name
        )

    async def goodbye(self) -> None:
        """End the links: requests under way are waited for, and a link never ends by itself."""
        await self.controller.link.end()

    async def link(self, call: Call[Nothing, None]) -> web.StreamResponse:
        """An agent's link."""
        request, token = call.request, bearer(call.request)
        host = request.match_info["host"]
        agents, controller = self.controller.link, self.controller
        if not controller.mirror.ready and HostId(host) not in controller.admission.hosts:
            raise NotKnownYet
        if not agents.admits(host, token):
            raise NotAdmitted("link", "This is not the host's own credential, or no longer.")
        connection, socket = await link.accept(
            request, lambda: agents.refused("malformed-frame", host)
        )
        await agents.serve(HostId(host), connection, digest(token))
        return socket


async def serve_api(api: Api, listen: Listen, listens: asyncio.Event | None = None) -> Never:
    """Eternal; sets `listens` once it does. Raises BadConfig where it can't listen or read its certificate.

    A certificate that was renewed is shown within seconds to whoever connects then; what is connected stays so.
    """
    shown = _shown(listen)
    async with listening(api, listen, shown), asyncio.TaskGroup() as group:
        if listens is not None:
            listens.set()
        if listen.ca is not None:
            api.measure("ca", ends_at(listen.ca))
        if shown is not None:
            api.measure("server", shown.ends_at)
            renewed = shown.keep(lambda ends_at: api.measure("server", ends_at))
            group.create_task(renewed, name="certificate")
        await asyncio.Event().wait()
    raise AssertionError("the event is never set")


@asynccontextmanager
async def listening(
    api: Api, listen: Listen, shown: Shown | None = None
) -> AsyncGenerator[int, None]:
    """The API served while the body lasts; gives the port. Raises BadConfig."""
    shown = shown or _shown(listen)
    async with AsyncExitStack() as stack:
        forwarding = await stack.enter_async_context(passing_on(api.controller, listen.ca))
        runner = web.AppRunner(
            api.app(forwarding),
            access_log=None,
            shutdown_timeout=GOODBYE_S,
            keepalive_timeout=IDLE_S,
            **LIMITS,
        )
        stack.push_async_callback(runner.cleanup)
        stack.push_async_callback(api.goodbye)
        await runner.setup()
        tls = shown.context if shown else None
        try:
            port = await stack.enter_async_context(
                doors(runner, api.hall, listen.address, listen.port, tls)
            )
        except OSError as error:
            raise BadConfig(
                f"can't listen on {listen.address} port {listen.port}: {error.strerror or error}"
            ) from error
        _log.info("listening", address=listen.address, port=port, tls=tls is not None)
        yield port


def _shown(listen: Listen) -> Shown | None:
    if listen.certificate is None or listen.key is None:
        return None
    return Shown(listen.certificate, listen.key)
