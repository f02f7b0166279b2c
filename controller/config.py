"""The controller's configuration file, whole."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from controller.notify.settings import Command, Mail, Webhook
from controller.snapshots import Snapshots
from controller.stores import Embedded, Etcd
from failover.policy import Policy
from fleet.model import ControllerId, Name

Url = Annotated[str, Meta(pattern=r"^https?://[^/\s]+$(?!\n)")]


class TsigKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A TSIG key: `secret` is a file with the base64 text. Source: RFC 8945."""

    secret: Path
    algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = "hmac-sha256"


class Listen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where API, link and metrics are served. Beyond loopback TLS is not optional.

    `ca`: who signed `certificate`, for agents that join; left out where everybody knows it anyway.
    """

    address: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 7410
    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key come together; set both or neither")
        if not ipaddress.ip_address(self.address).is_loopback and self.certificate is None:
            raise ValueError(
                f"address {self.address} is not loopback and there is no TLS; "
                "set certificate and key, or listen on 127.0.0.1"
            )


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """controller.toml.

    `agents` and `admins` are TOML files of credentials beside those in the store: host, or name, = SHA-256 (hex) of
    its token. They may be missing. `urls`: where agents and people reach each controller.
    """

    id: Annotated[ControllerId, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
    controllers: tuple[Name, ...] = ()  # all configured ones; empty: this one alone
    urls: dict[Name, Url] = {}
    agents: Path = Path("/etc/relevo/agents.toml")
    admins: Path = Path("/etc/relevo/admins.toml")
    state: Path = Path("/var/lib/relevo/controller")
    store: Embedded | Etcd = Embedded()
    snapshots: Snapshots = Snapshots()
    listen: Listen = Listen()
    notify: tuple[Mail | Webhook | Command, ...] = ()
    dns_keys: dict[Name, TsigKey] = {}
    policy: Policy = Policy()
    tick_s: Annotated[float, Meta(ge=0.02, le=1)] = 0.1
    lease_ttl_s: Annotated[int, Meta(ge=2, le=60)] = 3
    proof_timeout_s: Annotated[float, Meta(gt=0)] = 1.0
    edge_port: Annotated[int, Meta(ge=1, le=65535)] = 80  # where a proof is asked of an edge
    debug: bool = False

    def __post_init__(self) -> None:
        if self.controllers and self.id not in self.controllers:
            raise ValueError(
                f"id {self.id!r} is not among controllers {list(self.controllers)}; add it"
            )
        unknown = sorted(self.all_controllers - self.urls.keys())
        if len(self.all_controllers) > 1 and unknown:
            raise ValueError(
                f"urls says nothing of {', '.join(unknown)}: give where agents and people reach each of controllers, "
                f'as {unknown[0]} = "https://{unknown[0]}.example:7410"'
            )
        names = [receiver.name for receiver in self.notify]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"notify: two receivers have the name {twice[0]!r}; rename one")
        if self.lease_ttl_s <= 3 * self.tick_s:
            raise ValueError(
                f"lease_ttl_s = {self.lease_ttl_s} must be above three rounds of tick_s = {self.tick_s:g} s: "
                "one late round must not cost the leadership"
            )

    @property
    def all_controllers(self) -> frozenset[ControllerId]:
        return frozenset(ControllerId(id) for id in self.controllers) or frozenset({self.id})
