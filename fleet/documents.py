"""A fleet file: read as a whole, judged as a whole, every problem told at once with its line."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import cast

import msgspec

from fleet.explain import explain
from fleet.findings import Finding, Path, Suggestions
from fleet.kinds import KINDS, Item, assemble, id_field, id_of
from fleet.model import Fleet
from fleet.names import canonical_domain
from fleet.units import is_size, parse_bytes
from fleet.validate import check
from fleet.writing import VERSION, write
from fleet.yamltree import TEXT_LIMIT_BYTES, Located, Node, compose, plain, position

__all__ = ["BadDocument", "Document", "Problem", "load", "read", "read_file", "write"]

# More would be one cause told many times over; the rest is counted.
PROBLEMS_LIMIT = 1000

# What an item with problems is judged by further, so that its references are checked in the same reading.
PLACEHOLDERS: dict[str, dict[str, object]] = {
    "hosts": {"tag": "", "location": "", "addresses": ()},
    "sites": {"member": "", "plan": "", "domains": (), "home": ""},
}


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A finding and its place in the file; `line` and `column` count from 1. `value` is as it was written."""

    file: str
    line: int
    column: int
    field: str
    value: str | None
    message: str
    remedy: str
    said: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.said}"


class BadDocument(Exception):
    """The file declares no usable fleet. `problems` are all there are, in the order of the file."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class Document(msgspec.Struct, frozen=True, kw_only=True):
    fleet: Fleet
    warnings: tuple[Problem, ...] = ()


def read(text: str | bytes, file: str) -> Fleet:
    """The fleet that `text` declares; `file` is its name in messages. Raises BadDocument."""
    return load(text, file).fleet


def read_file(path: FilePath) -> Document:
    """Raises BadDocument, and OSError where the file cannot be read."""
    with path.open("rb") as file:
        return load(file.read(TEXT_LIMIT_BYTES + 1), path.name)


def load(text: str | bytes, file: str) -> Document:
    """As `read`, with what people should weigh. Raises BadDocument."""
    reading = _Reading(file)
    if isinstance(text, bytes):
        text = reading.decode(text)
    tree = compose(text.removeprefix("\ufeff"))
    reading.found = tree.found
    reading.covered = {located.finding.path for located in tree.found if located.covers}
    if tree.root is None:
        if not tree.found:
            reading.found = [Located(Finding(path=(), message="the file is empty"), 1, 1)]
        raise reading.bad()
    reading.root = tree.root
    fleet = reading.fleet()
    if reading.found:
        raise reading.bad()
    return Document(fleet=fleet, warnings=reading.problems(reading.warnings))


@dataclass(slots=True)
class _Reading:
    """One file on its way to a fleet, and what was found on the way."""

    file: str
    root: Node = field(default_factory=lambda: Node(1, 1, {}))
    found: list[Located] = field(default_factory=list)
    warnings: list[Located] = field(default_factory=list)
    covered: set[Path] = field(default_factory=set)
    suggest: Suggestions = field(default_factory=Suggestions)

    def decode(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            line, column = position(raw[: error.start].decode(), error.start)
            finding = Finding(
                path=(),
                message=f"is not UTF-8: the byte 0x{raw[error.start]:02X} has no meaning there",
                remedy="save the file as UTF-8",
            )
            self.found = [Located(finding, line, max(column, 1))]
            raise self.bad() from None

    def fleet(self) -> Fleet:
        parts: dict[str, dict[str, Item]] = {}
        unread: dict[str, frozenset[str]] = {}
        declared = self.sections()
        for kind in KINDS:
            children = self.mapping((kind,), declared[kind]) if kind in declared else {}
            parts[kind] = {}
            for key, child in children.items():
                if (item := self.item(kind, key, child)) is not None:
                    parts[kind][id_of(item)] = item
            unread[kind] = frozenset(children.keys() - parts[kind].keys())
        fleet = assemble(parts)
        findings = check(fleet, unread)
        for finding in findings.problems:
            self.add(finding)
        self.warnings = [self.locate(finding) for finding in findings.warnings]
        return fleet

    def sections(self) -> dict[str, Node]:
        """The file's top level, its version judged."""
        if not isinstance(self.root.value, dict):
            remedy = f"begin with `version: {VERSION}`"
            self.add(Finding(path=(), message="a fleet file is a mapping", remedy=remedy))
            return {}
        said = self.root.value
        if "version" not in said:
            remedy = f"begin with `version: {VERSION}`"
            self.add(Finding(path=(), message="does not say its version", remedy=remedy))
        elif plain(said["version"]) != VERSION or isinstance(said["version"].value, bool):
            message = f"is not a version that is understood here: {VERSION}"
            value = said["version"].text
            self.add(Finding(path=("version",), value=value, message=message))
        known = ["version", *KINDS]
        for key in said.keys() - set(known):
            remedy = self.suggest(key, known, among="", otherwise=f"it may hold {', '.join(known)}")
            self.add(Finding(path=(key,), message="is not a part of a fleet", remedy=remedy))
        return said

    def mapping(self, path: Path, node: Node) -> dict[str, Node]:
        if isinstance(node.value, dict):
            return node.value
        if node.value is not None:
            message = "must be a mapping from ids to what they stand for"
            self.add(Finding(path=path, message=message, value=node.text or None))
        return {}

    def item(self, kind: str, key: str, node: Node) -> Item | None:
        """One item; None if it cannot even be judged further."""
        path = (kind, key)
        fields = self.mapping(path, node)
        id_name = id_field(kind)
        if id_name in fields:
            remedy = "remove it: the key says it"
            finding = Finding(path=(*path, id_name), message="is said twice", remedy=remedy)
            self.add(finding)
        key = self.prepare(kind, key, fields)
        bare = {name: plain(child) for name, child in fields.items()}
        try:
            return msgspec.convert({**bare, id_name: key}, KINDS[kind])
        except msgspec.ValidationError:
            return self.draft(kind, path, key, fields)

    def draft(self, kind: str, path: Path, key: str, fields: dict[str, Node]) -> Item | None:
        id_name = id_field(kind)
        type_ = KINDS[kind]
        said = {name: node for name, node in fields.items() if name != id_name}
        explained = explain(said, type_, path, self.suggest, given=id_name)
        for finding in explained.findings:
            self.add(finding)
        if kind not in PLACEHOLDERS:
            return None
        make = cast(
            Callable[..., Item], type_
        )  # unchecked on purpose: its problems are told already
        return make(**{**PLACEHOLDERS[kind], **explained.good, id_name: key})

    def prepare(self, kind: str, key: str, fields: dict[str, Node]) -> str:
        """Bring domains and sizes into their canonical form, in place; returns the canonical key."""
        path = (kind, key)
        if kind == "zones":
            try:
                canonical = canonical_domain(key)
            except ValueError:
                return key  # told by `check`
            assert isinstance(self.root.value, dict)
            others = self.root.value[kind].value
            if isinstance(others, dict) and canonical != key and canonical in others:
                self.add(
                    Finding(path=path, message=f"is the zone {canonical} again", remedy="keep one")
                )
            return canonical
        if kind == "sites" and "domains" in fields and isinstance(fields["domains"].value, list):
            for index, node in enumerate(fields["domains"].value):
                self.domain((*path, "domains", index), node)
        if kind == "plans" and "caps" in fields and isinstance(fields["caps"].value, dict):
            for name, node in fields["caps"].value.items():
                if is_size(name) and isinstance(node.value, str):
                    self.size((*path, "caps", name), node)
        return key

    def domain(self, path: Path, node: Node) -> None:
        if isinstance(node.value, str):
            try:
                node.value = canonical_domain(node.value)
            except ValueError as error:
                remedy = "write it like www.example.org"
                self.add(Finding(path=path, message=str(error), value=node.text, remedy=remedy))

    def size(self, path: Path, node: Node) -> None:
        try:
            node.value = parse_bytes(node.text)
        except ValueError as error:
            finding = Finding(
                path=path, message="is not a size", value=node.text, remedy=str(error)
            )
            self.add(finding)

    def add(self, finding: Finding) -> None:
        """Note a problem, unless something above it or at its place was found before."""
        path = finding.path
        if any(path[:length] in self.covered for length in range(1, len(path) + 1)):
            return
        self.covered.add(path)
        self.found.append(self.locate(finding))

    def locate(self, finding: Finding) -> Located:
        """Where it stands, or the nearest thing above that is written."""
        node = self.root
        for step in finding.path:
            below: Node | None = None
            if isinstance(node.value, dict) and isinstance(step, str):
                below = node.value.get(step)
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                below = node.value[step]
            if below is None:
                break
            node = below
        return Located(finding, node.line, node.column)

    def bad(self) -> BadDocument:
        return BadDocument(self.problems(self.found))

    def problems(self, found: Iterable[Located]) -> tuple[Problem, ...]:
        ordered = sorted(found, key=lambda located: (located.line, located.column))
        if (more := len(ordered) - PROBLEMS_LIMIT) > 0:
            last = ordered[PROBLEMS_LIMIT]
            message = f"and {more} more problems from here on"
            ordered[PROBLEMS_LIMIT:] = [Located(Finding(path=(), message=message), last.line, 1)]
        return tuple(
            Problem(
                file=self.file,
                line=located.line,
                column=located.column,
                field=located.finding.field,
                value=located.finding.value,
                message=located.finding.message,
                remedy=located.finding.remedy,
                said=str(located.finding),
            )
            for located in ordered
        )
