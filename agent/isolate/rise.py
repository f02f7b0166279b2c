"""Who is to be held, or held harder: what shows of a break-in, who is the suspect of a contention, whom to ask."""

from collections.abc import Sequence

from agent.isolate import nature
from agent.isolate.attribution import Suspect, suspects
from agent.isolate.case import Case
from agent.isolate.climb import Climb
from agent.isolate.grip import TIGHTER, shares
from agent.isolate.measure import latest
from agent.isolate.nature import WAYS
from agent.isolate.policy import CONTENDED
from agent.isolate.state import Record, Step
from agent.isolate.table import Finding
from fleet.caps import Level, Nature, Resource
from fleet.model import SiteId, Why

AFTER_S = 10.0  # what a step did is measured over the end of its trial, a third of it


def signs(climb: Climb) -> None:
    """Every site that shows something odd: look closer, or cut it off."""
    for site, shown in climb.before.signs.items():
        if site not in climb.house.tenants or climb.is_ruled(site, "release", "quarantine"):
            continue
        found = nature.standing(shown, climb.policy, climb.at)
        if not found:
            continue
        case = Case(
            resource=Resource.EGRESS,
            nature=Nature.HACKED,
            signs=found,
            mails_per_s=_mails(climb, site, found),
        )
        if nature.is_hacked(found, climb.policy):
            if climb.record(site).level < Level.ISOLATE:
                climb.move(site, Finding.HACKED, case)
        elif climb.record(site).level is Level.BASELINE:
            climb.move(site, Finding.SIGN, case)


def _mails(climb: Climb, site: SiteId, found: tuple[str, ...]) -> float | None:
    """How many mail connections a second are what shows; None: it is something else, or more than that."""
    one = climb.signals.sites.get(site)
    return nature.mails(one) if one and found in (("direct-mail",), ("refused-mail",)) else None


def contention(climb: Climb) -> None:
    """For each resource that victims wait for: its suspect, one at a time, or a call for help."""
    for resource in CONTENDED:
        if not climb.stands(resource):
            continue
        if not any(climb.may_act(resource, armed=armed) for armed in climb.turns):
            continue
        for_s = climb.at - climb.before.alarms[resource]
        found = suspected(climb, resource)
        if found and _is_just_ordered(climb, found[0].site):
            continue
        free = _free(climb, resource, found)
        if free and not _is_plain(climb, free[0], for_s):
            continue
        if not _deal(climb, free, resource):
            _ask(climb, resource, found, for_s)


def _deal(climb: Climb, free: Sequence[Suspect], resource: Resource) -> bool:
    """Act on the first suspect alone; whether it is dealt with, or it is too soon to say so.

    In shadow that helps nobody: beside it the first one that can be held is tried, if it plainly takes much.
    """
    if not free:
        return not climb.may_act(resource)
    first, *others = free
    armed = climb.is_armed(first.site)
    dealt = not climb.may_act(resource, armed=armed) or _act(climb, first, resource)
    if armed or True not in climb.turns:
        return dealt  # where all is in shadow, a hog that is not held is no news
    beside = next((one for one in others if climb.is_armed(one.site)), None)
    if beside is None or beside.share < climb.policy.plain_share:
        return False
    return not climb.may_act(resource) or _act(climb, beside, resource)


def suspected(climb: Climb, resource: Resource) -> tuple[Suspect, ...]:
    state = climb.before
    return suspects(
        state.window,
        climb.signals.host,
        resource,
        climb.caps,
        state.past,
        climb.policy,
        at=climb.at,
        # What went by in alarms taught nothing: a host that is never calm knows no other day.
        known_s=state.learned - (state.since or state.learned),
        # One that another host suspects is to be proven here, however short it is here (rule R15).
        newcomers={
            site: max(0.0, state.learned - met)
            for site, met in state.met.items()
            if met > (state.since or 0.0) and not climb.is_ruled(site, "suspect")
        },
        calm=state.calm.get(resource, 0.0),
    )


def _free(climb: Climb, resource: Resource, found: Sequence[Suspect]) -> list[Suspect]:
    return [one for one in found if not _is_settled(climb, one.site, resource)]


def _is_settled(climb: Climb, site: SiteId, resource: Resource) -> bool:
    """Whether a site was shown not to be the cause, or is in people's hands: the next suspect is asked."""
    if climb.is_ruled(site, "quarantine"):
        return True
    until = climb.record(site).acquitted.get(resource)
    return until is not None and climb.at < until


def _is_just_ordered(climb: Climb, site: SiteId) -> bool:
    """Whether a person holds a site since less than a trial: what that does is seen before anybody else is asked."""
    ruling = climb.house.ruling(site, climb.wall)
    if ruling is None or ruling.word != "quarantine" or ruling.level < Level.SOFT:
        return False
    return abs(climb.wall - ruling.note.since) < climb.term(climb.policy.terms.trial_s)


def _is_plain(climb: Climb, suspect: Suspect, for_s: float) -> bool:
    """Whether it is plain enough that it is this one: by its share, or because it has gone on for long."""
    return suspect.share >= climb.policy.plain_share or for_s >= climb.policy.patience_s


def _act(climb: Climb, suspect: Suspect, resource: Resource) -> bool:
    """Act on the one suspect; whether it is dealt with."""
    site, record = suspect.site, climb.record(suspect.site)
    if climb.is_ruled(site, "release"):
        return False
    state, policy = climb.before, climb.policy
    kind = _nature(climb, site)
    stall = latest(state.window, resource, policy.alarm(resource).for_s)
    case = Case(resource=resource, nature=kind, suspect=suspect, stall=stall)
    if record.step is not None and record.level >= Level.SOFT:
        return _tighten(climb, site, record.step, case)
    return climb.move(site, _first(climb, record, case), case)


def _nature(climb: Climb, site: SiteId) -> Nature:
    """A crowd that is turned away is smaller, and still a crowd while its site goes last for it."""
    state, step = climb.before, climb.record(site).step
    if step is not None and step.level is Level.SOFT and step.nature in nature.CROWDS:
        return step.nature
    return nature.nature(
        site, state.window, climb.caps[site], state.past.get(site, {}), climb.policy, climb.at
    )


def _tighten(climb: Climb, site: SiteId, step: Step, case: Case) -> bool:
    """What to do about a suspect that is held already. What is only in shadow can't have helped, and is let be."""
    if not climb.holds(site, step) or _is_on_trial(step, case.resource):
        return True
    if step.level is Level.ISOLATE and is_endangered(climb, case.resource):
        return climb.move(site, Finding.DANGER, case)
    if shares(step).get(case.resource, 1.0) <= TIGHTER:
        return False
    if _is_urgent(climb, case):
        return climb.move(site, Finding.URGENT, case)
    return climb.move(site, gently(climb, site, case) or Finding.PERSISTS, case)


def _is_on_trial(step: Step, resource: Resource) -> bool:
    """Whether a cap is not to be changed for `resource` yet: what is less dangerous waits until it was judged."""
    if step.level < Level.CAP or step.judged or step.resource not in CONTENDED:
        return False  # a cap of anything goes last too: what a soft step gave is not lost
    return CONTENDED.index(resource) > CONTENDED.index(step.resource)


def _is_urgent(climb: Climb, case: Case) -> bool:
    urgent = climb.policy.alarm(case.resource).urgent_ratio
    return urgent is not None and (case.stall or 0.0) >= urgent


def _first(climb: Climb, record: Record, case: Case) -> Finding:
    """How a suspect that is not held yet is met; in shadow nobody climbs on steps that were not held."""
    highest = WAYS[case.nature].highest
    if climb.capped(record) >= climb.policy.caps_before_isolation and highest > Level.CAP:
        return Finding.MANY
    if _is_urgent(climb, case):
        return Finding.URGENT
    if climb.softs(record) >= WAYS[case.nature].softs:
        return Finding.AGAIN
    return Finding.SUSPECT if case.resource is Resource.CPU else Finding.BLUNT


def _ask(climb: Climb, resource: Resource, found: tuple[Suspect, ...], for_s: float) -> None:
    """Contention that nothing is done about for long is people's: nobody is punished for it."""
    if for_s < climb.term(climb.policy.terms.ask_s):
        return
    stall = round(100 * latest(climb.before.window, resource, AFTER_S))
    values: dict[str, str | int | float] = {
        "resource": resource.value,
        "stall_percent": stall,
        "for_s": round(for_s),
    }
    tried = [site for site, record in climb.records.items() if _was_tried(climb, record, resource)]
    if found and climb.is_ruled(found[0].site, "release"):
        climb.asks.append(Why("isolation-released-suspect", {**values, "site": found[0].site}))
    elif found and climb.is_ruled(found[0].site, "quarantine"):
        share = {"share_percent": round(100 * found[0].share)}
        held = Why("isolation-held-suspect", {**values, **share, "site": found[0].site})
        climb.asks.append(held)
    elif (free := _free(climb, resource, found)) and not climb.is_armed(free[0].site):
        climb.asks.append(Why("isolation-in-shadow", {**values, "site": free[0].site}))
    elif tried:
        climb.asks.append(Why("isolation-nothing-helps", {**values, "site": tried[-1]}))
    else:
        climb.asks.append(Why("isolation-no-culprit", values))


def _was_tried(climb: Climb, record: Record, resource: Resource) -> bool:
    """Whether a site is held for `resource`, or was in vain."""
    step = record.step
    held = step and step.level >= Level.SOFT and resource in (step.resource, *step.also)
    return bool(held) or climb.at < record.acquitted.get(resource, 0.0)


def gently(climb: Climb, site: SiteId, case: Case) -> Finding | None:
    """Whether who goes last, and is still the cause, has as many soft steps as come before a cap of its nature.

    What has no weights has no soft steps either.
    """
    record = climb.record(site)
    if record.level is not Level.SOFT or case.resource is not Resource.CPU:
        return None
    return Finding.GENTLY if climb.softs(record) < WAYS[case.nature].softs else None


def is_endangered(climb: Climb, resource: Resource) -> bool:
    since = climb.before.endangered
    stood_s = 0.0 if since is None else climb.at - since
    return resource is Resource.MEMORY and stood_s >= climb.policy.danger_s
