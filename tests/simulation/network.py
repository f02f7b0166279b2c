"""The network of the simulation: connections with latency, ways that can be cut in one direction, ends that die.

A cut way delivers nothing and loses nothing: as over TCP, what was sent arrives when it is healed, unless an end
has given up meanwhile. A machine without power says no farewell.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random

from runtime.pulse import Pulse

LATENCY_S = (0.001, 0.02)
SOON_S = 1e-6  # the clock of a selector rounds

Lost = Callable[[str], Exception]


class Network:
    """Which ways are open. A way is (from, to), by names of machines."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._cut: dict[tuple[str, str], int] = {}
        self._pipes: list[_Pipe] = []
        self._healed = Pulse()
        self.healed_at: dict[tuple[str, str], float] = {}

    def open(self, source: str, sink: str) -> bool:
        return not self._cut.get((source, sink))

    def both_ways(self, one: str, other: str) -> bool:
        return self.open(one, other) and self.open(other, one)

    def cut(self, source: str, sink: str) -> None:
        self._cut[source, sink] = self._cut.get((source, sink), 0) + 1

    def heal(self, source: str, sink: str) -> None:
        """Take one cut back; a way that was cut twice stays cut."""
        self._cut[source, sink] -= 1
        if self.open(source, sink):
            self.healed_at[source, sink] = asyncio.get_running_loop().time()
            for pipe in self._pipes:
                pipe.flow()
            self._healed.beat()

    def well_for(self, source: str, sink: str, now: float) -> float:
        """How long both directions between two machines have been open."""
        if not self.both_ways(source, sink):
            return 0.0
        last = max(self.healed_at.get(way, 0.0) for way in ((source, sink), (sink, source)))
        return now - last

    async def passable(self, one: str, other: str) -> None:
        """Wait until both directions are open."""
        while not self.both_ways(one, other):
            await self._healed.after(self._healed.count)

    async def delay(self) -> None:
        await asyncio.sleep(self._random.uniform(*LATENCY_S))

    def connect(
        self, client: str, server: str, client_lost: Lost, server_lost: Lost
    ) -> tuple["End", "End"]:
        there, back = self._pipe(client, server), self._pipe(server, client)
        return End(client, there, back, client_lost), End(server, back, there, server_lost)

    def _pipe(self, source: str, sink: str) -> "_Pipe":
        self._pipes = [pipe for pipe in self._pipes if not pipe.done]
        self._pipes.append(pipe := _Pipe(self, source, sink, self._random))
        return pipe


class _Pipe:
    """One direction of one connection, in order. None is the farewell."""

    def __init__(self, network: Network, source: str, sink: str, random: Random) -> None:
        self._network, self._source, self._sink, self._random = network, source, sink, random
        self._way: deque[tuple[float, bytes | None]] = deque()
        self._last = 0.0
        self.arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.done = False

    def put(self, frame: bytes | None) -> None:
        loop = asyncio.get_running_loop()
        self._last = max(self._last, loop.time() + self._random.uniform(*LATENCY_S))
        self._way.append((self._last, frame))
        loop.call_at(self._last, self.flow)

    def flow(self) -> None:
        now = asyncio.get_running_loop().time() + SOON_S
        while self._way and self._way[0][0] <= now and self._network.open(self._source, self._sink):
            _, frame = self._way.popleft()
            self.done |= frame is None
            self.arrived.put_nowait(frame)


class End:
    """One end of a connection, for agent and controller alike; each gets the exception it knows."""

    def __init__(self, name: str, out: _Pipe, into: _Pipe, lost: Lost) -> None:
        self._name, self._out, self._into, self._lost = name, out, into, lost
        self._closed = False

    async def send(self, frame: bytes) -> None:
        if self._closed:
            raise self._lost("closed here")
        self._out.put(frame)

    async def receive(self) -> bytes:
        if self._closed:
            raise self._lost("closed here")
        frame = await self._into.arrived.get()
        if frame is None:
            self._into.arrived.put_nowait(None)
            raise self._lost("closed by the other end")
        return frame

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._out.put(None)
            self._into.arrived.put_nowait(None)
            self._into.done = True
