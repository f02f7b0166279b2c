"""A round is looked at: what it adds to what isolation remembers, before anything is decided from it."""

from collections.abc import Mapping

import msgspec

from agent.isolate import nature
from agent.isolate.learn import EVERY_S, learned
from agent.isolate.measure import busy, suffered
from agent.isolate.own import Own
from agent.isolate.policy import CONTENDED, Policy
from agent.isolate.state import Clock, Frame, State
from agent.signals import Signals, SiteSigns
from fleet.caps import Level, Resource
from fleet.model import SiteId

# What was not looked at is not forgotten: an alarm, or an agent that was away, fades an hour by no more than this.
LATE_S = 2 * EVERY_S
# An alarm that dips is the same one: what a noisy reading left out is not a new beginning.
DIPS = 0.75


def look(state: State, signals: Signals, policy: Policy, clock: Clock, own: Own) -> State:
    """`state` with this round in it. `own`: what holds each site by itself."""
    at = clock.at
    host = signals.host
    frame = Frame(
        at=at,
        stall=suffered(signals, policy, own),
        sites=signals.sites,
        used_bytes=float(host.memory_total_bytes - host.memory_available_bytes),
        busy=busy(host),
    )
    window = (*(old for old in state.window if at - policy.window_s <= old.at < at), frame)
    futile = _futile(state, signals, policy, at)
    relieved = {site: until for site, until in state.relieved.items() if at < until}
    lifted = at + policy.term(policy.terms.soft_s)
    relieved |= {
        site: lifted
        for site, since in futile.items()
        if at - since >= policy.futile_s and site not in relieved
    }
    danger = (host.memory_stall or 0.0) > policy.danger_ratio
    alarms = _alarms(state, frame, policy)
    state = msgspec.structs.replace(
        state,
        clock=clock,
        window=window,
        since=at if state.since is None else state.since,
        met=_met(state, signals, at),
        alarms=alarms,
        calm=_calm(state, alarms),
        signs=nature.showing(state.signs, signals.sites, policy, at),
        futile=futile,
        relieved=relieved,
        endangered=(at if state.endangered is None else state.endangered) if danger else None,
    )
    return _learn(state, policy, at)


def _met(state: State, signals: Signals, at: float) -> dict[SiteId, float]:
    """Since when each site is known; an earlier release noted it of none, and knew them all."""
    if not signals.sites or state.met.keys() == signals.sites.keys():
        return state.met  # none: an agent that has just begun
    first = at if state.met or state.since is None else state.since
    here = signals.sites.keys() | state.past.keys()  # who left is known for as long as its days are
    kept = {site: since for site, since in state.met.items() if site in here}
    return {**dict.fromkeys(signals.sites, first), **kept}


def _alarms(state: State, frame: Frame, policy: Policy) -> dict[Resource, float]:
    """Since when the victims suffer by each resource."""
    found = {}
    for resource in CONTENDED:
        since = state.alarms.get(resource)
        least = policy.alarm(resource).stall_ratio * (1.0 if since is None else DIPS)
        if frame.stall.get(resource, 0.0) >= least:
            found[resource] = _began(state, frame, resource, policy) if since is None else since
    return found


def _calm(state: State, alarms: Mapping[Resource, float]) -> dict[Resource, float]:
    """What victims waited before each alarm, as far as the window goes back; of one that stands it is kept."""
    found = {}
    for resource, since in alarms.items():
        before = [frame.stall.get(resource, 0.0) for frame in state.window if frame.at < since]
        if resource in state.alarms:
            found[resource] = state.calm.get(resource, 0.0)
        elif before:
            found[resource] = sum(before) / len(before)
    return found


def _began(state: State, frame: Frame, resource: Resource, policy: Policy) -> float:
    """Contention begins within a reading, and shows in half of it: a rising stall is counted from the one before."""
    half = policy.alarm(resource).stall_ratio / 2
    before = state.window[-1] if state.window else frame
    return before.at if before.stall.get(resource, 0.0) >= half else frame.at


def _futile(state: State, signals: Signals, policy: Policy, at: float) -> dict[SiteId, float]:
    """Since when each site stands still in a reclaim that finds nothing."""
    return {
        site: state.futile.get(site, at)
        for site, signs in signals.sites.items()
        if signs.memory_stall and _is_futile(signs, policy)
    }


def _is_futile(signs: SiteSigns, policy: Policy) -> bool:
    scanned = signs.scanned_per_s or 0.0
    return (
        (signs.memory_stall or 0.0) > policy.futile_stall_ratio
        and not signs.oom_kills
        and scanned > 0
        and (signs.stolen_per_s or 0.0) < scanned * policy.futile_stolen_ratio
    )


def _learn(state: State, policy: Policy, at: float) -> State:
    """Each minute; the trouble of a site that is held, or may be soon, teaches nothing."""
    passed_s = at - state.learned if state.learned else EVERY_S
    if passed_s < EVERY_S or state.alarms:
        return state
    passed_s = min(passed_s, LATE_S)
    held = {site for site, record in state.records.items() if record.level > Level.WATCH}
    past = learned(state.past, state.window, held, policy, passed_s=passed_s)
    return msgspec.structs.replace(state, past=past, learned=at)
