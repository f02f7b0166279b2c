"""YAML text as a tree that knows its lines, with limits: no aliases, no tags, bounded size and depth."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from fleet.findings import Finding, Path, shown_key
from fleet.scalars import Scalar, is_text, resolve

# A fleet of 10,000 sites is 3 MB, 350,000 nodes and 6 levels deep.
TEXT_LIMIT_BYTES = 16 << 20
NODES_LIMIT = 600_000
DEPTH_LIMIT = 16
LIST_LIMIT = 1000

# libyaml's parser where PyYAML was built with it: ten times as fast.
Loader: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)


@dataclass(slots=True)
class Node:
    """A value and where it stands, both counted from 1; a mapping or list stands where its key does."""

    line: int
    column: int
    value: "Scalar | dict[str, Node] | list[Node]"
    text: str = ""  # a scalar as it was written


@dataclass(frozen=True, slots=True)
class Located:
    """`covers`: nothing at or below the path can be judged any more."""

    finding: Finding
    line: int
    column: int
    covers: bool = True


@dataclass(slots=True)
class Tree:
    root: Node | None = None
    found: list[Located] = field(default_factory=list)


class Unreadable(Exception):
    """The text cannot be read on from here."""

    def __init__(self, line: int, column: int, message: str, remedy: str = "", *, path: Path = ()):
        super().__init__(message)
        self.located = Located(Finding(path=path, message=message, remedy=remedy), line, column)


def compose(text: str) -> Tree:
    """Read one document. What is wrong with its form is in `found`; `root` is None where nothing could be read."""
    building = _Building()
    try:
        _refuse_unfit(text)
        for event in _events(text):
            building.take(event)
    except Unreadable as stop:
        building.tree.found.append(stop.located)
        building.tree.root = None
    return building.tree


def plain(node: Node) -> object:
    """The bare value: dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def _refuse_unfit(text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        line, column = position(text, error.start)
        raise Unreadable(line, column, "holds half a character", "save the file as UTF-8") from None
    if size > TEXT_LIMIT_BYTES:
        raise Unreadable(
            1, 1, f"the file has {size} bytes; {TEXT_LIMIT_BYTES} is the most that is read"
        )


def position(text: str, index: int) -> tuple[int, int]:
    """Line and column of a character, from 1."""
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)


def _events(text: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        raise _syntax(text, error) from None
    except yaml.reader.ReaderError as error:
        character = (
            error.character if isinstance(error.character, int) else ord(error.character[:1])
        )
        at = text.find(chr(character))
        line, column = position(text, max(at, 0))
        message = f"holds the control character U+{character:04X}"
        raise Unreadable(
            line, column, message, "remove it, or write it as an escape in quotes"
        ) from None


def _syntax(text: str, error: yaml.MarkedYAMLError) -> Unreadable:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    lines = text.split("\n")
    here = lines[line - 1] if line <= len(lines) else ""
    indent = here[: len(here) - len(here.lstrip())]
    remedy = "indent with spaces, not with tabs" if "\t" in indent else ""
    said = ", ".join(part for part in (error.context, error.problem) if part)
    return Unreadable(line, column, f"is not YAML: {said}", remedy)


class _Dropped:
    """The place of a key whose value is read over."""


DROPPED = _Dropped()


@dataclass(slots=True)
class _Frame:
    """A mapping or list being filled. `key`: the mapping's key that waits for its value."""

    node: Node
    key: str | _Dropped | None = None
    key_at: tuple[int, int] = (1, 1)

    @property
    def wants_key(self) -> bool:
        return isinstance(self.node.value, dict) and self.key is None

    @property
    def step(self) -> str | int:
        if isinstance(self.node.value, list):
            return len(self.node.value)
        return self.key if isinstance(self.key, str) else "?"


class _Building:
    """A tree under construction, one parser event at a time."""

    def __init__(self) -> None:
        self.tree = Tree()
        self.frames: list[_Frame] = []
        self.nodes = 0
        self.documents = 0

    def take(self, event: yaml.Event) -> None:
        assert event.start_mark is not None
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        match event:
            case yaml.ScalarEvent():
                self.count(line, column)
                self.scalar(event, line, column)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self.count(line, column)
                self.open(event, line, column)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self.attach(self.frames.pop().node)
            case yaml.AliasEvent():
                self.count(line, column)
                self.alias(f"*{event.anchor}", line, column)
                self.attach(Node(line, column, None))
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    raise Unreadable(
                        line, column, "a second document begins here", "one file, one fleet"
                    )

    def count(self, line: int, column: int) -> None:
        self.nodes += 1
        if self.nodes > NODES_LIMIT:
            raise Unreadable(line, column, f"the file holds more than {NODES_LIMIT} values")

    @property
    def path(self) -> Path:
        return tuple(frame.step for frame in self.frames)

    def find(self, line: int, column: int, message: str, value: str, remedy: str) -> None:
        finding = Finding(path=self.path, message=message, value=value, remedy=remedy)
        self.tree.found.append(Located(finding, line, column))

    def alias(self, value: str, line: int, column: int) -> None:
        self.find(
            line,
            column,
            "is an anchor or an alias, which fleet files do without",
            value,
            "write it out",
        )

    def marks(
        self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, line: int, column: int
    ) -> None:
        if event.anchor:
            self.alias(f"&{event.anchor}", line, column)
        if event.tag:
            self.find(
                line, column, "is a tag, which fleet files do without", event.tag, "remove it"
            )

    def open(self, event: yaml.CollectionStartEvent, line: int, column: int) -> None:
        if len(self.frames) == DEPTH_LIMIT:
            raise Unreadable(
                line, column, f"is nested deeper than {DEPTH_LIMIT} levels", path=self.path[:3]
            )
        self.marks(event, line, column)
        at = (line, column)
        if self.frames and isinstance(self.frames[-1].key, str):
            at = self.frames[-1].key_at
        if self.frames and self.frames[-1].wants_key:
            self.find(
                line,
                column,
                "has a mapping or a list where a key should be",
                "?",
                "use a name as the key",
            )
        empty: dict[str, Node] | list[Node] = (
            {} if isinstance(event, yaml.MappingStartEvent) else []
        )
        self.frames.append(_Frame(Node(*at, empty)))

    def scalar(self, event: yaml.ScalarEvent, line: int, column: int) -> None:
        if self.frames and self.frames[-1].wants_key:
            self.key(self.frames[-1], event, line, column)
            return
        self.marks(event, line, column)
        node = Node(line, column, event.value, event.value)
        if event.implicit[0]:
            try:
                node.value = resolve(event.value)
            except ValueError as error:
                remedy = "write it in decimal, or quote it if it is text"
                self.find(line, column, str(error), event.value, remedy)
        self.attach(node)

    def key(self, frame: _Frame, event: yaml.ScalarEvent, line: int, column: int) -> None:
        frame.key, frame.key_at = event.value, (line, column)
        self.marks(event, line, column)
        if event.implicit[0] and not is_text(event.value):
            text = event.value
            message = "is not text to YAML"
            remedy = f'quote it: "{shown_key(text)}"' if text else "give it a name"
            finding = Finding(path=self.path, message=message, value=text, remedy=remedy)
            self.tree.found.append(Located(finding, line, column, covers=False))
        assert isinstance(frame.node.value, dict)
        if (before := frame.node.value.get(event.value)) is not None:
            message = f"is there twice, first in line {before.line}"
            finding = Finding(path=self.path, message=message, remedy="keep one")
            self.tree.found.append(Located(finding, line, column, covers=False))
            frame.key = DROPPED

    def attach(self, node: Node) -> None:
        if not self.frames:
            self.tree.root = node
            return
        frame = self.frames[-1]
        if isinstance(frame.node.value, list):
            if len(frame.node.value) == LIST_LIMIT:
                message = f"a list has more than {LIST_LIMIT} values"
                raise Unreadable(node.line, node.column, message, path=self.path[:-1])
            frame.node.value.append(node)
            return
        assert isinstance(frame.node.value, dict)
        if frame.key is None:  # `node` was itself a key
            frame.key = DROPPED
            return
        if isinstance(frame.key, str):
            frame.node.value[frame.key] = node
        frame.key = None
