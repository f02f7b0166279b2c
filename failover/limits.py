"""What the edges let through to one site: its plan, an override, penalties and a person's word, step by step in time.

No clock is read: every moment at which something begins or ends is known, and each edge follows the steps by its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from fleet.caps import OWNER, Held, Level, Override, Penalty, Ruling, armed, effective
from fleet.messages import LIMIT_MAX, EdgeLimit, LimitState
from fleet.model import Caps


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What a level leaves of a plan. `in_flight`, `client`: shares; `by_share`: the penalty's own share as well."""

    state: LimitState
    in_flight: float = 1.0
    client: float = 1.0
    by_share: bool = False
    because: str


HOLDS: Mapping[Level, Hold | None] = {
    Level.BASELINE: None,  # the plan
    Level.WATCH: None,  # looked at, never held
    Level.SOFT: Hold(
        state=LimitState.SLOWED,
        in_flight=0.5,
        client=0.5,
        because="HAProxy has no queue for a host in which one site could be last; half as many at a time comes near,"
        " and one crawler makes up most of what is too much",
    ),
    Level.CAP: Hold(
        state=LimitState.SLOWED,
        client=0.5,
        by_share=True,
        because="its host holds it to this share of its plan: more requests would only wait there",
    ),
    Level.ISOLATE: Hold(state=LimitState.CLOSED, because="nothing of it may harm its visitors"),
    Level.STOP: Hold(state=LimitState.CLOSED, because="its processes are ended"),
}
ORDERED_SHARE = 0.5  # of a CAP that a person orders: the ladder's own first step


def edge_limits(
    caps: Caps,
    *,
    override: Override | None = None,
    enforced_from: float | None = None,
    held: Sequence[Held] = (),
    penalties: Iterable[Penalty] = (),
    ruling: Ruling | None = None,
) -> tuple[EdgeLimit, ...]:
    """The steps of one site, oldest first, none overlapping; between them it is free.

    `enforced_from` (Unix s) turns the plan on, with what is `held` in the place of its numbers; None: shadow, in which
    only enforced penalties and what a person ordered hold. A person's word, be it a release or a quarantine, stands in
    the place of what relevo decided, and is taken from the store alone: what a host tells of it outlives it where that
    falls silent. The memory watchdog's relief is its host's alone: it takes nothing.
    """
    enforced = tuple(
        p
        for p in penalties
        if p.enforced and p.owner == OWNER and HOLDS[p.level] and not p.is_relief
    )
    moments = sorted({0.0, *_moments(override, enforced_from, held, enforced, ruling)})
    steps: list[EdgeLimit] = []
    for at, until in zip(moments, (*moments[1:], None), strict=True):
        stands = [p for p in enforced if p.since <= at < p.until and not _overruled(ruling, at)]
        ordered = _ordered(ruling, at)
        on = enforced_from is not None and enforced_from <= at
        if on or stands or ordered:
            shares = [*((p.level, p.share) for p in stands), *ordered]
            allowed = effective(armed(caps, held, at), override, at)
            step = _step(allowed, shares, on, at, until)
            _append(steps, step)
    return tuple(steps)


def in_force(steps: Sequence[EdgeLimit], now: float) -> EdgeLimit | None:
    """The step that `now` (Unix s) is in; None: free."""
    for step in steps:
        if step.since <= now and (step.until is None or now < step.until):
            return step
    return None


def _moments(
    override: Override | None,
    enforced_from: float | None,
    held: Iterable[Held],
    penalties: Iterable[Penalty],
    ruling: Ruling | None,
) -> Iterable[float]:
    notes = [word.note for word in (override, ruling) if word]
    times = [time for note in notes for time in (note.since, note.until)]
    times += [time for p in penalties for time in (p.since, p.until)]
    times += [each.since for each in held]
    if enforced_from is not None:
        times.append(enforced_from)
    return (time for time in times if time > 0)


def _overruled(ruling: Ruling | None, at: float) -> bool:
    return (
        ruling is not None
        and ruling.word in ("release", "quarantine")
        and ruling.note.since <= at < ruling.note.until
    )


def _ordered(ruling: Ruling | None, at: float) -> list[tuple[Level, float]]:
    """What a person holds it at: it needs no word of the site's host, which may be cut off or compromised."""
    if ruling is None or ruling.word != "quarantine" or HOLDS[ruling.level] is None:
        return []
    if not ruling.note.since <= at < ruling.note.until:
        return []
    return [(ruling.level, ORDERED_SHARE if ruling.level is Level.CAP else 1.0)]


def _step(
    caps: Caps, shares: list[tuple[Level, float]], on: bool, at: float, until: float | None
) -> EdgeLimit:
    """The hardest of each, wherever it comes from; in shadow (not `on`), what no penalty takes from is free."""
    holds = [(hold, share) for level, share in shares if (hold := HOLDS[level])]
    state = max((hold.state for hold, _ in holds), key=_HARDEST.index, default=LimitState.OPEN)
    share = min((share for hold, share in holds if hold.by_share), default=1.0)
    in_flight = min((share, *(hold.in_flight for hold, _ in holds)))
    client = min((1.0, *(hold.client for hold, _ in holds)))

    def part(whole: float, left: float) -> float:
        return min(whole * left, LIMIT_MAX) if on or left < 1 else LIMIT_MAX

    return EdgeLimit(
        since=at,
        until=until,
        state=state,
        in_flight=_whole(part(caps.in_flight, in_flight)),
        queue=min(caps.queue, LIMIT_MAX),
        queue_wait_s=min(caps.queue_wait_s, LIMIT_MAX),
        requests_per_s=part(caps.requests_per_s, share),
        requests_burst=_whole(part(caps.requests_burst, share)),
        client_requests_per_min=_whole(part(caps.client_requests_per_min, client)),
    )


_HARDEST = (LimitState.OPEN, LimitState.SLOWED, LimitState.CLOSED)


def _whole(part: float) -> int:
    """Never nothing: a site that may do nothing is closed, and says so."""
    return max(1, int(part))


def _append(steps: list[EdgeLimit], step: EdgeLimit) -> None:
    """One step where nothing changes between two."""
    last = steps[-1] if steps else None
    if (
        last
        and last.until == step.since
        and last == msgspec.structs.replace(step, since=last.since, until=last.until)
    ):
        steps[-1] = msgspec.structs.replace(last, until=step.until)
    else:
        steps.append(step)
