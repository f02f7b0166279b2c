"""What is said of each site's caps: what should be held, what the kernel holds, and why they differ. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from msgspec.structs import replace as replace_struct

from agent.caps.aims import Aim
from agent.caps.kernel import comparable, unlike
from agent.caps.limits import FREE, HostFacts
from agent.caps.sparing import some
from agent.caps.wants import Share
from fleet.caps import OWNER, Level, Limits, Penalty
from fleet.model import SiteId, Why

OWN = Why("cap-own")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What one slice holds for a site. `wanted` is what should be held, in shadow what the host has; `held`: what the
    kernel says.

    None: it is not there. `short`: what is not held, and why. `because`: why `wanted` is so, by field. `beside`: slices
    of its users', for sessions and jobs. Without a slice of its own `slice` is empty.
    """

    slice: str = ""
    wanted: Limits | None = None
    held: Limits | None = None
    because: Mapping[str, Why] = field(default_factory=dict)
    short: tuple[Why, ...] = ()
    beside: tuple["Kept", ...] = ()


def waiting(shared: Mapping[str, Share]) -> dict[SiteId, tuple[Why, ...]]:
    """Of sites in force whose slice is not: others that share it are in shadow."""
    found: dict[SiteId, tuple[Why, ...]] = {}
    for name, share in sorted(shared.items()):
        for site in share.sites:
            if share.waits_for and site not in share.waits_for:
                waits = Why("cap-waits-for", {"slice": name, "sites": some(share.waits_for)})
                found[site] = (*found.get(site, ()), waits)
    return found


def unlimited(shared: Mapping[str, Share], facts: HostFacts) -> dict[SiteId, tuple[Why, ...]]:
    """Of sites whose I/O is to be held, and that read and write on no disk that could be limited."""
    if "io" not in facts.controllers:
        return {}  # said of the caps themselves
    found: dict[SiteId, tuple[Why, ...]] = {}
    for share in shared.values():
        for site in share.sites if "io" in share.wanted.because and not share.beside else ():
            if why := facts.diskless.get(site) or (None if facts.devices else facts.no_disk):
                found[site] = (why,)
    return found


def joined(*told: Mapping[SiteId, tuple[Why, ...]]) -> dict[SiteId, tuple[Why, ...]]:
    """All that is told of each site, in that order."""
    sites = {site for each in told for site in each}
    return {site: tuple(why for each in told for why in each.get(site, ())) for site in sites}


def company(shared: Mapping[str, Share]) -> dict[SiteId, frozenset[SiteId]]:
    """Who is held with each site, because something of them runs in one of its slices."""
    found: dict[SiteId, frozenset[SiteId]] = {}
    for share in shared.values():
        for site in share.sites if len(share.among) > 1 else ():
            found[site] = found.get(site, frozenset()) | (set(share.among) - {site})
    return found


def with_company(
    penalties: Iterable[Penalty], company: Mapping[SiteId, frozenset[SiteId]]
) -> tuple[Penalty, ...]:
    """What a person ordered says in its reason whom else it holds; relevo spares them."""
    return tuple(
        replace_struct(each, why=_with_others(each.why, company[each.site]))
        if each.owner != OWNER and each.level > Level.WATCH and each.site in company
        else each
        for each in penalties
    )


def _with_others(why: Why, others: frozenset[SiteId]) -> Why:
    return replace_struct(why, values={**why.values, "others": some(others)})


def tell(
    aims: Mapping[str, Aim],
    held: Mapping[str, Limits],
    short: Mapping[str, tuple[Why, ...]],
    beyond: Mapping[SiteId, tuple[Why, ...]],
) -> dict[SiteId, Kept]:
    """By site. `short`: what is not held, by slice; `beyond`: what else is not held of a site."""
    own: dict[SiteId, Kept] = {}
    beside: dict[SiteId, list[Kept]] = {}
    # What is let go is told of those that hold nothing else.
    for name, aim in sorted(aims.items(), key=lambda item: (item[1].release, item[0])):
        kept = _kept(name, aim, held.get(name), short.get(name, ()))
        for site in aim.sites:
            if aim.beside:
                beside.setdefault(site, []).append(kept)
            else:
                own.setdefault(site, kept)
    return {
        site: _with(own.get(site, Kept()), beside.get(site, ()), beyond.get(site, ()))
        for site in own.keys() | beside.keys() | beyond.keys()
    }


def _kept(name: str, aim: Aim, held: Limits | None, short: tuple[Why, ...]) -> Kept:
    return Kept(
        slice=name,
        wanted=aim.limits,
        held=comparable(aim.limits, held) if held else None,
        because={**aim.because, **_own(aim)},
        short=short,
    )


def _own(aim: Aim) -> dict[str, Why]:
    """Why fields are as they are that nobody speaks of."""
    others = unlike(aim.limits, FREE) - aim.fields - aim.because.keys()
    return dict.fromkeys(others, OWN)


def _with(kept: Kept, beside: Iterable[Kept], beyond: tuple[Why, ...]) -> Kept:
    return replace(kept, short=(*kept.short, *beyond), beside=tuple(beside))
