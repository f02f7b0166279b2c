"""The fleet file over HTTP: read whole, judged in a thread of its own, applied as one change."""

import asyncio
import re
from typing import TYPE_CHECKING

from aiohttp import web

from controller.api.answers import answer, body
from controller.api.auth import WHO
from controller.api.language import language
from controller.api.problems import BadRequest
from controller.commands import Person
from fleet.documents import load, write
from fleet.yamltree import TEXT_LIMIT_BYTES

if TYPE_CHECKING:
    from controller.parts import Controller

FILE = re.compile(r"[\w.@+-]{1,100}")  # a name for messages; nothing is opened by it
TAG = re.compile(r'(?:W/)?"(?P<revision>[0-9]{1,18})"')


class FleetFile:
    def __init__(self, controller: "Controller") -> None:
        self._mirror, self._commands = controller.mirror, controller.commands
        # One at a time: judging takes all of a core's time, and beats must not wait behind several.
        self._turn = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/fleet", self.read), web.put("/v1/fleet", self.apply)]

    async def read(self, request: web.Request) -> web.Response:
        fleet, revision = self._mirror.fleet, self._mirror.fleet_revision
        async with self._turn:
            text = await asyncio.to_thread(write, fleet)
        return web.Response(text=text, content_type="application/yaml", headers=_tag(revision))

    async def apply(self, request: web.Request) -> web.Response:
        """PUT /v1/fleet?reason=&file=&much=1, If-Match: the ETag of what it was compared with."""
        base = _base(request)
        reason = request.query.get("reason", "") or request.headers.get("X-Relevo-Reason", "")
        if len(reason) > 500:
            raise BadRequest("A reason has 500 characters at most.", field="reason")
        file = request.query.get("file", "")
        text = await body(request, TEXT_LIMIT_BYTES)
        async with self._turn:
            document = await asyncio.to_thread(
                load, text, file if FILE.fullmatch(file) else "fleet"
            )
            revision, changes = await self._commands.apply_fleet(
                document.fleet,
                Person(name=request[WHO], reason=reason),
                base=base,
                much=request.query.get("much", "") not in ("", "0"),
            )
        told = {
            "revision": revision,
            "summary": changes.summary,
            "changes": [str(change) for change in changes.changes],
            "warnings": document.warnings,
        }
        response = answer(told, language(request))
        response.headers.update(_tag(revision))
        return response


def _tag(revision: int) -> dict[str, str]:
    return {"ETag": f'"{revision}"'}


def _base(request: web.Request) -> int | None:
    said = request.headers.get("If-Match", "*").strip()
    if said == "*":
        return None
    if (found := TAG.fullmatch(said)) is None:
        raise BadRequest('If-Match is the ETag of GET /v1/fleet, such as "42".', field="If-Match")
    return int(found["revision"])
