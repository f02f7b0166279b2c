"""What the map says of a limited site beside its host: numbers for HAProxy to compare with, and when they change.

An entry is `HOST`, or `HOST|SITE|closed`, or `HOST|SITE|` and the numbers in the order of `agent.edge.gate.NUMBERS`.
In the same entry as the host, a site's limits change with its place in one transaction, and none needs a reload.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet.messages import EdgeLimit, LimitState, Routes
from fleet.model import NAMED, SiteId

BETWEEN = "|"  # in no NAME, no space, nothing to HAProxy
TEN_S = 10  # the window of the rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The limits in force at one moment, and the next moment (Unix s) at which that changes.

    `entries`: domain -> what follows its host in the map; `states`: how many sites are in each state.
    """

    entries: Mapping[str, str]
    states: Mapping[LimitState, int]
    until: float = float("inf")
    refused: tuple[str, ...] = ()


def held(routes: Routes, now: float) -> Held:
    """What is in force at `now` (Unix s)."""
    refused: list[str] = []
    values: dict[SiteId, str] = {}
    states = dict.fromkeys(LimitState, 0)
    until = float("inf")
    for site, steps in routes.limits.items():
        if not NAMED.fullmatch(site):
            refused.append(f"limits of {ascii(site)[:80]}: no name of a site")
            continue
        until = min(until, _next_change(steps, now))
        if limit := in_force(steps, now):
            values[site] = _text(site, limit)
            states[limit.state] += 1
    entries: dict[str, str] = {
        domain: values[site] for domain, site in routes.sites.items() if site in values
    }
    return Held(entries=entries, states=states, until=until, refused=tuple(refused))


def in_force(steps: Sequence[EdgeLimit], now: float) -> EdgeLimit | None:
    """The step that `now` (Unix s) is in; None: free."""
    for step in steps:
        if step.since <= now and (step.until is None or now < step.until):
            return step
    return None


def with_limits(places: Mapping[str, str], limits: Mapping[str, str]) -> dict[str, str]:
    """The map's entries: each domain's host, and its limits if it has any."""
    return {
        domain: f"{host}{BETWEEN}{limit}" if (limit := limits.get(domain)) else host
        for domain, host in places.items()
    }


def hosts_of(entries: Mapping[str, str]) -> dict[str, str]:
    """The hosts in a map's entries, whatever else these say."""
    return {domain: value.partition(BETWEEN)[0] for domain, value in entries.items()}


def _next_change(steps: Sequence[EdgeLimit], now: float) -> float:
    times = (time for step in steps for time in (step.since, step.until) if time is not None)
    return min((time for time in times if time > now), default=float("inf"))


def _text(site: SiteId, limit: EdgeLimit) -> str:
    if limit.state is LimitState.CLOSED:
        return f"{site}{BETWEEN}closed"
    numbers = (
        limit.in_flight,
        limit.in_flight + limit.queue,
        round(limit.queue_wait_s * 1000),
        limit.requests_burst,
        max(1, round(limit.requests_per_s * TEN_S)),
        limit.client_requests_per_min,
    )
    return BETWEEN.join((site, *map(str, numbers)))
