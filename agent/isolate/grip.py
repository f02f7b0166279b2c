"""What a step takes of each resource: one squeeze may hold several, for who is held for one often turns to another.

A step above a cap takes no less than the cap did: what it is cut off from is another matter than what it uses.
"""

import msgspec

from agent.isolate.policy import CONTENDED
from agent.isolate.state import Part, Step
from fleet.caps import Level, Resource

TIGHT, TIGHTER = 0.5, 0.25  # of its plan


def shares(step: Step | None) -> dict[Resource, float]:
    """What a step leaves of the plan (0..1), by resource; empty below a cap."""
    if step is None or step.level < Level.CAP:
        return {}
    return {step.resource: step.share} | {on: part.share for on, part in step.also.items()}


def beside(old: Step | None, resource: Resource, *, least: float = 0.0) -> dict[Resource, Part]:
    """What of an old cap goes on beside a new one for `resource`; loosened to `least` where it is under it."""
    if old is None or old.level < Level.CAP:
        return {}
    parts = {**old.also, old.resource: Part(share=old.share, since=old.since, why=old.why)}
    return {
        on: msgspec.structs.replace(part, share=max(least, part.share))
        for on, part in parts.items()
        if on is not resource and part.share < 1
    }


def carried(old: Step | None, resource: Resource, *, proven: bool) -> float:
    """What a step above a cap leaves of `resource`: what was left before, or the least where it is `proven`."""
    return TIGHTER if proven else shares(old).get(resource, 1.0)


def parted(old: Step) -> Step:
    """`old` without what it was last for: the most dangerous of the rest leads, as it was judged before."""
    assert old.also
    leads = min(old.also, key=CONTENDED.index)
    part = old.also[leads]
    return msgspec.structs.replace(
        old,
        resource=leads,
        share=part.share,
        since=part.since,
        why=part.why,
        also={on: each for on, each in old.also.items() if on is not leads},
        before=0.0,
        use=0.0,
        judged=True,
    )


def is_harder(old: Step | None, new: Step) -> bool:
    """Whether more is held than before, or something else is; who goes down the ladder is held less of all."""
    if new.level < Level.SOFT or (old is not None and new.level < old.level):
        return False
    if old is None or new.level > old.level:
        return True
    was = shares(old)
    return any(share < was.get(on, 1.0) for on, share in shares(new).items())
