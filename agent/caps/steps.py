"""Memory goes down in steps: what of a limit can be set now."""

import msgspec

from agent.caps.limits import PAGE_BYTES
from fleet.caps import Limits
from fleet.units import format_bytes

MARGIN_BYTES = 4 << 20  # what a site may grow by between our look and our word
STEP_RATIO = 0.9
STEP_S = 5.0  # between two steps: 10 % in 5 s is what reclaim does without a stall


def in_steps(wanted: Limits, used_bytes: int | None, held: Limits | None = None) -> Limits:
    """What of `wanted` can be set now that `used_bytes` of memory are in use; None: nothing is.

    The maximum never goes under what is used, for setting it would free memory in the writer's own time, or kill. The
    high mark goes under it by a tenth at once: the caller comes again, and at the end it is `wanted`. What is `held` so
    already stays, also where more is in use: over the high mark a site is slowed, which is what it is for.
    """
    if not used_bytes:
        return wanted
    most, high = wanted.memory_max_bytes, wanted.memory_high_bytes
    if most is not None and (held is None or held.memory_max_bytes != most):
        most = max(most, _pages(used_bytes + MARGIN_BYTES) if used_bytes > most else 0)
    if high is not None and (held is None or held.memory_high_bytes != high):
        high = max(high, _pages(used_bytes * STEP_RATIO))
    return msgspec.structs.replace(wanted, memory_max_bytes=most, memory_high_bytes=high)


def short_of(wanted: Limits, now: Limits, used_bytes: int | None) -> tuple[str, ...]:
    """What is not reached yet, for people."""
    steps = (
        ("memory.high", wanted.memory_high_bytes, now.memory_high_bytes),
        ("memory.max", wanted.memory_max_bytes, now.memory_max_bytes),
    )
    return tuple(
        f"{name}: {_size(aim)} wanted, {_size(step)} for now, {_size(used_bytes)} in use"
        for name, aim, step in steps
        if aim != step
    )


def _size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "no limit"
    whole = size_bytes >> 20 << 20
    return str(format_bytes(whole or size_bytes))


def _pages(size_bytes: float) -> int:
    return int(size_bytes) // PAGE_BYTES * PAGE_BYTES
