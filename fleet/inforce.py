"""What is in force for each site, by what people armed: from when, and what holds in the place of its plan's numbers.

Pure; what people may say of it is in fleet.enforcement.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

import msgspec

from fleet.caps import Cap, Enforcement, Held, Turn, armed
from fleet.model import Caps, HostId, Plan, PlanId, SiteId

C = TypeVar("C", bound=Caps)
FIELDS = Caps.__struct_fields__


def edition(caps: Caps) -> str:
    """A name for these numbers."""
    return sha256(msgspec.json.encode(caps)).hexdigest()[:16]


def loosest(one: C, other: C) -> C:
    """Of each cap what leaves a site more; all relations that must hold within either hold within it."""
    most = {name: _looser(getattr(one, name), getattr(other, name)) for name in FIELDS}
    return msgspec.structs.replace(one, **most)


def stricter(old: Caps, new: Caps) -> tuple[str, ...]:
    """The caps by which `new` leaves a site less than `old`."""
    both = loosest(old, new)
    return tuple(name for name in FIELDS if getattr(both, name) != getattr(new, name))


def _looser(one: Cap, other: Cap) -> Cap:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return tuple(map(max, one, other))  # type: ignore[return-value]  # both have four
    return max(one, other)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Force:
    """From when (Unix s) a site's caps hold, None: shadow; and what is `held` in the place of its plan's, oldest first.

    Told apart by identity: one Forces gives the same for equal words on one plan.
    """

    enforced_from: float | None = None
    held: tuple[Held, ...] = ()

    def is_on(self, now: float) -> bool:
        return self.enforced_from is not None and self.enforced_from <= now

    def caps(self, plan: Caps, now: float) -> Caps:
        """The plan's numbers that hold at `now`, or would."""
        return armed(plan, self.held, now)

    def waits(self, plan: Caps, now: float) -> tuple[str, ...]:
        """The caps of `plan` that are stricter than what holds at `now`."""
        return stricter(self.caps(plan, now), plan) if self.is_on(now) else ()


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one word says of a plan from `since`; rank 0 is the most specific. `edition` None: the plan as it is."""

    since: float
    rank: int
    edition: str | None


class Forces:
    """What is in force, site by site; equal words give the same object."""

    def __init__(self, words: Enforcement, plans: Mapping[PlanId, Plan]) -> None:
        self._words, self._plans = words, plans
        self._known: dict[tuple[PlanId, tuple[_Piece, ...]], Force] = {}

    def of(self, site: SiteId, plan: PlanId, host: HostId) -> Force:
        """For `site` of `plan`, served on `host`."""
        pieces = tuple(_pieces(self._words, site, plan, host))
        key = plan, pieces
        if (known := self._known.get(key)) is None:
            known = self._known[key] = self._force(plan, pieces)
        return known

    def _force(self, plan: PlanId, pieces: tuple[_Piece, ...]) -> Force:
        if not pieces:
            return Force()
        steps: list[Held] = []
        for at in sorted({piece.since for piece in pieces}):
            begun = [piece for piece in pieces if piece.since <= at]
            rank = min(piece.rank for piece in begun)
            counts = max((p for p in begun if p.rank == rank), key=lambda piece: piece.since)
            step = Held(since=at, caps=self._instead(plan, counts.edition))
            if not steps or steps[-1].caps != step.caps:
                steps.append(step)
        begins = min(piece.since for piece in pieces)
        return Force(enforced_from=begins, held=tuple(steps) if any(s.caps for s in steps) else ())

    def _instead(self, plan: PlanId, edition: str | None) -> dict[str, Cap]:
        """What of an edition is looser than the plan as it is declared; an edition that is lost says nothing."""
        declared = self._plans.get(plan)
        was = self._words.editions.get(edition) if edition else None
        if declared is None or was is None or was == declared.caps:
            return {}
        return {name: getattr(was, name) for name in stricter(was, declared.caps)}


def _pieces(words: Enforcement, site: SiteId, plan: PlanId, host: HostId) -> Iterator[_Piece]:
    """What bears on a site, the most specific word first.

    Shadow ends the list, and so does a word on this plan. Nothing that was armed before a wider shadow was said counts:
    who stops a host's caps, or all, does not have to know what is armed within. Nor does who arms them again, from
    when it counts again.
    """
    turns = words.sites.get(site), words.plans.get(plan), words.hosts.get(host), words.all
    shadows = [_shadow(turn) for turn in turns if turn is not None]

    def begins(since: float, said: float) -> float:
        return max([since, *(until for stopped, until in shadows if said < stopped)])

    # Before its own date a scope that only watched goes on to, whatever is armed around it.
    own = 0.0
    for rank, turn in enumerate(turns):
        if turn is None:
            continue
        if turn.since is None:
            return
        begun, renewed = max(own, begins(turn.since, turn.said)), math.inf
        names = turn.editions is None or plan in turn.editions
        later = turn.renewed
        if later and plan in later.editions:
            renewed = max(own, begins(max(later.since, turn.since), max(later.said, turn.said)))
        if names and begun < renewed:
            edition = turn.editions[plan] if turn.editions is not None else None
            yield _Piece(begun, rank, edition)
        if later and renewed < math.inf:
            yield _Piece(renewed, rank, later.editions[plan])
        if names and not turn.inherits:
            if begun <= max(own, turn.since):
                return
            # One that a shadow put off, or stopped, leaves the time until then to the wider ones.
            own = max(own, turn.since)


def _shadow(turn: Turn) -> tuple[float, float]:
    """When a shadow was said, and until when it covers what was armed within it before; (0, ...): there was none."""
    return (turn.said, math.inf) if turn.since is None else (turn.stopped, turn.since)
