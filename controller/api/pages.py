"""Lists in pages: a cursor names the last item that was told, so that changes of the list in between lose nothing.

What is in the list all the while is told once and only once; what comes or goes meanwhile is told at most once.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from controller.api.routes import Call

LIMIT_MOST = 1000  # of sites this is half a megabyte, and 30 ms of work
LIMIT = 100
CURSOR_CHARACTERS = 250  # twice the longest key
T = TypeVar("T")
P = TypeVar("P", bound="Paged")


class Paged(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`limit`: at most so many at once. `cursor`: the `next` of the page before."""

    limit: Annotated[int, Meta(ge=1, le=LIMIT_MOST)] = LIMIT
    cursor: Annotated[str, Meta(max_length=CURSOR_CHARACTERS, pattern="^(?:[0-9a-f]{2})*$")] = ""


def page(
    items: Iterable[T],
    key: Callable[[T], str],
    *,
    after: str | None,
    limit: int,
    falling: bool = False,
) -> tuple[tuple[T, ...], str | None]:
    """The first `limit` items whose key comes after `after`, and the last one's key if there are more.

    Keys are unique, and an item keeps its own. Sorted by them, the greatest first if `falling`.
    """
    keyed = [(key(item), item) for item in items]
    if after is not None:
        keyed = [pair for pair in keyed if (pair[0] < after if falling else pair[0] > after)]
    keyed.sort(key=lambda pair: pair[0], reverse=falling)
    some = keyed[:limit]
    return tuple(item for _, item in some), some[-1][0] if len(keyed) > limit else None


def paged(
    call: Call[P, None], items: Iterable[T], key: Callable[[T], str], *, falling: bool = False
) -> tuple[tuple[T, ...], str | None]:
    """The page that was asked for, and the cursor of the next one; its address goes out as a Link (RFC 8288)."""
    query = call.query
    # Whatever was sent stands somewhere in the order: what is no key of ours begins there.
    after = bytes.fromhex(query.cursor).decode(errors="replace") if query.cursor else None
    some, last = page(items, key, after=after, limit=query.limit, falling=falling)
    if last is None:
        return some, None
    cursor = last.encode().hex()
    there = call.request.rel_url.update_query(cursor=cursor)
    call.headers["Link"] = f'<{there}>; rel="next"'
    return some, cursor
