"""Who makes the others wait: by when they wait, by the share it takes, by what is new of it (caps.md D.2)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from agent.isolate.learn import LEAST
from agent.isolate.measure import growth, is_scarce, latest, series, sizes, stalls
from agent.isolate.policy import HOUR_S, Policy
from agent.isolate.state import HOURS, Frame, Past, Step
from agent.signals import HostSigns
from fleet.caps import Resource
from fleet.model import Caps, SiteId

RECENT_S = 4.0  # what a share is measured over: two readings
TRIES_S = 10.0  # a fork that was refused is tried again within this
KNOWN = 4  # readings of a site under which its rhythm is nobody's
RESTS = 0.5  # of what it uses now: with less it rests
MOST_USUAL = 0.75  # of the waiting: by less than the rest of it chance comes and goes
LEAST_ADDED = 0.001  # s for each second of work: less is nothing
ALL = 0.99  # of the time: nobody works any more, and more waiting can't be told from it
UNKNOWN_NOVELTY = 0.5  # of a site that is not known yet: neither held against it nor for it
# Of what it takes more than its part, where nobody tells what its host takes: the same.
UNKNOWN_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Part:
    """What one site used lately; which share that is of what there is to have, and of what anybody took of it.

    `rest`: which share of what there is no site took; None: nobody tells what the host does beside its sites.
    """

    amount: float
    share: float
    among: float
    rest: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """One site beside the victims' stall. `correlation` -1..1, the rest 0..1; `use` as it is now.

    `usual`: what the victims wait while it rests, or waited before there was an alarm.
    """

    site: SiteId
    score: float
    correlation: float
    share: float
    novelty: float
    use: float
    usual: float = 0.0
    steady: bool = False


def suspects(
    window: Sequence[Frame],
    host: HostSigns,
    resource: Resource,
    caps: Mapping[SiteId, Caps],
    past: Past,
    policy: Policy,
    *,
    at: float,
    known_s: float,
    newcomers: Mapping[SiteId, float] = MappingProxyType({}),
    calm: float = 0.0,
) -> tuple[Suspect, ...]:
    """Who may be the cause of the stall that stands now, the most likely first; empty: nobody is.

    Only sites of `caps` are asked. `known_s`: for how long this host has learned what is usual, of `newcomers` for how
    long each. `calm`: the victims' stall before the alarm, where it is known.
    """
    if not window or window[-1].at - window[0].at < policy.seen_s:
        return ()
    stall = list(stalls(window, resource))
    parts = _parts(window, host, resource)
    of = sum(_weight(one, resource) for one in caps.values())
    found = []
    for site, part in parts.items():
        floor = policy.alarm(resource).floor
        # Of sites' part alone, where the host's own is not told, it must be most: a burst of one may come by chance.
        is_untold = resource is Resource.IO and part.rest is None
        least = policy.dominant if is_untold else policy.share
        if site not in caps or part.share < least or part.amount < floor:
            continue
        usual = past.get(site, {}).get(resource)
        here_s = newcomers.get(site, known_s)
        known = _novelty(resource, usual, part.amount, at, here_s, policy)
        is_news = _is_news(window, site, resource, part, known, policy)
        steady, correlation = _correlation(
            window, stall, site, resource, part, policy, is_news=is_news
        )
        if resource is Resource.MEMORY:
            scarce = policy.scarce_ratio * host.memory_total_bytes
            took = _took(window, site, min(scarce, caps[site].memory_max_bytes / 2), policy)
            # Where nobody waits yet there is no rhythm, and whoever happens to grow now has not taken what is missing.
            if is_scarce(host, policy) and stall[-1] <= policy.memory.stall_ratio:
                correlation = 0.0
            correlation = max(correlation, took)
        above = min(1.0, (part.share - _weight(caps[site], resource) / of) / policy.above_full)
        if is_untold:
            above *= UNKNOWN_SHARE  # of what the disks do it may be little
        novelty = UNKNOWN_NOVELTY if known is None else known
        score = 0.5 * max(0.0, correlation) + 0.3 * max(0.0, above) + 0.2 * novelty
        if score >= policy.score and correlation >= policy.correlation:
            found.append(
                Suspect(
                    site=site,
                    score=score,
                    correlation=correlation,
                    share=part.share,
                    novelty=novelty,
                    use=part.amount,
                    usual=_without(stall, series(window, site, resource), part.amount, calm),
                    steady=steady,
                )
            )
    return tuple(sorted(found, key=lambda one: (-one.score, -one.share, one.site)))


def _parts(window: Sequence[Frame], host: HostSigns, resource: Resource) -> dict[SiteId, Part]:
    newest = window[-1].at
    recent = [frame for frame in window if frame.at > newest - RECENT_S - 2.0]
    recent = recent if len(recent) > 1 else [*window[-2:]]  # a host that is late with its rounds
    amounts = {}
    for site in window[-1].sites:
        used = series(window, site, resource, len(recent))
        values = [value for value in used[1:] if value is not None]
        if values:
            amounts[site] = sum(values) / len(values)
    everyone = sum(amounts.values())
    all_ = _of_all(recent, resource)
    anybody = max(everyone, all_ or 0.0)
    # What no site uses of the CPUs is no site's fault.
    whole = host.cores if resource is Resource.CPU else anybody
    if len(amounts) < len(window[-1].sites):
        anybody = max(anybody, whole)  # what some neighbour takes is not known
    rest = None if all_ is None else (anybody - everyone) / whole if whole else 0.0
    return {
        site: Part(amount, amount / whole, amount / anybody, rest)
        for site, amount in amounts.items()
        if amount and whole
    }


def _of_all(recent: Sequence[Frame], resource: Resource) -> float | None:
    """What the host used of `resource` lately, by whomever, in the unit of its sites' use; None: nobody tells."""
    if resource is Resource.MEMORY:
        return _filling(recent)
    values = [frame.busy.get(resource) for frame in recent[1:]]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _filling(recent: Sequence[Frame]) -> float:
    """How fast the host's memory fills, by whomever, bytes/s."""
    passed_s = recent[-1].at - recent[0].at
    return growth([frame.used_bytes for frame in recent]) / passed_s if passed_s else 0.0


def _weight(caps: Caps, resource: Resource) -> float:
    """What a plan's part of `resource` goes by."""
    return {Resource.TASKS: caps.tasks, Resource.MEMORY: caps.memory_max_bytes}.get(
        resource, caps.cpu_weight
    )


def _correlation(
    window: Sequence[Frame],
    stall: Sequence[float],
    site: SiteId,
    resource: Resource,
    part: Part,
    policy: Policy,
    *,
    is_news: bool,
) -> tuple[bool, float]:
    """How a site's use goes with the victims' stall; whether the stall has no rhythm to compare with.

    A stall as long as the window says nothing by its rhythm: who takes a dominant share is then told by what it takes
    beside its neighbours, if that `is_news`: whoever is large is so while everybody waits for something else, too. A
    stall that comes and goes for other reasons as well is no excuse: see `sufficiency`.
    """
    is_told = resource is not Resource.IO or part.rest is not None
    dominance = part.among if is_news and part.share >= policy.dominant else 0.0
    if _spread(stall) < policy.steady_spread * max(stall):
        return True, dominance
    used, alarm = series(window, site, resource), policy.alarm(resource)
    found = correlation(stall, used)
    if min(stall) >= alarm.stall_ratio:
        return True, max(found, dominance)
    if is_told and part.share >= policy.plain_share:
        suffer = [value >= alarm.stall_ratio for value in stall]
        found = max(found, sufficiency(suffer, used, part.amount))
    if resource is Resource.MEMORY:  # a leak hurts by its size long after it began to grow
        found = max(found, correlation(stall, sizes(window, site)))
    return False, found


def _took(window: Sequence[Frame], site: SiteId, scarce: float, policy: Policy) -> float:
    """Of what the host has less now than it had within the window, the part that `site` took, where that is most of it.

    Memory hurts when the last of it goes, long after who takes it began: its rhythm tells that too late. `scarce`: so
    many bytes are missed.
    """
    took, lost = growth(sizes(window, site)), growth([frame.used_bytes for frame in window])
    if took < scarce or lost <= 0 or took < policy.dominant * lost:
        return 0.0
    return min(1.0, took / lost)


def _spread(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def correlation(stall: Sequence[float], used: Sequence[float | None]) -> float:
    """Pearson's, over the rounds in which the use is known; 0 where either does not vary, or too few are known."""
    pairs = [(a, b) for a, b in zip(stall, used, strict=True) if b is not None]
    if len(pairs) < KNOWN:
        return 0.0
    mean_a = sum(a for a, _ in pairs) / len(pairs)
    mean_b = sum(b for _, b in pairs) / len(pairs)
    together = sum((a - mean_a) * (b - mean_b) for a, b in pairs)
    apart = math.sqrt(
        sum((a - mean_a) ** 2 for a, _ in pairs) * sum((b - mean_b) ** 2 for _, b in pairs)
    )
    return max(-1.0, min(1.0, together / apart)) if apart > 0 else 0.0


def sufficiency(suffer: Sequence[bool], used: Sequence[float | None], amount: float) -> float:
    """Of the rounds in which the victims would not have suffered, the part in which they do when the site works, 0..1.

    A correlation lessens with every stall of another cause: of a host that is short of breath by itself, the one who
    takes what is left of it goes hardly with the stall. `amount`: what is work of it. 0 where too few rounds are known.
    Source: the probability of sufficiency, J. Pearl, Causality, §9.2.
    """
    rounds = [(s, u >= RESTS * amount) for s, u in zip(suffer, used, strict=True) if u is not None]
    works, rests = [s for s, busy in rounds if busy], [s for s, busy in rounds if not busy]
    if len(works) < KNOWN or len(rests) < KNOWN or all(rests):
        return 0.0
    # One more round in which nothing comes of it: four that agree may be luck.
    with_it, without = sum(works) / (len(works) + 1), sum(rests) / len(rests)
    return with_it * max(0.0, (with_it - without) / (1 - without))


def _novelty(
    resource: Resource,
    usual: Sequence[float] | None,
    amount: float,
    at: float,
    known_s: float,
    policy: Policy,
) -> float | None:
    """0: as at this hour of other days; 1: twice that, or more; None: no other day of it is known."""
    if resource not in LEAST:
        return None  # its past is not kept
    if usual is None or not any(usual):
        # Of a site that was seen for long and never used enough to be remembered, this much is new.
        return 1.0 if known_s >= policy.learn_s else None
    hour = int(at // HOUR_S) % HOURS
    most = max(usual[hour - 1], usual[hour], usual[(hour + 1) % HOURS])
    return min(1.0, max(0.0, amount / most - 1.0)) if most else 1.0


def _is_news(
    window: Sequence[Frame],
    site: SiteId,
    resource: Resource,
    part: Part,
    novelty: float | None,
    policy: Policy,
) -> bool:
    """Whether a large part alone may accuse a site: it was not as large before, or there is hardly anybody else.

    Of tasks neither is known: there it must be seen to try for more than it may have.
    """
    if resource is Resource.TASKS:
        recent = (frame.sites.get(site) for frame in window if frame.at > window[-1].at - TRIES_S)
        return any(signs is not None and signs.tasks_refused for signs in recent)
    if resource is Resource.IO and part.rest is None:
        return False
    if novelty is not None:
        return novelty >= policy.new
    return part.rest is not None and part.rest <= policy.rest


def _without(
    stall: Sequence[float], used: Sequence[float | None], amount: float, calm: float
) -> float:
    """What the victims wait while a site that uses `amount` rests; `calm` where it hardly did within the window."""
    rests = [s for s, u in zip(stall, used, strict=True) if u is not None and u < RESTS * amount]
    return sum(rests) / len(rests) if len(rests) >= KNOWN else calm


def fall(step: Step, window: Sequence[Frame], for_s: float) -> float:
    """By which share of what it may have added the victims' waiting fell since `step` began; below 0: it rose.

    Waiting is told for each second of work, not as a share of the time: that hardly moves while all of it is waiting.
    """
    before, now = (
        _waiting(stall, step.resource)
        for stall in (step.before, latest(window, step.resource, for_s))
    )
    if before <= 0:
        return 0.0
    usual = min(_waiting(step.usual, step.resource), MOST_USUAL * before)
    return min(1.0, (before - now) / max(before - usual, LEAST_ADDED))


def _waiting(stall: float, resource: Resource) -> float:
    """Seconds of waiting for each second of work. Forks are no waiting: of them there are so many."""
    return stall if resource is Resource.TASKS else stall / (1.0 - min(stall, ALL))
