"""One round's moves on the ladder: each goes by a row of the table, within the limits that hold for all of them."""

import math
from functools import cached_property

import msgspec

from agent.isolate.case import PUNISHING, Case, Change
from agent.isolate.grip import TIGHT, TIGHTER, beside, carried, is_harder, parted, shares
from agent.isolate.house import House
from agent.isolate.measure import taken
from agent.isolate.nature import WAYS
from agent.isolate.policy import DAY_S, HOUR_S, Policy
from agent.isolate.state import Part, Record, State, Step
from agent.isolate.table import TABLE, Finding, Row
from agent.signals import Signals
from fleet.caps import Level, Resource
from fleet.model import Caps, SiteId, Why

# Findings that squeeze a site out of nothing: each needs room within the radius.
BEGINNING = frozenset(
    {
        Finding.SUSPECT,
        Finding.BLUNT,
        Finding.URGENT,
        Finding.AGAIN,
        Finding.MANY,
        Finding.HACKED,
    }
)
# After these a site is watched for a short while, without the probation of who was held.
FRESH = frozenset({Finding.SIGN, Finding.FOLLOWED, Finding.UNHELPFUL, Finding.ARMED})

JITTER_S = 0.5  # a round may come some milliseconds early: two readings are two readings
# After these what a step does is measured from before the one that it follows.
TRIED = frozenset({Finding.PARTLY, Finding.UNBITTEN, Finding.PERSISTS, Finding.GENTLY})
# Each is a soft step to be remembered: half of a plan for a short time is that of what has no weights.
SOFTLY = frozenset({Finding.SUSPECT, Finding.GENTLY, Finding.BLUNT})

# What caps did not cure is held at the least that they leave, beside all else.
PROVEN = frozenset({Finding.MANY, Finding.DANGER})


class Climb:
    """The moves of one round, collected. Nothing outside of it is changed."""

    def __init__(
        self, state: State, signals: Signals, house: House, policy: Policy, wall: float
    ) -> None:
        assert state.clock is not None
        self.signals, self.house, self.policy = signals, house, policy
        self.at, self.wall = state.clock.at, wall
        self.records = dict(state.records)
        self.acted, self.shadowed = dict(state.acted), dict(state.shadowed)
        self.asks: list[Why] = []
        self.changes: list[Change] = []
        self.cases: dict[SiteId, Case] = {}
        self._before = state

    @cached_property
    def caps(self) -> dict[SiteId, Caps]:
        """Of each site whose plan is known; a quiet round never asks."""
        return self.house.caps(self.wall)

    @property
    def before(self) -> State:
        """The round as it was looked at, before any move."""
        return self._before

    @property
    def state(self) -> State:
        """The round with its moves made."""
        return msgspec.structs.replace(
            self._before,
            records={site: kept for site in self.records if (kept := self._aged(site))},
            acted={on: at for on, at in self.acted.items() if self.at - at < DAY_S},
            shadowed={on: at for on, at in self.shadowed.items() if self.at - at < DAY_S},
        )

    def record(self, site: SiteId) -> Record:
        return self.records.get(site, Record())

    def term(self, seconds: float) -> float:
        return self.policy.term(seconds)

    def is_ruled(self, site: SiteId, *words: str) -> bool:
        ruling = self.house.ruling(site, self.wall)
        return ruling is not None and ruling.word in words

    def is_armed(self, site: SiteId) -> bool:
        """Whether what is decided of a site is held; else it is in shadow."""
        return self.house.enforced(site, self.wall)

    def holds(self, site: SiteId, step: Step) -> bool:
        """Whether a step is in force; one that began so is not while its site is in shadow."""
        return step.enforced and self.is_armed(site)

    def stands(self, resource: Resource) -> bool:
        """Whether sites wait for `resource`, for as long as makes it contention."""
        since = self._before.alarms.get(resource)
        return since is not None and self.at - since >= self.policy.alarm(resource).for_s - JITTER_S

    @cached_property
    def turns(self) -> frozenset[bool]:
        """Whether there are armed sites here, and whether there are others; of no site at all, as of armed ones."""
        return frozenset(map(self.is_armed, self.house.tenants)) or frozenset({True})

    def may_act(self, resource: Resource, *, armed: bool = True) -> bool:
        """One action for a resource at a time, or nobody could say which one helped.

        What is done in shadow (not `armed`) waits for its own kind only.
        """
        last = (self.acted if armed else self.shadowed).get(resource)
        return last is None or self.at - last >= self.term(self.policy.terms.apart_s)

    def move(self, site: SiteId, finding: Finding, case: Case) -> bool:
        """Take the table's row for what was found of `site`, if there is one and the limits allow it."""
        record = self.record(site)
        row = TABLE.get((record.level, finding))
        if row is None or row.to > WAYS[case.nature].highest:
            return False
        rises = row.to >= PUNISHING and finding in BEGINNING and record.level < PUNISHING
        if rises and not self._has_room(site, record):
            return False
        enforced = self.is_armed(site)
        step = self._step(record, row, finding, case, enforced=enforced)
        self.records[site] = self._noted(record, step, finding, case, rises=rises)
        if step is not None and step.level >= PUNISHING and finding is not Finding.LOOSEN:
            (self.acted if enforced else self.shadowed)[case.resource] = self.at
        self.cases[site] = case
        self.changes.append(
            Change(
                site=site,
                was=record.level,
                to=row.to,
                why=self._reason(row, step, case),
                share=step.share if step else 1.0,
                enforced=bool(step and step.enforced),
                harder=step is not None and is_harder(record.step, step),
            )
        )
        return True

    def settle(self, site: SiteId, step: Step) -> None:
        """Write down what became of a step where it stands."""
        self.records[site] = msgspec.structs.replace(self.record(site), step=step)

    def punished(self, *, armed: bool) -> list[SiteId]:
        """Who is held here by relevo's own decision; who only would be, in shadow (not `armed`), is counted apart."""
        return [
            site
            for site, record in self.records.items()
            if record.step is not None
            and record.level >= PUNISHING
            and site in self.house.tenants
            and self.holds(site, record.step) is armed
        ]

    def narrow(self) -> None:
        """A host with fewer sites holds fewer: the mildest and newest are let go (rule R14)."""
        for armed in (True, False):
            held = self.punished(armed=armed)
            excess = len(held) - self.policy.most(len(self.house.tenants))
            by_weight = sorted(held, key=lambda site: self._weight(self.record(site)))
            for site in by_weight[: max(0, excess)]:
                step = self.record(site).step
                assert step is not None
                self.move(site, Finding.CROWDED, Case(resource=step.resource, nature=step.nature))

    @staticmethod
    def _weight(record: Record) -> tuple[int, float]:
        return record.level, -(record.step.since if record.step else 0.0)

    def _has_room(self, site: SiteId, record: Record) -> bool:
        """Rule R14, and no pendulum; past either a person is asked, where it is not only in shadow."""
        armed = self.is_armed(site)
        most = self.policy.most(len(self.house.tenants))
        held = len(self.punished(armed=armed))
        lately = sum(self.at - begun < self.term(HOUR_S) for begun in record.begun)
        if held >= most:
            why = Why("isolation-too-many", {"held": held, "most": most, "site": site})
        elif lately >= self.policy.begins_per_hour:
            why = Why("isolation-pendulum", {"site": site, "times": lately})
        else:
            return True
        if armed:
            self.asks.append(why)
        return False

    def _step(
        self, record: Record, row: Row, finding: Finding, case: Case, *, enforced: bool
    ) -> Step | None:
        if row.to is Level.BASELINE:
            return None
        old, share, also = record.step, 1.0, dict[Resource, Part]()
        if old is not None and finding is Finding.PARTED:
            return parted(old)
        loosens = finding is Finding.LOOSEN
        if row.to is Level.CAP:
            also = beside(old, case.resource, least=TIGHT if loosens else 0.0)
            half = shares(old).get(case.resource, 1.0) / 2
            share = TIGHT if loosens else max(TIGHTER, half)
        elif row.to > Level.CAP:
            also = beside(old, case.resource)
            share = carried(old, case.resource, proven=finding in PROVEN)
        same = old is not None and old.resource is case.resource
        tried = same and finding in TRIED
        return Step(
            level=row.to,
            resource=case.resource,
            nature=case.nature,
            share=share,
            since=self.at,
            until=self.at + self.term(self._lasts(record, row, finding)),
            before=max(case.stall or 0.0, old.before if old and tried else 0.0),
            usual=old.usual if old and tried else case.suspect.usual if case.suspect else 0.0,
            use=old.use if old and tried else self._use(case),
            judged=loosens or not (case.suspect or tried),
            why=self._reason(row, None, case),
            enforced=enforced,
            also=also,
        )

    def _use(self, case: Case) -> float:
        """What a step must lessen to have bitten."""
        signs = self.signals.sites.get(case.suspect.site) if case.suspect else None
        return 0.0 if signs is None else taken(signs, case.resource)

    def _lasts(self, record: Record, row: Row, finding: Finding) -> float:
        """A term in s, before it is scaled."""
        terms = self.policy.terms
        match row.to:
            case Level.WATCH:
                fresh = finding in FRESH
                return terms.watch_s if fresh else terms.probation_s
            case Level.SOFT:
                return terms.soft_s
            case Level.CAP if finding is Finding.LOOSEN:
                return terms.recover_s
            case Level.CAP if finding is Finding.BLUNT:
                return terms.soft_s
            case Level.CAP:
                since = _began(record) if record.level >= PUNISHING else self.at
                earlier = tuple(at for at in record.caps if at < since)
                lately = self._lately(earlier, terms.cap_memory_s)
                return min(terms.cap_longest_s, terms.cap_s * 2.0**lately)
            case Level.ISOLATE:
                return terms.isolate_s
            case _:
                often = self.stopped(record) >= self.policy.stops_before_longest
                return terms.stop_longest_s if often else terms.stop_s

    def _lately(self, instants: tuple[float, ...], memory_s: float) -> int:
        return sum(self.at - instant < self.term(memory_s) for instant in instants)

    def softs(self, record: Record) -> int:
        """Soft steps that are remembered."""
        return self._lately(record.softs, self.policy.terms.soft_memory_s)

    def capped(self, record: Record) -> int:
        """Caps that are remembered."""
        return self._lately(record.caps, self.policy.terms.isolate_memory_s)

    def stopped(self, record: Record) -> int:
        """Stops that are remembered."""
        return self._lately(record.stops, self.policy.terms.stop_memory_s)

    def _noted(
        self, record: Record, step: Step | None, finding: Finding, case: Case, *, rises: bool
    ) -> Record:
        """The record with this move in it. What helped nobody is no evidence, and shadow proves nothing."""
        begun, softs, caps, stops = record.begun, record.softs, record.caps, record.stops
        acquitted = record.acquitted
        if finding is Finding.ARMED:
            begun = ()  # nothing of it was held
        if rises:
            begun = (*begun, self.at)
        since = self.at if rises else _began(record)
        if step is not None and step.enforced and finding in SOFTLY:
            softs = (*softs, self.at)
        elif step is not None and step.enforced and step.level is Level.CAP:
            # One cap, however often it was tightened or loosened.
            caps = caps if any(at >= since for at in caps) else (*caps, self.at)
        elif step is not None and step.enforced and step.level is Level.STOP:
            stops = (*stops, self.at)
        if finding is Finding.UNHELPFUL:
            softs = tuple(at for at in softs if at < since)
            caps = tuple(at for at in caps if at < since)
        if finding in (Finding.UNHELPFUL, Finding.PARTED):
            until = self.at + self.term(self.policy.terms.acquitted_s)
            acquitted = {**acquitted, case.resource: until}
        return Record(
            step=step, begun=begun, softs=softs, caps=caps, stops=stops, acquitted=acquitted
        )

    def _aged(self, site: SiteId) -> Record | None:
        """A record without what is too old to count; None: nothing is left of it."""
        record = self.records[site]
        terms = self.policy.terms
        aged = Record(
            step=record.step,
            begun=self._since(record.begun, HOUR_S),
            softs=self._since(record.softs, terms.soft_memory_s),
            caps=self._since(record.caps, max(terms.cap_memory_s, terms.isolate_memory_s)),
            stops=self._since(record.stops, terms.stop_memory_s),
            acquitted={on: until for on, until in record.acquitted.items() if self.at < until},
        )
        return None if aged == Record() else aged

    def _since(self, instants: tuple[float, ...], memory_s: float) -> tuple[float, ...]:
        return tuple(at for at in instants if self.at - at < self.term(memory_s))

    def _reason(self, row: Row, step: Step | None, case: Case) -> Why:
        """Why `row` was taken; what was not measured is empty, or below 0."""
        suspect = case.suspect
        values: dict[str, str | int | float] = {
            "resource": case.resource.value,
            "nature": case.nature.value,
            "stall_percent": _percent(case.stall),
            "fell_percent": _percent(case.fell),
            "share_percent": _percent(suspect.share if suspect else None),
            "score": round(suspect.score, 2) if suspect else "",
            "signs": ", ".join(case.signs),
            "mails_per_s": "" if case.mails_per_s is None else round(case.mails_per_s, 1),
        }
        return Why(row.code, {name: value for name, value in values.items() if value != ""})


def _percent(ratio: float | None) -> int | str:
    return "" if ratio is None else round(100 * ratio)


def _began(record: Record) -> float:
    """When the present squeeze began; long ago where none did, or nobody remembers."""
    return record.begun[-1] if record.begun else -math.inf
