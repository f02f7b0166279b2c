"""Five-minute rows put together into longer steps, as a question about a site's past wants them. Pure."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from agent.usage.ledger import MEASURES, SLOT_S, Row
from agent.usage.whatif import weighted
from fleet.pastuse import PastRow, Spread

AtCap = Callable[[Row], float | None]
DIGITS = 3  # a thousandth of a core, as it is kept


def binned(rows: Iterable[Row], step_s: int, at_cap_s: AtCap) -> Iterator[PastRow]:
    """`rows` by the multiple of `step_s` in which they lie: they come oldest first, and so do the steps.

    A step has what was seen in it and no more. `at_cap_s`: how long a plan would have held the site, of a
    row; None: not known.
    """
    each = step_s // SLOT_S
    for number, found in groupby(rows, lambda row: row.slot // each):
        yield _together(number * step_s, tuple(found), at_cap_s)


def _together(at: int, rows: tuple[Row, ...], at_cap_s: AtCap) -> PastRow:
    capped = [seconds for row in rows if (seconds := at_cap_s(row)) is not None]
    return PastRow(
        at=at,
        seen_s=sum(row.seen_s for row in rows),
        shadow_s=sum(row.shadow_s for row in rows),
        at_cap_s=sum(capped) if capped else None,
        **{measure: _spread(measure, rows) for measure in MEASURES},
    )


def _spread(measure: str, rows: tuple[Row, ...]) -> Spread | None:
    """Weighted by the time that each row was seen, of those that know this measure."""
    told = [
        (summary, max(row.seen_s, 1.0))
        for row in rows
        if (summary := row.measures.get(measure)) is not None
    ]
    if not told:
        return None
    total_s = sum(seen_s for _, seen_s in told)
    average = sum(summary.average * seen_s for summary, seen_s in told) / total_s
    top = max(summary.max for summary, _ in told)
    p95 = weighted([(summary.p95, seen_s) for summary, seen_s in told], 0.95)
    return Spread(round(min(average, top), DIGITS), round(p95, DIGITS), round(top, DIGITS))
