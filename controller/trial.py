"""Whether shadow has watched long enough for caps to hold: what arming would change, and what was found of it. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median_low

from fleet.caps import Enforcement
from fleet.inforce import Forces
from fleet.messages import Past
from fleet.model import HostId, Plan, PlanId, Site, SiteId, Why

# Two of everything that comes by weekday, and a month's end in most of them.
ENOUGH_DAYS = 14.0
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Of the `sites` that an order would hold, or hold tighter: for how many days shadow had watched most of them.

    `days`: more than half of the sites were watched for at least that long. `told`: those of which their hosts have
    told a history; of these `slowed` would have been, in the last week, for `slowed_min` altogether.
    """

    sites: int = 0
    told: int = 0
    days: float = 0.0
    slowed: int = 0
    slowed_min: float = 0.0

    @property
    def objection(self) -> Why | None:
        """Why the order should wait, unless a person knows better."""
        if not self.sites or self.days >= ENOUGH_DAYS:
            return None
        return Why(
            "caps-untried",
            {
                "sites": self.sites,
                "untold": self.sites - self.told,
                "days": round(self.days, 1),
                "enough": round(ENOUGH_DAYS),
                "slowed": self.slowed,
                "minutes": round(self.slowed_min),
            },
        )


def trial(
    old: Enforcement,
    new: Enforcement,
    plans: Mapping[PlanId, Plan],
    sites: Mapping[SiteId, tuple[Site, HostId]],
    told: Mapping[SiteId, Past | None],
    *,
    since: float,
    now: float,
) -> Trial:
    """What changes from `old` words to `new` ones at `since` (Unix s); up to then shadow goes on watching.

    A site has been watched since its host's history begins, with these numbers since its plan has them; one of which
    nothing is told has been watched for no day.
    """
    held = frozenset(_held_tighter(old, new, plans, sites, max(since, now)))
    known = {site: past for site in held if (past := told.get(site)) is not None}
    ahead_s = max(0.0, since - now)
    watched_s = [
        min(past.days * DAY_S, max(0.0, now - old.since.get(sites[site][0].plan, 0.0)))
        for site, past in known.items()
    ]
    watched_s += [0.0] * (len(held) - len(known))
    slowed = [past.shadow_min for past in known.values() if past.shadow_min > 0]
    return Trial(
        sites=len(held),
        told=len(known),
        days=(median_low(watched_s or [0.0]) + ahead_s) / DAY_S,
        slowed=len(slowed),
        slowed_min=sum(slowed),
    )


def _held_tighter(
    old: Enforcement,
    new: Enforcement,
    plans: Mapping[PlanId, Plan],
    sites: Mapping[SiteId, tuple[Site, HostId]],
    at: float,
) -> Iterator[SiteId]:
    """Sites that are in shadow at `at` by the old words, or held to looser numbers, and not so by the new ones."""
    before, after = Forces(old, plans), Forces(new, plans)
    for id, (site, host) in sites.items():
        if site.plan not in plans:
            continue
        was, becomes = before.of(id, site.plan, host), after.of(id, site.plan, host)
        caps = plans[site.plan].caps
        if becomes.is_on(at) and (
            not was.is_on(at) or was.caps(caps, at) != becomes.caps(caps, at)
        ):
            yield id
