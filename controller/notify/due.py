"""Which matters are to be told now, and how they are gathered into letters: pure.

Each change is told once. What flaps is told ever more rarely; what stands is repeated once a day at most; many at once
become one digest; a receiver gets a bounded number of letters, however many things happen.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from controller.notify.matters import DAY_S, OVER, Matter, Severity, over
from fleet.notified import MATTERS_KEPT, Notified, Told

OVER_S = 60.0  # gone for this long, it is over
AGAIN_S = (5.0, 15.0, 60.0, 300.0, 1800.0, 21_600.0)  # before the next word on the same matter
QUIET_S = (
    43_200.0  # without a word for this long a change is news again, and what is over is forgotten
)
APART = 3  # stories that have a letter of their own; more at once become one digest
FREE = 5  # letters in ten minutes that need not wait for each other
TEN_MINUTES_S = 600.0
GAP_S = 30.0
MOST_GAP_S = {Severity.ACT: 60.0, Severity.BAD: 300.0, Severity.INFO: 600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    matter: Matter
    reminder: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A letter before it has words. `follows`: the threads that its matters were told in before."""

    id: str
    dues: tuple[Due, ...]
    follows: tuple[str, ...]
    digest: bool = False

    @property
    def severity(self) -> Severity:
        return min((due.matter.severity for due in self.dues), key=lambda severity: severity.rank)


def due(
    standing: Sequence[Matter],
    record: Notified,
    gone_s: Mapping[str, float],
    wall: float,
) -> tuple[Due, ...]:
    """What is to be told at `wall` (Unix s). `gone_s`: for how long each told key has surely not stood."""
    found = [due for matter in standing if (due := _due(matter, record, wall))]
    for key, lasted_s in gone_s.items():
        told = record.told.get(key)
        if told and told.stage != OVER and lasted_s >= OVER_S and _patient(told, wall):
            found.append(Due(matter=over(key, told.story)))
    return tuple(found)


def _due(matter: Matter, record: Notified, wall: float) -> Due | None:
    told = record.told.get(matter.key)
    if told is None:
        ended = matter.incident.closed_at if matter.incident and matter.stage == "closed" else None
        return None if ended is not None and ended < record.since else Due(matter=matter)
    if told.stage != matter.stage:
        return Due(matter=matter) if _patient(told, wall) else None
    if matter.lasts and wall - told.at >= DAY_S:
        return Due(matter=matter, reminder=True)
    return None


def _patient(told: Told, wall: float) -> bool:
    """Whether enough time has passed since the last word on the matter. A clock that stepped back waits for nobody."""
    passed = wall - told.at
    return passed < 0 or passed >= AGAIN_S[min(told.times, len(AGAIN_S)) - 1]


def letter_at(record: Notified, severity: Severity) -> float:
    """From when (Unix s) the receiver may have another letter: the more it had lately, the later."""
    last = record.letters[-1] if record.letters else 0.0
    lately = sum(last - at < TEN_MINUTES_S for at in record.letters)
    if lately < FREE:
        return 0.0
    return last + min(GAP_S * 2.0 ** (lately - FREE), MOST_GAP_S[severity])


def drafts(dues: Sequence[Due], record: Notified, receiver: str) -> tuple[Draft, ...]:
    """One letter for each story, or one digest of many; the most urgent first."""
    stories: dict[str, list[Due]] = {}
    for item in dues:
        stories.setdefault(item.matter.story, []).append(item)
    if len(stories) > APART:
        return (_draft(dues, record, receiver, digest=True),)
    found = [_draft(items, record, receiver, digest=False) for items in stories.values()]
    return tuple(sorted(found, key=lambda draft: draft.severity.rank))


def _draft(dues: Iterable[Due], record: Notified, receiver: str, *, digest: bool) -> Draft:
    ordered = tuple(sorted(dues, key=lambda due: (due.matter.severity.rank, due.matter.key)))
    stories = {due.matter.story for due in ordered}
    threads = [told.thread for told in record.told.values() if told.story in stories]
    follows = () if digest else tuple(sorted(set(filter(None, threads))))
    return Draft(id=_id(ordered, record, receiver), dues=ordered, follows=follows, digest=digest)


def _id(dues: Sequence[Due], record: Notified, receiver: str) -> str:
    """The same for the same news, whoever tells it: a letter that is sent twice can be known by it."""
    said = [receiver]
    for due in dues:
        told = record.told.get(due.matter.key)
        said.append(f"{due.matter.key} {due.matter.stage} {told.at if told else 0:.3f}")
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:24]


def after(record: Notified, draft: Draft, wall: float, *, sent: bool) -> Notified:
    """What has been told once `draft` has been. `sent` False: it was given up, or nobody wanted it."""
    thread = draft.follows[0] if draft.follows else draft.id
    told = dict(record.told)
    for due in draft.dues:
        before = told.get(due.matter.key)
        lately = before.times if before and wall - before.at < QUIET_S else 0
        told[due.matter.key] = Told(
            stage=due.matter.stage,
            at=wall,
            times=max(1, lately + (sent and not due.reminder)),
            story=due.matter.story,
            thread=(before.thread if before and before.thread else thread) if sent else "",
        )
    letters = (*record.letters, wall) if sent else record.letters
    kept = tuple(at for at in letters if wall - at < TEN_MINUTES_S)
    return msgspec.structs.replace(record, told=told, letters=kept[-50:])


def kept(record: Notified, standing: Iterable[str], wall: float) -> Notified:
    """Without what nobody will ask for again: what neither stands nor was told lately."""
    names = frozenset(standing)
    told = {
        key: told
        for key, told in record.told.items()
        if key in names or wall - told.at < QUIET_S or not _ended(key, told)
    }
    if len(told) > MATTERS_KEPT:
        newest = sorted(told, key=lambda key: (key in names, told[key].at))[-MATTERS_KEPT:]
        told = {key: told[key] for key in newest}
    return record if len(told) == len(record.told) else msgspec.structs.replace(record, told=told)


def _ended(key: str, told: Told) -> bool:
    """Incidents end by leaving the store; of the others the end is told."""
    return told.stage == OVER or key.startswith("incidents/")
