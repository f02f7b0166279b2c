"""What each slice is to hold in one round, and which of those that we hold are let go. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from msgspec.structs import replace as replace_limits

from agent.caps.limits import FREE
from agent.caps.ours import Ours
from agent.caps.wants import Share, World, protected_above
from fleet.caps import Limits
from fleet.model import SiteId, Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What one slice is to hold. `release`: it is not ours any more once that is so.

    `beside`: it is not told as its sites' own, and held only once it is there: most users never log in. `low_alone`:
    nothing but its protected memory is ours.
    """

    sites: tuple[SiteId, ...]
    limits: Limits
    because: Mapping[str, Why]
    release: bool = False
    beside: bool = False
    low_alone: bool = False

    def thawed(self) -> "Aim":
        """Everything else of it."""
        return replace(self, limits=replace_limits(self.limits, frozen=False))

    def on(self, held: Limits | None) -> "Aim":
        """What is not ours to say is as it is held."""
        if not self.low_alone or held is None:
            return self
        low = self.limits.memory_low_bytes
        return replace(self, limits=replace_limits(held, memory_low_bytes=low))


def aims_of(world: World, shared: Mapping[str, Share], ours: Mapping[str, Ours]) -> dict[str, Aim]:
    """By slice. Let go is what is in shadow, was told to be removed, or lives in another slice now."""
    aims = {
        name: Aim(
            sites=share.sites,
            limits=share.wanted.limits,
            because=share.wanted.because,
            release=not share.in_force and share.wanted.limits == FREE,
            beside=share.beside,
        )
        for name, share in shared.items()
    }
    for name, low in protected_above(shared).items():
        limits = replace_limits(FREE, memory_low_bytes=low)
        aims[name] = Aim(
            sites=(), limits=limits, because={}, release=not low, beside=True, low_alone=True
        )
    for name, mine in ours.items():
        if name not in aims:
            gone = all(_has_left(site, name, world) for site in mine.sites)
            limits = FREE if gone else mine.limits
            alone = not mine.sites
            aims[name] = Aim(
                sites=mine.sites, limits=limits, because={}, release=gone, low_alone=alone
            )
    return {name: aim for name, aim in aims.items() if not aim.release or name in ours}


def _has_left(site: SiteId, slice: str, world: World) -> bool:
    """Whether a site was told to be removed, or lives elsewhere here; one that nobody speaks of stays (rule R7)."""
    if site in world.orders.removed_sites:
        return True
    attached = world.attached.get(site)
    return attached is not None and attached.slice != slice
