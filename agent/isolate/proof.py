"""What is kept beside a step as its evidence: the victims' stall and the site's use, round by round."""

from collections.abc import Sequence
from itertools import pairwise

from agent.isolate import nature
from agent.isolate.climb import Climb
from agent.isolate.measure import PAGE_BYTES, series
from agent.isolate.policy import CONTENDED
from agent.isolate.ruled import ordered
from agent.isolate.state import Frame, State
from fleet.caps import Evidence, Resource
from fleet.model import SiteId

POINTS = 60  # of a series: the window, twice over
Series = Sequence[float | None]


def proofs(before: State, climb: Climb) -> tuple[Evidence, ...]:
    """Of what is new, one for each site: harder steps, people's quarantines, the memory watchdog's reliefs.

    Without processes. `before`: the state as the last round left it.
    """
    found: dict[SiteId, Evidence] = {}
    for change in climb.changes:
        if change.harder:
            case = climb.cases[change.site]
            score = case.suspect.score if case.suspect else 0.0
            found[change.site] = _proof(climb, change.site, case.resource, score=score)
    for site, since in ordered(climb.house, climb.wall).items():
        if before.ordered.get(site) != since and site not in found:
            found[site] = _proof(climb, site, _waited_for(climb, site))
    for site, until in climb.before.relieved.items():
        if before.relieved.get(site) != until and site not in found:
            found[site] = _proof(climb, site, Resource.MEMORY, own=True)
    return tuple(found.values())


def _waited_for(climb: Climb, site: SiteId) -> Resource:
    """What a person's quarantine is about, as far as this host can tell."""
    step = climb.record(site).step
    if step is not None:
        return step.resource
    return next((one for one in CONTENDED if one in climb.before.alarms), Resource.CPU)


def _proof(
    climb: Climb, site: SiteId, resource: Resource, *, score: float = 0.0, own: bool = False
) -> Evidence:
    """`own`: the stall is what the site does to itself."""
    window = climb.before.window[-POINTS:]
    if resource is Resource.EGRESS and not any(series(window, site, resource)):
        resource = Resource.CPU  # a program of its own, or a door: what it works
    stall = _own(window, site) if own else _victims(window, resource)
    used = _reclaimed(window, site) if own else series(window, site, resource)
    apart = [later.at - earlier.at for earlier, later in pairwise(window)]
    return Evidence(
        site=site,
        at=climb.wall,
        every_s=sum(apart) / len(apart) if apart else 0.0,
        stall=_filled(stall),
        use=_filled(used),
        score=score,
        resource=resource,
        signs=nature.standing(climb.before.signs.get(site, {}), climb.policy, climb.at),
        gaps=_gaps(stall, used),
        own=own,
    )


def _victims(window: Sequence[Frame], resource: Resource) -> Series:
    return [frame.stall.get(resource) for frame in window]


def _own(window: Sequence[Frame], site: SiteId) -> Series:
    signs = (frame.sites.get(site) for frame in window)
    return [None if one is None else one.memory_stall for one in signs]


def _reclaimed(window: Sequence[Frame], site: SiteId) -> Series:
    """What reclaim looked at for it, bytes/s: of a relief whether it got any of that is the question."""
    told = (frame.sites.get(site) for frame in window)
    pages = [None if one is None else one.scanned_per_s for one in told]
    return [None if count is None else count * PAGE_BYTES for count in pages]


def _filled(values: Series) -> tuple[float, ...]:
    """Where nothing was read, what was read before it, or first; empty where nothing ever was."""
    last = next((value for value in values if value is not None), None)
    if last is None:
        return ()
    found = []
    for value in values:
        last = last if value is None else value
        found.append(round(last, 4))
    return tuple(found)


def _gaps(*told: Series) -> tuple[int, ...]:
    """Where a series has nothing of its own; one that has nothing at all is not told."""
    known = [values for values in told if any(value is not None for value in values)]
    return tuple(n for n, row in enumerate(zip(*known, strict=True)) if None in row)
