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


def row(what: str, found: str, goal: str, *, reached: bool) -> None:
    """One line of a benchmark's table; a missed goal says so, it does not hide."""
    print(f"  {'ok  ' if reached else 'MISS'}  {what:<44} {found:<34} goal {goal}")
