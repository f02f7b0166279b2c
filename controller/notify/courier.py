"""One receiver's letters: what is due is sent, tried again, given up in the end; what was told is remembered.

Nothing is queued: each round compares what stands with what was told, so that a receiver who was away for an hour is
told how things are then. At least once: who stops between sending and remembering leaves the next leader to repeat it.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from controller import settle
from controller.mirror import Mirror
from controller.notify import due, wording
from controller.notify.due import Draft, Due
from controller.notify.letter import Letter, Notifier, NotSent
from controller.notify.matters import Matter, Severity
from controller.notify.settings import Receiver
from controller.notify.voice import Voice
from controller.store import Leadership, Put, StoreError
from fleet import keys
from fleet.notified import Notified, Told
from metrics.exporter import Exporter
from runtime import log
from runtime.clock import wall

_log = log.logger("notify")
GATHER_S = 1.0  # what happens together is told together
RETRY_S = (1.0, 2.0, 5.0, 15.0, 30.0, 60.0)
FINAL_S = 300.0  # until what was refused for good is tried again: an admin may be mending it
GRACE_S = 5.0  # beyond its own timeout, for a driver to end
WRITE_AGAIN_S = 1.0
SEEN_S = 2.0  # for our mirror to show what we wrote


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is looked at in one round. `fleet` None: another controller tells of the fleet, or nobody may."""

    own: tuple[Matter, ...] = ()
    fleet: tuple[Matter, ...] | None = None
    unsure: frozenset[str] = frozenset()
    doubts: Callable[[str], bool] = lambda key: False

    def of(self, kinds: Iterable[str]) -> tuple[Matter, ...]:
        wanted = frozenset(kinds)
        return tuple(m for m in (*self.own, *(self.fleet or ())) if m.what in wanted)


class Courier:
    """Lives as long as the controller; what only a leader tells it tells only while it leads."""

    def __init__(
        self,
        receiver: Receiver,
        notifier: Notifier,
        *,
        mirror: Mirror,
        leadership: Callable[[], Leadership | None],
        exporter: Exporter,
        controller: str,
        base: str,
    ) -> None:
        self.receiver, self._notifier = receiver, notifier
        self._mirror, self._leadership, self._exporter = mirror, leadership, exporter
        self._voices = [Voice(lang, controller, base) for lang in receiver.languages]
        self._ending = frozenset(receiver.what) - {"incidents", "orders"}
        self._least = Severity(receiver.least)
        self._own = Notified(since=wall())
        self._unwritten: dict[str, Told] = {}
        self._letters: tuple[float, ...] = ()
        self._since: dict[str, float] = {}  # key -> the instant at which it became due
        self._gone: dict[str, float] = {}  # key -> the instant since which it has not stood
        self._tries = 0
        self._again_at = self._write_at = 0.0
        self.sent_at: float | None = None
        self.error = ""
        for outcome in ("sent", "failed", "dropped"):
            exporter.count("relevo_notices_total", 0, notifier=receiver.name, outcome=outcome)

    @property
    def waiting(self) -> int:
        """Matters that are due and not yet told."""
        return len(self._since)

    async def round(self, standing: Standing) -> None:
        """Tell what is due now. Ends within the driver's timeout; raises nothing that a receiver causes."""
        leads = standing.fleet is not None
        record = self._record(leads=leads)
        found = standing.of(self.receiver.what)
        loud = self._due(found, record, standing)
        now, severity = _now(), _most(loud)
        ripe = loud and now - min(self._since[d.matter.key] for d in loud) >= GATHER_S
        if ripe and now >= self._again_at and due.letter_at(record, severity) <= wall():
            for draft in due.drafts(loud, record, self.receiver.name):
                if not await self._deliver(draft, leads=leads):
                    break
        if leads:
            await self._write(frozenset(matter.key for matter in found))

    def _due(self, found: Sequence[Matter], record: Notified, standing: Standing) -> list[Due]:
        """What is to be told aloud; what is below `least` counts as told in silence."""
        dues = due.due(found, record, self._gone_s(found, record, standing), wall())
        loud = [d for d in dues if d.matter.severity.rank <= self._least.rank]
        quiet = tuple(d for d in dues if d.matter.severity.rank > self._least.rank)
        if quiet:
            self._remember(Draft(id="", dues=quiet, follows=()), sent=False)
        names = {d.matter.key for d in loud}
        self._since = {key: at for key, at in self._since.items() if key in names}
        for name in names:
            self._since.setdefault(name, _now())
        return loud

    def _gone_s(
        self, found: Iterable[Matter], record: Notified, standing: Standing
    ) -> Mapping[str, float]:
        """For how long each matter that was told has surely not stood."""
        here = {matter.key for matter in found} | standing.unsure
        # Of an incident the last word is its own.
        ending = (key for key in record.told if key.partition("/")[0] in self._ending)
        now = _now()
        self._gone = {
            key: self._gone.get(key, now)
            for key in ending
            if key not in here and not standing.doubts(key)
        }
        return {key: now - at for key, at in self._gone.items()}

    # --- sending

    async def _deliver(self, draft: Draft, *, leads: bool) -> bool:
        """False: not now. Whoever lost the lead meanwhile leaves the fleet's matters to the next leader."""
        if leads and any(not d.matter.own for d in draft.dues):
            leadership = self._leadership()
            if leadership is None or leadership.lost.is_set() or leadership.deadline <= _now():
                return False
        letter = wording.letter(draft, self._voices, wall(), cluster=self._mirror.id.cluster)
        try:
            await self.hand_over(letter)
        except NotSent as error:
            self._failed(draft, error)
            return False
        self._tries, self._again_at = 0, 0.0
        self._remember(draft, sent=True)
        name = self.receiver.name
        _log.info("notice", name=name, id=draft.id, subject=letter.subject, of=len(draft.dues))
        return True

    async def hand_over(self, letter: Letter, *, most_s: float = math.inf) -> None:
        """Send, count, and remember how it went. Raises NotSent, after `most_s` too."""
        name = self.receiver.name
        try:
            async with asyncio.timeout(min(most_s, self.receiver.timeout_s + GRACE_S)):
                await self._notifier.send(letter)
        except (NotSent, TimeoutError) as error:
            self._exporter.count("relevo_notices_total", notifier=name, outcome="failed")
            said = str(error) or "not done in time"
            if said != self.error:
                _log.warning("notice not sent", name=name, error=said)
            self.error = said
            raise error if isinstance(error, NotSent) else NotSent(said) from error
        self.sent_at, self.error = wall(), ""
        self._exporter.count("relevo_notices_total", notifier=name, outcome="sent")

    def _failed(self, draft: Draft, error: NotSent) -> None:
        now = _now()
        if now - min(self._since[d.matter.key] for d in draft.dues) >= self.receiver.give_up_s:
            name = self.receiver.name
            self._exporter.count("relevo_notices_total", notifier=name, outcome="dropped")
            _log.error("notice given up", name=name, error=str(error), of=len(draft.dues))
            self._remember(draft, sent=False)
        wait_s = FINAL_S if error.final else RETRY_S[min(self._tries, len(RETRY_S) - 1)]
        self._tries, self._again_at = self._tries + 1, now + wait_s

    # --- remembering

    def _record(self, *, leads: bool) -> Notified:
        """All that has been told, by this controller and by those that led before."""
        stored = self._mirror.notified.get(self.receiver.name) if leads else None
        base = stored or Notified(since=self._own.since)
        told = dict(base.told)
        for key, item in self._unwritten.items() if leads else ():
            if key not in told or told[key].at < item.at:
                told[key] = item
        letters = sorted({*base.letters, *self._letters})
        return msgspec.structs.replace(
            base, told={**told, **self._own.told}, letters=tuple(letters)
        )

    def _remember(self, draft: Draft, *, sent: bool) -> None:
        before = self._record(leads=self._leadership() is not None)
        told = due.after(before, draft, wall(), sent=sent)
        self._letters = told.letters
        for item in draft.dues:
            key = item.matter.key
            if item.matter.own:
                own = {**self._own.told, key: told.told[key]}
                self._own = msgspec.structs.replace(self._own, told=own)
            else:
                self._unwritten[key] = told.told[key]
            self._since.pop(key, None)

    async def _write(self, here: frozenset[str]) -> None:
        """Put what was told into the store, fenced. What fails is tried again; nothing is told twice for it."""
        mirror, name = self._mirror, self.receiver.name
        leadership, now = self._leadership(), _now()
        if leadership is None or now < self._write_at:
            return
        if not self._unwritten and name in mirror.notified:
            return
        record = self._record(leads=True)
        shared = {key: told for key, told in record.told.items() if key not in self._own.told}
        record = due.kept(msgspec.structs.replace(record, told=shared), here, wall())
        key, written = keys.notified(name), dict(self._unwritten)
        try:
            result = await leadership.txn([Put(key, settle.encode(record))], mirror.unchanged(key))
            if result.ok:
                async with asyncio.timeout(SEEN_S):
                    await mirror.reached(result.revision)
        except (StoreError, TimeoutError) as error:
            self._write_at = now + WRITE_AGAIN_S
            _log.warning("what was told is not remembered yet", name=name, error=str(error))
            return
        if result.ok:
            self._unwritten = {k: v for k, v in self._unwritten.items() if written.get(k) != v}


def _most(dues: Iterable[Due]) -> Severity:
    """The most urgent."""
    return min((d.matter.severity for d in dues), key=lambda s: s.rank, default=Severity.INFO)


def _now() -> float:
    return asyncio.get_running_loop().time()
