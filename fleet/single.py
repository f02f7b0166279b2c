"""One item as JSON, as control panels send it: judged like one of a fleet file, every problem told at once."""

from collections.abc import Mapping
from hashlib import sha256

import msgspec

from fleet.explain import explain
from fleet.findings import Finding, Path, Suggestions
from fleet.kinds import KINDS, Item, assemble, id_field, id_of, items
from fleet.model import Fleet
from fleet.names import canonical_domain
from fleet.validate import check
from fleet.yamltree import Node, plain

DEPTH_LIMIT = 8  # an item is three levels deep


class BadItem(Exception):
    """The item can't be part of the fleet. `findings` are all that is wrong with it."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        super().__init__("; ".join(map(str, findings)))
        self.findings = findings


def read_item(kind: str, id: str, said: object) -> Item:
    """The item `id` of `kind` that the JSON value `said` declares. Raises BadItem."""
    path = (kind, id)
    if not isinstance(said, dict):
        raise BadItem((Finding(path=path, message="must be a JSON object with its fields"),))
    fields = {str(name): _node(value) for name, value in said.items()}
    findings: list[Finding] = []
    own = fields.pop(id_field(kind), None)
    if own is not None and own.value != id:
        remedy = f"write {id}, or leave it out"
        findings.append(
            Finding(
                path=(*path, id_field(kind)),
                value=own.text,
                message="is not the id in the path",
                remedy=remedy,
            )
        )
    findings += _domains(path, fields)
    if not findings:
        bare = {name: plain(node) for name, node in fields.items()}
        try:
            return msgspec.convert({**bare, id_field(kind): id}, KINDS[kind])
        except msgspec.ValidationError as error:
            unexplained = Finding(path=path, message=f"does not fit: {error}")
    explained = explain(fields, KINDS[kind], path, Suggestions(), given=id_field(kind))
    raise BadItem((*findings, *explained.findings) or (unexplained,))


def _domains(path: Path, fields: Mapping[str, Node]) -> list[Finding]:
    """Bring the domains of a site into the form of the network, in place."""
    node, findings = fields.get("domains"), list[Finding]()
    if path[0] != "sites" or node is None or not isinstance(node.value, list):
        return findings
    for index, child in enumerate(node.value):
        if not isinstance(child.value, str):
            continue
        try:
            child.value = canonical_domain(child.value)
        except ValueError as error:
            findings.append(
                Finding(
                    path=(*path, "domains", index),
                    value=child.text,
                    message=str(error),
                    remedy="write it like www.example.org",
                )
            )
    return findings


def _node(value: object, depth: int = 0) -> Node:
    """A JSON value as the tree that `explain` reads; too deep a value is none."""
    match value:
        case dict() if depth < DEPTH_LIMIT:
            return Node(1, 1, {str(k): _node(v, depth + 1) for k, v in value.items()})
        case list() | tuple() if depth < DEPTH_LIMIT:
            return Node(1, 1, [_node(v, depth + 1) for v in value])
        case str():
            return Node(1, 1, value, value)
        case bool() | int() | float():
            return Node(1, 1, value, msgspec.json.encode(value).decode())
    return Node(1, 1, None, "null")


def tag_of(item: Item) -> str:
    """Changes whenever what is declared does; for If-Match."""
    return sha256(msgspec.json.encode(item)).hexdigest()[:16]


def with_item(fleet: Fleet, kind: str, item: Item) -> Fleet:
    return _replaced(fleet, kind, {**items(fleet, kind), id_of(item): item})


def without_item(fleet: Fleet, kind: str, id: str) -> Fleet:
    return _replaced(fleet, kind, {k: v for k, v in items(fleet, kind).items() if k != id})


def _replaced(fleet: Fleet, kind: str, part: Mapping[str, Item]) -> Fleet:
    return assemble({**{k: items(fleet, k) for k in KINDS}, kind: part})


def raise_if_bad(fleet: Fleet) -> tuple[Finding, ...]:
    """What people should weigh in `fleet`. Raises BadItem where it can't be."""
    findings = check(fleet)
    if findings.problems:
        raise BadItem(findings.problems)
    return findings.warnings
