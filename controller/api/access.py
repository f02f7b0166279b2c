"""Tokens, credentials and joining over HTTP, and the audit of all that people did."""

from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec
from aiohttp import web
from msgspec import Meta

from controller.admission import NotAdmitted, NotKnownYet
from controller.api.auth import bearer
from controller.api.kinds import ORDERED
from controller.api.pages import Paged, paged
from controller.api.problems import NotFound
from controller.api.relations import Relations, either
from controller.api.routes import Call, Content, Nothing, Route, route
from controller.api.shapes import Done, Page
from controller.api.writes import Reason
from controller.commands import Person
from fleet.access import AccessRole, Joined, Joining, JoinOffer, JoinToken, NewCredential
from fleet.model import HostId, MemberId, Name
from runtime import certificates
from runtime.clock import wall

if TYPE_CHECKING:
    from controller.parts import Controller

DAY_S = 86_400.0
NAMED_MOST = 900  # as many as a body holds
CA = Content("application/x-pem-file", "The certificate of the CA that signed this controller's.")
# A program may run for years; a token that nobody remembers must not.
TokenSeconds = Annotated[float, Meta(gt=0, le=5 * 366 * DAY_S)]


class Because(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why."""

    reason: Reason


class TokenOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token of this name, for a person or a program. `member`: whose sites it shows, for the role of that name."""

    RELATIONS: ClassVar[Relations] = either(
        {"role": {"enum": ["viewer", "operator", "admin"]}, "member": {"type": "null"}},
        {"role": {"const": "member"}, "member": {"type": "string"}},
        present="member",
    )
    name: Name
    role: AccessRole
    member: Name | None = None
    for_s: TokenSeconds
    reason: Reason

    def __post_init__(self) -> None:
        if (self.role == "member") != (self.member is not None):
            raise ValueError(
                "`member` says whose sites are shown: with role `member`, and only then"
            )


class ChangeOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`hosts`: those whose agents make themselves new credentials; null: all that have one."""

    hosts: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=NAMED_MOST)] | None
    reason: Reason


class Secret(Done, frozen=True, kw_only=True):
    """`token` is told now and never again. `until` (Unix s) is its end."""

    token: str
    until: float


class JoinSecret(Secret, frozen=True, kw_only=True):
    """`url`: where the host should ask to join; empty where this controller's configuration does not say it."""

    url: str


class TokenTold(msgspec.Struct, frozen=True, kw_only=True):
    """A token without its secret. Instants in Unix s; `until` null: it stands in a file of this controller."""

    name: str
    role: AccessRole
    member: MemberId | None = None
    by: str
    since: float | None
    until: float | None


class CredentialTold(msgspec.Struct, frozen=True, kw_only=True):
    """By whose word a host logs in. `changing`: another is asked for. `joining`: until when it may join (Unix s)."""

    host: HostId
    by: str
    since: float | None
    revoked: bool
    changing: bool
    joining: float | None
    linked: bool


class AccessTold(Page, frozen=True, kw_only=True):
    """One list in two parts: tokens first, then hosts."""

    tokens: tuple[TokenTold, ...]
    hosts: tuple[CredentialTold, ...]


class Audited(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody did, when (Unix s) and why, and what it changed where that can be told in a few words."""

    id: str
    at: float
    who: str
    what: str
    subject: str
    reason: str
    before: str
    after: str


class Audit(Page, frozen=True, kw_only=True):
    entries: tuple[Audited, ...]


class Access:
    def __init__(self, controller: "Controller") -> None:
        self._controller, self._granting = controller, controller.granting
        # Read once: asked for by anybody, as often as they like. Raises BadConfig.
        path = controller.config.listen.ca
        self._ca = certificates.read(path) if path else ""

    def routes(self) -> list[Route]:
        joining = ("not-admitted", "not-ready", *ORDERED)
        changed = "/v1/hosts/{id}/credential"
        return [
            route("GET", "/v1/ca", self.ca, role="open", gives=(CA,), refuses=("not-found",)),
            route("GET", "/v1/join", self.offer, role="host", refuses=joining),
            route("POST", "/v1/join", self.join, role="host", refuses=joining),
            route("PUT", changed, self.changed, role="host", refuses=joining),
            route("DELETE", changed, self.revoke_host, role="admin", refuses=ORDERED),
            route("POST", "/v1/hosts/{id}/join", self.invite, role="admin", refuses=ORDERED),
            route("POST", "/v1/credentials/change", self.change, role="admin", refuses=ORDERED),
            route("GET", "/v1/access", self.access, role="admin"),
            route("POST", "/v1/tokens", self.create, role="admin", refuses=ORDERED),
            route("DELETE", "/v1/tokens/{id}", self.revoke_token, role="admin", refuses=ORDERED),
            route("GET", "/v1/audit", self.audit, role="viewer"),
        ]

    # --- hosts, by tokens of their own

    async def ca(self, call: Call[Nothing, None]) -> web.Response:
        """The CA of this controller's certificate, in PEM.

        Whoever fetches it unverified must know its fingerprint: a join token carries it.
        """
        if not self._ca:
            raise NotFound(
                "no CA of its own: this controller's certificate is verified as any other"
            )
        return web.Response(text=self._ca, content_type=CA.media)

    async def offer(self, call: Call[Nothing, None]) -> JoinOffer:
        """What the join token of this request is good for; it is not used up."""
        controller = self._controller
        token = self._join_token(call)
        host = controller.mirror.fleet.hosts.get(token.host)
        return JoinOffer(
            host=token.host,
            addresses=host.addresses if host else (),
            controllers=controller.config.urls,
            until=token.until,
        )

    async def join(self, call: Call[Nothing, NewCredential]) -> Joined:
        """Use the join token of this request: its host logs in by a secret with this digest from now on.

        The same again is answered the same, so that a lost answer can be repeated.
        """
        token = self._join_token(call)
        await self._granting.join(token, call.body.digest)
        return Joined(host=token.host)

    def _join_token(self, call: Call[Nothing, None] | Call[Nothing, NewCredential]) -> JoinToken:
        try:
            return self._controller.admission.join(bearer(call.request), wall())
        except NotAdmitted as error:
            self._controller.link.refused(f"join-{error.reason}", "")
            raise

    async def changed(self, call: Call[Nothing, NewCredential]) -> Joined:
        """An agent that was asked to has made itself another secret, with this digest."""
        controller, host = self._controller, HostId(call.id)
        if not controller.mirror.ready:
            raise NotKnownYet
        if not controller.link.admits(host, bearer(call.request)):
            raise NotAdmitted("host", "This is not the host's own credential, or no longer.")
        await self._granting.changed(host, call.body.digest)
        return Joined(host=host)

    # --- people

    async def invite(self, call: Call[Nothing, Because]) -> JoinSecret:
        """A token by which this host can join: for one use, within an hour. An older one ends."""
        config = self._controller.config
        granted = await self._granting.join_token(HostId(call.id), _person(call))
        print_of = certificates.fingerprint_of(self._ca) if self._ca else ""
        return JoinSecret(
            revision=granted.revision,
            token=str(Joining(granted.secret, print_of)),
            until=granted.until,
            url=config.urls.get(config.id, ""),
        )

    async def change(self, call: Call[Nothing, ChangeOrder]) -> Done:
        """Have agents make themselves new credentials. The old one ends when the new one is there."""
        hosts = call.body.hosts
        wanted = map(HostId, hosts) if hosts is not None else self._controller.admission.hosts
        return Done(revision=await self._granting.ask_change(wanted, _person(call)))

    async def revoke_host(self, call: Call[Nothing, Because]) -> Done:
        """End a host's credential and its links at once. To come back it must join anew."""
        return Done(revision=await self._granting.revoke_host(HostId(call.id), _person(call)))

    async def create(self, call: Call[Nothing, TokenOrder]) -> Secret:
        """A token for a person or a program, with a role and an end."""
        said = call.body
        member = None if said.member is None else MemberId(said.member)
        granted = await self._granting.create_token(
            said.name, said.role, member, said.for_s, _person(call)
        )
        return Secret(revision=granted.revision, token=granted.secret, until=granted.until)

    async def revoke_token(self, call: Call[Nothing, Because]) -> Done:
        """End a token at once."""
        return Done(revision=await self._granting.revoke_token(call.id, _person(call)))

    async def access(self, call: Call[Paged, None]) -> AccessTold:
        """Who may do what: every token, and every host's credential. Secrets are not known to anybody."""
        every: list[TokenTold | CredentialTold] = [*self._tokens(), *self._hosts()]
        some, following = paged(call, every, _place)
        return AccessTold(
            tokens=tuple(one for one in some if isinstance(one, TokenTold)),
            hosts=tuple(one for one in some if isinstance(one, CredentialTold)),
            next=following,
        )

    def _tokens(self) -> list[TokenTold]:
        controller = self._controller
        file = f"{controller.config.admins.name} of {controller.config.id}"
        fixed = [
            TokenTold(name=name, role="admin", by=file, since=None, until=None)
            for name in sorted(controller.admission.admins.values())
        ]
        stored = [
            TokenTold(
                name=token.name,
                role=token.role,
                member=token.member,
                by=token.by,
                since=token.since,
                until=token.until,
            )
            for _, token in sorted(controller.mirror.api_tokens.items())
        ]
        return fixed + stored

    def _hosts(self) -> list[CredentialTold]:
        controller, now = self._controller, wall()
        mirror, digests = controller.mirror, controller.admission.hosts
        file = f"{controller.config.agents.name} of {controller.config.id}"
        open_joins = {
            host: token.until
            for host, token in mirror.joins.items()
            if token.used_at is None and token.until > now
        }
        known = set(digests) | mirror.credentials.keys() | open_joins.keys()
        told = []
        for host in sorted(known):
            stored = mirror.credentials.get(host)
            nobody = "" if host not in digests else file
            told.append(
                CredentialTold(
                    host=host,
                    by=stored.by if stored else nobody,
                    since=stored.since if stored else None,
                    revoked=bool(stored and stored.revoked),
                    changing=bool(stored and stored.change),
                    joining=open_joins.get(host),
                    linked=host in controller.link.connected,
                )
            )
        return told

    async def audit(self, call: Call[Paged, None]) -> Audit:
        """What people, and hosts that joined, did: newest first."""
        entries = self._controller.mirror.audit.items()
        some, following = paged(
            call, entries, lambda item: f"{item[1].at:018.6f} {item[0]}", falling=True
        )
        return Audit(
            entries=tuple(
                Audited(
                    id=id,
                    at=entry.at,
                    who=entry.who,
                    what=entry.what,
                    subject=entry.subject,
                    reason=entry.reason,
                    before=entry.before,
                    after=entry.after,
                )
                for id, entry in some
            ),
            next=following,
        )


def _place(one: TokenTold | CredentialTold) -> str:
    """In the order of the list; a name may stand in a file and in the store."""
    if isinstance(one, CredentialTold):
        return f"2 {one.host}"
    return f"0 {one.name}" if one.until is None else f"1 {one.name}"


def _person(
    call: Call[Nothing, Because] | Call[Nothing, TokenOrder] | Call[Nothing, ChangeOrder],
) -> Person:
    return Person(name=call.who, reason=call.body.reason.strip())
