"""How hard a slice is held that several sites share: what one of them does ends no other without a person. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from fleet.caps import OWNER, Level, Penalty
from fleet.model import SiteId

NAMES_MAX = 5  # of sites in a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Mercy:
    """`held`: what holds the slice; `spared`: the penalties that hold it less than they say."""

    held: tuple[Penalty, ...]
    spared: tuple[Penalty, ...] = ()


def spare(penalties: Collection[Penalty], among: Collection[SiteId]) -> Mercy:
    """What of `penalties` a slice of all sites `among` is held by: no harder than its mildest, but as by a cap.

    A person's word counts as it is.
    """
    hardest = dict.fromkeys(among, Level.BASELINE)
    for penalty in penalties:
        if penalty.site in hardest and not penalty.is_relief:
            hardest[penalty.site] = max(hardest[penalty.site], penalty.level)
    most = max(Level.CAP, min(hardest.values(), default=Level.STOP))
    spared = tuple(p for p in penalties if p.owner == OWNER and p.level > most)
    held = tuple(_milder(p, most) if p in spared else p for p in penalties)
    return Mercy(held=held, spared=spared)


def _milder(penalty: Penalty, most: Level) -> Penalty:
    """A cap that takes nothing would be the memory watchdog's word."""
    takes = most > Level.CAP or penalty.share < 1
    return replace(penalty, level=most if takes else Level.SOFT)


def some(sites: Iterable[SiteId]) -> str:
    """In a sentence."""
    names = sorted(sites)
    more = f" +{len(names) - NAMES_MAX}" if len(names) > NAMES_MAX else ""
    return ", ".join(names[:NAMES_MAX]) + more
