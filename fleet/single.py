"""One item of a fleet on its own, as control panels change it; the fleet with it is judged as a whole."""

from collections.abc import Mapping
from hashlib import sha256

import msgspec

from fleet.findings import Finding
from fleet.kinds import KINDS, Item, assemble, id_of, items
from fleet.model import Domain, Fleet, Site
from fleet.names import canonical_domain
from fleet.validate import check


class BadItem(Exception):
    """The item can't be part of the fleet. `findings` are all that is wrong with it."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        super().__init__("; ".join(map(str, findings)))
        self.findings = findings


def canonical(item: Item) -> Item:
    """`item` with its domains in the form of the network; what is none stays, for `raise_if_bad` to tell."""
    if not isinstance(item, Site):
        return item
    return msgspec.structs.replace(item, domains=tuple(map(_domain, item.domains)))


def _domain(text: Domain) -> Domain:
    try:
        return canonical_domain(text)
    except ValueError:
        return text


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
