"""What happened to each site since this agent began: counts that only grow, so that who looks seldom misses nothing."""

from collections.abc import Collection, Mapping

from agent.signals import Signals
from fleet.messages import HAPPENINGS
from fleet.model import SiteId

Counts = Mapping[str, int]
"""By the names in HAPPENINGS; what never happened is not in it."""


class Happened:
    """`totals` is replaced as a whole when something happens: another thread may read it."""

    def __init__(self) -> None:
        self.totals: Mapping[SiteId, Counts] = {}

    def add(self, signals: Signals, fresh: Collection[SiteId]) -> None:
        """One round, of which `fresh` were read anew. A site that is there no more is forgotten."""
        news = {site: counts for site in fresh if (counts := _counts(signals, site))}
        gone = self.totals.keys() - signals.sites.keys()
        if not (news or gone):
            return
        kept = {site: counts for site, counts in self.totals.items() if site not in gone}
        self.totals = kept | {site: _sum(kept.get(site, {}), more) for site, more in news.items()}


def since(told: Counts, now: Counts) -> dict[str, int]:
    """What is new; of counts that fell, for the site was gone meanwhile, all of it."""
    return {
        name: count - before if (before := told.get(name, 0)) <= count else count
        for name, count in now.items()
        if count != told.get(name, 0)
    }


def _counts(signals: Signals, site: SiteId) -> dict[str, int]:
    signs = signals.sites.get(site)
    return {name: count for name in HAPPENINGS if (count := getattr(signs, name, 0))}


def _sum(one: Counts, other: Counts) -> Counts:
    return {name: one.get(name, 0) + other.get(name, 0) for name in one.keys() | other.keys()}
