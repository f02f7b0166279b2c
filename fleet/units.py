"""Bytes as people write them, in both families of units: `512 MiB` and `5 GB`."""

import re

UNITS = {
    "TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10,
    "TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3, "B": 1,
}  # fmt: skip
QUANTITY = re.compile(r"([0-9]{1,15}) ?([KMGT]iB|[kMGT]?B)")


def is_size(field: str) -> bool:
    """Whether a field of that name counts bytes."""
    return "_bytes" in field


def parse_bytes(text: str) -> int:
    """Raises ValueError, with the remedy."""
    if found := QUANTITY.fullmatch(text):
        return int(found[1]) * UNITS[found[2]]
    raise ValueError(f"write a number of bytes, or one with a unit: {', '.join(UNITS)}")


def format_bytes(number: int) -> str | int:
    """The shortest exact writing; a bare number where no unit makes it shorter."""
    written = [
        f"{number // size} {unit}"
        for unit, size in UNITS.items()
        if size > 1 and number % size == 0
    ]
    best = min(written, key=len, default="")
    return best if number and best and len(best) < len(str(number)) else number
