"""What is usual for each site at each hour of the day: the past that novelty is measured against."""

from collections.abc import Collection, Mapping, Sequence

from agent.isolate.measure import series
from agent.isolate.policy import HOUR_S, Policy
from agent.isolate.state import HOURS, Frame, Past
from agent.signals import SiteSigns
from fleet.caps import Resource
from fleet.model import SiteId

EVERY_S = 60.0
# What is learned, and from how much on it is worth its place on disk: cores, bytes/s, requests/s.
LEAST = {Resource.CPU: 0.01, Resource.IO: 10_000.0, Resource.WEB: 0.05}
# An hour's most fades to a third in a week, of which it is seven hours: what was usual a month ago is news.
FADES_S = 7 * HOUR_S


def learned(
    past: Past, window: Sequence[Frame], but: Collection[SiteId], policy: Policy, *, passed_s: float
) -> Past:
    """`past` with the last minute's means in it; sites of `but` are under suspicion, and teach nothing.

    Sites that are gone are forgotten as their hours fade.
    """
    if not window:
        return past
    newest = window[-1].at
    minute = [frame for frame in window if frame.at > newest - EVERY_S][::3]
    hour = int(newest // HOUR_S) % HOURS
    fading = max(0.0, 1.0 - passed_s / FADES_S)
    found: Past = {}
    for site in past.keys() | window[-1].sites.keys():
        known = past.get(site, {})
        means = {} if site in but else _means(minute, site, policy)
        kept = {
            resource: hours
            for resource in known.keys() | means.keys()
            if (hours := _hours(resource, known.get(resource), hour, means.get(resource), fading))
        }
        if kept:
            found[site] = kept
    return found


def _hours(
    resource: Resource,
    known: tuple[float, ...] | None,
    hour: int,
    mean: float | None,
    fading: float,
) -> tuple[float, ...]:
    """The hours of one site and resource with this minute in them; empty once they have faded."""
    if known is None:
        known = (0.0,) * HOURS
    most = max(known[hour] * fading, mean or 0.0)
    most = most if most >= LEAST[resource] else 0.0
    # Five figures are short on disk, and fine enough to fade by a quarter of a percent.
    hours = (*known[:hour], float(f"{most:.5g}"), *known[hour + 1 :])
    return hours if any(hours) else ()


def _means(minute: Sequence[Frame], site: SiteId, policy: Policy) -> Mapping[Resource, float]:
    """What a site used in the last minute, where that is worth remembering."""
    if not is_worth(minute[-1].sites.get(site), policy):
        return {}
    found = {}
    for resource in LEAST:
        if resource is Resource.WEB:
            signs = [frame.sites.get(site) for frame in minute]
            values = [one.requests_per_s for one in signs if one and one.requests_per_s is not None]
        else:
            values = [v for v in series(minute, site, resource) if v is not None]
        if values:
            found[resource] = sum(values) / len(values)
    return found


def is_worth(signs: SiteSigns | None, policy: Policy) -> bool:
    """Whether a site does enough to be remembered: a fifth of what would make it a suspect."""
    if signs is None:
        return False
    moved = (signs.read_bytes_per_s or 0.0) + (signs.write_bytes_per_s or 0.0)
    return (
        (signs.cpu_cores or 0.0) >= policy.cpu.floor / 5
        or moved >= policy.io.floor / 5
        or (signs.requests_per_s or 0.0) >= policy.signs.crowd_requests_per_s / 5
    )
