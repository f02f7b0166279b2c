"""A question about one site's past, and its host's answer: five-minute roll-ups, put together in longer steps."""

from typing import Annotated

import msgspec
from msgspec import Meta

from fleet.model import NAME, Count, PlanId, SiteId

# A chart has no room for more, and so many are 110 kB: a beat behind them waits 45 ms on a line of 20 Mbit/s.
ROWS_MAX = 300
# A host keeps rows of the first; what is longer is put together from them. Each divides a day.
STEPS_S = (300, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
KEPT_S = 40 * 86_400.0

Instant = Annotated[float, Meta(ge=0, le=1e11)]  # Unix s
Most = Annotated[float, Meta(ge=0, le=1e15)]
Span = Annotated[
    float, Meta(ge=0, le=1e6)
]  # s within one step, and what clocks that were set add to it


class Spread(msgspec.Struct, frozen=True, array_like=True):
    """Of one measure in one step. `p95` of a step of several rows: the 95th percentile of theirs, by time seen."""

    average: Most
    p95: Most
    max: Most


class PastRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step from `at` (Unix s), of which the site was seen for `seen_s`; None: not known, which is not zero.

    `shadow_s`: how long its caps or a penalty would have held it and did not. `at_cap_s`: how long the plan that was
    asked about would have, as far as it was compared with it.
    """

    at: Instant
    seen_s: Span
    shadow_s: Span = 0.0
    at_cap_s: Span | None = None
    cpu_cores: Spread | None = None
    memory_bytes: Spread | None = None
    read_bytes_per_s: Spread | None = None
    write_bytes_per_s: Spread | None = None
    tasks: Spread | None = None
    requests_per_s: Spread | None = None


class PastAsked(msgspec.Struct, frozen=True, kw_only=True, tag="past-asked"):
    """How was `site`, from `since` until before `until`, in steps of one of STEPS_S that begin at its multiples?

    `number` is the controller's own, and comes back with the answer.
    """

    number: Count
    site: SiteId
    since: Instant
    until: Instant
    step_s: Annotated[int, Meta(ge=STEPS_S[0], le=STEPS_S[-1])]
    plan: PlanId


class PastTold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="past-told"):
    """The steps in which the site was seen, oldest first. `first`: when this host's rows begin; None: it has none.

    `error`: why there is no answer.
    """

    number: Count
    site: Annotated[SiteId, Meta(pattern=NAME)]
    first: Instant | None = None
    rows: Annotated[tuple[PastRow, ...], Meta(max_length=ROWS_MAX)] = ()
    error: Annotated[str, Meta(max_length=500)] = ""


def step_for(since: float, until: float, at_least_s: float = 0.0) -> int:
    """The shortest of STEPS_S from `at_least_s` on of which ROWS_MAX go from `since` to `until`; else the longest."""
    fits = (s for s in STEPS_S if s >= at_least_s and until // s - since // s + 1 <= ROWS_MAX)
    return next(fits, STEPS_S[-1])
