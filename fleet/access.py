"""Who may do what: people's tokens with their roles, each host's own credential, and the tokens by which hosts join.

Of a secret only its digest is ever kept: the SHA-256 of 256 random bits needs no salt and no slow hash.
"""

import re
from hashlib import sha256
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from fleet.model import HostId, MemberId, Name

# From the least to the most; each may what those before it may.
# member: its own sites and incidents. viewer: everything, changing nothing. operator: orders, and single sites, hosts
# and members of the fleet. admin: also the fleet as a whole, and who else may do what.
AccessRole = Literal["member", "viewer", "operator", "admin"]
ACCESS_ROLES: tuple[AccessRole, ...] = ("member", "viewer", "operator", "admin")
Hex = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
PUBLIC = "public"  # in a join token's text, where any CA that the host's system trusts will do
REVOKED = ""  # in the place of a digest: nobody has its secret


def may(has: AccessRole, needs: AccessRole) -> bool:
    return ACCESS_ROLES.index(has) >= ACCESS_ROLES.index(needs)


def digest(secret: str) -> str:
    return sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


class ApiToken(msgspec.Struct, frozen=True, kw_only=True):
    """A person's or a program's token. Instants in Unix s; `member` for the role of that name only."""

    name: Name
    digest: Hex
    role: AccessRole
    member: MemberId | None = None
    by: str
    since: float
    until: float

    @property
    def said(self) -> str:
        """For the audit."""
        return f"{self.role}{f' of {self.member}' if self.member else ''}"


class HostCredential(msgspec.Struct, frozen=True, kw_only=True):
    """By what a host logs in, or that it no longer may. `change`: its agent is asked to make itself another one.

    The agent makes the secret and tells its digest only, so no secret of a host's ever travels.
    """

    host: HostId
    digest: str
    by: str
    since: float
    change: bool = False

    @property
    def revoked(self) -> bool:
        return self.digest == REVOKED


class JoinToken(msgspec.Struct, frozen=True, kw_only=True):
    """One use, for one host. `credential`: the digest that it was used for, so that a lost answer can be repeated."""

    host: HostId
    digest: Hex
    by: str
    since: float
    until: float
    used_at: float | None = None
    credential: str = ""


class Joining(NamedTuple):
    """What is pasted on a host: the token's secret, and the fingerprint (SHA-256) of the CA, empty for a public one."""

    secret: str
    fingerprint: str

    def __str__(self) -> str:
        return f"join.{self.secret}.{self.fingerprint or PUBLIC}"


JOINING = re.compile(r"join\.([A-Za-z0-9_-]{43})\.([0-9a-f]{64}|public)")


def read_joining(text: str) -> Joining | None:
    """Read what `str` of a Joining wrote; None where it was cut or is something else."""
    found = JOINING.fullmatch(text.strip())
    return Joining(found[1], found[2].removeprefix(PUBLIC)) if found else None


# --- what an agent and a controller say to each other over HTTP, before and beside the link


class JoinOffer(msgspec.Struct, frozen=True, kw_only=True):
    """What a join token is good for: GET /v1/join. `controllers`: id -> URL; `addresses`: the host's, as declared."""

    host: HostId
    addresses: tuple[str, ...]
    controllers: dict[Name, str]
    until: float


class NewCredential(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The digest of a secret that an agent made: POST /v1/join, PUT /v1/hosts/{host}/credential."""

    digest: Hex


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    host: HostId
