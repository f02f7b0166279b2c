"""The fleet file over HTTP: read whole, judged in a thread of its own, applied as one change."""

import asyncio
import re
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from controller.api.changes import ToldChange, told
from controller.api.kinds import ORDERED
from controller.api.problems import BadRequest
from controller.api.routes import Call, Content, Nothing, Route, route
from controller.commands import Person
from controller.objections import Words
from fleet.documents import Problem, load, write
from fleet.findings import Finding
from fleet.kinds import KINDS
from fleet.model import Why
from fleet.writing import VERSION
from fleet.yamltree import TEXT_LIMIT_BYTES

if TYPE_CHECKING:
    from controller.parts import Controller

FILE = re.compile(r"[\w.@+-]{1,100}")  # a name for messages; nothing is opened by it
TAG = re.compile(r'(?:W/)?"(?P<revision>[!#-~]*)"')

REASON_CHARACTERS = 500
SECTION = {"type": ["object", "null"], "additionalProperties": {"type": "object"}}
FILE_SCHEMA = {
    "type": "object",
    "description": "The fleet file: of each kind, items by their id.",
    "properties": {"version": {"const": VERSION}, **dict.fromkeys(KINDS, SECTION)},
    "required": ["version"],
    "additionalProperties": False,
}
FILE_GIVEN = Content("application/yaml", "The fleet file.", schema=FILE_SCHEMA)
FILE_TAKEN = Content(
    "application/yaml", "The fleet file.", schema=FILE_SCHEMA, limit_bytes=TEXT_LIMIT_BYTES
)


class ApplyQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`file`: a name for messages. `remove`: what it no longer names goes; `much`: also where that is much.

    `enforce`: `shadow`: what it makes stricter is only measured until it is armed; `keep`: it holds wherever caps do.
    """

    reason: Annotated[str, Meta(max_length=REASON_CHARACTERS)] = ""
    file: str = ""
    remove: bool = False
    much: bool = False
    enforce: Literal["shadow", "keep"] = "shadow"


class DiffQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`file`: a name for messages."""

    file: str = ""


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What a file changed. `revision` is the fleet's now; `change` its number in the log, null for none."""

    revision: int
    change: int | None
    summary: str
    changes: tuple[ToldChange, ...]
    warnings: tuple[Problem, ...]


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What a file would change in the fleet at `revision`. `refused`: why that takes more words, or can't be."""

    revision: int
    summary: str
    changes: tuple[ToldChange, ...]
    refused: tuple[Why, ...]
    warnings: tuple[Problem, ...]


class FleetFile:
    def __init__(self, controller: "Controller") -> None:
        self._mirror, self._declaring = controller.mirror, controller.commands.fleet
        # One at a time: judging takes all of a core's time, and beats must not wait behind several.
        self._turn = asyncio.Lock()

    def routes(self) -> list[Route]:
        return [
            route("GET", "/v1/fleet", self.read, role="viewer", gives=(FILE_GIVEN,)),
            route(
                "PUT",
                "/v1/fleet",
                self.apply,
                role="admin",
                takes=FILE_TAKEN,
                refuses=("bad-fleet", "outdated", *ORDERED),
                headers={"If-Match": "The ETag of the fleet that the file was compared with."},
            ),
            route(
                "POST",
                "/v1/fleet/diff",
                self.diff,
                role="viewer",
                takes=FILE_TAKEN,
                refuses=("bad-fleet",),
            ),
        ]

    async def read(self, call: Call[Nothing, None]) -> web.Response:
        """The declared fleet as a file, with its revision as ETag."""
        fleet, revision = self._mirror.fleet, self._mirror.fleet_revision
        async with self._turn:
            text = await asyncio.to_thread(write, fleet)
        return web.Response(text=text, content_type="application/yaml", headers=_tag(revision))

    async def apply(self, call: Call[ApplyQuery, bytes]) -> Applied:
        """Make a file the declared fleet, as one change.

        Judged whole: every problem of the file is told at once, and then nothing of it is applied.
        """
        request, query = call.request, call.query
        base = _base(request)
        reason = query.reason or request.headers.get("X-Relevo-Reason", "")
        if len(reason) > REASON_CHARACTERS:
            raise BadRequest("A reason has 500 characters at most.", field="X-Relevo-Reason")
        async with self._turn:
            document = await asyncio.to_thread(load, call.body, _name(query.file))
            made = await self._declaring.apply(
                document.fleet,
                Person(name=call.who, reason=reason),
                base=base,
                words=Words(remove=query.remove, much=query.much, keep=query.enforce == "keep"),
            )
        call.headers.update(_tag(made.revision))
        return Applied(
            revision=made.revision,
            change=made.number,
            summary=made.changes.summary,
            changes=told(made.changes),
            warnings=(*document.warnings, *map(_unplaced, made.warnings)),
        )

    async def diff(self, call: Call[DiffQuery, bytes]) -> Compared:
        """What a file would change, compared with the fleet as it is; nothing is changed by it.

        The ETag is for If-Match: applied with it, the file changes what is told here or nothing.
        """
        async with self._turn:
            document = await asyncio.to_thread(load, call.body, _name(call.query.file))
            found = self._declaring.compare(document.fleet)
        call.headers.update(_tag(found.revision))
        return Compared(
            revision=found.revision,
            summary=found.changes.summary,
            changes=told(found.changes),
            refused=found.refused,
            warnings=(*document.warnings, *map(_unplaced, found.warnings)),
        )


def _unplaced(found: Finding) -> Problem:
    """What no line of the file is wrong about."""
    return Problem(
        file="",
        line=0,
        column=0,
        field=found.field,
        value=found.value,
        message=found.message,
        remedy=found.remedy,
        said=str(found),
    )


def _name(said: str) -> str:
    return said if FILE.fullmatch(said) else "fleet"


def _tag(revision: int) -> dict[str, str]:
    return {"ETag": f'"{revision}"'}


def _base(request: web.Request) -> int | None:
    said = request.headers.get("If-Match", "*").strip()
    if said == "*":
        return None
    if (found := TAG.fullmatch(said)) is None:
        raise BadRequest('If-Match is the ETag of GET /v1/fleet, such as "42".', field="If-Match")
    said = found["revision"]
    # Another thing's tag is no fleet's: it matches none of them.
    return int(said) if said.isascii() and said.isdigit() and len(said) < 19 else -1
