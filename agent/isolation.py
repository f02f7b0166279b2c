"""Isolation at work: each round of signals is judged, and what is decided is held, told, kept and proven.

It needs no network and no controller; without orders it knows no sites, and holds nobody.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Never, Protocol

import msgspec

from agent.evidence import Shelf, processes
from agent.isolate import Decision, House, Policy, decide, kept, standing
from agent.lane import Lane
from agent.layout.attached import Attached
from agent.penalties import append, read, write
from agent.ports import DriverError
from agent.signals import HostSigns, Signals
from fleet.caps import Evidence, Level, Penalty, Resource
from fleet.messages import Orders
from fleet.model import SiteId, Why
from metrics.exporter import Exporter
from runtime import clock, log
from runtime.pulse import Pulse

WRITE_S = 2.0
PROOF_S = 2.0  # evidence later than that is of something else
KEEP_S = 300.0  # the past that was learned is written this often, what holds at once
CLEAR_S = 600.0
STEADY_S = 60.0  # a clock that is slewed stays within this
BLIND_S = 30.0  # without a round of the sampler for so long, terms end without it
ASKS_MAX = 10
EVIDENCE_MAX = 20
BIG = 100  # sites from which a round is judged in a thread: the loop has beats to send

_log = log.logger("isolation")


class Usage(Protocol):
    """Who senses: `signals` beats with each round, which is then `latest`."""

    signals: Pulse
    latest: Signals | None

    def urls(self, site: SiteId) -> dict[str, int]:
        """What was asked for most of a site lately: paths without their query (rule R16)."""
        ...

    def seconds(self, site: SiteId, resource: Resource) -> tuple[float, ...]:
        """What a watched site used each second of the last minute; empty where nobody looked so often."""
        ...

    def hurry(self) -> None:
        """Tell the controllers at once."""
        ...


Penalize = Callable[[Iterable[Penalty]], None]
"""Holds all the penalties that there are now."""


class Isolation:
    """`penalties`, `evidence` and `asks` are what a controller is told: all that stands, the newest evidence last."""

    def __init__(
        self,
        policy: Policy,
        folder: Path,
        usage: Usage,
        penalize: Penalize,
        *,
        exporter: Exporter,
        wall: Callable[[], float] = clock.wall,
        now: Callable[[], float] = time.monotonic,  # the sampler's clock
        blind_s: float = BLIND_S,
        proc: Path = Path("/proc"),
    ) -> None:
        self._policy, self._path, self._usage = policy, folder / "penalties.json", usage
        self._penalize, self._exporter, self._wall, self._proc = penalize, exporter, wall, proc
        self._now, self._blind_s = now, blind_s
        self._shelf = Shelf(folder / "evidence")
        self._house = House(plans={}, tenants={}, rulings={})
        self._attached: Mapping[SiteId, Attached] = {}
        self._state = read(self._path)
        self._disk, self._looking, self._deciding = Lane(), Lane(), Lane()
        self._kept_at = float("-inf")
        # When evidence was last cleared: monotonic s, Unix s.
        self._cleared: tuple[float, float] | None = None
        self._unkept = self._begun = False
        self._recording = bool(policy.record)
        self._proofs: asyncio.Queue[Evidence] = asyncio.Queue(EVIDENCE_MAX)
        self.penalties: tuple[Penalty, ...] = ()
        self.evidence: tuple[Evidence, ...] = ()
        self.asks: tuple[Why, ...] = ()

    def follow(self, orders: Orders) -> None:
        """Whom to judge, and what people say of them."""
        self._house = House(plans=orders.plans, tenants=orders.tenants, rulings=orders.rulings)
        if not self._begun:  # what held before a restart holds until the first round says more
            self.penalties = standing(self._state, self._house, self._policy, self._wall())
            self._penalize(self.penalties)

    def attach(self, attached: Mapping[SiteId, Attached]) -> None:
        """Where the sites' processes are."""
        self._attached = attached

    async def keep(self) -> Never:
        """Eternal."""
        sites = [site for site, record in self._state.records.items() if record.step is not None]
        since = self._wall() - 86_400  # no step of relevo's own is longer
        try:
            found = await self._disk.run(WRITE_S, partial(self._shelf.of, sites, since))
            self.evidence = found[-EVIDENCE_MAX:]
        except DriverError as error:
            self._failed("the evidence of standing penalties can't be read", error)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._prove())
            count = self._usage.signals.count
            while True:
                before = count
                count = await self._usage.signals.within(before, self._blind_s)
                signals = self._usage.latest
                await self.round(signals if signals and count > before else self._blind(signals))

    async def round(self, signals: Signals) -> Decision:
        """Judge one round and hold what comes of it."""
        now, wall = signals.at, self._wall()
        given = (self._state, signals, self._house, self._policy, now, wall)
        big = len(signals.sites) > BIG
        decision = (
            await self._deciding.run(None, partial(decide, *given)) if big else decide(*given)
        )
        self._state, self._begun = decision.state, True
        self._hold(decision)
        self._measure(decision)
        if self._recording:
            await self._record(signals)
        await self._keep_state(now, changed=bool(decision.changes or decision.evidence))
        await self._clear(now, wall)
        return decision

    def _blind(self, last: Signals | None) -> Signals:
        """A round that saw nothing: nobody is accused by it, and what is over ends (rule R11)."""
        total = last.host.memory_total_bytes if last else 0
        cores = last.host.cores if last else 1.0
        host = HostSigns(cores=cores, memory_total_bytes=total, memory_available_bytes=total)
        return Signals(at=self._now(), host=host)

    def _hold(self, decision: Decision) -> None:
        """What is decided goes to the kernel first, then to people."""
        before, self.penalties = self.penalties, decision.penalties
        asked, self.asks = self.asks, foremost(decision.asks)
        self._penalize(decision.penalties)
        held = {penalty.site for penalty in decision.penalties}
        self.evidence = tuple(one for one in self.evidence if one.site in held)
        for change in decision.changes:
            _log.info(
                "penalty changed",
                site=change.site,
                old=change.was.name.lower(),
                new=change.to.name.lower(),
                share=change.share,
                enforced=change.enforced,
                why=change.why.code,
                values=change.why.values,
            )
        self._say(asked)
        for evidence in decision.evidence:
            if self._proofs.full():
                self._proofs.get_nowait()  # the newest are the ones that are asked for
            self._proofs.put_nowait(evidence)
        if _differ(before, decision.penalties) or _codes(asked) != _codes(self.asks):
            self._usage.hurry()

    def _say(self, asked: tuple[Why, ...]) -> None:
        """Calls for help, on the edge."""
        for why in self.asks:
            if _code(why) not in _codes(asked):
                _log.warning("a person is needed", why=why.code, values=why.values)
        for why in asked:
            if _code(why) not in _codes(self.asks):
                _log.info("a person is no longer needed", why=why.code)

    def _measure(self, decision: Decision) -> None:
        for level in Level:
            if level > Level.BASELINE:
                held = [
                    one for one in decision.penalties if one.level is level and not one.is_relief
                ]
                for enforced in (True, False):
                    self._exporter.set(
                        "relevo_isolation_penalties",
                        sum(one.enforced is enforced for one in held),
                        level=level.name.lower(),
                        enforced=str(enforced).lower(),
                    )
        for change in decision.changes:
            if change.to > change.was:
                self._exporter.count("relevo_isolation_steps_total", level=change.to.name.lower())
            if change.why.code == "isolation-unhelpful":
                self._exporter.count("relevo_isolation_undone_total")
        self._exporter.set("relevo_isolation_asks", len(decision.asks))

    async def _prove(self) -> Never:
        """Eternal: what each step was decided from gets its processes and URLs, and is kept."""
        while True:
            evidence = await self._proofs.get()
            site = evidence.site
            urls = {path.partition("?")[0][:200]: n for path, n in self._usage.urls(site).items()}
            top = sorted(urls.items(), key=lambda one: -one[1])[:10]
            look = partial(processes, self._attached.get(site), self._proc)
            try:
                found = await self._looking.run(PROOF_S, look)
            except DriverError:  # a machine that hangs: the two series are proof enough
                found = ()
            used = self._usage.seconds(site, evidence.resource) if evidence.resource else ()
            seconds = tuple(round(value, 4) for value in used)
            proven = msgspec.structs.replace(
                evidence, processes=found, urls=dict(top), seconds=seconds
            )
            self.evidence = (*self.evidence, proven)[-EVIDENCE_MAX:]
            self._usage.hurry()
            try:
                await self._disk.run(WRITE_S, partial(self._shelf.keep, proven))
            except DriverError as error:
                self._failed("evidence is not kept", error)

    async def _keep_state(self, now: float, *, changed: bool) -> None:
        """On disk at once when somebody's place changed; else every KEEP_S, for what was learned."""
        learned = self._state.past and now - self._kept_at >= KEEP_S
        if not (changed or self._unkept or learned):
            return
        try:
            await self._disk.run(WRITE_S, partial(write, self._path, kept(self._state)))
        except DriverError as error:
            if not self._unkept:
                self._failed("penalties would not survive a restart", error)
            self._unkept = True
        else:
            self._unkept, self._kept_at = False, now

    async def _clear(self, now: float, wall: float) -> None:
        """Rule R16: evidence is deleted after its days, by a clock that has gone as it should for a while."""
        if self._cleared is None:
            self._cleared = now, wall
        passed_s = now - self._cleared[0]
        if passed_s >= CLEAR_S:
            is_steady = abs(wall - self._cleared[1] - passed_s) < STEADY_S
            self._cleared = now, wall
            if not is_steady:
                return
            try:
                await self._disk.run(WRITE_S, partial(self._shelf.clear, wall))
            except DriverError as error:
                self._failed("old evidence is not deleted yet", error)

    async def _record(self, signals: Signals) -> None:
        try:
            await self._disk.run(WRITE_S, partial(append, Path(self._policy.record), signals))
        except DriverError as error:
            self._recording = False
            self._failed("signals are no longer recorded", error)

    def _failed(self, what: str, error: Exception) -> None:
        self._exporter.count("relevo_isolation_failures_total")
        _log.error(what, error=str(error))


def foremost(asks: tuple[Why, ...]) -> tuple[Why, ...]:
    """As many as are told: first one of each kind, so that sites which wait for room hide nothing else."""
    first = {why.code: why for why in reversed(asks)}
    ones = [why for why in asks if why is first[why.code]]
    rest = [why for why in asks if why is not first[why.code]]
    return (*ones, *rest)[:ASKS_MAX]


def _code(why: Why) -> tuple[str, object, object]:
    """What makes a call for help another one; how long it stands does not."""
    return why.code, why.values.get("resource"), why.values.get("site")


def _codes(asks: Iterable[Why]) -> set[tuple[str, object, object]]:
    return {_code(why) for why in asks}


def _differ(before: tuple[Penalty, ...], after: tuple[Penalty, ...]) -> bool:
    return {(p.site, p.level, p.share, p.enforced, p.owner) for p in before} != {
        (p.site, p.level, p.share, p.enforced, p.owner) for p in after
    }
