"""nginx's configuration as text: directives and blocks.

Source: nginx's ngx_conf_file.c, whose words these are. The libraries that read it open files themselves, unbounded.
"""

import re
from dataclasses import dataclass, replace

DEPTH_LIMIT = 64
# `{` ends a word unless it follows `$`; `}` and `#` do not end one. A quote means something only at a word's beginning.
TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
    |(?P<mark>[{};])
    |"(?P<double>(?:[^"\\]|\\.)*)"
    |'(?P<single>(?:[^'\\]|\\.)*)'
    |(?P<word>(?:\\.|\$\{?|[^\s;{}\#"'\\$])(?:\\.|\$\{?|[^\s;{\\$])*)""",
    re.S | re.X,
)
ESCAPED = re.compile(r"""\\(["'\\])""")


@dataclass(frozen=True, slots=True)
class Directive:
    """`inside`: what a block holds; None for a directive that ends with `;`."""

    name: str
    args: tuple[str, ...]
    line: int
    inside: "tuple[Directive, ...] | None" = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """`troubles`: line and what was wrong there; the rest is read as well as can be."""

    directives: tuple[Directive, ...]
    troubles: tuple[tuple[int, str], ...] = ()


def parse(text: str) -> Parsed:
    """Never raises: what makes no sense is told and left out."""
    reading = _Reading(text)
    reading.read()
    return Parsed(tuple(reading.top), tuple(reading.troubles))


class _Reading:
    def __init__(self, text: str) -> None:
        self.text = text
        self.top: list[Directive] = []
        self.troubles: list[tuple[int, str]] = []
        self.open: list[tuple[Directive, list[Directive]]] = []
        self.words: list[str] = []
        self.at = 0  # next character to read
        self.line = 1  # where it stands
        self.began = 1  # the line of the first of `words`

    def read(self) -> None:
        while self.at < len(self.text):
            found = TOKEN.match(self.text, self.at)
            if found is None:
                self.troubles.append((self.line, "a quote is never closed: not read from here"))
                break
            line = self._pass(found.end())
            if mark := found["mark"]:
                if not self._mark(mark, line):
                    break
            elif found["space"] is None:
                self._word(found, line)
        if self.words:
            self.troubles.append((self.began, f"{self.words[0][:60]} is not ended by ;"))
        while self.open:
            self.troubles.append((self.open[-1][0].line, "a block is never closed"))
            self._close()

    def _pass(self, end: int) -> int:
        """Move on to `end`; the line that was left."""
        line = self.line
        self.line += self.text.count("\n", self.at, end)
        self.at = end
        return line

    def _word(self, found: re.Match[str], line: int) -> None:
        if not self.words:
            self.began = line
        said = next(word for word in found.group("double", "single", "word") if word is not None)
        self.words.append(ESCAPED.sub(r"\1", said))

    def _mark(self, mark: str, line: int) -> bool:
        """Whether reading goes on."""
        name, *args = self.words or [""]
        directive = Directive(name, tuple(args), self.began if self.words else line)
        self.words = []
        if mark == ";":
            if name:
                self._here.append(directive)
        elif mark == "}":
            if name:
                self.troubles.append((directive.line, f"{name[:60]} is not ended by ;"))
            if self.open:
                self._close()
            else:
                self.troubles.append((line, "} closes no block"))
        elif name.endswith("_by_lua_block"):
            self._skip_program()
        elif len(self.open) == DEPTH_LIMIT:
            self.troubles.append((line, f"blocks deeper than {DEPTH_LIMIT}: not read from here"))
            return False
        else:
            self.open.append((directive, []))
        return True

    @property
    def _here(self) -> list[Directive]:
        return self.open[-1][1] if self.open else self.top

    def _close(self) -> None:
        block, inside = self.open.pop()
        self._here.append(replace(block, inside=tuple(inside)))

    def _skip_program(self) -> None:
        """Lua has its own words: only its braces are counted."""
        depth = 1
        while depth and (brace := re.compile(r"[{}]").search(self.text, self.at)):
            depth += 1 if brace[0] == "{" else -1
            self._pass(brace.end())
        if depth:
            self._pass(len(self.text))
