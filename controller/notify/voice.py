"""One language in which people are told: sentences of the notices' catalogue, reasons, addresses of pages."""

import re
from dataclasses import dataclass

from fleet.model import Why
from runtime.words import catalogue, explain

DOMAIN = "notices"
WIDE = 160  # characters of a subject


@dataclass(frozen=True, slots=True)
class Voice:
    """One language. `base` is where people reach this controller, "" where nobody has said."""

    language: str
    controller: str
    base: str = ""

    def t(self, sentence: str, **values: object) -> str:
        """A translation that can't be filled is none: the English one is told."""
        try:
            return catalogue(DOMAIN, self.language).gettext(sentence).format_map(values)
        except (LookupError, ValueError):
            return sentence.format_map(values)

    def n(self, one: str, many: str, count: int, **values: object) -> str:
        """As `t`, by number; `{n}` is the count."""
        named = {"n": count, **values}
        try:
            return catalogue(DOMAIN, self.language).ngettext(one, many, count).format_map(named)
        except (LookupError, ValueError):
            return (one if count == 1 else many).format_map(named)

    def why(self, why: Why) -> str:
        return explain(why, self.language)

    def link(self, path: str) -> str:
        return f"{self.base}/ui{path}" if self.base else ""


def plain(text: str, most: int = WIDE) -> str:
    """One line without control characters: what people typed as a reason can hold anything."""
    line = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())
    return line if len(line) <= most else line[: most - 1] + "…"
