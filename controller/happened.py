"""What happened to each site in the last hour, by its host's words: a host tells only what is new."""

from collections import Counter, deque
from collections.abc import Callable

from fleet.messages import HAPPENINGS, SiteUse
from fleet.model import SiteId

HOUR_S = 3600.0
SLOT_S = (
    300.0  # an hour is told in twelfths: one more is kept, so that it is never less than an hour
)


class Happened:
    """Bounded: thirteen slots of each site to which anything happened. `now` is the loop's clock."""

    def __init__(self) -> None:
        self._slots: dict[SiteId, deque[tuple[int, Counter[str]]]] = {}

    def add(self, site: SiteId, use: SiteUse, now: float) -> None:
        """One word of its host."""
        news = {name: count for name in HAPPENINGS if (count := getattr(use, name))}
        if not news:
            return
        slots = self._slots.setdefault(site, deque(maxlen=round(HOUR_S / SLOT_S) + 1))
        if not slots or slots[-1][0] != int(now // SLOT_S):
            slots.append((int(now // SLOT_S), Counter()))
        slots[-1][1].update(news)

    def of(self, site: SiteId, now: float) -> dict[str, int]:
        """By the names in HAPPENINGS; what did not happen is not in it."""
        found: Counter[str] = Counter()
        for slot, counts in self._slots.get(site, ()):
            if (slot + 1) * SLOT_S > now - HOUR_S:
                found.update(counts)
        return {name: found[name] for name in HAPPENINGS if found[name]}

    def keep(self, known: Callable[[SiteId], bool]) -> None:
        """Forget the sites that are not `known` any more."""
        for site in [site for site in self._slots if not known(site)]:
            del self._slots[site]
