"""Single sites, hosts and members for control panels: read with an ETag, declared and removed with If-Match.

What is checked is the whole fleet with the change in it, as for a fleet file; each change has its entry in the log.
"""

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from controller.api.changes import Changed, changed
from controller.api.kinds import ORDERED
from controller.api.pages import Paged, paged
from controller.api.problems import BadRequest, NotFound
from controller.api.routes import Call, Nothing, Route, route
from controller.api.shapes import Page
from controller.commands import Person
from fleet.kinds import Item, id_of
from fleet.model import Host, Member, MemberId, Site, SiteId
from fleet.single import tag_of

if TYPE_CHECKING:
    from controller.parts import Controller

I = TypeVar("I", Site, Host, Member)  # noqa: E741 - an item
TAG = re.compile(r'(?:W/)?"(?P<tag>[!#-~]*)"')
REFUSES = (*ORDERED, "bad-item", "invalid-body", "outdated", "precondition-required")
REPLACING = {
    "If-Match": "The ETag of what you have read; `*`: whatever is there. Without it nothing is replaced or removed."
}
CREATING = {"If-None-Match": "`*`: declare something new. Refused where it is declared already."}


class ChangeQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`reason` is kept in the log. `much`: that many DNS names change at once is meant."""

    reason: Annotated[str, Meta(max_length=500)] = ""
    much: bool = False


class MemberItem(msgspec.Struct, frozen=True, kw_only=True):
    id: MemberId
    name: str
    sites: int


class Members(Page, frozen=True, kw_only=True):
    members: tuple[MemberItem, ...]


class MemberTold(msgspec.Struct, frozen=True, kw_only=True):
    """One member as declared, and the ids of its sites."""

    id: MemberId
    declared: Member
    sites: tuple[SiteId, ...]


def changing(
    method: Literal["PUT", "DELETE"], path: str, handler: Callable[..., Awaitable[Changed]]
) -> Route:
    headers = REPLACING | CREATING if method == "PUT" else REPLACING
    return route(
        method,
        path,
        handler,
        role="operator",  # a control panel's token must not be able to make tokens
        refuses=REFUSES,
        headers=headers,
        creates=method == "PUT",
    )


class Items:
    def __init__(self, controller: "Controller") -> None:
        self._mirror, self._fleet = controller.mirror, controller.commands.fleet

    def routes(self) -> list[Route]:
        return [
            route("GET", "/v1/members", self.members, role="viewer"),
            route("GET", "/v1/members/{id}", self.member, role="viewer", refuses=("not-found",)),
            changing("PUT", "/v1/sites/{id}", self.put_site),
            changing("PUT", "/v1/hosts/{id}", self.put_host),
            changing("PUT", "/v1/members/{id}", self.put_member),
            changing("DELETE", "/v1/sites/{id}", self.delete_site),
            changing("DELETE", "/v1/hosts/{id}", self.delete_host),
            changing("DELETE", "/v1/members/{id}", self.delete_member),
        ]

    async def members(self, call: Call[Paged, None]) -> Members:
        """Members, by id."""
        fleet = self._mirror.fleet
        counts: dict[MemberId, int] = {}
        for site in fleet.sites.values():
            counts[site.member] = counts.get(site.member, 0) + 1
        some, following = paged(call, fleet.members.values(), lambda member: member.id)
        return Members(
            members=tuple(
                MemberItem(id=member.id, name=member.name, sites=counts.get(member.id, 0))
                for member in some
            ),
            next=following,
        )

    async def member(self, call: Call[Nothing, None]) -> MemberTold:
        """One member as declared, and its sites. The ETag is for If-Match."""
        fleet = self._mirror.fleet
        if (found := fleet.members.get(MemberId(call.id))) is None:
            raise NotFound(f"no member {call.id!r} in the fleet")
        call.headers.update(etag(found))
        sites = sorted(id for id, site in fleet.sites.items() if site.member == found.id)
        return MemberTold(id=found.id, declared=found, sites=tuple(sites))

    async def put_site(self, call: Call[ChangeQuery, Site]) -> Changed:
        """Declare one site: new with `If-None-Match: *`, another than before with If-Match.

        Nothing moves by it: a site whose home changes goes on being served where it is.
        """
        return await self._put("sites", call)

    async def put_host(self, call: Call[ChangeQuery, Host]) -> Changed:
        """Declare one host: new with `If-None-Match: *`, another than before with If-Match."""
        return await self._put("hosts", call)

    async def put_member(self, call: Call[ChangeQuery, Member]) -> Changed:
        """Declare one member: new with `If-None-Match: *`, another than before with If-Match."""
        return await self._put("members", call)

    async def delete_site(self, call: Call[ChangeQuery, None]) -> Changed:
        """Remove one site from the fleet; with it go its routes and its DNS names."""
        return await self._delete("sites", call)

    async def delete_host(self, call: Call[ChangeQuery, None]) -> Changed:
        """Remove one host that serves nothing and is nobody's home or standby."""
        return await self._delete("hosts", call)

    async def delete_member(self, call: Call[ChangeQuery, None]) -> Changed:
        """Remove one member that has no sites."""
        return await self._delete("members", call)

    async def _put(self, kind: str, call: Call[ChangeQuery, I]) -> Changed:
        item: Item = call.body
        if id_of(item) != call.id:
            raise BadRequest(
                f"The body is about {id_of(item)!r}, the path about {call.id!r}.",
                field="id",
                value=id_of(item),
                remedy=f"Write {call.id!r}, or ask for another path.",
                slug="invalid-body",
            )
        expected = _expected(call.request, may_be_new=True)
        made, item = await self._fleet.put(
            kind, item, expected, _person(call), much=call.query.much
        )
        call.headers.update(etag(item))
        if expected is None:
            call.headers["Location"] = f"/v1/{kind}/{call.id}"
        return changed(made)

    async def _delete(self, kind: str, call: Call[ChangeQuery, None]) -> Changed:
        expected = _expected(call.request, may_be_new=False)
        assert expected is not None
        made = await self._fleet.delete(
            kind, call.id, expected, _person(call), much=call.query.much
        )
        return changed(made)


def etag(item: Item) -> dict[str, str]:
    """Of what is declared: it does not change with what is seen."""
    return {"ETag": f'"{tag_of(item)}"'}


def _expected(request: web.Request, *, may_be_new: bool) -> str | None:
    """The tag that the item must have, `*` for any; None where it must be new. Raises BadRequest."""
    match, none_match = request.headers.get("If-Match"), request.headers.get("If-None-Match")
    if match is not None and (none_match is None or not may_be_new):
        if match.strip() == "*":
            return "*"
        if (found := TAG.fullmatch(match.strip())) is None:
            raise BadRequest(
                "If-Match is the one ETag that GET gave, in its quotes.",
                field="If-Match",
                value=match[:100],
            )
        return found["tag"]
    if may_be_new and match is None and none_match is not None and none_match.strip() == "*":
        return None
    new = ", or `If-None-Match: *` for something new" if may_be_new else ""
    raise BadRequest(
        "A change says what it was made for, so that nobody's change is lost unseen.",
        field="If-Match",
        remedy=f"Send If-Match with the ETag that GET gave{new}.",
        slug="precondition-required",
    )


def _person(call: Call[ChangeQuery, I] | Call[ChangeQuery, None]) -> Person:
    return Person(name=call.who, reason=call.query.reason.strip())
