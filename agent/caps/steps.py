"""Memory goes down in steps: what of a limit can be set now."""

from dataclasses import dataclass

import msgspec

from agent.caps.limits import PAGE_BYTES
from fleet.caps import Limits
from fleet.model import Why
from fleet.units import format_bytes

MARGIN_BYTES = 4 << 20  # what a site may grow by between our look and our word
STEP_RATIO = 0.9
STEP_S = 5.0  # between two steps: 10 % in 5 s is what reclaim does without a stall


@dataclass(frozen=True, slots=True, kw_only=True)
class InUse:
    """Memory of a slice: all of it, and what of it are pages of files, which reclaim frees without swap."""

    all_bytes: int
    file_bytes: int = 0


class Steps:
    """When each slice's high mark went under what it used: that is a step, and the next one comes STEP_S later."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def next(
        self, slice: str, wanted: Limits, used: InUse | None, held: Limits | None, now: float
    ) -> Limits:
        """`in_steps`, however often it is asked; `now` is the loop's time."""
        rested = now - self._at.get(slice, -STEP_S) >= STEP_S
        step = in_steps(wanted, used, held, rested=rested)
        high = step.memory_high_bytes
        if rested:
            self._at.pop(slice, None)
            if used and high is not None and high < used.all_bytes:
                self._at[slice] = now
        return step


def in_steps(
    wanted: Limits, used: InUse | None, held: Limits | None = None, *, rested: bool = True
) -> Limits:
    """What of `wanted` can be set now that so much memory is in use; None: nothing is.

    The maximum never goes under what is used, for setting it would free memory in the writer's own time, or kill. The
    high mark goes under it by a tenth at a time, and not before it is `rested`: the caller comes again, and at the end
    it is `wanted`. Where none is, without swap, it helps the maximum down while there are pages of files to free.
    Nothing goes over what is `held` on its way down: a site that grows as it is squeezed gains nothing.
    """
    if used is None or not used.all_bytes:
        return wanted
    most, high = wanted.memory_max_bytes, wanted.memory_high_bytes
    if most is not None and used.all_bytes > most:
        least = _pages(used.all_bytes + MARGIN_BYTES)
        most = _down(most, least, held.memory_max_bytes if held else None)
    mark = held.memory_high_bytes if held else None
    if rested:
        lowest = _pages(used.all_bytes * STEP_RATIO)
    else:
        lowest = used.all_bytes if mark is None else min(mark, used.all_bytes)
    if high is not None:
        high = _down(high, lowest, mark)
    elif wanted.memory_max_bytes is not None and most != wanted.memory_max_bytes:
        firm = _pages(used.all_bytes - used.file_bytes + MARGIN_BYTES)
        least = max(wanted.memory_max_bytes, firm, lowest)
        high = least if least < used.all_bytes or least == lowest else None
    return msgspec.structs.replace(wanted, memory_max_bytes=most, memory_high_bytes=high)


def _down(wanted: int, least: int, held: int | None) -> int:
    """As far as `least` lets it come, and not over what is `held`: up it goes at once."""
    return max(wanted, least if held is None else min(least, held))


def short_of(wanted: Limits, now: Limits, used: InUse | None) -> tuple[Why, ...]:
    """What is not reached yet."""
    steps = (
        ("memory.high", wanted.memory_high_bytes, now.memory_high_bytes),
        ("memory.max", wanted.memory_max_bytes, now.memory_max_bytes),
    )
    return tuple(_step(name, aim, step, used) for name, aim, step in steps if aim != step)


def _step(limit: str, wanted: int | None, now: int | None, used: InUse | None) -> Why:
    sizes = {"now": _size(now), "used": _size(used.all_bytes if used else None)}
    if wanted is None:
        return Why("cap-makes-room", {"limit": limit, **sizes})
    return Why("cap-in-steps", {"limit": limit, "wanted": _size(wanted), **sizes})


def _size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "?"
    whole = size_bytes >> 20 << 20
    return str(format_bytes(whole or size_bytes))


def _pages(size_bytes: float) -> int:
    return int(size_bytes) // PAGE_BYTES * PAGE_BYTES
