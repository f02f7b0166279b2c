"""The past of a site's use over HTTP: the host that serves it keeps it, and is asked by its link.

What was not seen is null, never zero.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from controller.api.caps import Date
from controller.api.problems import BadRequest, NotFound
from controller.api.routes import Call, Route, route
from controller.questions import NotLinked, hearing
from fleet.caps import Attachment
from fleet.model import HostId, PlanId, Site, SiteId
from fleet.pastuse import KEPT_S, STEPS_S, PastAsked, PastRow, PastTold, Spread, step_for
from runtime.clock import wall

if TYPE_CHECKING:
    from controller.parts import Controller

DAY_S = 86_400.0
MEASURES = (
    "cpu_cores",
    "memory_bytes",
    "read_bytes_per_s",
    "write_bytes_per_s",
    "tasks",
    "requests_per_s",
)
SETTLED_S = 10.0  # five minutes are written down within so many seconds of their end


class PastQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From `since` until `until` (Unix s; else the last day until now), in steps of `step_s` or the next longer one.

    Steps are of 5, 15 and 30 minutes, 1, 2, 4 and 12 hours and a day, long enough that at most 300 make an answer.
    `at_cap_s` is of `plan`, else of the site's own.
    """

    since: Date | None = None
    until: Date | None = None
    step_s: Annotated[int, Meta(ge=STEPS_S[0], le=STEPS_S[-1])] | None = None
    plan: Annotated[str, Meta(max_length=63)] = ""


class Spreading(msgspec.Struct, frozen=True, kw_only=True):
    """Of one measure in one step, over the time that the site was seen."""

    average: float
    p95: float
    max: float


class PastStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step from `at` (Unix s), of which the site was seen for `seen_s`: 0, and its measures are null.

    A measure that is null can't be attributed. `shadow_s`: how long its caps or a penalty would have held it, and did
    not. `at_cap_s`: how long it was at a cap of `plan`; null where it was not compared with that plan.
    """

    at: float
    seen_s: float
    shadow_s: float | None
    at_cap_s: float | None
    cpu_cores: Spreading | None
    memory_bytes: Spreading | None
    read_bytes_per_s: Spreading | None
    write_bytes_per_s: Spreading | None
    tasks: Spreading | None
    requests_per_s: Spreading | None


class SitePast(msgspec.Struct, frozen=True, kw_only=True):
    """What the host that serves a site now has seen of it, step by step from `since` until `until` (Unix s).

    `seen_since`: when that host's record of it begins; before, another host may have served it. Null: it has none.
    `p95_estimated`: steps are of several rows of five minutes, and their p95 is made of those rows'. `attachment` log:
    all of it is an estimate from an access log. `overall`: all steps as one, its p95 made of theirs.
    """

    site: SiteId
    host: HostId
    attachment: Attachment | None
    plan: PlanId
    since: float
    until: float
    step_s: int
    p95_estimated: bool
    seen_since: float | None
    steps: tuple[PastStep, ...]
    overall: PastStep


class PastRoutes:
    def __init__(self, controller: "Controller") -> None:
        self._pasts = Pasts(controller)

    def routes(self) -> list[Route]:
        refuses = ("not-found", "busy", "host-not-linked", "host-silent")
        path = "/v1/sites/{id}/usage/past"
        return [route("GET", path, self.past, role="viewer", refuses=refuses)]

    async def past(self, call: Call[PastQuery, None]) -> SitePast:
        """What a site used in the last 40 days: average, 95th percentile and maximum of each step.

        The host that serves it is asked, and answers for the time that it had the site.
        """
        return await self._pasts.of(SiteId(call.id), call.query)


class Pasts:
    """Asks the hosts that serve sites."""

    def __init__(self, controller: "Controller") -> None:
        self._controller, self._mirror = controller, controller.mirror

    async def of(self, id: SiteId, query: PastQuery) -> SitePast:
        """Raises NotFound, BadRequest, NotLinked, NoAnswer, TooManyQuestions."""
        mirror = self._mirror
        if (site := mirror.fleet.sites.get(id)) is None:
            raise NotFound(f"no site {id!r} in the fleet")
        if (place := mirror.places.get(site.id)) is None:
            raise NotFound(f"{site.id} is placed on no host yet: nobody has a record of it")
        asked = _asked(site, query)
        if asked.plan not in mirror.fleet.plans:
            raise NotFound(f"no plan {asked.plan!r} in the fleet")
        told = await self._told(place.host, asked)
        word, found = self._controller.uses.of(site.id), steps(asked, told)
        return SitePast(
            site=site.id,
            host=place.host,
            attachment=word.use.attachment if word else None,
            plan=asked.plan,
            since=asked.since,
            until=asked.until,
            step_s=asked.step_s,
            p95_estimated=asked.step_s > STEPS_S[0],
            seen_since=told.first,
            steps=found,
            overall=overall(asked.since, found),
        )

    async def _told(self, host: HostId, asked: PastAsked) -> PastTold:
        try:
            return await self._controller.link.past(host, asked)
        except NotLinked:
            config = self._controller.config
            others = hearing(host, config.id, self._mirror.observers)
            raise NotLinked(host, {id: config.urls.get(id, "") for id in others}) from None


def _asked(site: Site, query: PastQuery) -> PastAsked:
    """Raises BadRequest."""
    now = wall()
    latest = now - SETTLED_S
    until = min(query.until if query.until is not None else latest, latest)
    since = max(query.since if query.since is not None else until - DAY_S, now - KEPT_S)
    if since >= until:
        raise BadRequest(
            "There is no time between `since` and `until`; 40 days are kept, and none of them is to come.",
            field="since" if query.since is not None else "until",
        )
    step_s = step_for(since, until, query.step_s or 0)
    begin = since // step_s * step_s
    # Whole steps, but for the last one of longer ones, which is in the making.
    return PastAsked(
        number=0,
        site=site.id,
        since=begin,
        until=max(until // STEPS_S[0] * STEPS_S[0], begin + STEPS_S[0]),
        step_s=step_s,
        plan=PlanId(query.plan) if query.plan else site.plan,
    )


def overall(since: float, steps: Sequence[PastStep]) -> PastStep:
    """All steps as one, each by the time that the site was seen in it."""
    seen = [step for step in steps if step.seen_s > 0]
    capped = [step.at_cap_s for step in seen if step.at_cap_s is not None]
    return PastStep(
        at=since,
        seen_s=sum(step.seen_s for step in seen),
        shadow_s=sum(step.shadow_s or 0.0 for step in seen) if seen else None,
        at_cap_s=sum(capped) if capped else None,
        **{measure: _together(seen, measure) for measure in MEASURES},
    )


def _together(steps: Sequence[PastStep], measure: str) -> Spreading | None:
    told: list[tuple[Spreading, float]] = [
        (spread, step.seen_s) for step in steps if (spread := getattr(step, measure)) is not None
    ]
    if not told:
        return None
    total_s = sum(seen_s for _, seen_s in told)
    return Spreading(
        average=sum(spread.average * seen_s for spread, seen_s in told) / total_s,
        p95=_ranked(sorted((spread.p95, seen_s) for spread, seen_s in told), 0.95 * total_s),
        max=max(spread.max for spread, _ in told),
    )


def _ranked(ranked: Sequence[tuple[float, float]], reach_s: float) -> float:
    """The value at which the time below, from the least up, has reached `reach_s`."""
    for value, seen_s in ranked:
        reach_s -= seen_s
        if reach_s <= 0:
            return value
    return ranked[-1][0]


def steps(asked: PastAsked, told: PastTold) -> tuple[PastStep, ...]:
    """One for each step that was asked for; what a host says of others is left out (rule R15)."""
    rows = {int(row.at): row for row in told.rows}
    begin, end = int(asked.since), int(asked.until)
    return tuple(_step(at, rows.get(at)) for at in range(begin, end, asked.step_s))


def _step(at: int, row: PastRow | None) -> PastStep:
    row = row or PastRow(at=at, seen_s=0.0)
    seen = row.seen_s > 0
    return PastStep(
        at=at,
        seen_s=row.seen_s,
        shadow_s=row.shadow_s if seen else None,
        at_cap_s=row.at_cap_s if seen else None,
        **{measure: _spreading(getattr(row, measure)) for measure in MEASURES},
    )


def _spreading(of: Spread | None) -> Spreading | None:
    return None if of is None else Spreading(average=of.average, p95=of.p95, max=of.max)
