"""What a slice holds without us: where nobody speaks of a field it stays as it is, and what was there is given back.

Pure. A field is ours from the first word on it until what was there before is seen again; only such are written,
compared and repaired. What the others hold is noted at each look, so that it is known when one of them becomes ours.
"""

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from msgspec.structs import astuple, replace

from agent.caps.limits import FREE, IO_WEIGHT
from fleet.caps import IoLimit, Limits

QUOTA_RATIO = 0.001  # of what a period allows, 1 ms at least, one microsecond may be lost

N = TypeVar("N", int, int | None)


def without(held: Limits | None, ours: Collection[str], was: Limits | None) -> Limits:
    """What a slice would hold without us: of the fields that are `ours`, as noted; of the others as seen now.

    Of a slice that is not there what was noted; where nothing is known, nothing is held.
    """
    known = FREE if was is None else was
    if held is None:
        return known
    return replace(held, **{field: getattr(known, field) for field in ours})


def said(limits: Limits, says: Collection[str], was: Limits, *, milder: bool) -> Limits:
    """`limits` in the fields that it `says`, and what was there in all others; disks are told apart.

    Not `milder` (shadow): where the host was stricter it stays so.
    """
    found = {field: getattr(limits, field) for field in says}
    if "io" in found:
        found["io"] = {**was.io, **limits.io}
    if not milder:
        found = {field: STRICTER[field](getattr(was, field), found[field]) for field in found}
    return replace(was, **found)


def to_give_back(held: Limits | None, ours: Collection[str], was: Limits) -> frozenset[str]:
    """Of fields that are `ours`, and that nobody speaks of any more: those that do not hold what was there yet."""
    if held is None:
        return frozenset(ours)
    return frozenset(f for f in ours if not _is_back(f, getattr(held, f), getattr(was, f)))


def _is_back(field: str, now: object, was: object) -> bool:
    """What is told back may be rounded on its way: by systemd to its period, or to a weight of BFQ's."""
    if field == "io_weight":  # ours are 100 at most
        return now == was or now is None or (isinstance(now, int) and now > IO_WEIGHT)
    if field == "cpu_quota_us" and isinstance(now, int) and isinstance(was, int):
        return abs(now - was) <= was * QUOTA_RATIO
    return now == was


def _less(one: N, other: N) -> N:
    return other if one is None else one if other is None else min(one, other)


def _slower(one: Mapping[str, IoLimit], other: Mapping[str, IoLimit]) -> dict[str, IoLimit]:
    both = one.keys() & other.keys()
    least = {d: map(min, astuple(one[d]), astuple(other[d])) for d in both}
    fields = IoLimit.__struct_fields__
    return {
        **one,
        **other,
        **{d: IoLimit(**dict(zip(fields, least[d], strict=True))) for d in both},
    }


def _either(one: bool, other: bool) -> bool:
    return one or other


STRICTER: Mapping[str, Callable[..., object]] = {
    **dict.fromkeys(Limits.__struct_fields__, _less),
    "io": _slower,
    "egress_closed": _either,
    "frozen": _either,
}
