"""What each slice is to hold in one round, and which of those that we hold are let go. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from msgspec.structs import replace as replace_limits

from agent.caps.limits import FREE, IO_WEIGHT
from agent.caps.ours import Ours, Term
from agent.caps.wants import Share, World, protected_above
from fleet.caps import Level, Limits
from fleet.model import SiteId, Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What one slice is to hold. `release`: it is not ours any more once that is so.

    `beside`: it is not told as its sites' own, and held only once it is there: most users never log in. `low_alone`:
    nothing but its protected memory is ours. `term`: of the penalties in it.
    """

    sites: tuple[SiteId, ...]
    limits: Limits
    because: Mapping[str, Why]
    release: bool = False
    beside: bool = False
    low_alone: bool = False
    term: Term | None = None

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
    """By slice. Let go is what is in shadow, was told to be removed, or lives elsewhere here now.

    `shared`: with the slices that sites are held on in because they are seen in no other.
    """
    aims = {
        name: Aim(
            sites=share.sites,
            limits=share.wanted.limits,
            because=share.wanted.because,
            release=not share.in_force and share.wanted.limits == FREE,
            beside=share.beside,
            term=share.term,
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
            aims[name] = _left_alone(mine, world)
    return {
        name: _weighed(aim, ours.get(name))
        for name, aim in aims.items()
        if not aim.release or name in ours
    }


def _weighed(aim: Aim, mine: Ours | None) -> Aim:
    """A weight of I/O that we have set, and that nothing asks for any more, becomes the kernel's default again."""
    limits = aim.limits
    if limits.io_weight is not None or mine is None or mine.limits.io_weight is None:
        return aim
    return replace(aim, limits=replace_limits(limits, io_weight=IO_WEIGHT))


def _has_left(site: SiteId, world: World) -> bool:
    """Whether a site was told to be removed, or is known to be held elsewhere here.

    One that nobody speaks of, or whose plan nobody knows, stays (rule R7).
    """
    tenant = world.orders.tenants.get(site)
    if tenant is None:
        return site in world.orders.removed_sites
    return site in world.attached and world.plan(tenant) is not None


def _left_alone(mine: Ours, world: World) -> Aim:
    """What a slice holds that nobody speaks of stays, but for penalties that are over (rules R7, R11).

    What was stopped there stays so while the term lasts, or none of it belongs here.
    """
    ended = mine.term if mine.term is not None and mine.term.until <= world.now else None
    limits = ended.after if ended is not None else mine.limits
    if mine.stopped is not None and any(_is_stopped(site, world) for site in mine.sites):
        limits = replace_limits(limits, frozen=True)
    gone = all(_has_left(site, world) for site in mine.sites)
    return Aim(
        sites=mine.sites,
        limits=FREE if gone else limits,
        because={},
        release=gone or (ended is not None and limits == FREE),
        low_alone=not mine.sites,
        term=None if gone or ended is not None else mine.term,
    )


def _is_stopped(site: SiteId, world: World) -> bool:
    """Without a tenant nothing is in force, and its stop is told as if it were recorded only."""
    if site not in world.orders.tenants and site not in world.orders.sites:
        return True
    stops = (p for p in world.penalties if p.site == site and p.level >= Level.STOP)
    return any(world.now < p.until for p in stops)
