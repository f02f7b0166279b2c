"""Durations as people write and read them: 90s, 30m, 2h, 1d, 1h30m."""

import re

import click

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
WRITTEN = re.compile(r"(?:[0-9]{1,6}(?:\.[0-9]{1,3})?[smhd])+")
PART = re.compile(r"([0-9.]+)([smhd])")


class Duration(click.ParamType[float]):
    """Seconds, from `2h` and the like, up to `most_s`."""

    name = "duration"

    def __init__(self, most_s: float) -> None:
        self.most_s = most_s

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return float(value)
        text = str(value).strip().lower()
        seconds = sum(float(n) * UNITS_S[unit] for n, unit in PART.findall(text))
        if not WRITTEN.fullmatch(text) or seconds <= 0:
            self.fail(f"{text!r} is no duration; write it like 90s, 30m, 2h or 1d", param, ctx)
        if seconds > self.most_s:
            self.fail(
                f"{text!r} is more than {shown(self.most_s)}, the longest there is", param, ctx
            )
        return seconds


def shown(seconds: float | None) -> str:
    """The two largest units at most: `1.2 s`, `4 min 12 s`, `3 h 5 min`, `2 d 4 h`; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole, 60, "min", 1, "s")
    if whole < 86_400:
        return _two(whole, 3600, "h", 60, "min")
    return _two(whole, 86_400, "d", 3600, "h")


def _two(whole: int, large: int, large_name: str, small: int, small_name: str) -> str:
    rest = whole % large // small
    return f"{whole // large} {large_name}" + (f" {rest} {small_name}" if rest else "")
