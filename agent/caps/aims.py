"""What each slice is to hold in one round, and which of those that we hold are let go. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from msgspec.structs import replace as replace_struct

from agent.caps.before import said, to_give_back, without
from agent.caps.limits import FREE, IO_WEIGHT
from agent.caps.ours import Ours, Term
from agent.caps.wants import Share, World, protected_above
from fleet.caps import Level, Limits
from fleet.model import SiteId, Why

# A maximum comes down with the help of a high mark, which is put where it was then (agent.caps.steps).
HELPED = frozenset({"memory_high_bytes"})
PROTECTED = frozenset({"memory_low_bytes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What one slice is to hold. `release`: it is not ours any more once that is so.

    `says`: the fields of `limits` that it is about; not `milder`: only where the host is no stricter. `beside`: it is
    not told as its sites' own, and held only once it is there: most users never log in. `term`: of the penalties in it.
    Once it is `on` a slice `limits` are all that is to be seen there, `fields` those of them that are ours (said, or to
    be given back), and `was` is what it would hold without us.
    """

    sites: tuple[SiteId, ...]
    limits: Limits
    because: Mapping[str, Why]
    says: frozenset[str] = frozenset()
    milder: bool = True
    release: bool = False
    beside: bool = False
    term: Term | None = None
    fields: frozenset[str] = frozenset()
    was: Limits = FREE

    @property
    def stops(self) -> bool:
        """Whether it stands still by our word: what an admin has frozen is the admin's."""
        return self.limits.frozen and "frozen" in self.says

    @property
    def closes(self) -> bool:
        return self.limits.egress_closed and "egress_closed" in self.says

    def thawed(self) -> "Aim":
        """Everything else of it."""
        return replace(self, limits=replace_struct(self.limits, frozen=False))

    def on(self, held: Limits | None, mine: Ours | None) -> "Aim":
        """The same, of a slice that holds that now, `mine` of it by what was said before; None: it is not there."""
        put = frozenset[str]() if mine is None or mine.is_unseen else mine.says
        was = without(held, put, mine.was if mine is not None else None)
        says = self.says | HELPED if "memory_max_bytes" in self.says else self.says
        fields = says | to_give_back(held, put - says, was)
        if "io_weight" in fields and was.io_weight is None:
            was = replace_struct(was, io_weight=IO_WEIGHT)  # of what shows none: its default
        limits = said(self.limits, self.says, was, milder=self.milder)
        if "io_weight" not in fields:
            limits = replace_struct(limits, io_weight=None)  # nobody's word is not told
        if not self.sites and was.memory_low_bytes > limits.memory_low_bytes:
            limits = replace_struct(limits, memory_low_bytes=was.memory_low_bytes)
        return replace(self, limits=limits, fields=fields, was=was)


def aims_of(world: World, shared: Mapping[str, Share], ours: Mapping[str, Ours]) -> dict[str, Aim]:
    """By slice. Let go is what is in shadow, was told to be removed, or lives elsewhere here now.

    `shared`: with the slices that sites are held on in because they are seen in no other.
    """
    aims = {
        name: Aim(
            sites=share.sites,
            limits=share.wanted.limits,
            because=share.wanted.because,
            says=share.wanted.says,
            milder=share.in_force,
            release=not share.in_force and not share.wanted.says,
            beside=share.beside,
            term=share.term,
        )
        for name, share in shared.items()
    }
    for name, low in protected_above(shared).items():
        aims[name] = Aim(
            sites=(),
            limits=replace_struct(FREE, memory_low_bytes=low),
            because={},
            says=PROTECTED if low else frozenset(),
            release=not low,
            beside=True,
        )
    for name, mine in ours.items():
        if name not in aims:
            aims[name] = _left_alone(mine, world)
    return {name: aim for name, aim in aims.items() if not aim.release or name in ours}


def unseen(
    aims: Mapping[str, Aim], held: Mapping[str, Limits], ours: Mapping[str, Ours]
) -> list[str]:
    """Slices that are not there, and of which something is to be said for the first time, or since a boot."""
    return [
        name
        for name, aim in aims.items()
        if name not in held and aim.says and _is_new(ours.get(name), beside=aim.beside)
    ]


def _is_new(mine: Ours | None, *, beside: bool) -> bool:
    return not beside if mine is None else mine.is_unseen or not mine.says


def laid(
    aims: Mapping[str, Aim],
    held: Mapping[str, Limits],
    ours: Mapping[str, Ours],
    unknown: Collection[str] = (),
) -> dict[str, Aim]:
    """Each `on` what its slice holds; of what is only beside sites' own, those that are there, or were.

    Nothing becomes ours where what was there before is `unknown`.
    """
    return {
        name: _untouched(found) if name in unknown else found
        for name, aim in aims.items()
        if not aim.beside or name in held or name in ours
        for found in [aim.on(held.get(name), ours.get(name))]
    }


def _untouched(aim: Aim) -> Aim:
    return replace(aim, fields=frozenset())


def noted(aims: Mapping[str, Aim], before: Mapping[str, Ours], boot: str = "") -> dict[str, Ours]:
    """What is ours once these, `on` their slices, are begun; what was stopped of a slice is as noted `before`."""
    fresh = Ours(sites=(), limits=FREE)
    return {
        name: replace_struct(
            before.get(name, fresh),
            sites=aim.sites,
            limits=aim.limits,
            term=aim.term,
            fields=tuple(sorted(aim.fields)),
            was=aim.was,
            boot=boot,
        )
        for name, aim in aims.items()
    }


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
    says = ended.after_says if ended is not None else mine.says
    if mine.stopped is not None and any(_is_stopped(site, world) for site in mine.sites):
        limits, says = replace_struct(limits, frozen=True), says | {"frozen"}
    gone = all(_has_left(site, world) for site in mine.sites)
    return Aim(
        sites=mine.sites,
        limits=limits,
        because={},
        says=frozenset() if gone else says,
        release=gone or (ended is not None and not says),
        term=None if gone or ended is not None else mine.term,
    )


def _is_stopped(site: SiteId, world: World) -> bool:
    """Without a tenant nothing is in force, and its stop is told as if it were recorded only."""
    if site not in world.orders.tenants and site not in world.orders.sites:
        return True
    stops = (p for p in world.penalties if p.site == site and p.level >= Level.STOP)
    return any(world.now < p.until for p in stops)
