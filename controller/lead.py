"""The failover loop of the controller that leads: evidence, verdicts, plan, guards, one fenced commit; then its proof.

Every round starts from what is: the mirror, the link and the clock. A lost commit costs one round; a lost
leadership ends the loop with all that it held in memory.
"""

import asyncio
import secrets
import uuid
from collections.abc import Sequence
from typing import Never

from controller import incidents, settle
from controller.board import Board
from controller.events import Events
from controller.incidents import Times
from controller.link import Link
from controller.mirror import Mirror
from controller.ports import Convergence
from controller.progress import Progress, Proofs
from controller.sight import Sight
from controller.store import (
    Cmp,
    Delete,
    Denied,
    Leadership,
    LeaseLost,
    NoSpace,
    Op,
    Put,
    StoreError,
)
from controller.upkeep import Upkeep
from failover.guards import Guarded
from failover.judge import Kind
from failover.plan import Proposal, Situation
from failover.policy import Policy
from fleet import keys
from fleet.model import (
    Budget,
    Hold,
    HostId,
    Incident,
    Note,
    Spent,
    StoreId,
    Switches,
    Why,
)
from metrics.exporter import Exporter
from runtime import log
from runtime.clock import iso, wall
from runtime.supervise import Watchdog

_log = log.logger("lead")
BATCH = 100  # operations in one of our transactions; the store takes 128, compares included
HOUR_S = 3600.0
BATCH_BYTES = 1 << 20  # of documents in one of our transactions; the store takes 1.5 MiB
BREATH_S = 0.01  # between two rounds at least: nobody's urgency is a busy loop
CALM_S = 5.0  # a cause is over when it has been for this long


class Leader:
    """Decides while it leads, from what `sight` sees."""

    def __init__(
        self,
        *,
        mirror: Mirror,
        link: Link,
        sight: Sight,
        board: Board,
        events: Events,
        convergence: Convergence,
        proofs: Proofs,
        exporter: Exporter,
        policy: Policy,
        tick_s: float,
        watchdog: Watchdog,
    ) -> None:
        self._mirror, self._link, self.sight = mirror, link, sight
        self._board, self._events = board, events
        self._exporter, self._tick_s = exporter, tick_s
        self._watchdog = watchdog
        self._convergence = convergence
        self._progress = Progress(mirror, link, convergence, proofs, exporter)
        self._upkeep = Upkeep(mirror, link, convergence, policy)
        self._decided_at = -1
        self.leadership: Leadership | None = None

    async def lead(self, leadership: Leadership) -> Never:
        """Round after round until the leadership is lost. Raises LeaseLost."""
        now = asyncio.get_running_loop().time
        self._upkeep.begin()
        self.leadership = leadership
        self._exporter.set("relevo_controller_leader", 1)
        try:
            while (started := now()) < leadership.deadline and not leadership.lost.is_set():
                heard, again = self._link.urgent.count, False
                if self.sight.another_sees_better:
                    raise LeaseLost("this controller doubts itself, another one does not")
                try:
                    async with asyncio.timeout_at(leadership.deadline):
                        again = await self._round(leadership, Times(wall=wall(), now=started))
                    self._watchdog.finished("lead")
                except LeaseLost:
                    raise
                except TimeoutError:
                    break  # a round that outlives the lease decides nothing more
                except StoreError as error:
                    self._refused(error)
                    self._watchdog.finished("lead")  # a store that refuses is no loop that hangs
                self._exporter.observe("relevo_controller_round_seconds", now() - started)
                await asyncio.sleep(BREATH_S)
                if not again:
                    await self._link.urgent.within(heard, started + self._tick_s - now())
        finally:
            self.leadership = None
            self._exporter.set("relevo_controller_leader", 0)
        raise LeaseLost("the leader's lease has ended")

    def _refused(self, error: StoreError) -> None:
        """Say that the store failed us: in the metrics always, in the log once for each kind of words."""
        kind = type(error).__name__
        self._exporter.count("relevo_controller_store_errors_total", kind=kind)
        if (said := f"{kind}: {error}") != self._board.store_error:
            _log.error("the store refuses", error=said)
            self._events.publish("store", error=said)
        self._board.store_error = said

    async def _round(self, leadership: Leadership, times: Times) -> bool:
        """Look, decide, and make one commit; True: there was one, look again at once.

        One commit, because the next must be decided from what this one and everybody else's left (rule R1).
        """
        mirror = self._mirror
        self._decided_at = mirror.revision
        if await self._found(leadership):
            return True
        self._board.dns_holds = self._convergence.holds()
        situation, plan = self.sight.look(times)
        if self._board.rewound is not None:
            return False
        for guarded in plan:
            if await self._carry_out(leadership, guarded, times) or self._outrun():
                return True
        return (
            await self._settle(leadership, situation, times)
            or await self._follow_incidents(leadership, plan, times)
            or await self._keep_holds(leadership, times)
        )

    def _outrun(self) -> bool:
        """Whether the store has changed since this round looked: what was decided is no longer decided."""
        return self._mirror.revision != self._decided_at

    async def _found(self, leadership: Leadership) -> bool:
        """A new store gets its name first; True: nothing else is done in this round."""
        if self._mirror.id.cluster:
            return False
        founding = (
            Put(keys.STORE, settle.encode(StoreId(cluster=uuid.uuid4().hex))),
            Put(keys.PROOF, settle.encode(secrets.token_urlsafe(24))),
            Put(keys.SWITCHES, settle.encode(Switches())),
        )
        await self._write(leadership, founding, self._mirror.unchanged(keys.STORE))
        return True

    async def _carry_out(self, leadership: Leadership, guarded: Guarded, times: Times) -> bool:
        """Commit what the guards allow, with the incident and what it spends; record what they held."""
        cause = guarded.proposal.cause
        existing = incidents.to_continue(self._mirror.incidents.values(), cause.host, times.wall)
        if not guarded.acts and existing and incidents.same_plan(existing, guarded):
            return False
        incident = existing or incidents.begin(
            guarded, self.sight.verdicts[cause.host], times, self._board.testimony(cause.host)
        )
        incident = incidents.decide(incident, guarded, times)
        operations, watched = self._effects(guarded, incident, times)
        operations.append(Put(keys.incident(incident.id), settle.encode(incident)))
        watched.append(keys.incident(incident.id))
        try:
            done = await self._write(leadership, operations, self._mirror.unchanged(*watched))
        except (Denied, NoSpace) as error:
            # One cause that the store won't take must not keep the others from their commit.
            self._refused(error)
            return False
        if done:
            self._announce(guarded, incident, new=existing is None)
            if guarded.acts:
                known = len(existing.timeline) if existing else 0
                self._progress.observe(incident.timeline[known:])
        return True

    def _effects(
        self, guarded: Guarded, incident: Incident, times: Times
    ) -> tuple[list[Op], list[bytes]]:
        """What a commit writes beside its incident, and the keys that must not have changed meanwhile."""
        mirror, operations = self._mirror, list[Op]()
        # The fleet too: a host that is removed in this moment is no target.
        watched = [
            keys.FLEET,
            keys.SWITCHES,
            keys.BUDGET,
            keys.drain(guarded.proposal.cause.host),
        ]
        if guarded.moves:
            documents = settle.moved(
                mirror.placements,
                {site: home for home, doc in mirror.placements.items() for site in doc.sites},
                {move.site: move.target for move in guarded.moves},
                since=iso(times.wall),
                why=Why(guarded.proposal.cause.verdict, {"host": guarded.proposal.cause.host}),
                incident=incident.id,
            )
            for home, document in documents.items():
                operations.append(Put(keys.placements(home), settle.encode(document)))
                watched.append(keys.placements(home))
        if guarded.withdraw is True:
            note = Note(
                owner="relevo",
                reason=guarded.proposal.cause.verdict,
                since=times.wall,
                until=times.wall + 365 * 24 * HOUR_S,
            )
            key = keys.withdrawn(guarded.proposal.cause.host)
            operations.append(Put(key, settle.encode(note)))
            watched.append(key)
        if guarded.spends:
            item = Spent(at=times.wall, cause=guarded.proposal.cause.id, incident=incident.id)
            kept = (s for s in mirror.budget.spent if times.wall - s.at < HOUR_S)
            operations.append(Put(keys.BUDGET, settle.encode(Budget(spent=(*kept, item)))))
        return operations, watched

    def _announce(self, guarded: Guarded, incident: Incident, *, new: bool) -> None:
        cause = guarded.proposal.cause
        if new:
            self._exporter.count("relevo_incidents_total", verdict=cause.verdict)
        if guarded.moves:
            self._exporter.count("relevo_moves_total", len(guarded.moves), cause=cause.verdict)
        _log.info(
            "decided",
            incident=incident.id,
            moved=len(guarded.moves),
            would=len(guarded.would),
            held=len(guarded.held),
            why=cause.why.code,
        )

    async def _settle(self, leadership: Leadership, situation: Situation, times: Times) -> bool:
        """Bring the store's derived documents up to date, a batch a round; True: something was written."""
        return await self._batch(leadership, self._upkeep.missing(situation, times))

    async def _batch(self, leadership: Leadership, operations: Sequence[Op]) -> bool:
        """Write what fits one request; the rest is found again by the next round. True: something was written."""
        some: list[Op] = []
        size = 0
        for operation in operations[: BATCH // 2]:
            size += len(operation.value) if isinstance(operation, Put) else 0
            if some and size > BATCH_BYTES:
                break
            some.append(operation)
        if some:
            watched = self._mirror.unchanged(*(operation.key for operation in some))
            await self._write(leadership, some, watched)
        return bool(some)

    async def _follow_incidents(
        self, leadership: Leadership, plan: Sequence[Guarded], times: Times
    ) -> bool:
        """Add to every open incident what has come true, and close those whose cause is over."""
        proposals = {guarded.proposal.cause.host: guarded.proposal for guarded in plan}
        mirror, wrote = self._mirror, False
        for incident in list(mirror.incidents.values()):
            # One that changed while another was written is looked at in the next round.
            if incident.closed_at is not None or mirror.incidents.get(incident.id) is not incident:
                continue
            grown = self._progress.follow(incident, times, settled=self._upkeep.settled)
            grown = self._close(grown, proposals.get(HostId(incident.subject)), times)
            if grown is not incident:
                key = keys.incident(incident.id)
                put = Put(key, settle.encode(grown))
                wrote = True
                if await self._write(leadership, (put,), mirror.unchanged(key)):
                    self._progress.observe(grown.timeline[len(incident.timeline) :])
        return wrote

    def _close(self, incident: Incident, proposal: Proposal | None, times: Times) -> Incident:
        if proposal is not None or not (incident.complete or not incidents.acted(incident)):
            return incident
        verdict = self.sight.verdicts.get(HostId(incident.subject))
        # Only `up` ends trouble, and only if it lasts: a host that flaps does not get an incident for each word.
        over = verdict is None or (verdict.kind is Kind.UP and times.now - verdict.since >= CALM_S)
        if incident.complete and not incident.held and (over or incident.verdict == "drain"):
            return incidents.close(incident, times.wall, Why("recovered"))
        if over and not incidents.acted(incident):
            return incidents.close(incident, times.wall, Why("cause-over"))
        return incident

    async def _keep_holds(self, leadership: Leadership, times: Times) -> bool:
        """Make the stored holds those that stand now, and no others."""
        wanted, stored = self._board.holds(times.wall), self._mirror.holds
        operations: list[Op] = [
            Put(keys.hold(id), settle.encode(hold))
            for id, hold in wanted.items()
            if id not in stored or not _same_hold(stored[id], hold)
        ]
        operations += [Delete(keys.hold(id)) for id in stored if id not in wanted]
        return await self._batch(leadership, operations)

    async def _write(
        self, leadership: Leadership, operations: Sequence[Op], when: Sequence[Cmp]
    ) -> bool:
        """One fenced transaction; when it is in, wait until the mirror shows it. False: somebody was faster."""
        result = await leadership.txn(settle.named(operations, secrets.token_hex(8)), when)
        if not result.ok:
            _log.info(
                "commit lost a race", keys=[operation.key.decode() for operation in operations]
            )
            return False
        self._board.store_error = ""
        await self._mirror.reached(result.revision)
        return True


def _same_hold(old: Hold, new: Hold) -> bool:
    """By what is held and why; measured values that change with every beat are no news."""
    return (old.kind, old.subject, old.why.code, _held(old)) == (
        new.kind,
        new.subject,
        new.why.code,
        _held(new),
    )


def _held(hold: Hold) -> set[tuple[str, str | None, str]]:
    return {(item.site, item.target, item.why.code) for item in hold.sites}
