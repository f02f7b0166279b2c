"""GET: what is, and why."""

from typing import TYPE_CHECKING

from aiohttp import web

from controller.api.answers import answer
from controller.api.gauges import measure
from controller.api.language import language
from controller.api.problems import BadRequest, NotFound
from controller.api.views import View
from fleet.model import IncidentId
from metrics.exporter import CONTENT_TYPE
from runtime import supervise

if TYPE_CHECKING:
    from controller.parts import Controller

INCIDENTS = 100  # in one answer, unless `limit` says another number
INCIDENTS_MOST = 10_000


class Reads:
    def __init__(self, controller: "Controller") -> None:
        self._controller = controller

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/healthz", self.health),
            web.get("/readyz", self.readiness),
            web.get("/metrics", self.metrics),
            web.get("/v1/status", self.status),
            web.get("/v1/hosts", self.hosts),
            web.get("/v1/hosts/{id}", self.host),
            web.get("/v1/sites", self.sites),
            web.get("/v1/sites/{id}", self.site),
            web.get("/v1/incidents", self.incidents),
            web.get("/v1/incidents/{id}", self.incident),
            web.get("/v1/holds", self.holds),
            web.get("/v1/failover", self.failover),
        ]

    async def health(self, request: web.Request) -> web.Response:
        """200 while the rounds that should go on do: 503 asks the init system, or a person, to look."""
        controller = self._controller
        leads = controller.leader.leadership is not None and controller.board.times is not None
        rounds = ("orders", "lead") if leads else ("orders",)
        late = [
            f"{name}: {age_s:.1f} s ago"
            for name in rounds
            if (age_s := controller.watchdog.age_s(name)) > supervise.STUCK_S
        ]
        if late:
            return web.Response(status=503, text=f"stuck; last round of {', '.join(late)}\n")
        return web.Response(text="ok\n")

    async def readiness(self, request: web.Request) -> web.Response:
        if View(self._controller).ready:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="not ready: the store is not mirrored yet\n")

    async def metrics(self, request: web.Request) -> web.Response:
        measure(self._controller)
        body = self._controller.exporter.render()
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def status(self, request: web.Request) -> web.Response:
        return answer(View(self._controller).status(), language(request))

    async def hosts(self, request: web.Request) -> web.Response:
        return answer({"hosts": View(self._controller).hosts()}, language(request))

    async def host(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        if (found := View(self._controller).host(id)) is None:
            raise NotFound(f"no host {id!r} in the fleet")
        return answer(found, language(request))

    async def sites(self, request: web.Request) -> web.Response:
        query = request.query
        found = View(self._controller).sites(
            host=query.get("host", ""), member=query.get("member", ""), q=query.get("q", "")
        )
        return answer({"sites": found}, language(request))

    async def site(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        if (found := View(self._controller).site(id)) is None:
            raise NotFound(f"no site {id!r} in the fleet")
        return answer(found, language(request))

    async def incidents(self, request: web.Request) -> web.Response:
        """Newest first."""
        limit = _number(request, "limit", INCIDENTS, INCIDENTS_MOST)
        only_open = request.query.get("open", "") not in ("", "0")
        every = reversed(list(self._controller.mirror.incidents.values()))
        found = [incident for incident in every if not (only_open and incident.closed_at)]
        return answer({"incidents": found[:limit]}, language(request))

    async def incident(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        if (found := self._controller.mirror.incidents.get(IncidentId(id))) is None:
            raise NotFound(f"no incident {id!r}")
        return answer(found, language(request))

    async def holds(self, request: web.Request) -> web.Response:
        holds = sorted(self._controller.mirror.holds.values(), key=lambda hold: hold.since)
        return answer({"holds": holds}, language(request))

    async def failover(self, request: web.Request) -> web.Response:
        return answer(View(self._controller).failover(), language(request))


def _number(request: web.Request, name: str, otherwise: int, most: int) -> int:
    text = request.query.get(name)
    if text is None:
        return otherwise
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= most:
        raise BadRequest(f"{name} is a number from 1 to {most}, not {text[:40]!r}.", field=name)
    return int(text)
