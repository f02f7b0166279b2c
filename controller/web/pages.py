"""Pages that are read: the fleet at a glance, one host, one site, incidents, holds, failover, who did what."""

from collections.abc import Mapping
from urllib.parse import urlencode

from aiohttp import web

from controller.web.frame import Frame, Slice
from controller.web.look import BAD, Look, steps
from controller.web.words import unix
from fleet.model import Host, HostId, IncidentId, SiteId

SITES = 50  # of one page
INCIDENTS = 30
ENTRIES = 50
SITES_OF_HOST = 100
FOUND_HOSTS = 12
MOST = 200  # sites of one list that has no pages; the others are counted


class Pages:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.fleet),
            web.get("/hosts/{id}", self.host),
            web.get("/sites", self.sites),
            web.get("/sites/{id}", self.site),
            web.get("/incidents", self.incidents),
            web.get("/incidents/{id}", self.incident),
            web.get("/holds", self.holds),
            web.get("/holds/{id}", self.hold),
            web.get("/failover", self.failover),
            web.get("/log", self.log),
        ]

    async def fleet(self, request: web.Request) -> web.Response:
        return self._page(request, "fleet", self._frame.look(), recent=4, bad=BAD)

    async def host(self, request: web.Request) -> web.Response:
        look, id = self._frame.look(), HostId(request.match_info["id"])
        if (host := look.fleet.hosts.get(id)) is None:
            raise web.HTTPNotFound
        sites = look.sites_at(id)
        return self._page(
            request, "host", look, host=host, sites=sites[:SITES_OF_HOST], total=len(sites)
        )

    async def sites(self, request: web.Request) -> web.Response:
        """?q= in id, domain, member or host; ?only=away or held; ?page="""
        look, q = self._frame.look(), request.query.get("q", "")[:200]
        only = request.query.get("only", "")
        only = only if only in ("away", "held") else ""
        found = look.sites(q=q, only=only)
        part = Slice.of(request.query.get("page", ""), len(found), SITES)
        return self._page(
            request,
            "sites",
            look,
            q=q,
            only=only,
            sites=found[part.first : part.last],
            total=len(found),
            part=part,
            hosts=_hosts(look, q),
            to_page=lambda number: _query({"q": q, "only": only, "page": number}),
        )

    async def site(self, request: web.Request) -> web.Response:
        look, id = self._frame.look(), SiteId(request.match_info["id"])
        if (site := look.fleet.sites.get(id)) is None:
            raise web.HTTPNotFound
        place = look.places.get(id)
        since = unix(place.since) if place else None
        return self._page(request, "site", look, site=site, place=place, since=since)

    async def incidents(self, request: web.Request) -> web.Response:
        look = self._frame.look()
        found = look.newest_incidents
        part = Slice.of(request.query.get("page", ""), len(found), INCIDENTS)
        return self._page(
            request,
            "incidents",
            look,
            incidents=found[part.first : part.last],
            part=part,
            to_page=lambda number: _query({"page": number}),
        )

    async def incident(self, request: web.Request) -> web.Response:
        look, id = self._frame.look(), IncidentId(request.match_info["id"])
        if (incident := look.incidents.get(id)) is None:
            raise web.HTTPNotFound
        return self._page(
            request, "incident", look, incident=incident, steps=steps(incident.timeline), most=MOST
        )

    async def holds(self, request: web.Request) -> web.Response:
        return self._page(request, "holds", self._frame.look())

    async def hold(self, request: web.Request) -> web.Response:
        look = self._frame.look()
        if (hold := look.holds.get(request.match_info["id"])) is None:
            return self._page(request, "hold_gone", look, status=404)
        return self._page(request, "hold", look, hold=hold, refusal=look.answered(hold), most=MOST)

    async def failover(self, request: web.Request) -> web.Response:
        return self._page(request, "failover", self._frame.look(), most=MOST)

    async def log(self, request: web.Request) -> web.Response:
        """What people ordered, newest first."""
        look = self._frame.look()
        entries = [look.audit[id] for id in sorted(look.audit, reverse=True)]
        part = Slice.of(request.query.get("page", ""), len(entries), ENTRIES)
        return self._page(
            request,
            "log",
            look,
            entries=entries[part.first : part.last],
            part=part,
            to_page=lambda number: _query({"page": number}),
        )

    def _page(
        self,
        request: web.Request,
        template: str,
        look: Look,
        *,
        status: int = 200,
        **values: object,
    ) -> web.Response:
        return self._frame.page(request, template, look, status=status, **values)


def _hosts(look: Look, q: str) -> list[Host]:
    """Hosts that a search for sites may have meant."""
    q = q.strip().lower()
    every = sorted(look.fleet.hosts.values(), key=lambda host: host.id)
    found = [host for host in every if q and (q in host.id.lower() or q in host.tag.lower())]
    return found[:FOUND_HOSTS]


def _query(values: Mapping[str, object]) -> str:
    return "?" + urlencode({name: value for name, value in values.items() if value})
