"""What people order: typed bodies with an owner, a reason and an end, handed to the commands."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol, TypeVar

import msgspec
from msgspec import Meta

from controller.api.kinds import ORDERED
from controller.api.problems import VISIBLE
from controller.api.relations import Relations, either
from controller.api.routes import Call, Nothing, Route, route
from controller.api.shapes import Done, DoneMoving
from controller.commands import Person
from fleet.model import Arming, HostId, Name, SiteId

if TYPE_CHECKING:
    from controller.parts import Controller

Reason = Annotated[
    str, Meta(min_length=1, max_length=500, pattern=VISIBLE, examples=["new kernel"])
]
# A month empties a host long enough for any repair; a pause longer than a week is a decision to disarm.
DrainSeconds = Annotated[float, Meta(gt=0, le=31 * 86_400, examples=[14_400])]
PauseSeconds = Annotated[float, Meta(gt=0, le=7 * 86_400, examples=[3600])]


class ArmingOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`arming` null: this scope has no word of its own any more."""

    RELATIONS: ClassVar[Relations] = either(
        {"scope": {"const": "all"}, "id": {"type": "null"}},
        {"scope": {"enum": ["location", "host", "site"]}, "id": {"type": "string"}},
        present="id",
    )
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


class ApprovalOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`targets`: site -> host. `old_host_stopped` and `anyway` as in a move."""

    targets: Annotated[dict[Name, Name], Meta(min_length=1, max_length=10_000)]
    reason: Reason
    old_host_stopped: bool = False
    anyway: bool = False


class RefusalOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Reason
    for_s: PauseSeconds


class Writes:
    def __init__(self, controller: "Controller") -> None:
        self._commands = controller.commands

    def routes(self) -> list[Route]:
        return [
            route("PUT", "/v1/failover/arming", self.arm, role="operator", refuses=ORDERED),
            route("POST", "/v1/failover/pause", self.pause, role="operator", refuses=ORDERED),
            route("DELETE", "/v1/failover/pause", self.resume, role="operator", refuses=ORDERED),
            route("PUT", "/v1/hosts/{id}/drain", self.drain, role="operator", refuses=ORDERED),
            route(
                "POST", "/v1/hosts/{id}/activate", self.activate, role="operator", refuses=ORDERED
            ),
            route(
                "POST", "/v1/hosts/{id}/approval", self.approve, role="operator", refuses=ORDERED
            ),
            route("PUT", "/v1/hosts/{id}/refusal", self.refuse, role="operator", refuses=ORDERED),
            route(
                "DELETE",
                "/v1/hosts/{id}/refusal",
                self.reconsider,
                role="operator",
                refuses=ORDERED,
            ),
            route("POST", "/v1/sites/{id}/move", self.move, role="operator", refuses=ORDERED),
        ]

    async def arm(self, call: Call[Nothing, ArmingOrder]) -> Done:
        """Let a scope's sites move by themselves, only watch it, or forget its own word."""
        said = call.body
        revision = await self._commands.arm(said.scope, said.id or "", said.arming, person(call))
        return Done(revision=revision)

    async def pause(self, call: Call[Nothing, PauseOrder]) -> Done:
        """Stop everything automatic for a while; people can still act."""
        return Done(revision=await self._commands.pause(call.body.for_s, person(call)))

    async def resume(self, call: Call[Nothing, ResumeOrder]) -> Done:
        """End a pause."""
        return Done(revision=await self._commands.resume(person(call)))

    async def drain(self, call: Call[Nothing, DrainOrder]) -> Done:
        """Move a host's sites away and keep it empty for a while."""
        host = HostId(call.id)
        return Done(revision=await self._commands.drain(host, call.body.for_s, person(call)))

    async def activate(self, call: Call[Nothing, ActivateOrder]) -> DoneMoving:
        """End a drain; with `bring_home` its own automatic sites come back."""
        revision, moved = await self._commands.activate(
            HostId(call.id), person(call), bring_home=call.body.bring_home
        )
        return DoneMoving(revision=revision, moved=moved)

    async def approve(self, call: Call[Nothing, ApprovalOrder]) -> DoneMoving:
        """Move sites that a host serves, and that are held there, as one incident."""
        said = call.body
        revision, moved = await self._commands.approve(
            HostId(call.id),
            {SiteId(site): HostId(host) for site, host in said.targets.items()},
            person(call),
            old_host_stopped=said.old_host_stopped,
            anyway=said.anyway,
        )
        return DoneMoving(revision=revision, moved=moved)

    async def refuse(self, call: Call[Nothing, RefusalOrder]) -> Done:
        """Let nothing automatic move a host's sites, or take it out of the DNS, for a while; people still can."""
        host = HostId(call.id)
        return Done(revision=await self._commands.refuse(host, call.body.for_s, person(call)))

    async def reconsider(self, call: Call[Nothing, ResumeOrder]) -> Done:
        """Take a refusal back."""
        return Done(revision=await self._commands.reconsider(HostId(call.id), person(call)))

    async def move(self, call: Call[Nothing, MoveOrder]) -> DoneMoving:
        """Move a site now."""
        said = call.body
        revision, moved = await self._commands.move(
            SiteId(call.id),
            HostId(said.to),
            person(call),
            old_host_stopped=said.old_host_stopped,
            anyway=said.anyway,
        )
        return DoneMoving(revision=revision, moved=moved)


class Reasoned(Protocol):
    @property
    def reason(self) -> str: ...


R = TypeVar("R", bound=Reasoned)


def person(call: Call[Nothing, R]) -> Person:
    """Who asks, and the reason that their order gives."""
    return Person(name=call.who, reason=call.body.reason.strip())
