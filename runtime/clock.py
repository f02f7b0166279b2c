"""Wall time, for people and for what outlives a process; everything else reads the event loop's clock."""

import time
from datetime import UTC, datetime


def wall() -> float:
    """Unix time in s."""
    return time.time()  # noqa: TID251 - the one place


def iso(at: float) -> str:
    """`at` (Unix s) as ISO 8601 in UTC, to the millisecond: 2026-11-21T04:05:06.789Z."""
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
