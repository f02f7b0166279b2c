"""An agent's end of a link in memory, and what it says: for tests of the controller's end."""

import asyncio
from collections.abc import Mapping
from typing import Never

import msgspec

from controller.link import Link
from controller.ports import ConnectionLost
from failover.policy import Policy
from fleet.messages import Applied, Beat, Check, Load, Target
from fleet.model import ControllerId, HostId
from metrics.exporter import Exporter

C1 = ControllerId("c1")
LOAD = Load(
    cpu_ratio=0.0,
    load_1min=0.0,
    memory_total_bytes=4,
    memory_available_bytes=1,
    swap_used_bytes=0,
    receive_bytes_per_s=0.0,
    transmit_bytes_per_s=0.0,
)


def a_beat(host: HostId, **said: object) -> Beat:
    plain = Beat(
        host=host, sequence=1, boot_id="b", uptime_s=1.0, kernel="k", version="1", load=LOAD
    )
    return msgspec.structs.replace(plain, **said)


class Nobody:
    """A controller that asks nobody itself."""

    def follow(self, probes: Mapping[HostId, Target]) -> tuple[str, ...]:
        return ()

    def checks(self, now: float) -> Mapping[HostId, Check]:
        return {}

    async def keep(self) -> Never:
        await asyncio.Event().wait()
        raise AssertionError("the event is never set")


class Wire:
    """An agent's end in memory; `receive` never waits while something has been said."""

    def __init__(self, *, farewell: Exception | None = None) -> None:
        self.sent = 0
        self.closed = False
        self._farewell = farewell
        self._said: asyncio.Queue[bytes | None] = asyncio.Queue(10_000)

    def say(self, what: Beat | Applied | bytes) -> None:
        self._said.put_nowait(what if isinstance(what, bytes) else msgspec.json.encode(what))

    async def send(self, frame: bytes) -> None:
        self.sent += 1

    async def receive(self) -> bytes:
        if (frame := await self._said.get()) is None:
            raise ConnectionLost("closed")
        return frame

    async def close(self) -> None:
        self.closed = True
        self._said.put_nowait(None)
        if self._farewell is not None:
            raise self._farewell


def a_link(exporter: Exporter, *controllers: ControllerId) -> Link:
    """Of a controller that asks nobody itself: alone, or among `controllers`."""
    return Link(
        {},
        exporter,
        probing=Nobody(),
        id=C1,
        controllers=frozenset({C1, *controllers}),
        policy=Policy(),
    )
