"""How steps worked and how they end: is the host in danger in spite of one, did it help its victims, is it over?"""

import msgspec

from agent.isolate.attribution import fall
from agent.isolate.case import Case
from agent.isolate.climb import Climb
from agent.isolate.grip import TIGHT, TIGHTER, shares
from agent.isolate.measure import latest, taken
from agent.isolate.rise import AFTER_S, gently, is_endangered, suspected
from agent.isolate.state import Step
from agent.isolate.table import TABLE, Finding
from fleet.caps import Level, Resource
from fleet.model import SiteId, Why


def judge(climb: Climb) -> None:
    """Every step: is the host in danger in spite of it, did it help, is it over?"""
    for site, record in tuple(climb.records.items()):
        step = record.step
        if step is None or climb.is_ruled(site, "release"):
            continue
        # Who may not be stopped, being crawled, is judged as any other.
        danger = _danger(climb, site, step)
        stopped = danger is not None and climb.move(site, Finding.DANGER, danger)
        if not stopped and (finding := _finding(climb, site, step)) is not None:
            climb.move(site, finding, _case(climb, step))
        _ask_of_stops(climb, site)
        _ask_to_look(climb, site)


def _ask_of_stops(climb: Climb, site: SiteId) -> None:
    """Who was let run, and had to be stopped again and again, is people's while it is stopped for long."""
    record = climb.record(site)
    times = climb.stopped(record)
    if record.level is Level.STOP and times > climb.policy.stops_before_longest:
        climb.asks.append(Why("isolation-stopped-again", {"site": site, "times": times}))


def _ask_to_look(climb: Climb, site: SiteId) -> None:
    """Who was isolated for as long as may be is people's while it is watched for that, or until they speak of it."""
    step = climb.record(site).step
    code = TABLE[Level.ISOLATE, Finding.OVER].code
    if step and step.why.code == code and not climb.is_ruled(site, "release", "quarantine"):
        climb.asks.append(Why("isolation-look-again", {"site": site}))


def _finding(climb: Climb, site: SiteId, step: Step) -> Finding | None:
    if step.level >= Level.SOFT and not step.enforced and climb.is_armed(site):
        return Finding.ARMED
    if climb.at >= step.until:
        return _end(climb, site, step)
    if step.judged or not _is_at_work(climb, site, step):
        return None
    if step.level not in (Level.SOFT, Level.CAP):
        return None
    if climb.at - step.since < climb.term(climb.policy.terms.trial_s):
        return None
    found = _trial(climb, site, step)
    if found is Finding.UNHELPFUL:
        return Finding.PARTED if step.also else found
    return gently(climb, site, _case(climb, step)) or found if found else None


def _is_at_work(climb: Climb, site: SiteId, step: Step) -> bool:
    """Whether it is what holds the site: of a step in whose place a person's word stands nothing can be learned."""
    return climb.holds(site, step) and not climb.is_ruled(site, "quarantine")


def _end(climb: Climb, site: SiteId, step: Step) -> Finding | None:
    if step.level is Level.CAP and min(shares(step).values()) < TIGHT:
        return Finding.LOOSEN
    terms = climb.policy.terms
    if step.level is Level.WATCH and (
        site in climb.before.signs or climb.is_ruled(site, "suspect")
    ):
        _prolong(climb, site, step, terms.watch_s)
        return None
    held = step.level in (Level.SOFT, Level.CAP)
    if held and not climb.holds(site, step) and _is_suspect(climb, site, step.resource):
        _prolong(climb, site, step, terms.soft_s)  # were it held, it would be another step
        return None
    return Finding.OVER


def _prolong(climb: Climb, site: SiteId, step: Step, by_s: float) -> None:
    """What holds nothing goes on for as long as there is reason, a term at a time."""
    until = climb.at + climb.term(by_s)
    climb.settle(site, msgspec.structs.replace(step, until=until))


def _is_suspect(climb: Climb, site: SiteId, resource: Resource) -> bool:
    found = suspected(climb, resource) if resource in climb.before.alarms else ()
    return bool(found) and found[0].site == site


def _trial(climb: Climb, site: SiteId, step: Step) -> Finding | None:
    """What a step did for its victims; None: what it should, or nothing more can be done, or known yet."""
    window, after_s = climb.before.window, _after_s(climb)
    if window[-1].at - window[0].at < after_s:
        return None
    fell = fall(step, window, after_s)
    climb.settle(site, msgspec.structs.replace(step, judged=True))
    if fell >= climb.policy.helped or step.resource not in climb.before.alarms:
        return None
    if not _bit(climb, site, step):
        tightest = step.level is Level.CAP and step.share <= TIGHTER
        return Finding.UNHELPFUL if tightest else Finding.UNBITTEN
    if fell < climb.policy.unhelped:
        return Finding.UNHELPFUL
    return Finding.PARTLY if step.share > TIGHTER else None


def _after_s(climb: Climb) -> float:
    """What came before a step does not count in what it did, be its trial scaled as it may."""
    return min(AFTER_S, climb.term(climb.policy.terms.trial_s) / 3)


def _bit(climb: Climb, site: SiteId, step: Step) -> bool:
    """Whether the site takes less than it did: of a step that does not hold nothing can be learned."""
    signs = climb.signals.sites.get(site)
    if signs is None:
        return True
    # Memory goes back slowly: a twentieth of it in a trial is a step that holds.
    least = 0.95 if step.resource is Resource.MEMORY else 1 - climb.policy.bitten
    return taken(signs, step.resource) <= step.use * least


def _danger(climb: Climb, site: SiteId, step: Step) -> Case | None:
    """A memory stall or a storm of forks that a cap did not end."""
    if not (_is_at_work(climb, site, step) and step.level in (Level.CAP, Level.ISOLATE)):
        return None
    if _endangers(climb, site, step.resource, step.since):
        return _case(climb, step)
    for resource, part in step.also.items():
        if _endangers(climb, site, resource, part.since):
            stall = latest(climb.before.window, resource, _after_s(climb))
            return Case(resource=resource, nature=step.nature, stall=stall)
    return None


def _endangers(climb: Climb, site: SiteId, resource: Resource, since: float) -> bool:
    if not climb.may_act(resource) or resource not in climb.before.alarms:
        return False
    if climb.at - since < climb.policy.danger_s:
        return False
    if is_endangered(climb, resource):
        return True
    signs = climb.signals.sites.get(site)
    return resource is Resource.TASKS and signs is not None and signs.tasks_refused > 0


def _case(climb: Climb, step: Step) -> Case:
    after_s = _after_s(climb)
    stall = latest(climb.before.window, step.resource, after_s)
    fell = fall(step, climb.before.window, after_s)
    return Case(
        resource=step.resource,
        nature=step.nature,
        stall=max(stall, step.before),
        fell=max(0.0, fell),
    )
