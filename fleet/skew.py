"""Releases side by side: agents and controllers are one release apart at most, for an upgrade takes days.

What keeps them understanding each other: messages only grow, by fields with a default, which an older peer does not
read, and by whole messages, which it ignores and counts. A field is never removed, never becomes necessary, and takes
no value that the release before does not know. A new cap is a field like any other: an older agent holds a site without
it, counts that and says so.
"""

from typing import get_args

import msgspec

from fleet.messages import FromAgent, FromController
from fleet.model import Caps

AGENTS = frozenset(str(kind.__struct_config__.tag) for kind in get_args(FromAgent))
CONTROLLERS = frozenset(str(kind.__struct_config__.tag) for kind in get_args(FromController))
KIND_MAX = 64


class _Kind(msgspec.Struct):
    type: str


class _Plans(msgspec.Struct):
    plans: dict[str, dict[str, msgspec.Raw]] = {}


_decoder = msgspec.json.Decoder(_Kind)
_plans = msgspec.json.Decoder(_Plans)


def unknown_kind(frame: bytes, known: frozenset[str]) -> str | None:
    """The type of a message that is none of the `known`, as a newer peer may send it; None for anything else.

    Asked about a frame that could not be decoded: a message of a known type that breaks its bounds is no newer one.
    """
    try:
        kind = _decoder.decode(frame).type
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None
    return kind if kind not in known and 0 < len(kind) <= KIND_MAX else None


def unknown_caps(orders: bytes) -> tuple[str, ...]:
    """The caps of a newer controller's plans that were left out of these orders, sorted. `orders` could be decoded."""
    named = {name for caps in _plans.decode(orders).plans.values() for name in caps}
    return tuple(sorted(named - {*Caps.__struct_fields__}))
