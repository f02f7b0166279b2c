"""GET: what is, and why."""

from typing import TYPE_CHECKING, Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from controller.api.gauges import measure
from controller.api.items import etag
from controller.api.openapi import described
from controller.api.pages import Paged, paged
from controller.api.problems import NotFound
from controller.api.routes import TABLE, Call, Content, Nothing, Route, route
from controller.api.shapes import (
    Failover,
    Holds,
    Hosts,
    HostTold,
    Incidents,
    Sites,
    SiteTold,
    Status,
)
from controller.api.targets import GROUPS, Targets
from controller.api.views import View
from fleet.model import Incident, IncidentId
from metrics.exporter import CONTENT_TYPE
from runtime import supervise

if TYPE_CHECKING:
    from controller.parts import Controller

STATE = (
    Content("text/plain", "One line: all is well."),
    Content("text/plain", "One line: what is late or missing.", status=503),
)
DESCRIPTION = Content("application/json", "An OpenAPI document.")
METRICS = Content("text/plain", "Prometheus' exposition format, version 0.0.4.")
Text = Annotated[str, Meta(max_length=253)]  # as long as a domain
Id = Annotated[str, Meta(max_length=63)]


class SitesQuery(Paged, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sites at home or served on `host`, of `member`, with `q` in their id or in a domain."""

    host: Id = ""
    member: Id = ""
    q: Text = ""


class IncidentsQuery(Paged, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`open`: only those that are not closed."""

    open: bool = False


class Reads:
    def __init__(self, controller: "Controller") -> None:
        self._controller = controller

    def routes(self) -> list[Route]:
        found = ("not-found",)
        return [
            route("GET", "/healthz", self.health, role="open", gives=STATE),
            route("GET", "/readyz", self.readiness, role="open", gives=STATE),
            route("GET", "/metrics", self.metrics, role="viewer", gives=(METRICS,)),
            route("GET", "/v1/openapi.json", self.openapi, role="member", gives=(DESCRIPTION,)),
            route("GET", "/v1/status", self.status, role="viewer"),
            route("GET", "/v1/hosts", self.hosts, role="viewer"),
            route("GET", "/v1/hosts/{id}", self.host, role="viewer", refuses=found),
            route("GET", "/v1/sites", self.sites, role="viewer"),
            route("GET", "/v1/sites/{id}", self.site, role="viewer", refuses=found),
            route("GET", "/v1/incidents", self.incidents, role="viewer"),
            route("GET", "/v1/incidents/{id}", self.incident, role="viewer", refuses=found),
            route("GET", "/v1/holds", self.holds, role="viewer"),
            route("GET", "/v1/failover", self.failover, role="viewer"),
            route(
                "GET",
                "/v1/prometheus/targets",
                Targets(self._controller).targets,
                role="viewer",
                gives=(GROUPS,),
                refuses=("not-ready",),
            ),
        ]

    async def health(self, call: Call[Nothing, None]) -> web.Response:
        """Whether the rounds that should go on do.

        503 asks the init system, or a person, to look; the text says what is late.
        """
        controller = self._controller
        rounds = ("orders", "lead") if controller.board.times is not None else ("orders",)
        late = [
            f"{name}: {age_s:.1f} s ago"
            for name in rounds
            if (age_s := controller.watchdog.age_s(name)) > supervise.STUCK_S
        ]
        if late:
            return web.Response(status=503, text=f"stuck; last round of {', '.join(late)}\n")
        return web.Response(text="ok\n")

    async def readiness(self, call: Call[Nothing, None]) -> web.Response:
        """Whether the store is mirrored here, and the first round done where this controller leads."""
        if View(self._controller).ready:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="not ready: the store is not mirrored yet\n")

    async def metrics(self, call: Call[Nothing, None]) -> web.Response:
        """All metrics, as Prometheus scrapes them."""
        measure(self._controller)
        body = self._controller.exporter.render()
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def openapi(self, call: Call[Nothing, None]) -> web.Response:
        """This description: OpenAPI 3.1, made from the types that the API reads and writes."""
        body = msgspec.json.encode(described(call.request.app[TABLE]))
        return web.Response(body=body, content_type="application/json")

    async def status(self, call: Call[Nothing, None]) -> Status:
        """The whole at a glance."""
        return View(self._controller).status()

    async def hosts(self, call: Call[Paged, None]) -> Hosts:
        """Hosts, by id."""
        some, following = paged(call, self._controller.mirror.fleet.hosts, str)
        return Hosts(hosts=tuple(View(self._controller).hosts(some)), next=following)

    async def host(self, call: Call[Nothing, None]) -> HostTold:
        """One host, with the evidence on it and its sites. The ETag is of what is declared, for If-Match."""
        if (found := View(self._controller).host(call.id)) is None:
            raise NotFound(f"no host {call.id!r} in the fleet")
        call.headers.update(etag(found.declared))
        return found

    async def sites(self, call: Call[SitesQuery, None]) -> Sites:
        """Sites, by id: where each is served, whether it may move, what holds it."""
        query, view = call.query, View(self._controller)
        found = view.sites_with(host=query.host, member=query.member, q=query.q)
        some, following = paged(call, found, lambda site: site.id)
        return Sites(sites=tuple(map(view.site_item, some)), next=following)

    async def site(self, call: Call[Nothing, None]) -> SiteTold:
        """One site, with the incidents that moved it. The ETag is of what is declared, for If-Match."""
        if (found := View(self._controller).site(call.id)) is None:
            raise NotFound(f"no site {call.id!r} in the fleet")
        call.headers.update(etag(found.declared))
        return found

    async def incidents(self, call: Call[IncidentsQuery, None]) -> Incidents:
        """Incidents, newest first."""
        every = self._controller.mirror.incidents.values()
        found = (incident for incident in every if not (call.query.open and incident.closed_at))
        some, following = paged(call, found, lambda incident: incident.id, falling=True)
        return Incidents(incidents=some, next=following)

    async def incident(self, call: Call[Nothing, None]) -> Incident:
        """One incident with its timeline."""
        if (found := self._controller.mirror.incidents.get(IncidentId(call.id))) is None:
            raise NotFound(f"no incident {call.id!r}")
        return found

    async def holds(self, call: Call[Paged, None]) -> Holds:
        """What waits for a person or for its reason to go away, oldest first."""
        holds = self._controller.mirror.holds.values()
        some, following = paged(call, holds, lambda hold: f"{hold.since:018.6f} {hold.id}")
        return Holds(holds=some, next=following)

    async def failover(self, call: Call[Nothing, None]) -> Failover:
        """What is armed, paused and spent, and the numbers that decisions turn on."""
        return View(self._controller).failover()
