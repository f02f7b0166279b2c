"""Caps and isolation over HTTP: what holds a site, what it used, and people's words on it."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from controller.api.capshapes import (
    EnforcementTold,
    HostCaps,
    Penalties,
    PenaltyTold,
    Report,
    SiteCaps,
    SiteUsage,
)
from controller.api.capviews import WEEK_S, CapsView
from controller.api.items import TAG
from controller.api.kinds import ORDERED
from controller.api.pages import Paged, paged
from controller.api.problems import BadRequest, NotFound
from controller.api.reads import Id
from controller.api.relations import Relations, either
from controller.api.routes import Call, Nothing, Route, route
from controller.api.shapes import Done
from controller.api.writes import PauseSeconds, Reason, ResumeOrder, person
from controller.holding import Holding, tag_of
from fleet.caps import Level, Nature, Turn
from fleet.model import HostId, Name, Site, SiteId
from runtime.clock import wall

if TYPE_CHECKING:
    from controller.parts import Controller

# Longer is another plan: an override is lent.
OverrideSeconds = Annotated[float, Meta(gt=0, le=366 * 86_400, examples=[604_800])]
# From 2020, when there was no relevo, to 2100: a date, not a slip of the unit.
Date = Annotated[float, Meta(ge=1_577_836_800, le=4_102_444_800)]
IF_MATCH = {
    "If-Match": "The ETag of the caps that you have read. Without it whatever is there is replaced."
}
LEVELS = {level.name.lower(): level for level in Level}


class QuarantineOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`level`: how hard; `nature`: what people take it for."""

    reason: Reason
    for_s: PauseSeconds
    level: Literal["watch", "soft", "cap", "isolate", "stop"] = "isolate"
    nature: Nature = Nature.HEAVY


class ReleaseOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Reason
    for_s: PauseSeconds


class OverrideOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`caps`: in the place of the plan's, by name, in the plan's units."""

    caps: Annotated[dict[str, int | float], Meta(min_length=1, max_length=40)]
    reason: Reason
    for_s: OverrideSeconds


class EnforcementOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`word` null: this scope has no word of its own any more. `since` (Unix s): `arm` from then, else from now.

    `untried`: also where shadow has watched for less than 14 days what would hold then.
    """

    RELATIONS: ClassVar[Relations] = either(
        {"scope": {"const": "all"}, "id": {"type": "null"}},
        {"scope": {"enum": ["host", "plan", "site"]}, "id": {"type": "string"}},
        present="id",
    )
    scope: Literal["all", "host", "plan", "site"]
    id: Name | None = None
    word: Literal["arm", "shadow"] | None
    since: Date | None = None
    untried: bool = False
    reason: Reason

    def __post_init__(self) -> None:
        if (self.scope == "all") != (self.id is None):
            raise ValueError("`id` names a host, plan or site; scope `all` has none")

    @property
    def turn(self) -> Turn | None:
        if self.word is None:
            return None
        now = wall()
        return Turn(said=now) if self.word == "shadow" else Turn(since=self.since or now)


class PenaltiesQuery(Paged, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of `host`, of `site`; with `ended` those of the last two weeks that are over, too."""

    host: Id = ""
    site: Id = ""
    ended: bool = False


class CapsRoutes:
    def __init__(self, controller: "Controller") -> None:
        self._controller, self._mirror = controller, controller.mirror
        self._holding: Holding = controller.holding

    def routes(self) -> list[Route]:
        found = ("not-found",)
        lent = (*ORDERED, "bad-item", "invalid-body", "outdated")
        site = "/v1/sites/{id}"
        return [
            route("GET", f"{site}/caps", self.site, role="viewer", refuses=found),
            route("GET", f"{site}/usage", self.usage, role="viewer", refuses=found),
            route("GET", "/v1/hosts/{id}/caps", self.host, role="viewer", refuses=found),
            route("GET", "/v1/penalties", self.penalties, role="viewer"),
            route("GET", "/v1/caps/report", self.report, role="viewer"),
            route("GET", "/v1/caps/enforcement", self.enforcement, role="viewer"),
            route("PUT", "/v1/caps/enforcement", self.enforce, role="operator", refuses=ORDERED),
            route("PUT", f"{site}/quarantine", self.quarantine, role="operator", refuses=ORDERED),
            route("DELETE", f"{site}/quarantine", self.unquarantine, role="operator", refuses=ORDERED),
            route("PUT", f"{site}/release", self.release, role="operator", refuses=ORDERED),
            route("DELETE", f"{site}/release", self.unrelease, role="operator", refuses=ORDERED),
            route("PUT", f"{site}/override", self.override, role="operator", refuses=lent, headers=IF_MATCH),
            route("DELETE", f"{site}/override", self.end_override, role="operator", refuses=lent, headers=IF_MATCH),
        ]  # fmt: skip

    def _site(self, id: str) -> Site:
        if (site := self._mirror.fleet.sites.get(SiteId(id))) is None:
            raise NotFound(f"no site {id!r} in the fleet")
        return site

    async def site(self, call: Call[Nothing, None]) -> SiteCaps:
        """What holds a site: from its plan by override and penalty to what the kernel has, each with its reason.

        The ETag is of its override, for If-Match.
        """
        site = self._site(call.id)
        call.headers["ETag"] = f'"{tag_of(self._mirror.overrides.get(site.id))}"'
        return CapsView(self._controller).site(site)

    async def usage(self, call: Call[Nothing, None]) -> SiteUsage:
        """What a site used by its host's last word, against each plan."""
        return CapsView(self._controller).usage(self._site(call.id))

    async def host(self, call: Call[Nothing, None]) -> HostCaps:
        """Whether a host's kernel holds what it should: every site of which it does not."""
        if (id := HostId(call.id)) not in self._mirror.fleet.hosts:
            raise NotFound(f"no host {call.id!r} in the fleet")
        return CapsView(self._controller).host(id)

    async def penalties(self, call: Call[PenaltiesQuery, None]) -> Penalties:
        """Penalties that stand, newest first."""
        query = call.query
        found = CapsView(self._controller).penalties(
            host=query.host, site=query.site, ended=query.ended
        )
        some, following = paged(call, found, _penalty_key, falling=True)
        return Penalties(penalties=some, next=following)

    async def report(self, call: Call[Paged, None]) -> Report:
        """What penalties did in the last week, and would have done, caps too, where they only watch."""
        view = CapsView(self._controller)
        told = [it for site in self._mirror.fleet.sites.values() if (it := view.reported(site))]
        some, following = paged(
            call,
            told,
            lambda it: f"{it.shadow_min + it.penalized_min:09.1f} {it.site}",
            falling=True,
        )
        return Report(
            days=WEEK_S / 86_400,
            sites=some,
            quiet=len(self._mirror.fleet.sites) - len(told),
            unheard=view.unheard(),
            next=following,
        )

    async def enforcement(self, call: Call[Nothing, None]) -> EnforcementTold:
        """Where caps hold, and where they only watch."""
        return CapsView(self._controller).enforcement()

    async def enforce(self, call: Call[Nothing, EnforcementOrder]) -> Done:
        """Let caps hold for everything, a host, a plan or a site, at once or from a date; or only watch.

        They hold with the numbers that plans have now: what is made stricter later is only measured until it is armed.
        Refused, with what shadow found, where it has watched for too short a time.
        """
        said = call.body
        revision = await self._holding.enforce(
            said.scope, said.id or "", said.turn, person(call), untried=said.untried
        )
        return Done(revision=revision)

    async def quarantine(self, call: Call[Nothing, QuarantineOrder]) -> Done:
        """Hold a site at a level of the ladder for a while, whatever its host would decide."""
        said = call.body
        revision = await self._holding.quarantine(
            SiteId(call.id), LEVELS[said.level], said.nature, said.for_s, person(call)
        )
        return Done(revision=revision)

    async def unquarantine(self, call: Call[Nothing, ResumeOrder]) -> Done:
        """End a quarantine: its host decides again."""
        revision = await self._holding.unrule(SiteId(call.id), "quarantine", person(call))
        return Done(revision=revision)

    async def release(self, call: Call[Nothing, ReleaseOrder]) -> Done:
        """Lift what relevo decided of a site, and let it decide nothing more of it for a while."""
        said = call.body
        revision = await self._holding.release(SiteId(call.id), said.for_s, person(call))
        return Done(revision=revision)

    async def unrelease(self, call: Call[Nothing, ResumeOrder]) -> Done:
        """End a release: its host decides again."""
        revision = await self._holding.unrule(SiteId(call.id), "release", person(call))
        return Done(revision=revision)

    async def override(self, call: Call[Nothing, OverrideOrder]) -> Done:
        """Put other caps in the place of the plan's for a while. It replaces the override before."""
        said = call.body
        revision = await self._holding.override(
            SiteId(call.id), said.caps, said.for_s, person(call), expected=_expected(call.request)
        )
        return Done(revision=revision)

    async def end_override(self, call: Call[Nothing, ResumeOrder]) -> Done:
        """Back to the plan's caps."""
        revision = await self._holding.end_override(
            SiteId(call.id), person(call), expected=_expected(call.request)
        )
        return Done(revision=revision)


def _penalty_key(told: PenaltyTold) -> str:
    penalty = told.penalty
    return f"{penalty.since:018.6f} {told.site} {penalty.resource.value} {penalty.level} {told.ended or 0:.6f}"


def _expected(request: web.Request) -> str | None:
    """The tag that the override must have; None: any. Raises BadRequest."""
    match = request.headers.get("If-Match")
    if match is None or match.strip() == "*":
        return None
    if (found := TAG.fullmatch(match.strip())) is None:
        raise BadRequest(
            "If-Match is the one ETag that GET gave, in its quotes.",
            field="If-Match",
            value=match[:100],
        )
    return found["tag"]
