"""People's orders about caps: hold a site, let it go, lend it more for a while, turn caps on. All are audited.

Raises as `commands` does, and BadItem where an override can't be.
"""

import asyncio
from collections.abc import Collection
from hashlib import sha256
from typing import Any, Literal

import msgspec

from controller import settle
from controller.audited import Audited, Person, Unknown
from controller.declare import Outdated
from controller.lead import Leader
from controller.mirror import Mirror
from controller.sight import Refused
from controller.store import Delete, Put
from controller.trial import Trial, trial
from controller.uses import Uses
from fleet import enforcement, keys
from fleet.caps import Enforcement, Level, Nature, Override, Ruling, Turn
from fleet.enforcement import Said, Scope
from fleet.findings import Finding, nearest, shown
from fleet.model import Caps, HostId, Note, Plan, Site, SiteId, Why
from fleet.single import BadItem
from fleet.validate import cap_rules
from runtime.clock import iso, wall


class Holding:
    """Each order gives the revision at which it became true, already to be read in the mirror."""

    def __init__(self, mirror: Mirror, leader: Leader, uses: Uses) -> None:
        self._mirror, self._uses = mirror, uses
        self._audited = Audited(mirror, leader)

    def _declared(self, site: SiteId) -> Site:
        if (found := self._mirror.fleet.sites.get(site)) is None:
            raise Unknown("site", site)
        return found

    async def quarantine(
        self, site: SiteId, level: Level, nature: Nature, for_s: float, person: Person
    ) -> int:
        """Hold a site at `level`, whatever its host would decide."""
        note = _note(person, for_s)
        ruling = Ruling(word="quarantine", level=level, nature=nature, note=note)
        return await self._rule(site, ruling, person, "quarantine")

    async def release(self, site: SiteId, for_s: float, person: Person) -> int:
        """Lift what relevo decided of a site, and let it decide nothing more of it."""
        ruling = Ruling(word="release", level=Level.BASELINE, note=_note(person, for_s))
        return await self._rule(site, ruling, person, "release")

    async def _rule(self, site: SiteId, ruling: Ruling | None, person: Person, what: str) -> int:
        self._declared(site)
        key, old = keys.ruling(site), self._mirror.rulings.get(site)
        return await self._audited.commit(
            [Put(key, settle.encode(ruling)) if ruling else Delete(key)],
            self._mirror.unchanged(key),
            person,
            what,
            site,
            before=_ruled(old),
            after=_ruled(ruling),
        )

    async def unrule(
        self, site: SiteId, word: Literal["quarantine", "release"], person: Person
    ) -> int:
        """Take a person's word on a site back: its host decides again. Another word than `word` stays."""
        self._declared(site)
        self._audited.must_lead()
        old = self._mirror.rulings.get(site)
        if old is None or old.word != word:
            return self._mirror.revision
        return await self._rule(site, None, person, f"end {word}")

    async def override(
        self,
        site: SiteId,
        caps: dict[str, int | float],
        for_s: float,
        person: Person,
        *,
        expected: str | None = None,
    ) -> int:
        """Put `caps` in the place of the plan's for a while. `expected`: the tag of the override that was read.

        Raises BadItem, Outdated.
        """
        declared = self._declared(site)
        raise_if_bad(caps, site, self._mirror.fleet.plans[declared.plan])
        override = Override(caps=caps, note=_note(person, for_s))
        return await self._lend(site, override, person, "override", expected)

    async def end_override(
        self, site: SiteId, person: Person, *, expected: str | None = None
    ) -> int:
        """Back to the plan's caps. Raises Outdated."""
        self._declared(site)
        self._audited.must_lead()
        if site not in self._mirror.overrides:
            return self._mirror.revision
        return await self._lend(site, None, person, "end override", expected)

    async def _lend(
        self, site: SiteId, override: Override | None, person: Person, what: str, tag: str | None
    ) -> int:
        key, old = keys.override(site), self._mirror.overrides.get(site)
        if tag not in (None, "*", tag_of(old)):
            raise Outdated(Why("changed-meanwhile"), tag_of(old))
        return await self._audited.commit(
            [Put(key, settle.encode(override)) if override else Delete(key)],
            # The fleet too: a plan that changes in this moment may leave no room for it.
            self._mirror.unchanged(key, keys.FLEET),
            person,
            what,
            site,
            before=_lent(old),
            after=_lent(override),
        )

    async def enforce(
        self, scope: Scope, id: str, turn: Turn | None, person: Person, *, untried: bool = False
    ) -> int:
        """From when caps hold for everything, a host, a plan or a site. None forgets a scope's own word.

        They hold with the numbers that plans have now. Refused where shadow has not watched them for long enough,
        unless that is known (`untried`): also where it is a wider word that holds them, once their own is forgotten.
        """
        mirror = self._mirror
        self._raise_if_unknown(scope, id)
        self._audited.must_lead()
        old, when = mirror.enforcement, mirror.unchanged(keys.ENFORCEMENT, keys.FLEET)
        begins: Collection[float] = ()
        if turn is None or turn.since is None:
            new = enforcement.shadowed(old, scope, id, turn)
            if turn is None:
                begins = enforcement.beginnings(new, wall())
        else:
            said, begins = Said(scope=scope, id=id, since=turn.since), (turn.since,)
            new = enforcement.arm(old, said, mirror.fleet.plans, self._placed(), wall())
        for since in () if untried else begins:
            if why := (await self._trial(new, since)).objection:
                raise Refused(why)
        return await self._audited.commit(
            [Put(keys.ENFORCEMENT, settle.encode(new))],
            when,
            person,
            f"{_turn(turn).split()[0]} caps {scope} {id}".strip(),
            id,
            before=_turn(enforcement.word(old, scope, id)),
            after=_turn(enforcement.word(new, scope, id) if turn else None),
        )

    def _placed(self) -> dict[SiteId, tuple[Site, HostId]]:
        """Each site, and where it is served, or would be."""
        places = self._mirror.places
        return {
            id: (site, places[id].host if id in places else site.home)
            for id, site in self._mirror.fleet.sites.items()
        }

    async def _trial(self, new: Enforcement, since: float) -> Trial:
        """In a thread: of ten thousand sites it takes longer than a beat may wait."""
        mirror, now = self._mirror, wall()
        words = {id: word.use.past for id in mirror.fleet.sites if (word := self._uses.of(id))}
        old, plans, placed = mirror.enforcement, mirror.fleet.plans, self._placed()
        return await asyncio.to_thread(trial, old, new, plans, placed, words, since=since, now=now)

    def _raise_if_unknown(self, scope: Scope, id: str) -> None:
        fleet = self._mirror.fleet
        known: dict[str, Any] = {"host": fleet.hosts, "plan": fleet.plans, "site": fleet.sites}
        if scope != "all" and id not in known[scope]:
            raise Unknown(scope, id)


def tag_of(override: Override | None) -> str:
    """Changes whenever an override does; for If-Match."""
    return sha256(msgspec.json.encode(override)).hexdigest()[:16]


def raise_if_bad(caps: dict[str, int | float], site: SiteId, plan: Plan) -> None:
    """Whether `caps` in the place of the plan's make caps that can be. Raises BadItem with all that is wrong."""
    names = Caps.__struct_fields__
    findings = []
    for name, value in caps.items():
        if name not in names:
            near = nearest(name, names)
            remedy = f"did you mean {shown(near)}?" if near else f"it may be {', '.join(names)}"
            findings.append(_finding(site, name, "is not a cap", value, remedy))
            continue
        try:
            _with(plan.caps, {name: value})
        except msgspec.ValidationError as error:
            message = str(error).partition(" - at ")[0].lower()
            findings.append(_finding(site, name, message, value))
    if not caps:
        findings.append(_finding(site, "caps", "names no cap", None))
    if not findings:
        told = set(cap_rules(plan.caps))
        wanted = _with(plan.caps, caps)
        for name, message in cap_rules(wanted):
            if (name, message) not in told:
                remedy = f"the plan {plan.id} says {getattr(plan.caps, name)}"
                findings.append(_finding(site, name, message, getattr(wanted, name), remedy))
    if findings:
        raise BadItem(tuple(findings))


def _with(plan: Caps, caps: dict[str, int | float]) -> Caps:
    """Raises msgspec.ValidationError."""
    return msgspec.convert({**msgspec.to_builtins(plan), **caps}, Caps)


def _finding(
    site: SiteId, name: str, message: str, value: float | None, remedy: str = ""
) -> Finding:
    said = None if value is None else str(value)
    path = ("sites", site, "override", name)
    return Finding(path=path, message=message, value=said, remedy=remedy)


def _note(person: Person, for_s: float) -> Note:
    now = wall()
    return Note(owner=person.name, reason=person.reason, since=now, until=now + for_s)


def _ruled(ruling: Ruling | None) -> str:
    """For the audit, as the next two."""
    if ruling is None:
        return ""
    level = f" {Level(ruling.level).name.lower()}" if ruling.word != "release" else ""
    return f"{ruling.word}{level} until {iso(ruling.note.until)}"


def _lent(override: Override | None) -> str:
    if override is None:
        return ""
    said = ", ".join(f"{name} = {value}" for name, value in sorted(override.caps.items()))
    return f"{said} until {iso(override.note.until)}"


def _turn(turn: Turn | None) -> str:
    if turn is None:
        return "inherit"
    return "shadow" if turn.since is None else f"arm from {iso(turn.since)}"
