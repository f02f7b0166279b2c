"""Medians, percentiles and rows: how every benchmark says what it found beside what it should reach."""

import platform
import statistics
from collections.abc import Sequence

import psutil


def machine() -> str:
    """The machine a figure was taken on: figures of different ones do not compare."""
    memory = psutil.virtual_memory().total >> 30
    return f"{platform.python_version()}, Linux {platform.release()}, {psutil.cpu_count()} CPUs, {memory} GiB"


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: with 30 values, p99 is the largest."""
    ranked = sorted(values)
    rank = max(1, -(-len(ranked) * percent // 100))
    return ranked[int(rank) - 1]


def spread(values: Sequence[float]) -> str:
    """min / median / p99 / max of some seconds."""
    return (
        f"min {min(values):.3f}  p50 {statistics.median(values):.3f}  "
        f"p99 {percentile(values, 99):.3f}  max {max(values):.3f}  (n={len(values)})"
    )


def seconds(
    what: str, values: Sequence[float], *, p50: float | None = None, p99: float | None = None
) -> None:
    """The row of a series of seconds, and its spread; its goals are for the median and the 99th percentile."""
    goals = [f"{name} <= {goal:g} s" for name, goal in (("p50", p50), ("p99", p99)) if goal]
    reached = (p50 is None or statistics.median(values) <= p50) and (
        p99 is None or percentile(values, 99) <= p99
    )
    row(what, spread(values), ", ".join(goals), reached=reached)


def none(what: str, found: int, of: str) -> None:
    """The row of something that must not happen; `of` says how often it could have."""
    row(what, f"{found} of {of}", "0", reached=found == 0)


def row(what: str, found: str, goal: str, *, reached: bool) -> None:
    """One line of a benchmark's table; a missed goal says so, it does not hide. No `goal`: told for information."""
    verdict = "-   " if not goal else "ok  " if reached else "MISS"
    print(f"  {verdict}  {what:<44} {found:<34} {goal and f'goal {goal}'}", flush=True)
