"""What a member sees: its own sites and what happened to them, with the public tags of hosts and nobody's names.

Routes and shapes of their own, so that nothing new elsewhere can show itself here.
"""

from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
from msgspec import Meta

from controller.api import myholding
from controller.api.auth import ADMITTED
from controller.api.myholding import MyPenalty
from controller.api.pages import Paged, paged
from controller.api.problems import BadRequest
from controller.api.routes import Call, Route, route
from controller.api.shapes import Page
from fleet.model import Domain, HostId, Incident, MemberId, Placement, PlanId, Site, SiteId, Why
from runtime.clock import wall

if TYPE_CHECKING:
    from controller.parts import Controller

# Reasons that a member is told; each speaks of a host, by its tag, or of nothing. People's own words are for people.
TOLD = frozenset({"placed-at-home", "dead", "leaving", "service-down", "drain"})


class MineQuery(Paged, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`member`: whose; a member's own token needs not say it."""

    member: Annotated[str, Meta(max_length=63)] = ""


class PenaltiesQuery(MineQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With `ended` those of the last two weeks that are over, too."""

    ended: bool = False


Q = TypeVar("Q", bound=MineQuery)


class MySite(msgspec.Struct, frozen=True, kw_only=True):
    """`host`: the public tag of where it is served, `since` when (ISO 8601) and why. `held`: how it is slowed now."""

    id: SiteId
    domains: tuple[Domain, ...]
    plan: PlanId
    host: str | None
    at_home: bool
    since: str | None
    why: Why | None
    held: tuple[MyPenalty, ...]


class MySites(Page, frozen=True, kw_only=True):
    member: MemberId
    sites: tuple[MySite, ...]


class MyMove(msgspec.Struct, frozen=True, kw_only=True):
    """From one host to another, by their tags."""

    site: SiteId
    source: str
    target: str


class MyIncident(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to the member's sites. Instants in Unix s. `waiting`: sites that wait for a person."""

    id: str
    verdict: str
    began_at: float
    closed_at: float | None
    complete: bool
    moved: tuple[MyMove, ...]
    waiting: tuple[SiteId, ...]


class MyIncidents(Page, frozen=True, kw_only=True):
    member: MemberId
    incidents: tuple[MyIncident, ...]


class MyPenalties(Page, frozen=True, kw_only=True):
    member: MemberId
    penalties: tuple[MyPenalty, ...]


class Mine:
    def __init__(self, controller: "Controller") -> None:
        self._mirror = controller.mirror

    def routes(self) -> list[Route]:
        return [
            route("GET", "/v1/my/sites", self.sites, role="member"),
            route("GET", "/v1/my/incidents", self.incidents, role="member"),
            route("GET", "/v1/my/penalties", self.penalties, role="member"),
        ]

    async def sites(self, call: Call[MineQuery, None]) -> MySites:
        """A member's sites: where each is served, and why there."""
        member = _member(call)
        some, following = paged(call, self._own(member).values(), lambda site: site.id)
        return MySites(member=member, sites=tuple(map(self._site, some)), next=following)

    async def incidents(self, call: Call[MineQuery, None]) -> MyIncidents:
        """What happened to a member's sites, newest first."""
        member = _member(call)
        own = self._own(member)
        told = [
            self._incident(incident, own)
            for incident in self._mirror.incidents.values()
            if not incident.observed and _touches(incident, own)
        ]
        # By nothing that names a host: a cursor can be read.
        some, following = paged(call, told, lambda i: f"{i.began_at:018.6f} {i.id}", falling=True)
        return MyIncidents(member=member, incidents=some, next=following)

    async def penalties(self, call: Call[PenaltiesQuery, None]) -> MyPenalties:
        """How a member's sites are held, and why, newest first."""
        member = _member(call)
        held = (found for site in self._own(member) for found in self._held(site))
        past = (found for site in self._own(member) for found in self._past(site))
        every = [*held, *(past if call.query.ended else ())]
        some, following = paged(call, every, _penalty_key, falling=True)
        return MyPenalties(member=member, penalties=some, next=following)

    def _held(self, site: SiteId) -> tuple[MyPenalty, ...]:
        """The hardest first."""
        kept = self._mirror.penalties.get(site)
        standing = kept.standing(wall()) if kept else ()
        return tuple(myholding.told(one) for one in standing if myholding.holds(one))

    def _past(self, site: SiteId) -> tuple[MyPenalty, ...]:
        kept = self._mirror.penalties.get(site)
        past = kept.past if kept else ()
        return tuple(
            myholding.told(old.penalty, old.ended) for old in past if myholding.holds(old.penalty)
        )

    def _own(self, member: MemberId) -> dict[SiteId, Site]:
        sites = self._mirror.fleet.sites
        return {id: site for id, site in sites.items() if site.member == member}

    def _site(self, site: Site) -> MySite:
        place = self._mirror.places.get(site.id)
        return MySite(
            id=site.id,
            domains=site.domains,
            plan=site.plan,
            host=self._tag(place.host) if place else None,
            at_home=place is None or place.host == site.home,
            since=place.since if place else None,
            why=self._why(place) if place else None,
            held=self._held(site.id),
        )

    def _incident(self, incident: Incident, own: dict[SiteId, Site]) -> MyIncident:
        return MyIncident(
            id=sha256(incident.id.encode()).hexdigest()[:12],  # its own names a host
            verdict=incident.verdict,
            began_at=incident.began_at,
            closed_at=incident.closed_at,
            complete=incident.complete,
            moved=tuple(
                MyMove(site=move.site, source=self._tag(move.source), target=self._tag(move.target))
                for move in incident.moved
                if move.site in own
            ),
            waiting=tuple(held.site for held in incident.held if held.site in own),
        )

    def _tag(self, host: HostId) -> str:
        declared = self._mirror.fleet.hosts.get(host)
        return declared.tag if declared else "a host that is gone"

    def _why(self, place: Placement) -> Why:
        why = place.why
        if why.code not in TOLD:
            return Why("moved-by-people")
        said = why.values.get("host")
        return Why(why.code, {"host": self._tag(HostId(str(said)))} if said else {})


def _penalty_key(told: MyPenalty) -> str:
    return (
        f"{told.since:018.6f} {told.site} {told.resource.value} {told.level} {told.ended or 0:.6f}"
    )


def _touches(incident: Incident, own: dict[SiteId, Site]) -> bool:
    return any(m.site in own for m in incident.moved) or any(h.site in own for h in incident.held)


def _member(call: Call[Q, None]) -> MemberId:
    """Whose sites are asked for: a member's token shows that member's, whatever else it says."""
    caller = call.request[ADMITTED].caller
    if caller.role == "member" and caller.member is not None:
        return caller.member
    if not call.query.member:
        raise BadRequest("Whose sites?", field="member", remedy="Say `member`, by its id.")
    return MemberId(call.query.member)
