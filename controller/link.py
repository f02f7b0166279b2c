"""The agents' other end: beats become evidence, orders go out. Knows what was heard and when, judges nothing."""

import asyncio
import hmac
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Never

import msgspec

from controller.ports import Connection, ConnectionLost, Probing
from controller.questions import Questions
from controller.uses import Uses
from failover.doubt import Doubt, step
from failover.evidence import (
    Evidence,
    Opinion,
    Reach,
    Report,
    Seen,
    Witness,
    told,
    word_on,
)
from failover.policy import Policy
from failover.routes import Intent, Shared, orders, probes, shared
from fleet.access import digest
from fleet.messages import (
    BEAT_LIMIT_BYTES,
    FRAME_LIMIT_BYTES,
    Ack,
    Applied,
    Beat,
    FromAgent,
    Orders,
    Recall,
    Recalled,
    Usage,
)
from fleet.model import ControllerId, Epoch, Fleet, Health, HostId, Observation, Word
from fleet.pastuse import PastAsked, PastTold
from fleet.skew import AGENTS, unknown_kind
from metrics.exporter import Exporter
from runtime import log
from runtime.pulse import Pulse
from runtime.supervise import end_if_cancelled

_log = log.logger("link")
SEND_TIMEOUT_S = 1.0  # a peer that does not read for two beats is gone
SILENCE_S = 10.0  # a link without a frame for this long is closed; the agent makes a new one
ASK_AGAIN_S = 1.0
TIME_S = 0.1  # a tenth of the stall that makes us doubt ourselves
OPINION_S = 1.5  # a view of others older than three beats is none
CLOSE_S = 1.0  # for an older link's farewell
# What one link may take of this process (rule R15). An honest agent sends two beats a second and an answer to orders.
FLOOD_FRAMES_PER_S = 20
FLOOD_BURST = 60  # what waits unread while we stand still: more than its patience (2 s) allows
URGENT_S = 0.2  # how often one host's news may wake the leader; its regular round sees the rest

_decoder: msgspec.json.Decoder[FromAgent] = msgspec.json.Decoder(FromAgent)
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Heard:
    """What one host has said: its last beat and when it came (loop clock), and what it has of ours."""

    beat: Beat
    at: float
    applied: Epoch = field(default_factory=Epoch)
    applied_at: float = 0.0


class _Meter:
    """A bucket of FLOOD_BURST frames that fills at FLOOD_FRAMES_PER_S."""

    def __init__(self) -> None:
        self._left, self._at = float(FLOOD_BURST), float("-inf")

    def takes(self, now: float) -> bool:
        filled = self._left + (now - self._at) * FLOOD_FRAMES_PER_S
        self._left, self._at = min(float(FLOOD_BURST), filled) - 1, now
        return self._left >= 0


@dataclass(slots=True)
class _Session:
    connection: Connection
    digest: str | None = None  # of what it logged in by; None: not asked for
    expelled: bool = False
    sent: Orders | None = None
    fresh: bool = True
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    meter: _Meter = field(default_factory=_Meter)
    met_newer: bool = False


class Link:
    """Every connected agent. `urgent` beats when something was heard that should not wait for the next round.

    `tokens`: the digest by which each host logs in; what it says may change at any time. `changing`: hosts whose
    agents are asked, with every acknowledgement, to make themselves another credential. `uses` keeps what they tell of
    their sites.
    """

    def __init__(
        self,
        tokens: Mapping[HostId, str],
        exporter: Exporter,
        *,
        probing: Probing,
        id: ControllerId,
        controllers: frozenset[ControllerId],
        policy: Policy,
        uses: Uses | None = None,
    ) -> None:
        self.heard: dict[HostId, Heard] = {}
        self.urgent = Pulse()
        self.doubt = Doubt()
        # Enough agents were heard to know what they hold: before that, orders could be those of a rewound store.
        self.settled = False
        self.changing: Collection[HostId] = frozenset()
        self._tokens, self._exporter, self._policy = tokens, exporter, policy
        self._id, self._controllers, self._probing = id, controllers, probing
        self.uses = uses
        self._sessions: dict[HostId, _Session] = {}
        self._began: float | None = None
        self._intent: Intent | None = None
        self._common: Shared | None = None
        self._fleet = Fleet()
        self._assigned: dict[HostId, frozenset[HostId]] = {}
        self._urged: dict[tuple[HostId, str], float] = {}
        self._ordered = Epoch()
        self._kept_at: float | None = None
        self._late_s = 0.0
        self._recalled: dict[HostId, Recalled] | None = None  # while somebody asks
        self._answers = Pulse()
        self._questions = Questions(exporter)

    def admits(self, host: str, token: str) -> bool:
        """Whether `token` is this host's own. A foreign or wrong one is counted and refused."""
        sent = digest(token)
        known = self._tokens.get(HostId(host), "")
        if known and hmac.compare_digest(known, sent):
            return True
        foreign = any(hmac.compare_digest(sent, other) for other in self._tokens.values())
        reason = "foreign-token" if foreign else "wrong-token" if known else "unknown-host"
        self.refused(reason, host)
        return False

    def refused(self, reason: str, host: str) -> None:
        self._exporter.count("relevo_link_refused_total", reason=reason)
        _log.warning("link refused", reason=reason, host=host)

    @property
    def live_edge_s(self) -> float:
        """An edge heard within this time is live."""
        return self._policy.live_edge_s

    @property
    def connected(self) -> frozenset[HostId]:
        return frozenset(self._sessions)

    async def serve(self, host: HostId, connection: Connection, digest: str | None = None) -> None:
        """Listen to one agent until its link ends; a newer link of the same host takes the place of an older one.

        `digest`: of what it logged in by; when that is no longer this host's, the link ends.
        """
        session = _Session(connection, digest)
        older, self._sessions[host] = self._sessions.get(host), session
        self._expel(host, session)  # it may have been revoked while the link was being opened
        try:
            if older is not None:
                await _close(older.connection)
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(session))
                try:
                    await self._read(host, session)
                finally:
                    writer.cancel()
        except* ConnectionLost as lost:
            _log.info("link ended", host=host, why=str(lost.exceptions[0]))
        finally:
            if self._sessions.get(host) is session:
                del self._sessions[host]
                self._forget_strangers()
            await _close(connection)
        end_if_cancelled()

    async def _read(self, host: HostId, session: _Session) -> None:
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    frame = await session.connection.receive()
            except TimeoutError:
                raise ConnectionLost(f"no frame for {SILENCE_S:g} s") from None
            self._bound(host, session, len(frame))
            await asyncio.sleep(0)  # frames that have already come keep nobody else waiting
            try:
                message = self._decode(frame, session)
            except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
                self.refused("malformed-frame", host)
                raise ConnectionLost(f"malformed frame: {error}") from None
            match message:
                case Beat():
                    await self._on_beat(host, message, session)
                case Applied():
                    self._on_applied(host, message.epoch)
                case Usage():
                    self._on_usage(host, message)
                case Recalled() if self._recalled is not None:
                    self._recalled[host] = message
                    self._answers.beat()
                case PastTold():
                    self._questions.take(host, message)

    def _bound(self, host: HostId, session: _Session, size: int) -> None:
        """Raises ConnectionLost for what no honest agent sends, before it is read."""
        if FRAME_LIMIT_BYTES < size <= BEAT_LIMIT_BYTES and size > (limit := self._limit(host)):
            self.refused("flood", host)
            raise ConnectionLost(f"flood: a frame of {size} bytes, above {limit}")
        if not session.meter.takes(asyncio.get_running_loop().time()):
            self.refused("flood", host)
            raise ConnectionLost(f"flood: more than {FLOOD_FRAMES_PER_S} frames a second")

    def _limit(self, host: HostId) -> int:
        """Of a frame in bytes: an edge has many checks to tell, and whoever has sites their use."""
        declared = self._fleet.hosts.get(host)
        if declared is not None and declared.is_edge:
            return BEAT_LIMIT_BYTES
        return self.uses.limit_bytes(host) if self.uses and declared else FRAME_LIMIT_BYTES

    def _on_usage(self, host: HostId, usage: Usage) -> None:
        """Wakes nobody: what sites use decides nothing that can't wait for the next round."""
        if usage.host != host:
            self.refused("foreign-host", host)
            raise ConnectionLost(f"speaks for {usage.host}, not for itself")
        if self.uses is not None:
            self.uses.take(host, usage)

    def _decode(self, frame: bytes, session: _Session) -> FromAgent | None:
        """None for a message that only a newer release knows. Raises ValueError, RecursionError."""
        if len(frame) > BEAT_LIMIT_BYTES:
            raise ValueError(f"{len(frame)} bytes; at most {BEAT_LIMIT_BYTES}")
        try:
            return _decoder.decode(frame)
        except msgspec.ValidationError:
            if (kind := unknown_kind(frame, AGENTS)) is None:
                raise
        self._exporter.count("relevo_link_unknown_messages_total")
        if not session.met_newer:
            _log.info("a newer agent's message is ignored", kind=kind)
        session.met_newer = True
        return None

    async def _on_beat(self, host: HostId, beat: Beat, session: _Session) -> None:
        if beat.host != host:
            self.refused("foreign-host", host)
            raise ConnectionLost(f"speaks for {beat.host}, not for itself")
        if self._sessions.get(host) is not session:
            raise ConnectionLost("a newer link took its place")
        now = asyncio.get_running_loop().time()
        heard = self.heard.get(host)
        if heard is None:
            heard = self.heard[host] = Heard(beat, now)
            self._urge(host, "state")
        elif beat.state is not heard.beat.state or _views(beat) != _views(heard.beat):
            self._urge(host, "state")
        heard.beat, heard.at = beat, now
        self._on_applied(host, beat.orders)
        self._exporter.count("relevo_link_beats_total")
        await _send(
            session.connection,
            _encode(Ack(sequence=beat.sequence, change_credential=host in self.changing)),
        )

    def _on_applied(self, host: HostId, epoch: Epoch) -> None:
        """What is above all that was ever ordered here is a claim, not an answer: a later beat may repeat it."""
        heard = self.heard.get(host)
        if heard is not None and heard.applied < epoch <= self._ordered:
            heard.applied, heard.applied_at = epoch, asyncio.get_running_loop().time()
            self._urge(host, "applied")

    def _urge(self, host: HostId, news: str) -> None:
        """Wake the leader, unless this host did so just now by news of the same kind."""
        now, never = asyncio.get_running_loop().time(), float("-inf")
        if now - self._urged.get((host, news), never) >= URGENT_S:
            self._urged[host, news] = now
            self.urgent.beat()

    def expel(self) -> None:
        """End the links whose credential is no longer that of their host. Cheap where none is; waits for nobody."""
        for host, session in self._sessions.items():
            self._expel(host, session)

    def _expel(self, host: HostId, session: _Session) -> None:
        gone = session.digest is not None and self._tokens.get(host) != session.digest
        if gone and not session.expelled:
            self.refused("no-longer-valid", host)
            session.expelled = True
            session.turn.set()

    def know(self, fleet: Fleet) -> None:
        """The declared fleet: who is an edge, and who looks after whom. Cheap where it is the same."""
        if fleet is not self._fleet:
            self._fleet, self._assigned = fleet, {}
            self._forget_strangers()

    def _forget_strangers(self) -> None:
        """Drop what hosts said that are neither declared nor linked: declared again, they have never reported."""
        for host in self.heard.keys() - self._fleet.hosts.keys() - self._sessions.keys():
            del self.heard[host]

    async def _write(self, session: _Session) -> None:
        """Send the newest orders, and only those: a slow agent skips what became old meanwhile."""
        while True:
            await session.turn.wait()
            session.turn.clear()
            if session.expelled:
                raise ConnectionLost("its credential was changed or revoked")
            if session.sent is not None:
                await _send(session.connection, _encode(session.sent))
                self._exporter.count("relevo_link_orders_sent_total")

    def order(self, intent: Intent, epoch: Epoch) -> None:
        """Give every connected agent its orders at `epoch`, where they differ from what it was given last."""
        self.know(intent.fleet)
        changed = self._intent is None or not _same_intent(self._intent, intent)
        steady = self._intent is not None and _same_tenants(self._intent, intent)
        if changed or self._common is None:
            self._intent, self._common = intent, shared(intent)
        for host, session in self._sessions.items():
            if host not in intent.fleet.hosts or not (changed or session.sent is None):
                continue
            wanted = orders(host, intent, self._common, epoch, session.sent if steady else None)
            if session.sent is None or not _same(session.sent, wanted):
                session.sent = wanted
                session.turn.set()
        self._ordered = epoch

    def ordered(self, host: HostId) -> Orders | None:
        """What a connected agent was given last."""
        session = self._sessions.get(host)
        return session.sent if session else None

    def follows(self, host: HostId, epoch: Epoch) -> bool:
        """Whether an agent has applied all that the store said at `epoch`, or had nothing new to apply.

        It may have got the same from another controller; what no order here has reached does not count.
        """
        sent, heard = self.ordered(host), self.heard.get(host)
        if sent is None or heard is None:
            return False
        return self._ordered >= epoch and heard.applied >= sent.epoch

    async def keep_time(self) -> Never:
        """Eternal: notice when this process' own loop was late, however it was."""
        now = asyncio.get_running_loop().time
        self._kept_at = now()
        while True:
            await asyncio.sleep(TIME_S)
            self._late_s = max(self._late_s, now() - self._kept_at - TIME_S)
            self._kept_at = now()

    async def end(self) -> None:
        """Close every link, so that the agents look for a controller at once."""
        async with asyncio.TaskGroup() as group:
            for session in list(self._sessions.values()):
                group.create_task(session.connection.close())

    def watch_itself(self, hosts: frozenset[HostId]) -> None:
        """Once a round: do our own loop and our links to `hosts` let our view count (rule R5)?

        After a stall this may run before the time keeper does: what it has not kept yet counts too.
        """
        now = asyncio.get_running_loop().time()
        unkept_s = now - self._kept_at - TIME_S if self._kept_at is not None else 0.0
        late_s, self._late_s = max(self._late_s, unkept_s, 0.0), 0.0
        self._began = now if self._began is None else self._began
        links = {
            host: host in self.heard and now - self.heard[host].at < self._policy.unreachable_s
            for host in hosts
        }
        self.doubt = step(self.doubt, links, late_s, self._policy, now)
        if (
            not self.doubt.doubts_itself
            or not links
            or now - self._began >= self._policy.first_beat_s
        ):
            self.settled = True
        self._exporter.set("relevo_controller_doubts_itself", self.doubt.doubts_itself)
        self._exporter.set("relevo_link_agents", len(self._sessions))

    async def recall(self, wanted: frozenset[HostId], within_s: float) -> dict[HostId, Recalled]:
        """Ask every agent which orders it holds, also those of `wanted` that connect yet; who answered in time."""
        recalled: dict[HostId, Recalled] = {}
        self._recalled = recalled
        end = asyncio.get_running_loop().time() + within_s
        try:
            while (left_s := end - asyncio.get_running_loop().time()) > 0:
                count = self._answers.count
                silent = self._sessions.keys() - recalled.keys()
                for host in silent:
                    if (session := self._sessions.get(host)) is not None:
                        with suppress(ConnectionLost):
                            await _send(session.connection, _encode(Recall()))
                if not silent and wanted <= recalled.keys():
                    break
                await self._answers.within(count, min(left_s, ASK_AGAIN_S))
        finally:
            self._recalled = None
        return recalled

    async def past(self, host: HostId, asked: PastAsked) -> PastTold:
        """Ask a host about the past of a site. Raises NotLinked, NoAnswer, TooManyQuestions."""
        session = self._sessions.get(host)
        send = partial(_send, session.connection) if session else None
        return await self._questions.ask(host, asked, send)

    def words(self, fleet: Fleet) -> dict[HostId, Word]:
        """What the other controllers should know: the declared hosts that are not heard as they should be."""
        now = asyncio.get_running_loop().time()
        words = {
            id: word_on(self._reach(id, now), self._policy, is_edge=host.is_edge)
            for id, host in fleet.hosts.items()
        }
        return {id: word for id, word in words.items() if word is not None}

    def evidence(
        self, fleet: Fleet, known: frozenset[HostId], others: Mapping[ControllerId, Observation]
    ) -> Seen:
        """Everything that is known of every declared host, with its age: by this controller and by the `others`."""
        self.know(fleet)
        now = asyncio.get_running_loop().time()
        opinions = self._opinions(fleet, now)
        others = {id: said for id, said in others.items() if id in self._controllers - {self._id}}
        return Seen(
            controllers=self._controllers,
            live_edges=self._live_edges(fleet, others, now),
            has_edges=any(host.is_edge for host in fleet.hosts.values()),
            hosts={
                id: Evidence(
                    reach={self._id: self._reach(id, now), **self._told(id, others)},
                    opinions=opinions.get(id, {}),
                    report=_report(self.heard[id].beat) if id in self.heard else None,
                    known=id in known or id in self.heard,
                )
                for id in fleet.hosts
            },
        )

    def _told(
        self, host: HostId, others: Mapping[ControllerId, Observation]
    ) -> dict[ControllerId, Reach]:
        words = {id: told(host, said, self._policy) for id, said in others.items()}
        return {id: reach for id, reach in words.items() if reach is not None}

    def _live_edges(
        self, fleet: Fleet, others: Mapping[ControllerId, Observation], now: float
    ) -> frozenset[HostId]:
        """Edges whose beats reach a majority of the controllers."""
        needed = len(self._controllers) // 2 + 1
        return frozenset(
            id
            for id, host in fleet.hosts.items()
            if host.is_edge
            and (self.age_s(id, now) < self._policy.live_edge_s)
            + sum(id not in said.words for said in others.values())
            >= needed
        )

    def age_s(self, host: HostId, now: float) -> float:
        heard = self.heard.get(host)
        return now - heard.at if heard else float("inf")

    def _reach(self, host: HostId, now: float) -> Reach:
        heard = self.heard.get(host)
        began = self._began if self._began is not None else now
        return Reach(
            age_s=now - heard.at if heard else None,
            trusted=not self.doubt.doubts_itself,
            watched_s=now - began,
        )

    def _opinions(self, fleet: Fleet, now: float) -> dict[HostId, dict[str, Opinion]]:
        found: dict[HostId, dict[str, Opinion]] = {}
        for host, check in self._probing.checks(now).items():
            health = Health.UNKNOWN if self.doubt.doubts_itself else check.health
            own = Opinion(kind=Witness.CONTROLLER, health=health, since_s=check.since_s)
            found[host] = {self._id: own}
        for witness, heard in self.heard.items():
            declared, age_s = fleet.hosts.get(witness), now - heard.at
            if declared is None or age_s >= OPINION_S:
                continue
            kind = Witness.EDGE if declared.is_edge else Witness.NEIGHBOUR
            asked = fleet.hosts.keys() if declared.is_edge else self._asked(witness, fleet)
            for host in asked & heard.beat.checks.keys():
                check = heard.beat.checks[host]
                health = Health.UNKNOWN if heard.beat.doubts_itself else check.health
                opinion = Opinion(kind=kind, health=health, since_s=check.since_s + age_s)
                found.setdefault(host, {})[witness] = opinion
        return found

    def _asked(self, witness: HostId, fleet: Fleet) -> frozenset[HostId]:
        """The neighbours whom a host that is no edge was told to ask: of others it has no say (rule R15)."""
        if witness not in self._assigned:
            edges = any(host.is_edge for host in fleet.hosts.values())
            self._assigned[witness] = frozenset(() if edges else probes(witness, fleet))
        return self._assigned[witness]


async def _close(connection: Connection) -> None:
    try:
        async with asyncio.timeout(CLOSE_S):
            await connection.close()
    except (TimeoutError, ConnectionLost) as error:
        _log.warning("closing a link failed", error=repr(error))


async def _send(connection: Connection, frame: bytes) -> None:
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await connection.send(frame)
    except TimeoutError:
        raise ConnectionLost(f"did not read for {SEND_TIMEOUT_S:g} s") from None


def _views(beat: Beat) -> dict[HostId, Health]:
    return {host: check.health for host, check in beat.checks.items()}


def _same_intent(old: Intent, new: Intent) -> bool:
    """By identity where that is enough: the mirror replaces what changes."""
    return (
        old.fleet is new.fleet
        and old.places is new.places
        and old.tombstones == new.tombstones
        and _same_tenants(old, new)
        and old.rulings is new.rulings
        and old.penalties == new.penalties
        and (old.proof, old.cluster) == (new.proof, new.cluster)
    )


def _same_tenants(old: Intent, new: Intent) -> bool:
    """Whether a host that has the same sites is told the same of them."""
    return (
        old.fleet is new.fleet
        and old.enforcement is new.enforcement
        and old.overrides is new.overrides
    )


def _same(old: Orders, new: Orders) -> bool:
    """Whether `new` says nothing new: when it was said, and after which commit, changes nothing for the agent."""
    return msgspec.structs.replace(old, epoch=new.epoch, commit=new.commit) == new


def _report(beat: Beat) -> Report:
    return Report(
        boot_id=beat.boot_id,
        state=beat.state,
        service=beat.service,
        package_run=beat.package_run,
        memory_available_ratio=beat.load.memory_available_ratio,
    )
