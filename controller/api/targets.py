"""Whom Prometheus scrapes: the controllers, and the agents that let it in.

Source: Prometheus' documentation, "HTTP service discovery".
"""

import ipaddress
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from controller.admission import NotKnownYet
from controller.api.routes import Call, Content
from fleet.model import Host

if TYPE_CHECKING:
    from controller.parts import Controller

PORTS = {"http": 80, "https": 443}


class TargetsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`of`: only the agents, or only the controllers."""

    of: Literal["agents", "controllers"] | None = None


class TargetGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Doors (host:port) that share `labels`; those that begin with `__` are for Prometheus' relabelling only."""

    targets: tuple[str, ...]
    labels: dict[str, str]


GROUPS = Content(
    "application/json",
    "The targets, each with its labels, as Prometheus reads them.",
    schema={
        "type": "array",
        "items": {
            "type": "object",
            "required": ["targets", "labels"],
            "properties": {
                "targets": {"type": "array", "items": {"type": "string"}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        },
    },
)


class Targets:
    def __init__(self, controller: "Controller") -> None:
        self._controller = controller

    async def targets(self, call: Call[TargetsQuery, None]) -> web.Response:
        """Whom Prometheus may scrape, as its `http_sd_configs` read it.

        An agent is among them once it has said that its metrics can be had over TLS. It has the labels `host` and
        `location`, and for relabelling `__meta_relevo_tag` and `__meta_relevo_roles` (`,web,edge,`). A controller has
        the label `controller`. A controller that has begun a moment ago refuses: Prometheus then keeps what it had.
        """
        found: list[TargetGroup] = []
        if call.query.of != "agents":
            asked = f"{call.request.scheme}://{call.request.host}"
            found += self._controllers(asked)
        if call.query.of != "controllers":
            found += self._agents()
        return web.json_response(body=msgspec.json.encode(found))

    def _controllers(self, asked: str) -> Iterator[TargetGroup]:
        """One that is in no `urls` is where it was asked: such a controller is alone."""
        config = self._controller.config
        for id in sorted(config.all_controllers):
            parts = urlsplit(config.urls.get(id, asked))
            port = parts.port or PORTS[parts.scheme]
            yield TargetGroup(
                targets=(_door(parts.hostname or "", port),),
                labels={"controller": id, "__scheme__": parts.scheme},
            )

    def _agents(self) -> Iterator[TargetGroup]:
        """At the addresses that the fleet declares: an agent has a say in the port alone (rule R15)."""
        mirror, link = self._controller.mirror, self._controller.link
        if not (mirror.ready and link.settled):
            raise NotKnownYet
        for id, host in sorted(mirror.fleet.hosts.items()):
            heard = link.heard.get(id)
            port = heard.beat.metrics_port if heard else None
            if port is not None and host.addresses:
                yield TargetGroup(targets=(_door(host.addresses[0], port),), labels=_labels(host))


def _roles(host: Host) -> str:
    """`,web,edge,`: each between commas, so that a pattern finds one of them wherever it stands."""
    return f",{','.join(role.value for role in host.roles)},"


def _labels(host: Host) -> dict[str, str]:
    return {
        "host": host.id,
        "location": host.location,
        "__scheme__": "https",
        "__meta_relevo_tag": host.tag,
        "__meta_relevo_roles": _roles(host),
    }


def _door(name: str, port: int) -> str:
    try:
        six = ipaddress.ip_address(name).version == 6
    except ValueError:
        six = False
    return f"[{name}]:{port}" if six else f"{name}:{port}"
