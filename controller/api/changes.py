"""Changes of the fleet over HTTP: what a file would change, what was changed by whom and why, and taking it back."""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import asdict

from controller.api.kinds import ORDERED
from controller.api.pages import Paged, paged
from controller.api.routes import Call, Nothing, Route, route
from controller.api.shapes import Page
from controller.api.writes import Reason
from controller.commands import Person
from controller.declare import Made
from controller.objections import Words
from fleet.diff import Changes, FieldChange
from fleet.findings import Finding
from fleet.history import LoggedChange

if TYPE_CHECKING:
    from controller.parts import Controller


class ToldChange(msgspec.Struct, frozen=True, kw_only=True):
    """One item of `kind` (`sites`): what became of it, and of its fields where it changed; `said` in a line."""

    what: Literal["added", "removed", "changed"]
    kind: str
    id: str
    fields: tuple[FieldChange, ...]
    said: str


class ToldFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Something to weigh: where, what stands there, and what to do about it; `said` is all of it in a line."""

    field: str
    value: str | None
    message: str
    remedy: str
    said: str


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """What was done. `revision` is the fleet's now, `change` its number in the log; null where nothing changed."""

    revision: int
    change: int | None
    summary: str
    changes: tuple[ToldChange, ...]
    warnings: tuple[ToldFinding, ...] = ()


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """One change: who made it, when (Unix s) and why. `first`: its first lines. `undoes`: the change it took back."""

    change: int
    at: float
    who: str
    reason: str
    summary: str
    first: tuple[str, ...]
    undoes: int | None


class LoggedTold(Logged, frozen=True, kw_only=True):
    """One change with all that it did."""

    changes: tuple[ToldChange, ...]


class Log(Page, frozen=True, kw_only=True):
    log: tuple[Logged, ...]


class UndoOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`change` left out: the last one. `remove`: undoing may remove what the change has added."""

    change: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    reason: Reason
    remove: bool = False
    much: bool = False


class FleetLog:
    def __init__(self, controller: "Controller") -> None:
        self._fleet = controller.commands.fleet

    def routes(self) -> list[Route]:
        return [
            route("GET", "/v1/fleet/log", self.log, role="viewer"),
            route(
                "GET",
                "/v1/fleet/log/{id}",
                self.change,
                role="viewer",
                refuses=("not-found", "refused"),
            ),
            route("POST", "/v1/fleet/undo", self.undo, role="admin", refuses=ORDERED),
        ]

    async def log(self, call: Call[Paged, None]) -> Log:
        """The last hundred changes of the fleet, newest first."""
        every = self._fleet.log()
        some, following = paged(call, every, lambda entry: f"{entry.number:019d}", falling=True)
        return Log(log=tuple(map(logged, some)), next=following)

    async def change(self, call: Call[Nothing, None]) -> LoggedTold:
        """One change of the fleet with all that it did, by its number."""
        entry = self._fleet.logged(int(call.id) if call.id.isascii() and call.id.isdigit() else 0)
        changes = await self._fleet.details(entry)
        items = await asyncio.to_thread(told, changes)
        return LoggedTold(**asdict(logged(entry)), changes=items)

    async def undo(self, call: Call[Nothing, UndoOrder]) -> Changed:
        """Take one change of the fleet back, as a change of its own.

        Refused where something that it touched was changed again since; the answer names those changes.
        """
        said = call.body
        person = Person(name=call.who, reason=said.reason.strip())
        words = Words(remove=said.remove, much=said.much)
        made = await self._fleet.undo(said.change, person, words)
        call.headers["ETag"] = f'"{made.revision}"'
        return changed(made)


def logged(entry: LoggedChange) -> Logged:
    return Logged(
        change=entry.number,
        at=entry.at,
        who=entry.who,
        reason=entry.reason,
        summary=entry.summary,
        first=entry.first,
        undoes=entry.undoes,
    )


def changed(made: Made) -> Changed:
    return Changed(
        revision=made.revision,
        change=made.number,
        summary=made.changes.summary,
        changes=told(made.changes),
        warnings=findings(made.warnings),
    )


def told(changes: Changes) -> tuple[ToldChange, ...]:
    return tuple(
        ToldChange(what=c.what, kind=c.kind, id=c.id, fields=c.fields, said=str(c))
        for c in changes.changes
    )


def findings(found: Iterable[Finding]) -> tuple[ToldFinding, ...]:
    return tuple(
        ToldFinding(
            field=finding.field,
            value=finding.value,
            message=finding.message,
            remedy=finding.remedy,
            said=str(finding),
        )
        for finding in found
    )
