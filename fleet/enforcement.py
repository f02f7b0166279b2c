"""What people say of where caps hold, and what becomes of it when plans change; pure.

A word names the plans that it turns on with the numbers that they have in that moment, their *editions*. So a plan that
is new, or made stricter, begins in shadow where caps hold already: what was armed goes on to hold until somebody arms
again, and the new numbers are only measured. What is made looser holds at once.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from fleet.caps import Enforcement, Renewal, Turn
from fleet.findings import Finding
from fleet.inforce import edition, loosest, stricter
from fleet.model import HostId, Plan, PlanCaps, PlanId, Site, SiteId

Scope = Literal["all", "host", "plan", "site"]
Named = dict[PlanId, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An order to let caps hold `since` (Unix s) in a scope; `id` is empty for all."""

    scope: Scope
    id: str
    since: float


def arm(
    words: Enforcement,
    said: Said,
    plans: Mapping[PlanId, Plan],
    sites: Mapping[SiteId, tuple[Site, HostId]],
    now: float,
) -> Enforcement:
    """Let caps hold in a scope, with the numbers that its plans have now.

    What holds there already goes on holding; where the date is yet to come, its own numbers do until then. So do the
    narrower words in it, which keep their dates. `sites`: each, and the host that it is on.
    """
    own = _named(said, plans, sites)
    old = word(words, said.scope, said.id)
    words = put(words, said.scope, said.id, _armed(old, own, said.since, now))

    def renew(turn: Turn, names: Collection[PlanId]) -> Turn:
        mine = {plan: own[plan] for plan in names if plan in own}
        return turn if turn.since is None else _within(turn, mine, said.since, now)

    hosts, its_plans = words.hosts, words.plans
    if said.scope == "all":
        hosts = {id: renew(turn, own) for id, turn in hosts.items()}
        its_plans = {id: renew(turn, (id,)) for id, turn in its_plans.items()}
    inside = _inside(said)
    its_sites = {
        id: renew(turn, (sites[id][0].plan,)) if id in sites and inside(*sites[id]) else turn
        for id, turn in words.sites.items()
    }
    words = msgspec.structs.replace(words, hosts=hosts, plans=its_plans, sites=its_sites)
    return _kept(words, {edition(plan.caps): plan.caps for plan in plans.values()})


def _named(
    said: Said, plans: Mapping[PlanId, Plan], sites: Mapping[SiteId, tuple[Site, HostId]]
) -> Named:
    """The plans that an order is about, with their present numbers."""
    match said.scope:
        case "plan":
            names = {PlanId(said.id)}
        case "site":
            names = {sites[SiteId(said.id)][0].plan}
        case _:
            names = {*plans}
    return {id: edition(plans[id].caps) for id in sorted(names) if id in plans}


def _inside(said: Said) -> Callable[[Site, HostId], bool]:
    """Whether a site with a word of its own lies in the scope; the word of `said` itself is renewed already."""
    match said.scope:
        case "all":
            return lambda site, host: True
        case "host":
            return lambda site, host: host == said.id
        case "plan":
            return lambda site, host: site.plan == said.id
    return lambda site, host: False


def _armed(old: Turn | None, own: Named, since: float, now: float) -> Turn:
    if old is not None and old.since is not None and old.since <= now:
        turn = _renewed(old, own, since, now)
        if since <= now:
            return msgspec.structs.replace(turn, said=now)
        # Where a wider shadow was said meanwhile nothing holds before the date.
        editions = turn.renewed.editions if turn.renewed else (turn.editions or own)
        later = Renewal(since=since, editions=editions, said=now)
        return msgspec.structs.replace(turn, renewed=later)
    # A word that it replaces was waiting, or there was none: until the date it is as it was.
    inherits = old is None or (old.since is not None and old.inherits)
    return Turn(
        since=since,
        editions=own,
        inherits=inherits and since > now,
        said=now,
        stopped=0.0 if old is None else old.said if old.since is None else old.stopped,
    )


def _within(turn: Turn, own: Named, since: float, now: float) -> Turn:
    """A narrower word: numbers that wait for their date go on to, and newer ones wait for the later of both dates."""
    waits = turn.renewed
    if waits is None or waits.since <= now or since <= now:
        return _renewed(turn, own, since, now)
    if own.items() <= waits.editions.items():
        return turn
    later = msgspec.structs.replace(
        waits, since=max(since, waits.since), editions={**waits.editions, **own}
    )
    return msgspec.structs.replace(turn, renewed=later)


def _renewed(turn: Turn, own: Named, since: float, now: float) -> Turn:
    """An armed word, with present numbers from `since`, or from its own date if that is later."""
    assert turn.since is not None
    holds, said = turn.editions, turn.said
    if turn.renewed and turn.renewed.since <= now:
        holds, said = turn.renewed.editions, max(said, turn.renewed.said)
    after = {**(holds or {}), **own}
    if holds is None or since <= max(now, turn.since):
        return msgspec.structs.replace(turn, editions=after, said=said, renewed=None)
    renewed = Renewal(since=since, editions=after) if after != holds else None
    return msgspec.structs.replace(turn, editions=holds, said=said, renewed=renewed)


def shadowed(words: Enforcement, scope: Scope, id: str, turn: Turn | None) -> Enforcement:
    """Let a scope's caps only watch, or (None) forget its own word."""
    return _kept(put(words, scope, id, turn), {})


def beginnings(words: Enforcement, now: float) -> tuple[float, ...]:
    """`now`, and when (Unix s) something begins to hold that a word about more than one site put off."""
    turns = (words.all, *words.hosts.values(), *words.plans.values())
    dates = {turn.since for turn in turns if turn.since is not None}
    dates |= {turn.renewed.since for turn in turns if turn.renewed is not None}
    return (now, *sorted(date for date in dates if date > now))


# --- what becomes of it when plans change


def changed(
    words: Enforcement,
    old: Mapping[PlanId, Plan],
    new: Mapping[PlanId, Plan],
    *,
    keep: bool,
    now: float,
) -> Enforcement:
    """`words` after a change of plans. `keep`: new numbers hold at once wherever the old ones do."""
    caps = {edition(plan.caps): plan.caps for plan in (*old.values(), *new.values())}
    caps |= words.editions
    added = {id: edition(plan.caps) for id, plan in new.items() if id not in old}

    def follow(names: Named, *, whole: bool) -> Named:
        found: Named = {}
        for id, named in names.items():
            if id not in new:
                continue
            present = new[id].caps
            both = present if keep or named not in caps else loosest(caps[named], present)
            caps[edition(both)] = both
            found[id] = edition(both)
        return {**found, **added} if keep and whole else found

    def turned(turn: Turn, *, whole: bool) -> Turn:
        if turn.since is None:
            return turn
        names = turn.editions
        if names is None:
            names = {id: edition(plan.caps) for id, plan in old.items()}
        if (later := turn.renewed) is not None:
            renewed = follow(later.editions, whole=whole)
            later = msgspec.structs.replace(later, editions=renewed)
        return msgspec.structs.replace(turn, editions=follow(names, whole=whole), renewed=later)

    since = {id: at for id, at in words.since.items() if id in new}
    for id, plan in new.items():
        if id not in old or stricter(old[id].caps, plan.caps):
            since[id] = now
    words = msgspec.structs.replace(
        words,
        all=turned(words.all, whole=True),
        hosts={id: turned(turn, whole=True) for id, turn in words.hosts.items()},
        plans={id: turned(turn, whole=False) for id, turn in words.plans.items()},
        sites={id: turned(turn, whole=False) for id, turn in words.sites.items()},
        since=since,
    )
    return _kept(words, caps)


def waiting(
    old: Mapping[PlanId, Plan], new: Mapping[PlanId, Plan], words: Enforcement
) -> Iterator[Finding]:
    """What of a change of plans, by which `words` became, is only measured where caps hold."""
    turns = (words.all, *words.hosts.values(), *words.plans.values(), *words.sites.values())
    armed = [turn for turn in turns if turn.since is not None]
    whole = [turn for turn in (words.all, *words.hosts.values()) if turn.since is not None]
    for id, plan in new.items():
        remedy = f'relevo caps arm --plan {id} --reason "…", when shadow has watched it'
        if id not in old:
            if any(turn.editions is not None and id not in turn.editions for turn in whole):
                message = "is new: it is only measured where the other plans hold"
                yield Finding(path=("plans", id), message=message, remedy=remedy)
            continue
        named = {turn.editions[id] for turn in armed if turn.editions and id in turn.editions}
        for cap in stricter(old[id].caps, plan.caps):
            present = getattr(plan.caps, cap)
            if any(getattr(words.editions[each], cap) != present for each in named):
                message = f"is stricter: {getattr(old[id].caps, cap)} goes on to hold where it does"
                path = ("plans", id, "caps", cap)
                yield Finding(path=path, message=message, value=str(present), remedy=remedy)


def _kept(words: Enforcement, more: Mapping[str, PlanCaps]) -> Enforcement:
    """With the editions that some word names, and no others."""
    known = {**more, **words.editions}
    named = {
        edition
        for turn in (words.all, *words.hosts.values(), *words.plans.values(), *words.sites.values())
        for names in (turn.editions, turn.renewed and turn.renewed.editions)
        for edition in (names or {}).values()
    }
    editions = {edition: known[edition] for edition in sorted(named) if edition in known}
    return msgspec.structs.replace(words, editions=editions)


def word(of: Enforcement, scope: Scope, id: str) -> Turn | None:
    """What a scope itself says."""
    match scope:
        case "host":
            return of.hosts.get(HostId(id))
        case "plan":
            return of.plans.get(PlanId(id))
        case "site":
            return of.sites.get(SiteId(id))
    return of.all


def put(of: Enforcement, scope: Scope, id: str, turn: Turn | None) -> Enforcement:
    """With this word of a scope; None: without any."""
    if scope == "all":
        return msgspec.structs.replace(of, all=turn or Turn())
    field = f"{scope}s"
    words = {key: each for key, each in getattr(of, field).items() if key != id}
    if turn is not None:
        words[id] = turn
    return msgspec.structs.replace(of, **{field: words})
