"""The past of a site's use as people read it: a line of bars for each measure, and what nobody saw left out of them."""

from collections.abc import Callable, Iterator, Sequence

from rich.console import RenderableType

from cli.capanswers import PastStep, SitePast, Spread
from cli.durations import shown
from cli.tables import BARS, facts, plain, size, table, when

WIDTH = 28  # of the bars: the numbers beside them fill 80 columns
UNSEEN = "·"
GAPS_SHOWN = 3
MEASURES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("CPU", "cpu_cores", lambda it: f"{it:.2f}"),
    ("memory", "memory_bytes", lambda it: size(int(it))),
    ("reads/s", "read_bytes_per_s", lambda it: size(int(it))),
    ("writes/s", "write_bytes_per_s", lambda it: size(int(it))),
    ("processes", "tasks", lambda it: f"{it:.0f}"),
    ("requests/s", "requests_per_s", lambda it: f"{it:.1f}"),
)


def past(of: SitePast) -> list[RenderableType]:
    """What a site used from then till then, average, percentile and greatest, and how long it was at a cap."""
    seen_s, shadow_s = of.overall.seen_s, of.overall.shadow_s
    span_s = of.until - of.since
    parts: list[RenderableType] = [
        facts(
            ("site", f"{of.site}, on {of.host}"),
            ("from", f"{when(of.since)} to {when(of.until)}, in steps of {shown(of.step_s)}"),
            ("seen", f"{min(seen_s / span_s, 1):.0%} of the time{_begins(of)}"),
            ("not seen", _gaps(of)),
            ("at a cap", _at_cap(of) if seen_s else ""),
            ("would have", f"been held for {_minutes(shadow_s)}" if shadow_s else ""),
            ("only", "an estimate, from its access log" if of.attachment == "log" else ""),
        )
    ]  # fmt: skip
    if not seen_s:
        return [*parts, "", plain(f"{of.host} has seen nothing of it in this time.")]
    p95 = ">P95 ≈" if of.p95_estimated else ">P95"
    parts += ["", table("USE", "WHEN", ">AVERAGE", p95, ">MAX", rows=_rows(of))]
    parts.append(plain(f"Bars are averages, from zero to their greatest; {UNSEEN} is not seen."))
    if of.p95_estimated:
        parts.append(plain("≈ is made of the 95th percentiles of five minutes each."))
    return parts


def _rows(of: SitePast) -> Iterator[tuple[str, ...]]:
    for name, field, said in MEASURES:
        spread: Spread | None = getattr(of.overall, field)
        if spread is None:
            yield name, "not known", "", "", ""
            continue
        numbers = (spread.average, spread.p95, spread.max)
        yield name, _bars(of.steps, field), *map(said, numbers)


def _told(steps: Sequence[PastStep], field: str) -> list[tuple[Spread, float]]:
    """What is known of it, each with how long the site was seen."""
    found = ((getattr(step, field), step.seen_s) for step in steps)
    return [(spread, seen_s) for spread, seen_s in found if spread is not None and seen_s > 0]


def _mean(told: Sequence[tuple[Spread, float]]) -> float:
    total_s = sum(seen_s for _, seen_s in told)
    return sum(spread.average * seen_s for spread, seen_s in told) / total_s


def _bars(steps: Sequence[PastStep], field: str) -> str:
    """WIDTH of them at most, each of as many steps."""
    each = -(-len(steps) // WIDTH)
    groups = [_told(steps[n : n + each], field) for n in range(0, len(steps), each)]
    means = [_mean(told) if told else None for told in groups]
    top = max((mean for mean in means if mean is not None), default=0.0)
    return "".join(UNSEEN if mean is None else _bar(mean, top) for mean in means)


def _bar(value: float, top: float) -> str:
    """The lowest one is a line, so that zero is told from nothing."""
    steps = BARS[1:]
    return steps[round(value / top * (len(steps) - 1))] if top > 0 else steps[0]


def _begins(of: SitePast) -> str:
    if of.seen_since is None:
        return f"; {of.host} has no record of it"
    if of.seen_since <= of.since:
        return ""
    return f"; {of.host} has it since {when(of.seen_since)}"


def _gaps(of: SitePast) -> str:
    """The longest stretches of whole steps after its record began, oldest first."""
    begin = max(of.since, of.seen_since or of.until)
    gaps: list[tuple[float, float]] = []
    for step in of.steps:
        end = min(step.at + of.step_s, of.until)
        if step.seen_s > 0 or step.at < begin:
            continue
        if gaps and gaps[-1][1] == step.at:
            gaps[-1] = (gaps[-1][0], end)
        else:
            gaps.append((step.at, end))
    longest = sorted(sorted(gaps, key=lambda gap: gap[0] - gap[1])[:GAPS_SHOWN])
    more = f" and {len(gaps) - GAPS_SHOWN} more" if len(gaps) > GAPS_SHOWN else ""
    said = ", ".join(f"{when(start)} for {shown(end - start)}" for start, end in longest)
    return said + more


def _at_cap(of: SitePast) -> str:
    seconds = of.overall.at_cap_s
    return "not known" if seconds is None else f"{_minutes(seconds)} of {of.plan}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min"
