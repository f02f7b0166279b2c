"""What the map says of a limited site beside its host: numbers for HAProxy to compare with, and when they change.

An entry is `HOST`, or `HOST|SITE|closed`, or `HOST|SITE|` and the numbers in the order of `agent.edge.gate.NUMBERS`.
In the same entry as the host, a site's limits change with its place in one transaction, and none needs a reload.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from failover.limits import in_force
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


FREE = Held(entries={}, states=dict.fromkeys(LimitState, 0))


class Holding:
    """What was in force last: a move changes no limits, and 20,000 sites' take longer than it may."""

    def __init__(self) -> None:
        self._of, self._at, self._held = Routes(), 0.0, FREE

    def held(self, routes: Routes, now: float) -> Held:
        """As `held`, from memory if neither the orders nor the time (Unix s) ask for another."""
        same = self._of.limits == routes.limits and self._of.sites == routes.sites
        if not same or not self._at <= now < self._held.until:
            self._held = held(routes, now)
        self._of, self._at = routes, now
        return self._held


def held(routes: Routes, now: float) -> Held:
    """What is in force at `now` (Unix s)."""
    refused: list[str] = []
    values: dict[SiteId, str] = {}
    states = dict.fromkeys(LimitState, 0)
    until = float("inf")
    usual: dict[tuple[EdgeLimit, ...], tuple[EdgeLimit | None, str]] = {}  # thousands have one plan
    for site, steps in routes.limits.items():
        if not NAMED.fullmatch(site):
            refused.append(f"limits of {ascii(site)[:80]}: no name of a site")
            continue
        if steps not in usual:
            until = min(until, _next_change(steps, now))
            usual[steps] = (limit := in_force(steps, now), _text(limit) if limit else "")
        limit, text = usual[steps]
        if limit:
            values[site] = f"{site}{BETWEEN}{text}"
            states[limit.state] += 1
    entries: dict[str, str] = {
        domain: values[site] for domain, site in routes.sites.items() if site in values
    }
    return Held(entries=entries, states=states, until=until, refused=tuple(refused))


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


def _text(limit: EdgeLimit) -> str:
    if limit.state is LimitState.CLOSED:
        return "closed"
    numbers = (
        limit.in_flight,
        limit.in_flight + limit.queue,
        round(limit.queue_wait_s * 1000),
        limit.requests_burst,
        max(1, round(limit.requests_per_s * TEN_S)),
        limit.client_requests_per_min,
    )
    return BETWEEN.join(map(str, numbers))
