"""What people order about access, and what hosts do with it: audited commits, and never a secret in the store."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import msgspec

from controller import settle
from controller.admission import Admission
from controller.audited import Audited, Person, Unknown
from controller.mirror import Mirror
from controller.sight import Refused
from controller.store import Delete, Op, Put
from fleet import keys
from fleet.access import REVOKED, AccessRole, ApiToken, HostCredential, JoinToken, digest
from fleet.model import HostId, MemberId, Why
from runtime.clock import wall

SECRET_BYTES = 32
JOIN_S = 3600.0
TOKENS_MOST = 1000
HOSTS_AT_ONCE = 100  # of the 128 operations that a store takes at once
CHANGE = "asked to change its credential"


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """`secret` is told once, and known nowhere else. `until` in Unix s."""

    revision: int
    secret: str
    until: float


class Granting:
    """Tokens of people and programs, and credentials of hosts."""

    def __init__(self, mirror: Mirror, audited: Audited, admission: Admission) -> None:
        self._mirror, self._audited, self._admission = mirror, audited, admission

    # --- people and programs

    async def create_token(
        self, name: str, role: AccessRole, member: MemberId | None, for_s: float, person: Person
    ) -> Granted:
        mirror, now = self._mirror, wall()
        if name in mirror.api_tokens or name in self._admission.admins.values():
            raise Refused(Why("token-exists", {"name": name}))
        if len(mirror.api_tokens) >= TOKENS_MOST:
            raise Refused(Why("too-many-tokens", {"most": TOKENS_MOST}))
        if member is not None and member not in mirror.fleet.members:
            raise Unknown("member", member)
        secret = secrets.token_urlsafe(SECRET_BYTES)
        token = ApiToken(
            name=name,
            digest=digest(secret),
            role=role,
            member=member,
            by=person.name,
            since=now,
            until=now + for_s,
        )
        key = keys.access_token(name)
        revision = await self._audited.commit(
            [Put(key, settle.encode(token))],
            mirror.unchanged(key),
            person,
            "create token",
            name,
            after=token.said,
        )
        return Granted(revision=revision, secret=secret, until=token.until)

    async def revoke_token(self, name: str, person: Person) -> int:
        if name in self._admission.admins.values():
            raise Refused(Why("token-in-file", {"name": name}))
        if (token := self._mirror.api_tokens.get(name)) is None:
            raise Unknown("token", name)
        key = keys.access_token(name)
        return await self._audited.commit(
            [Delete(key)],
            self._mirror.unchanged(key),
            person,
            "revoke token",
            name,
            before=token.said,
        )

    # --- hosts

    async def join_token(self, host: HostId, person: Person) -> Granted:
        """A token by which `host` may join, once, within an hour; an older one is worth nothing any more."""
        if host not in self._mirror.fleet.hosts:
            raise Unknown("host", host)
        secret, now = secrets.token_urlsafe(SECRET_BYTES), wall()
        token = JoinToken(
            host=host, digest=digest(secret), by=person.name, since=now, until=now + JOIN_S
        )
        key = keys.access_join(host)
        revision = await self._audited.commit(
            [Put(key, settle.encode(token))],
            self._mirror.unchanged(key),
            person,
            "create join token",
            host,
        )
        return Granted(revision=revision, secret=secret, until=token.until)

    async def join(self, token: JoinToken, credential: str) -> int:
        """Make `credential`, a digest, the one of the token's host. The same again is answered the same."""
        mirror, now, host = self._mirror, wall(), token.host
        if token.used_at is not None:
            if token.credential == credential:
                return mirror.revision
            raise Refused(Why("join-token-used", {"host": host, "by": token.by}))
        if host not in mirror.fleet.hosts:
            raise Unknown("host", host)
        used = msgspec.structs.replace(token, used_at=now, credential=credential)
        logs_in = HostCredential(host=host, digest=credential, by=token.by, since=now)
        before = mirror.credentials.get(host)
        return await self._audited.commit(
            [
                Put(keys.access_join(host), settle.encode(used)),
                Put(keys.access_host(host), settle.encode(logs_in)),
            ],
            mirror.unchanged(keys.access_join(host), keys.access_host(host)),
            Person(f"host {host}", f"with a token of {token.by}"),
            "join",
            host,
            before=_said(before),
            after=_said(logs_in),
        )

    async def ask_change(self, hosts: Iterable[HostId], person: Person) -> int:
        """Ask the agents of `hosts` to make themselves new credentials. Raises Refused for one that has none."""
        wanted, revision = sorted(set(hosts)), self._mirror.revision
        for host in wanted:
            if host not in self._admission.hosts:
                raise Refused(Why("no-credential", {"host": host}))
        left = iter(wanted)
        while some := tuple(islice(left, HOSTS_AT_ONCE)):
            puts: list[Op] = [
                Put(keys.access_host(host), settle.encode(self._asked(host))) for host in some
            ]
            revision = await self._audited.commit(
                puts,
                self._mirror.unchanged(*(keys.access_host(host) for host in some)),
                person,
                "rotate credential",
                some[0] if len(some) == 1 else f"{len(some)} hosts",
                after=CHANGE,
            )
        return revision

    def _asked(self, host: HostId) -> HostCredential:
        stored = self._mirror.credentials.get(host)
        if stored is None:  # of this controller's file: from now on it is the store's
            stored = HostCredential(
                host=host, digest=self._admission.hosts[host], by="a file", since=wall()
            )
        return msgspec.structs.replace(stored, change=True)

    async def changed(self, host: HostId, new: str) -> int:
        """The agent of `host`, logged in by its present credential, has made itself another one: `new`, its digest.

        Only when it was asked to: a stolen credential can't shut its owner out. The same again is answered the same.
        """
        mirror, stored = self._mirror, self._mirror.credentials.get(host)
        if stored is not None and stored.digest == new:
            return mirror.revision
        if stored is None or not stored.change:
            raise Refused(Why("not-asked-to-change", {"host": host}))
        key = keys.access_host(host)
        fresh = HostCredential(host=host, digest=new, by=stored.by, since=wall())
        return await self._audited.commit(
            [Put(key, settle.encode(fresh))],
            mirror.unchanged(key),
            Person(f"host {host}", "as it was asked to"),
            "change credential",
            host,
            before=_said(stored),
            after=_said(fresh),
        )

    async def revoke_host(self, host: HostId, person: Person) -> int:
        """Nobody speaks for `host` any more, until it joins anew; its open links end on every controller."""
        mirror, stored = self._mirror, self._mirror.credentials.get(host)
        if host not in self._admission.hosts and (stored is None or stored.revoked):
            raise Refused(Why("no-credential", {"host": host}))
        gone = HostCredential(host=host, digest=REVOKED, by=person.name, since=wall())
        key, join = keys.access_host(host), keys.access_join(host)
        operations: list[Op] = [Put(key, settle.encode(gone))]
        operations += [Delete(join)] if host in mirror.joins else []
        return await self._audited.commit(
            operations,
            mirror.unchanged(key, join),
            person,
            "revoke credential",
            host,
            before=_said(stored),
            after=_said(gone),
        )


def _said(credential: HostCredential | None) -> str:
    """For the audit: the first eight digits tell one credential from another, and open nothing."""
    if credential is None:
        return ""
    return "revoked" if credential.revoked else f"credential {credential.digest[:8]}…"
