"""Told stories of isolation: what a host sees on the left, whom it holds on the right.

A story declares sites, then says what is seen from which second on. It is played in rounds of 2 s, and longer ones
once nothing has happened for two minutes; every change, and every call for help, is a line of its own.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product

import msgspec

from agent.isolate import Change, Decision, House, Policy, State, decide, kept
from agent.signals import HostSigns, Signals, SiteSigns
from fleet.caps import Attachment, Level, Nature, Penalty, Ruling, Tenant
from fleet.model import Note, SiteId, Why
from tests.hogs import CAPS, MIB, PLAN, WALL
from tests.unit.stories import words

ROUND_S, SLOW_S, STILL_S = 2.0, 900.0, 120.0
LEFT = 50  # column of the arrow
CORES = 8.0
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(slots=True)
class Seen:
    """What one site does at the moment."""

    cores: float = 0.1
    late: float = 0.0  # of its busy time it alone waits for the CPU, or more than the others
    memory: float = 100.0
    scans: float = 0.0
    steals: float = 0.0
    stuck: float = 0.0
    io: float = 0.1
    tasks: int = 10
    refused: int = 0
    ooms: int = 0
    throttled: float = 0.0
    requests: float = 1.0
    clients: int = 20
    queue: int = 0
    mails: float = 0.0
    refusedmails: float = 0.0
    destinations: float = 0.0
    uploads: bool = False
    listens: bool = False
    cron: bool = False


@dataclass(slots=True)
class World:
    """What the story has said so far, and what was decided."""

    sites: dict[SiteId, Seen] = field(default_factory=dict)
    unnamed: list[SiteId] = field(default_factory=list)
    tenants: dict[SiteId, Tenant] = field(default_factory=dict)
    rulings: dict[SiteId, Ruling] = field(default_factory=dict)
    waits: dict[str, float] = field(default_factory=dict)
    forks: float = 20.0
    policy: Policy = field(default_factory=Policy)
    state: State = field(default_factory=State)
    now: float = 0.0
    set_by: float = 0.0  # by how much the wall clock was set
    asked: dict[str, Why] = field(default_factory=dict)
    penalties: tuple[Penalty, ...] = ()

    def declare(self, said: list[str]) -> None:
        """`sites N` ordinary ones, `site NAME [shadow]`, `policy {…}` as JSON."""
        match said:
            case ["sites", number]:
                self.unnamed = [SiteId(f"n{n:02}") for n in range(int(number))]
                for name in self.unnamed:
                    self.move_in(name, enforced=True)
            case ["site", site, *shadow]:
                self.move_in(SiteId(site), enforced=not shadow)
            case ["policy", *json]:
                self.policy = msgspec.json.decode(" ".join(json), type=Policy)
            case _:
                raise ValueError(f"not understood: {said}")

    def move_in(self, site: SiteId, *, enforced: bool) -> None:
        self.sites[site] = Seen()
        self.tenants[site] = Tenant(plan=PLAN, enforced_from=0.0 if enforced else None)

    def happen(self, said: list[str]) -> None:
        """One event. `SITE WHAT VALUE` sets what it does, or `others` without a name do; see the cases for the rest."""
        match said:
            case ["wait", resource, percent]:
                self.waits[resource] = float(percent.removesuffix("%")) / 100
            case ["forks", number]:
                self.forks = float(number)
            case ["restart"]:  # what is on disk is all that is left
                self.state = msgspec.json.decode(msgspec.json.encode(kept(self.state)), type=State)
            case ["wall", by]:
                self.set_by += float(by)
            case ["enforce", site]:
                self.tenants[SiteId(site)] = Tenant(plan=PLAN, enforced_from=0.0)
            case ["leave", *sites]:
                for site in sites:
                    del self.sites[SiteId(site)], self.tenants[SiteId(site)]
            case [word, site, *more, "for", number, unit] if word in RULINGS:
                self.rulings[SiteId(site)] = self.ruling(word, more, float(number) * UNITS[unit])
            case [who, *pairs]:
                self._do(self.unnamed if who == "others" else [SiteId(who)], pairs)

    def _do(self, sites: list[SiteId], pairs: list[str]) -> None:
        for site, (what, value) in product(sites, zip(pairs[::2], pairs[1::2], strict=True)):
            kind = type(getattr(self.sites[site], what))
            setattr(self.sites[site], what, value == "yes" if kind is bool else kind(value))

    def ruling(self, word: str, more: list[str], for_s: float) -> Ruling:
        """A person's word, `at` a level if that is said."""
        note = Note(owner="ana", reason="seen it", since=self.wall, until=self.wall + for_s)
        found = RULINGS[word](note)
        match more:
            case ["at", level]:
                return msgspec.structs.replace(found, level=Level[level.upper()])
        return found

    @property
    def wall(self) -> float:
        return WALL + self.now + self.set_by

    def pace(self, told_at: float) -> float:
        """How long nothing will happen: no end is passed over, and before what is told rounds are as always."""
        ends = [ROUND_S * ((p.until - self.wall) // ROUND_S) for p in self.penalties]
        return max(ROUND_S, min([SLOW_S, told_at - self.now - STILL_S, *ends]))

    def signals(self) -> Signals:
        host = HostSigns(
            cores=CORES,
            memory_total_bytes=int(8192 * MIB),
            memory_available_bytes=int(4096 * MIB),
            has_swap=True,
            cpu_stall=max(
                self.waits.get("cpu", 0.01), *(seen.late for seen in self.sites.values())
            ),
            memory_stall=self.waits.get("memory", 0.0),
            io_stall=self.waits.get("io", 0.01),
            busy_cores=sum(seen.cores for seen in self.sites.values()),
            io_bytes_per_s=sum(seen.io for seen in self.sites.values()) * MIB,
            io_ops_per_s=0.0,
            forks_per_s=self.forks,
        )
        return Signals(
            at=self.now,
            host=host,
            sites={site: self._signs(seen) for site, seen in self.sites.items()},
        )

    def _signs(self, seen: Seen) -> SiteSigns:
        def stall(resource: str, least: float = 0.0) -> float:
            """So that of its busy time the told share is waiting."""
            waits = max(self.waits.get(resource, 0.01), least)
            return min(1.0, waits / (1.001 - waits) * min(1.0, seen.cores))

        return SiteSigns(
            attachment=Attachment.SLICE,
            cpu_cores=seen.cores,
            throttled_ratio=seen.throttled,
            cpu_stall=stall("cpu", seen.late),
            memory_stall=max(stall("memory"), seen.stuck),
            io_stall=stall("io"),
            memory_bytes=int(seen.memory * MIB),
            anon_bytes=int(seen.memory * MIB),
            swap_bytes=0,
            scanned_per_s=seen.scans * MIB / 4096,
            stolen_per_s=seen.steals * MIB / 4096,
            read_bytes_per_s=seen.io * MIB,
            write_bytes_per_s=0.0,
            read_ops_per_s=0.0,
            write_ops_per_s=0.0,
            tasks=seen.tasks,
            tasks_refused=seen.refused,
            oom_kills=seen.ooms,
            requests_per_s=seen.requests,
            clients=seen.clients,
            queue=seen.queue,
            direct_mail_per_s=seen.mails,
            refused_mail_per_s=seen.refusedmails or None,
            new_destinations_per_s=seen.destinations,
            runs_from_uploads=seen.uploads,
            listens=seen.listens,
            cron_changed=seen.cron,
        )

    def round(self) -> list[str]:
        """Decide one round; gives the lines that are new."""
        house = House(plans={PLAN: CAPS}, tenants=self.tenants, rulings=self.rulings)
        signals = self.signals()
        decision = decide(self.state, signals, house, self.policy, signals.at, self.wall)
        said = [_told(change, decision, self.wall) for change in decision.changes]
        said += self._apart(decision)
        asked = {f"{why.code} {why.values.get('site', '')}": why for why in decision.asks}
        said += [f"ask: {words(why)}" for key, why in asked.items() if key not in self.asked]
        said += [
            f"no longer: {words(Why(self.asked[key].code))}" for key in self.asked.keys() - asked
        ]
        self.state, self.asked, self.penalties = decision.state, asked, decision.penalties
        return said

    def _apart(self, decision: Decision) -> Iterator[str]:
        """What is beside the ladder: a person's quarantine, and the memory watchdog."""
        before = {key(p): p for p in reversed(self.penalties)}
        after = {key(p): p for p in reversed(decision.penalties)}
        for penalty in (*after.values(), *before.values()):
            if penalty.why.code not in ("isolation-by-person", "isolation-futile"):
                continue
            name = f"{penalty.site} {penalty.level.name.lower()}: {words(penalty.why)}"
            if key(penalty) not in after:
                yield f"no longer: {name}"
                continue
            half = _halved(penalty, decision.penalties)
            if key(penalty) not in before:
                yield f"{name}{_lasting(penalty, self.wall)}{half}"
            elif penalty is after[key(penalty)]:
                old = before[key(penalty)]
                if (penalty.level, half) != (old.level, _halved(old, self.penalties)):
                    yield f"{name}{half}"


RULINGS: dict[str, Callable[[Note], Ruling]] = {
    "quarantine": lambda note: Ruling(word="quarantine", note=note),
    "release": lambda note: Ruling(word="release", note=note),
    "suspect": lambda note: Ruling(
        word="suspect", level=Level.ISOLATE, nature=Nature.HACKED, note=note
    ),
}


def key(penalty: Penalty) -> tuple[SiteId, str]:
    apart = ("isolation-by-person", "isolation-futile")
    return penalty.site, penalty.why.code if penalty.why.code in apart else ""


def _told(change: Change, decision: Decision, wall: float) -> str:
    share = f" at {change.share:.0%} of its plan" if change.share < 1 else ""
    held = next((p for p in decision.penalties if p.site == change.site), None)
    lasting = _lasting(held, wall) if held and change.to else ""
    shadow = ", in shadow" if change.to >= Level.SOFT and not change.enforced else ""
    return (
        f"{change.site} {change.was.name.lower()} to {change.to.name.lower()}{share}"
        f"{lasting}{shadow}: {words(change.why)}"
    )


def _halved(first: Penalty, penalties: Iterable[Penalty]) -> str:
    """What is taken by whoever decided `first`."""
    taken = [p.resource.value for p in penalties if key(p) == key(first) and p.share < 1]
    return f", half of its {', '.join(taken)}" if taken else ""


def _lasting(penalty: Penalty, wall: float) -> str:
    left_s = penalty.until - wall
    unit = next(unit for unit in ("h", "min", "s") if left_s >= UNITS[unit])
    return f" for {left_s / UNITS[unit]:g} {unit}"


def told(text: str) -> str:
    """The whole story with its right-hand side made anew from the events on its left."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line[:1] == " ")
    world, out = World(), lines[:start]
    for line in out:
        if line and not line.startswith("#"):
            world.declare(line.split())
    still = 0.0
    for line in lines[start:]:
        left, _, _ = line.partition("->")
        at, _, events = left.strip().partition(" ")
        if not events.strip():
            continue
        while world.now < float(at):
            said = world.round()
            out += _lines(world.now, "", said)
            still = 0.0 if said or world.state.alarms else still
            passed_s = world.pace(float(at)) if still >= STILL_S else ROUND_S
            world.now += passed_s
            still += passed_s
        for event in events.strip().split("; "):
            if event != "…":
                world.happen(event.split())
        out += _lines(world.now, events.strip(), world.round())
        world.now += ROUND_S
        still = 0.0
    return "\n".join(line.rstrip() for line in out) + "\n"


def _lines(at: float, events: str, said: list[str]) -> list[str]:
    left = f"{at:6g}  {events}"
    if not said:
        return [left] if events else []
    first = f"{left:<{LEFT}} -> {said[0]}"
    return [first, *(f"{'':<{LEFT}} -> {more}" for more in said[1:])]
