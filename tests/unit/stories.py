"""Told stories for the pure decisions: events on the left, what relevo decides on the right.

A story declares a small co-op, then says what happens at which second. It is played in rounds of 0.1 s through
judge -> propose -> guard -> what would be committed; every change is a line of its own, so nothing is left untold.
"""

from collections.abc import Iterator

from failover.guards import Guarded, spent_causes
from failover.plan import returns
from fleet.model import Budget, Why
from tests.unit.storyworld import World

ROUND_S = 0.1
LEFT = 46  # column of the arrow


def round_(world: World, known: set[str]) -> list[str]:
    """Play one round; gives the lines that are new. `known`: what stood after the last round, brought up to date."""
    before = world.verdicts
    situation, plan = world.plan()
    said = [
        f"{host} is {verdict.kind.value}: {words(verdict.why)}"
        for host, verdict in world.verdicts.items()
        if host not in before
        or (before[host].kind, before[host].why.code) != (verdict.kind, verdict.why.code)
    ]
    if not before and all(verdict.why.code == "answers" for verdict in world.verdicts.values()):
        said = ["every host is up"]
    standing: set[str] = set()
    for guarded in plan:
        said += _done(guarded)
        for line in _not_done(guarded):
            if line not in known:
                said.append(line)
            standing.add(line)
        world.commit(guarded)
    for edge in returns(situation, world.policy, world.now):
        world.withdrawn.discard(edge)
        said.append(f"give edge {edge} its addresses back")
    said += [f"no longer: {line}" for line in sorted(known - standing)]
    known.clear()
    known |= standing
    if any(guarded.spends for guarded in plan):
        paid = len(spent_causes(Budget(spent=world.spent), world.now))
        allowed = world.policy.causes_allowed(len(world.hosts))
        said.append(f"causes this hour: {paid} of {allowed}")
    return said


def _done(guarded: Guarded) -> Iterator[str]:
    for move in guarded.moves:
        yield f"move {move.site}: {move.source} to {move.target} ({guarded.proposal.cause.verdict})"
    if guarded.withdraw is True:
        yield f"take edge {guarded.proposal.cause.host} out of DNS"


def _not_done(guarded: Guarded) -> Iterator[str]:
    for move in guarded.would:
        yield f"would move {move.site}: {move.source} to {move.target}, but is only observing"
    for held in guarded.held:
        target = f" (for {held.target})" if held.target else ""
        yield f"hold {held.site} at {held.source}{target}: {words(held.why)}"
    if isinstance(guarded.withdraw, Why):
        yield f"hold edge {guarded.proposal.cause.host} in DNS: {words(guarded.withdraw)}"


def words(why: Why) -> str:
    """`silent (silence 1.5 s)`: the code and its values, as the catalogues get them."""
    values = []
    for name, value in why.values.items():
        label, unit = name.removesuffix("_s"), " s" if name.endswith("_s") else ""
        number = f"{value:g}" if isinstance(value, float) else str(value)
        values.append(f"{label.replace('_', ' ')} {number}{unit}")
    text = why.code.replace("-", " ")
    return f"{text} ({', '.join(values)})" if values else text


def told(text: str) -> str:
    """The whole story with its right-hand side made anew from the events on its left."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line[:1] == " ")
    world, out, known = World(), lines[:start], set[str]()
    for line in out:
        if line and not line.startswith("#"):
            world.declare(line.split())
    ticks = 0
    for line in lines[start:]:
        left, _, _ = line.partition("->")
        at, _, events = left.strip().partition(" ")
        if not events.strip():
            continue
        due = round(float(at) / ROUND_S)
        while ticks < due:
            out += _lines(ticks, "", round_(world, known))
            ticks += 1
            world.now = round(ticks * ROUND_S, 1)
        for event in events.strip().split("; "):
            world.happen(event.split())
        out += _lines(ticks, events.strip(), round_(world, known))
        ticks += 1
        world.now = round(ticks * ROUND_S, 1)
    return "\n".join(line.rstrip() for line in out) + "\n"


def _lines(ticks: int, events: str, said: list[str]) -> list[str]:
    left = f"{ticks * ROUND_S:6g}  {events}"
    if not said:
        return [left] if events else []
    first = f"{left:<{LEFT}} -> {said[0]}"
    return [first, *(f"{'':<{LEFT}} -> {more}" for more in said[1:])]
