"""What is wrong with a fleet, where, and what to do about it."""

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import msgspec

Path = tuple[str | int, ...]

SHOWN_CHARS = 60  # a value is shown to be recognised, not to be read


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong at one place of the fleet. `value` is as it was written, None where there is none."""

    path: Path
    message: str
    value: str | None = None
    remedy: str = ""

    @property
    def field(self) -> str:
        """The place as people write it: `sites.huerto.standbys[1]`."""
        return dotted(self.path)

    def __str__(self) -> str:
        place = f"{self.field}: " if self.path else ""
        value = f"{shown(self.value)} " if self.value is not None else ""
        return f"{place}{value}{self.message}" + (f"; {self.remedy}" if self.remedy else "")


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """`problems` forbid the fleet; `warnings` are for people to weigh."""

    problems: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()


def dotted(path: Path) -> str:
    parts = (f"[{p}]" if isinstance(p, int) else f".{shown_key(p)}" for p in path)
    return "".join(parts).removeprefix(".")


def shown_key(key: str) -> str:
    """A key on one line, short."""
    text = key if key.isprintable() else repr(key)[1:-1]
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"


def shown(value: str) -> str:
    """`value` in quotes, on one line, short."""
    return repr(value if len(value) <= SHOWN_CHARS else value[: SHOWN_CHARS - 1] + "…")


@dataclass(slots=True)
class Suggestions:
    """Nearest known words. Comparing is slow, so only the first `left` different misses are looked up."""

    left: int = 40
    known: dict[tuple[str, str], str] = field(default_factory=dict)

    def __call__(
        self, word: str, words: Collection[str], *, among: str, otherwise: str = ""
    ) -> str:
        """`did you mean 'x'?`, or `otherwise`; `among` names the set of `words`."""
        if (among, word) not in self.known:
            if self.left == 0 or len(word) > SHOWN_CHARS:
                return otherwise
            self.left -= 1
            self.known[among, word] = nearest(word, words)
        found = self.known[among, word]
        return f"did you mean {shown(found)}?" if found else otherwise


def nearest(word: str, words: Iterable[str]) -> str:
    """The most similar of `words`, or nothing if none is near."""
    folded = {w.casefold(): w for w in words}
    close = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else ""
