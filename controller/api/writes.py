"""What people order: typed bodies with an owner, a reason and an end, handed to the commands."""

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from controller.api.answers import answer, order
from controller.api.auth import WHO
from controller.api.language import language
from controller.commands import Person
from fleet.model import Arming, HostId, Name, SiteId

if TYPE_CHECKING:
    from controller.parts import Controller

Reason = Annotated[str, Meta(min_length=1, max_length=500, pattern=r"\S")]
# A month empties a host long enough for any repair; a pause longer than a week is a decision to disarm.
DrainSeconds = Annotated[float, Meta(gt=0, le=31 * 86_400)]
PauseSeconds = Annotated[float, Meta(gt=0, le=7 * 86_400)]


class ArmingOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`arming` null: this scope has no word of its own any more."""

    scope: Literal["all", "location", "host", "site"]
    id: Name | None = None
    arming: Arming | None
    reason: Reason

    def __post_init__(self) -> None:
        if (self.scope == "all") != (self.id is None):
            raise ValueError("`id` names a location, host or site; scope `all` has none")


class PauseOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Reason
    for_s: PauseSeconds


class ResumeOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Reason


class DrainOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Reason
    for_s: DrainSeconds


class ActivateOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`bring_home`: its own automatic sites come back in the same breath."""

    reason: Reason
    bring_home: bool = False


class MoveOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`old_host_stopped`: a person's word that the old host no longer writes (rule R3)."""

    to: Name
    reason: Reason
    old_host_stopped: bool = False
    anyway: bool = False


class Writes:
    def __init__(self, controller: "Controller") -> None:
        self._commands = controller.commands

    def routes(self) -> list[web.RouteDef]:
        return [
            web.put("/v1/failover/arming", self.arm),
            web.post("/v1/failover/pause", self.pause),
            web.delete("/v1/failover/pause", self.resume),
            web.put("/v1/hosts/{id}/drain", self.drain),
            web.post("/v1/hosts/{id}/activate", self.activate),
            web.post("/v1/sites/{id}/move", self.move),
        ]

    async def arm(self, request: web.Request) -> web.Response:
        said = await order(request, ArmingOrder)
        person = _person(request, said.reason)
        revision = await self._commands.arm(said.scope, said.id or "", said.arming, person)
        return _done(request, revision)

    async def pause(self, request: web.Request) -> web.Response:
        said = await order(request, PauseOrder)
        revision = await self._commands.pause(said.for_s, _person(request, said.reason))
        return _done(request, revision)

    async def resume(self, request: web.Request) -> web.Response:
        said = await order(request, ResumeOrder)
        return _done(request, await self._commands.resume(_person(request, said.reason)))

    async def drain(self, request: web.Request) -> web.Response:
        said = await order(request, DrainOrder)
        host, person = HostId(request.match_info["id"]), _person(request, said.reason)
        return _done(request, await self._commands.drain(host, said.for_s, person))

    async def activate(self, request: web.Request) -> web.Response:
        said = await order(request, ActivateOrder)
        host, person = HostId(request.match_info["id"]), _person(request, said.reason)
        revision, moved = await self._commands.activate(host, person, bring_home=said.bring_home)
        return _done(request, revision, moved=moved)

    async def move(self, request: web.Request) -> web.Response:
        said = await order(request, MoveOrder)
        revision, moved = await self._commands.move(
            SiteId(request.match_info["id"]),
            HostId(said.to),
            _person(request, said.reason),
            old_host_stopped=said.old_host_stopped,
            anyway=said.anyway,
        )
        return _done(request, revision, moved=moved)


def _person(request: web.Request, reason: str) -> Person:
    return Person(name=request[WHO], reason=reason.strip())


def _done(request: web.Request, revision: int, **more: object) -> web.Response:
    """`revision`: the one at which it became true, already to be read here."""
    return answer({"revision": revision, **more}, language(request))
