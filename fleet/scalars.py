"""What an unquoted word of YAML means, where all readers agree; where they do not, it must be quoted."""

import math
import re

Scalar = str | int | float | bool | None

NULL = frozenset({"", "~", "null", "Null", "NULL"})
TRUE = frozenset(w for word in ("true", "yes", "on") for w in (word, word.title(), word.upper()))
FALSE = frozenset(w for word in ("false", "no", "off") for w in (word, word.title(), word.upper()))
INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
# Readers of YAML 1.1 and 1.2 disagree about these: octal, hexadecimal, base 60, digit groups, numbers too long.
ODD = re.compile(
    r"[-+]?(?:0[0-9_]+|0[xob][0-9A-Fa-f_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+|[0-9]+_[0-9_]*|[0-9]{19,})"
)
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
ENDLESS = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def resolve(text: str) -> Scalar:
    """What an unquoted scalar means. Raises ValueError where readers of YAML disagree."""
    if text in NULL:
        return None
    if text in TRUE or text in FALSE:
        return text in TRUE
    if text[0] not in "+-.0123456789":
        return text
    if INT.fullmatch(text):
        return int(text)
    if ODD.fullmatch(text):
        raise ValueError("is one number to some readers of YAML and another, or text, to others")
    if ENDLESS.fullmatch(text):
        raise ValueError("is not a number that can be used")
    if FLOAT.fullmatch(text):
        if not math.isfinite(number := float(text)):
            raise ValueError("is not a number that can be used")
        return number
    return text


def is_text(text: str) -> bool:
    """Whether an unquoted `text` is text to every reader."""
    try:
        return isinstance(resolve(text), str)
    except ValueError:
        return False
