"""One link to each controller, each on its own: beats out on time, orders in, and patience with nobody.

A link that is slow, silent, hostile or gone costs the others nothing: what is sent waits in a slot that the newest
fills, never in a queue. Reads no clock but the loop's and draws no lots but the given ones, so that a simulation
runs this code as it is.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Never

import msgspec

from agent.ports import Connection, Dial, DriverError
from agent.questions import Reply
from fleet.messages import (
    ORDERS_LIMIT_BYTES,
    Ack,
    Applied,
    Beat,
    FromController,
    Orders,
    Recall,
    Recalled,
    Usage,
)
from fleet.model import ControllerId
from fleet.pastuse import PastAsked
from fleet.skew import CONTROLLERS, unknown_caps, unknown_kind
from metrics.exporter import Exporter
from runtime import log, supervise

ACK_S = 2.0  # a controller that heard nothing for as long calls us unreachable: try anew before people ask
SEND_S = 1.0  # two beats: a link that takes no more is dead or might as well be
DIAL_S = 3.0  # TCP, TLS and the upgrade across an ocean, with one lost packet
CLOSE_S = 1.0
BACKOFF_S = 0.2
USAGE_BEATS = (
    16  # a telling is on its way by the end of so many beats: 8 s of the 10 until the next
)
ANSWERS_MAX = 8  # that wait to be sent; no controller has more questions open
# An honest controller sends two acknowledgements a second, and orders when something moves.
FLOOD_FRAMES_PER_S = 200
FLOOD_BYTES_PER_S = 2 * ORDERS_LIMIT_BYTES

Deliver = Callable[[Orders | Recall], Applied | Recalled | None]
"""Hands what a controller wants to whoever follows it; an answer goes back on the same link."""
Asked = Callable[[], None]
"""Told whenever a controller asks that this host's credential be changed."""
Question = Callable[[PastAsked, Reply], None]
"""Takes what a controller wants to know, and what sends the answer on the same link; returns at once."""

_log = log.logger("link")
_decoder = msgspec.json.Decoder(FromController)


class Link:
    """The link to one controller."""

    def __init__(
        self,
        controller: ControllerId,
        dial: Dial,
        deliver: Deliver,
        *,
        random: Random,
        reconnect_max_s: float,
        exporter: Exporter,
        asked: Asked,
        question: Question,
    ) -> None:
        self.controller = controller
        self.connected = False
        self._dial, self._deliver, self._random = dial, deliver, random
        self._reconnect_max_s = reconnect_max_s
        self._exporter, self._asked, self._question = exporter, asked, question
        self._beat: tuple[int, bytes] | None = None
        self._applied: bytes | None = None
        self._usage: deque[bytes] = deque()  # one telling's frames; the next one's take their place
        self._share = self._credit = 0  # how many of them after each beat, and yet before the next
        self._answers: deque[bytes] = deque(maxlen=ANSWERS_MAX)
        self._due = asyncio.Event()
        self._pending: deque[tuple[int, float]] = deque()  # sequence, sent at; ACK_S bounds it
        self._heard = asyncio.Event()
        self._attempts = 0
        self._meter = _Meter()
        self._met_newer = False
        self._lacks: tuple[str, ...] = ()
        exporter.set("relevo_agent_connected", 0, controller=controller)

    def beat(self, sequence: int, frame: bytes) -> None:
        """Send this beat next; it takes the place of one that has not been sent yet."""
        self._beat = (sequence, frame)
        self._heard.clear()
        self._due.set()

    def applied(self, frame: bytes) -> None:
        """Send this acknowledgement of orders next; it takes the place of an older one."""
        self._applied = frame
        self._due.set()

    def usage(self, frames: Sequence[bytes]) -> None:
        """Send these when nothing else waits, a few after each beat; they take the place of what was not sent yet."""
        self._usage = deque(frames)
        self._share = self._credit = -(-len(frames) // USAGE_BEATS)
        self._due.set()

    def answer(self, frame: bytes) -> None:
        """Send this answer to a question when no beat waits; of too many the oldest is dropped."""
        self._answers.append(frame)
        self._due.set()

    async def heard(self) -> None:
        """Wait until the controller has acknowledged the last beat; at once where there is no link."""
        if self.connected:
            await self._heard.wait()

    async def keep(self) -> Never:
        """Eternal: dial, talk until it breaks, wait, again. The wait is drawn from all of 0 to a doubling limit."""
        while True:
            try:
                await self._once()
            except* DriverError as group:
                errors = "; ".join(str(error) for error in _leaves(group))
                _log.warning("link lost", controller=self.controller, error=errors)
            supervise.end_if_cancelled()
            self._exporter.count("relevo_agent_reconnects_total", controller=self.controller)
            limit_s = min(self._reconnect_max_s, BACKOFF_S * 2.0**self._attempts)
            self._attempts = min(self._attempts + 1, 16)
            await asyncio.sleep(self._random.uniform(0, limit_s))

    async def _once(self) -> None:
        try:
            async with asyncio.timeout(DIAL_S):
                connection = await self._dial(self.controller)
        except TimeoutError as error:
            raise DriverError(f"no answer to the dial within {DIAL_S:g} s") from error
        self._opened(True)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send(connection))
                await self._receive(connection)
        finally:
            self._opened(False)
            await _close(connection)

    def _opened(self, connected: bool) -> None:
        self.connected = connected
        self._pending.clear()
        self._credit = 0  # a controller hears who we are before it hears how our sites are
        self._applied = None  # the beat says which orders are in force: an old answer is no news
        self._answers.clear()  # whoever asked has gone
        if not connected:
            self._heard.set()
        self._exporter.set("relevo_agent_connected", connected, controller=self.controller)
        if connected:
            _log.info("linked", controller=self.controller)

    async def _send(self, connection: Connection) -> Never:
        loop = asyncio.get_running_loop()
        while True:
            if (applied := self._applied) is not None:
                self._applied = None
                await _send_bounded(connection, applied)
            if self._beat is not None:
                (sequence, frame), self._beat = self._beat, None
                self._pending.append((sequence, loop.time()))
                await _send_bounded(connection, frame)
                self._credit = self._share
                self._exporter.count("relevo_agent_beats_sent_total", controller=self.controller)
            if self._beat is None and self._applied is None and self._answers:
                await _send_bounded(connection, self._answers.popleft())
                continue
            if self._beat is None and self._applied is None and self._usage and self._credit:
                self._credit -= 1
                await _send_bounded(connection, self._usage.popleft())
                continue
            if self._beat is None and self._applied is None:
                self._due.clear()
                await self._wait_due()

    async def _wait_due(self) -> None:
        """Until there is something to send. Raises DriverError if the oldest beat is not acknowledged in time."""
        oldest = self._pending[0] if self._pending else None
        try:
            async with asyncio.timeout_at(oldest[1] + ACK_S if oldest else None):
                await self._due.wait()
        except TimeoutError:
            if self._pending and self._pending[0] == oldest:
                raise DriverError(f"no acknowledgement for {ACK_S:g} s") from None

    async def _receive(self, connection: Connection) -> Never:
        while True:
            frame = await connection.receive()
            self._meter.count(len(frame), asyncio.get_running_loop().time())
            match self._decode(frame):
                case Ack(sequence=sequence, change_credential=change):
                    self._acknowledged(sequence)
                    if change:
                        self._asked()
                case Orders() | Recall() as wanted:
                    if answer := self._deliver(wanted):
                        self.applied(msgspec.json.encode(answer))
                case PastAsked() as asked:
                    self._question(asked, self.answer)

    def _decode(self, frame: bytes) -> FromController | None:
        """None for a message that only a newer release knows. Raises DriverError."""
        if len(frame) > ORDERS_LIMIT_BYTES:
            self._exporter.count("relevo_agent_orders_refused_total", reason="malformed")
            raise DriverError(f"frame of {len(frame)} bytes, above {ORDERS_LIMIT_BYTES}")
        try:
            message: FromController = _decoder.decode(frame)
        except (ValueError, RecursionError) as error:  # the latter: nested a million deep
            if kind := unknown_kind(frame, CONTROLLERS):
                self._unknown(kind)
                return None
            self._exporter.count("relevo_agent_orders_refused_total", reason="malformed")
            raise DriverError(f"malformed frame of {len(frame)} bytes: {error}") from error
        if isinstance(message, Orders):
            self._lacking(unknown_caps(frame))
        return message

    def _lacking(self, caps: tuple[str, ...]) -> None:
        if caps:
            self._exporter.count("relevo_agent_unknown_caps_total", controller=self.controller)
        if caps and caps != self._lacks:
            _log.warning(
                "caps that only a newer release knows are not held",
                controller=self.controller,
                caps=caps,
            )
        self._lacks = caps

    def _unknown(self, kind: str) -> None:
        self._exporter.count("relevo_agent_unknown_messages_total", controller=self.controller)
        if not self._met_newer:
            _log.info(
                "a newer controller's message is ignored", controller=self.controller, kind=kind
            )
        self._met_newer = True

    def _acknowledged(self, sequence: int) -> None:
        """The beat `sequence`, and with it all earlier ones of this connection, was heard."""
        if not any(sent == sequence for sent, _ in self._pending):
            return
        while self._pending[0][0] != sequence:
            self._pending.popleft()
        self._pending.popleft()
        self._attempts = 0  # only now: one that takes links and never listens is not hammered
        if not self._pending and self._beat is None:
            self._heard.set()
        self._exporter.count("relevo_agent_beats_acknowledged_total", controller=self.controller)


class Links:
    """All links of one agent. Frames are built once and given to each."""

    def __init__(
        self,
        controllers: Iterable[ControllerId],
        dial: Dial,
        deliver: Deliver,
        *,
        random: Random,
        reconnect_max_s: float,
        exporter: Exporter,
        asked: Asked = lambda: None,
        question: Question = lambda _, __: None,
    ) -> None:
        self.links = tuple(
            Link(
                controller,
                dial,
                deliver,
                random=random,
                reconnect_max_s=reconnect_max_s,
                exporter=exporter,
                asked=asked,
                question=question,
            )
            for controller in controllers
        )
        self._encoder = msgspec.json.Encoder()

    async def keep(self) -> None:
        """Eternal: every link, none waiting for another."""
        async with asyncio.TaskGroup() as group:
            for link in self.links:
                group.create_task(link.keep(), name=f"link {link.controller}")

    def beat(self, beat: Beat) -> None:
        frame = self._encoder.encode(beat)
        for link in self.links:
            link.beat(beat.sequence, frame)

    def usage(self, told: Sequence[Usage]) -> None:
        """Tell every controller; never before a beat that is due."""
        frames = [self._encoder.encode(usage) for usage in told]
        for link in self.links:
            link.usage(frames)

    def applied(self, applied: Applied) -> None:
        frame = self._encoder.encode(applied)
        for link in self.links:
            link.applied(frame)

    async def heard(self, within_s: float) -> bool:
        """Wait until every linked controller has acknowledged the last beat; False if `within_s` was too short."""
        try:
            async with asyncio.timeout(within_s):
                for link in self.links:
                    await link.heard()
        except TimeoutError:
            return False
        return True


class _Meter:
    """Counts what comes within one second; too much of it ends the link."""

    def __init__(self) -> None:
        self._since, self._frames, self._bytes = 0.0, 0, 0

    def count(self, size: int, now: float) -> None:
        if now - self._since >= 1.0:
            self._since, self._frames, self._bytes = now, 0, 0
        self._frames += 1
        self._bytes += size
        if self._frames > FLOOD_FRAMES_PER_S or self._bytes > FLOOD_BYTES_PER_S:
            raise DriverError(f"flood: {self._frames} frames, {self._bytes} bytes in a second")


async def _send_bounded(connection: Connection, frame: bytes) -> None:
    try:
        async with asyncio.timeout(SEND_S):
            await connection.send(frame)
    except TimeoutError as error:
        raise DriverError(f"the link took nothing for {SEND_S:g} s") from error


async def _close(connection: Connection) -> None:
    try:
        async with asyncio.timeout(CLOSE_S):
            await connection.close()
    except TimeoutError:
        _log.warning("closing a link took too long")


def _leaves(group: BaseExceptionGroup[DriverError]) -> list[DriverError]:
    """The errors in a group of groups."""
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]
