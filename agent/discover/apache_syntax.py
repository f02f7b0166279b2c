"""Apache's configuration as text: lines, sections, words, and what is filled into them.

Source: Apache HTTP Server 2.4, "Configuration Files", "Syntax of the Configuration Files".
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

DEPTH_LIMIT = 32  # sections in sections; real files have 4
OPENING = re.compile(r"<([A-Za-z]\w*)")
CLOSING = re.compile(r"</(\w+)\s*>")
# A quote means something only where a word begins.
WORD = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"?|'((?:[^'\\]|\\.)*)'?|(\S+))""", re.S)
EXPORT = re.compile(
    r"""^[ \t]*(?:export\s+)?(?::\s*\$\{)?([A-Za-z_]\w*):?=("[^"]*"|'[^']*'|[^\s;}]*)\}?""", re.M
)
TEXT_LIMIT = 64 << 10  # characters of a line with its variables filled in
ESCAPED = re.compile(r"""\\([\\"'])""")


@dataclass(frozen=True, slots=True)
class Directive:
    """`name` in lower case; `text` is the rest of its line, unsplit, since variables may bring several words.

    `inside`: what a section holds; None for a directive.
    """

    name: str
    text: str
    line: int
    inside: "tuple[Directive, ...] | None" = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """`troubles`: line and what was wrong there; the rest is read as well as can be."""

    directives: tuple[Directive, ...]
    troubles: tuple[tuple[int, str], ...] = ()


def parse(text: str) -> Parsed:
    """Never raises: what makes no sense is told and left out."""
    top: list[Directive] = []
    open_: list[tuple[Directive, list[Directive]]] = []
    troubles: list[tuple[int, str]] = []
    for number, line in _lines(text):
        here = open_[-1][1] if open_ else top
        if closing := CLOSING.match(line):
            name = closing[1].lower()
            if not open_ or open_[-1][0].name != name:
                troubles.append((number, f"</{closing[1]}> closes no section"))
                continue
            section, inside = open_.pop()
            outer = open_[-1][1] if open_ else top
            outer.append(replace(section, inside=tuple(inside)))
        elif opening := OPENING.match(line):
            if len(open_) == DEPTH_LIMIT:
                troubles.append((number, f"sections deeper than {DEPTH_LIMIT}: not read from here"))
                break
            said = line[opening.end() :].removesuffix(">").strip()
            open_.append((Directive(opening[1].lower(), said, number), []))
        else:
            name, _, rest = line.replace("\t", " ").partition(" ")
            here.append(Directive(name.lower(), rest.strip(), number))
    while open_:
        section, inside = open_.pop()
        troubles.append((section.line, f"<{section.name}> is never closed"))
        (open_[-1][1] if open_ else top).append(replace(section, inside=tuple(inside)))
    return Parsed(tuple(top), tuple(troubles))


def _lines(text: str) -> list[tuple[int, str]]:
    """Each with the number of its first; folded ones joined, comments and empty ones left out."""
    lines, folded, first = [], "", 0
    for number, line in enumerate(text.split("\n"), 1):
        first = first if folded else number
        if line.rstrip("\r").endswith("\\"):
            folded += line.rstrip("\r")[:-1]
            continue
        whole, folded = (folded + line).strip(), ""
        if whole and not whole.startswith("#"):
            lines.append((first, whole))
    if (whole := folded.strip()) and not whole.startswith("#"):
        lines.append((first, whole))
    return lines


def words(text: str) -> tuple[str, ...]:
    """The arguments in `text`, quotes removed."""
    return tuple(
        ESCAPED.sub(r"\1", double or single) if bare is None or not bare else bare
        for double, single, bare in WORD.findall(text.strip())
    )


def environment(text: str) -> dict[str, str]:
    """The variables that a shell's assignments in `text` give, where they are plain."""
    found: dict[str, str] = {}
    for name, value in EXPORT.findall(text):
        bare = value.strip("\"'")
        if "`" not in bare and "$(" not in bare:
            # Debian's envvars appends $SUFFIX, which is empty for the one ordinary instance.
            found[name] = re.sub(r"\$\{?\w+\}?", "", bare)
    return found


def filled(text: str, pattern: re.Pattern[str], value: Callable[[re.Match[str]], str]) -> str:
    """`text` with what `pattern` finds replaced; as it was where that would grow without end."""
    parts, at, length = [], 0, len(text)
    for found in pattern.finditer(text):
        parts += [text[at : found.start()], value(found)]
        at = found.end()
        length += len(parts[-1])
        if length > TEXT_LIMIT:
            return text
    return "".join([*parts, text[at:]])


def replaced(
    inside: tuple[Directive, ...], pattern: re.Pattern[str], values: dict[str, str]
) -> tuple[Directive, ...]:
    """A macro's lines with its arguments in them."""

    def fill(text: str) -> str:
        return filled(text, pattern, lambda found: values[found[0]])

    return tuple(
        Directive(
            fill(d.name),
            fill(d.text),
            d.line,
            None if d.inside is None else replaced(d.inside, pattern, values),
        )
        for d in inside
    )
