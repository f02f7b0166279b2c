"""Who is let in, looked up in the mirror: it goes on while the store is away (rule R6), and follows it within a moment.

Credentials of the controller's own files stand beside those of the store: the first admin's, and the way back in when
a store was lost. For a host the store's word comes first, so that what is revoked there stays revoked.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from controller.mirror import Mirror
from fleet.access import AccessRole, ApiToken, JoinToken, digest
from fleet.model import HostId, MemberId


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks the API. `member`: whose sites are meant, for the role `member`."""

    name: str
    role: AccessRole
    member: MemberId | None = None


class NotAdmitted(Exception):
    """Not let in: `reason` is what is counted, the message is for whoever asks."""

    def __init__(
        self, reason: str = "no-token", said: str = "There is no token with this request."
    ) -> None:
        super().__init__(said)
        self.reason = reason


class NotKnownYet(Exception):
    """Nothing has been read of the store yet, so nobody can be told from a stranger."""

    def __init__(self) -> None:
        super().__init__("This controller has not read its store yet.")


@dataclass(frozen=True, slots=True)
class _Known:
    """The mirror's credentials by their digests; made anew when they change."""

    tokens: Mapping[str, ApiToken]
    hosts: Mapping[str, HostId]
    joins: Mapping[str, JoinToken]


class HostDigests(Mapping[HostId, str]):
    """The digest by which each host logs in, as of now: without hosts that are revoked, or no longer declared."""

    def __init__(self, mirror: Mirror, fixed: Mapping[HostId, str]) -> None:
        self._mirror, self._fixed = mirror, fixed

    def __getitem__(self, host: HostId) -> str:
        stored = self._mirror.credentials.get(host)
        if stored is None:
            return self._fixed[host]
        if stored.revoked or (host not in self._mirror.fleet.hosts and host not in self._fixed):
            raise KeyError(host)
        return stored.digest

    def __iter__(self) -> Iterator[HostId]:
        known = self._fixed.keys() | self._mirror.credentials.keys()
        return (host for host in known if host in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, host: object) -> bool:
        try:
            self[host]  # type: ignore[index]
        except KeyError:
            return False
        return True


class Admission:
    """`admins`: name -> digest, `agents`: host -> digest, both of this controller's own files."""

    def __init__(
        self, mirror: Mirror, *, admins: Mapping[str, str], agents: Mapping[HostId, str]
    ) -> None:
        self._mirror = mirror
        self.admins = {known: name for name, known in admins.items()}
        self.hosts = HostDigests(mirror, agents)
        self._agents = frozenset(agents.values())
        self._seen: tuple[object, ...] = ()
        self._known = _Known({}, {}, {})

    def changing(self) -> frozenset[HostId]:
        """Hosts whose agents are asked to change their credential."""
        return frozenset(host for host, known in self._mirror.credentials.items() if known.change)

    def caller(self, token: str, now: float) -> Caller:
        """Whose token it is, at `now` (Unix s). Raises NotAdmitted, NotKnownYet."""
        if not token:
            raise NotAdmitted
        sent = digest(token)  # looked up by it: how long that takes tells nothing of the secret
        if (name := self.admins.get(sent)) is not None:
            return Caller(name=name, role="admin")
        known = self._now_known()
        if (found := known.tokens.get(sent)) is not None:
            if found.until <= now:
                raise NotAdmitted(
                    "ended", f"The token {found.name} has ended; ask an admin for another one."
                )
            return Caller(name=found.name, role=found.role, member=found.member)
        if sent in known.hosts or sent in self._agents:
            raise NotAdmitted("host-credential", "A host's credential opens that host's link only.")
        if sent in known.joins:
            raise NotAdmitted("join-token", "A join token is for `relevo agent join` only.")
        self._raise_if_blind()
        raise NotAdmitted("wrong-token", "No such token is known here.")

    def join(self, secret: str, now: float) -> JoinToken:
        """The token that a host wants to join by, used or not. Raises NotAdmitted, NotKnownYet."""
        found = self._now_known().joins.get(digest(secret)) if secret else None
        if found is None:
            self._raise_if_blind()
            raise NotAdmitted(
                "wrong-token",
                "No such join token is known here, or a newer one has taken its place.",
            )
        if found.until <= now:
            raise NotAdmitted("ended", f"This token for {found.host} has expired.")
        return found

    def _raise_if_blind(self) -> None:
        if not self._mirror.ready:
            raise NotKnownYet

    def _now_known(self) -> _Known:
        mirror = self._mirror
        seen = (mirror.api_tokens, mirror.credentials, mirror.joins)
        if len(self._seen) != len(seen) or any(
            old is not new for old, new in zip(self._seen, seen, strict=True)
        ):
            self._seen = seen
            self._known = _Known(
                tokens={token.digest: token for token in mirror.api_tokens.values()},
                hosts={
                    credential.digest: host
                    for host, credential in mirror.credentials.items()
                    if not credential.revoked
                },
                joins={token.digest: token for token in mirror.joins.values()},
            )
        return self._known
