"""What the store should say of penalties, from what hosts told: pure, site by site, from what is to what is missing.

Level-triggered: what was told while nobody led is told again by the next word of its host. A host that says nothing
ends nothing (rule R7); a penalty ends by its term, by its host's word, or when its site has moved away.
"""

from dataclasses import dataclass
from typing import Literal

from fleet.caps import Evidence, Level, Penalty, Ruling
from fleet.model import HostId, Note
from fleet.penalized import KEPT_S, PAST_KEPT, TERM_S, Ended, Penalized

KEPT_FROM = Level.SOFT  # whoever is only watched is restricted in nothing
AGAIN_S = 30.0  # a penalty that only grows longer is written so often at most
# One that its host prolongs at its end is told so by the next word, which may be this late: it has not ended.
LATE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the host that serves a site now says of it: all its penalties, and the newest evidence."""

    host: HostId
    penalties: tuple[Penalty, ...] = ()
    evidence: Evidence | None = None


def following(
    stored: Penalized | None, said: Said | None, place: HostId | None, wall: float
) -> Penalized | None:
    """What to keep of one site at `wall` (Unix s); None: nothing. The same object as `stored`: nothing to write.

    `said`: None while its host has said nothing. `place`: where the site is served; None: nowhere.
    """
    told = _told(said, stored, wall)
    if stored is None:
        if said is None or not told:
            return None
        return Penalized(host=said.host, at=wall, penalties=told, evidence=said.evidence)
    host = place or stored.host
    before = stored.standing(wall - LATE_S) if host == stored.host else ()
    now = told if said is not None else before
    ended = tuple(
        Ended(penalty=old, host=stored.host, ended=min(wall, max(old.since, old.until)))
        for old in stored.penalties
        if _key(old) not in {_key(new) for new in now}
    )
    past = tuple(old for old in (*ended, *stored.past) if old.ended > wall - KEPT_S)[:PAST_KEPT]
    evidence = _newest(stored.evidence, said.evidence if said else None)
    if evidence is not None and evidence.at <= wall - KEPT_S:
        evidence = None
    if not now and not past:
        return None
    grown = Penalized(host=host, at=wall, penalties=now, evidence=evidence, past=past)
    return grown if _differs(stored, grown, wall) else stored


def is_history(stored: Penalized, wall: float) -> bool:
    """Whether nothing of it stands, and nothing is too old yet: most of what is stored, and nothing to look at."""
    if stored.penalties:
        return False
    oldest = min((old.ended for old in stored.past), default=wall)
    evidence = stored.evidence
    return oldest > wall - KEPT_S and (evidence is None or evidence.at > wall - KEPT_S)


def _told(said: Said | None, stored: Penalized | None, wall: float) -> tuple[Penalty, ...]:
    if said is None:
        return ()
    known = {_key(penalty) for penalty in stored.penalties} if stored else set()
    return tuple(
        penalty
        for penalty in said.penalties
        if penalty.level >= KEPT_FROM
        and penalty.until > (wall - LATE_S if _key(penalty) in known else wall)
    )


def _key(penalty: Penalty) -> tuple[object, ...]:
    """The same penalty, however long it lasts by now: a step on the ladder is another one."""
    return (penalty.resource, penalty.level, penalty.share, penalty.since, penalty.enforced)


def _newest(one: Evidence | None, other: Evidence | None) -> Evidence | None:
    found = [evidence for evidence in (one, other) if evidence is not None]
    return max(found, key=lambda evidence: evidence.at, default=None)


def _differs(old: Penalized, new: Penalized, wall: float) -> bool:
    """Whether it is worth a write: what only was prolonged, or has newer evidence, waits a little."""
    if (old.host, old.past, set(map(_key, old.penalties))) != (
        new.host,
        new.past,
        set(map(_key, new.penalties)),
    ):
        return True
    same = (old.penalties, old.evidence) == (new.penalties, new.evidence)
    return not same and wall - old.at >= AGAIN_S


def suspicion(
    stored: Penalized, place: HostId | None, ruling: Ruling | None, wall: float
) -> Ruling | None:
    """The word for the new host of a site that was penalized at its old one: watched, until it proves it (rule R15).

    A person's word stands above it.
    """
    standing = stored.taking(wall)
    if place is None or place == stored.host or not standing:
        return None
    if ruling is not None and ruling.note.until > wall and ruling.word != "suspect":
        return None
    worst = standing[0]
    until = min(max(penalty.until for penalty in standing), wall + TERM_S)
    note = Note(
        owner="relevo", reason=f"penalized on {stored.host}", since=worst.since, until=until
    )
    found = Ruling(word="suspect", level=worst.level, nature=worst.nature, note=note)
    return None if found == ruling else found


@dataclass(frozen=True, slots=True)
class Step:
    """What happened to a penalty of a site, for the audit and for events."""

    what: Literal["began", "ended"]
    penalty: Penalty
    host: HostId


def steps(old: Penalized | None, new: Penalized | None) -> tuple[Step, ...]:
    """What began and what ended between two words on one site."""
    before = {_key(p): p for p in old.penalties} if old else {}
    after = {_key(p): p for p in new.penalties} if new else {}
    ended = [Step("ended", p, old.host) for key, p in before.items() if old and key not in after]
    began = [Step("began", p, new.host) for key, p in after.items() if new and key not in before]
    return (*ended, *began)
