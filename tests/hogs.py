"""A host full of sites that share it, one of them a hog: signals as the sampler would give them, by a seed.

It is a model, and no machine: CPUs go by weight and quota, a disk by demand, memory until there is none; every reading
is noisy. Penalties bite: what is decided changes what is seen next.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

import msgspec

from agent.isolate import Decision, House, Policy, State, decide
from agent.signals import HostSigns, Signals, SiteSigns
from deploy.demo.plans import PLUS
from fleet.caps import Attachment, Level, Nature, Penalty, Resource, Tenant
from fleet.model import PlanId, SiteId

ROUND_S, PARTS = 2.0, 4  # a reading is the mean of four looks
GONE_S = 4.0
WALL = 1_790_000_000.0
MIB = float(1 << 20)
PLAN = PlanId("plus")
CAPS = msgspec.structs.replace(
    PLUS.caps,
    cpu_weight=100,
    memory_low_bytes=96 << 20,
    read_bytes_per_s=50 << 20,
    write_bytes_per_s=25 << 20,
)


@dataclass(slots=True)
class Demand:
    """What one site wants at a moment: cores, MiB held, MiB/s of I/O, and what it shows."""

    cores: float = 0.0
    memory: float = 60.0
    scans: float = 0.0  # MiB/s that reclaim must look at for it
    reads: float = 0.0
    writes: float = 0.0
    tasks: float = 8.0
    forks: float = 0.0
    requests: float = 0.0
    clients: int = 0
    mails: float = 0.0
    destinations: float = 0.0
    uploads: bool = False


Hog = Callable[[Demand, float, Random], None]
"""Adds to a site's demand what it wants `s` seconds after it began."""


def _spin(demand: Demand, s: float, rng: Random) -> None:
    demand.cores += 12.0
    demand.tasks += 12


def _leak(demand: Demand, s: float, rng: Random) -> None:
    demand.memory += 40.0 * s
    demand.cores += 0.2


def _thrash(demand: Demand, s: float, rng: Random) -> None:
    demand.memory += min(1900.0, 500.0 * s)
    demand.scans += 150.0 if s > 3 else 0.0
    demand.cores += 0.4


def _forks(demand: Demand, s: float, rng: Random) -> None:
    demand.tasks += 400 * s
    demand.forks += 3000.0
    demand.cores += 3.0


def _reads(demand: Demand, s: float, rng: Random) -> None:
    demand.reads += 48.0 * rng.uniform(0.8, 1.2)
    demand.cores += 0.3


def _writes(demand: Demand, s: float, rng: Random) -> None:
    demand.writes += 48.0 * rng.uniform(0.8, 1.2)
    demand.cores += 0.3


def _flood(demand: Demand, s: float, rng: Random) -> None:
    demand.requests += 200 * rng.uniform(0.9, 1.1)
    demand.clients += 40
    demand.cores += 10.0
    demand.tasks += 30


def _viral(demand: Demand, s: float, rng: Random) -> None:
    demand.requests += 120 * rng.uniform(0.8, 1.2)
    demand.clients += 900
    demand.cores += 8.0
    demand.tasks += 30


def _crawler(demand: Demand, s: float, rng: Random) -> None:
    demand.requests += 60 * rng.uniform(0.7, 1.3)
    demand.clients += 3
    demand.cores += 6.0
    demand.tasks += 25


def _slow(demand: Demand, s: float, rng: Random) -> None:
    demand.cores += 8.0 * rng.uniform(0.8, 1.2)
    demand.tasks += 28


def _mail(demand: Demand, s: float, rng: Random) -> None:
    demand.mails += 20
    demand.destinations += 80
    demand.cores += 0.5


def _miner(demand: Demand, s: float, rng: Random) -> None:
    demand.cores += 8.0
    demand.requests = 0.0
    demand.uploads = True


def _backup(demand: Demand, s: float, rng: Random) -> None:
    demand.reads += 40.0 * rng.uniform(0.5, 1.5)
    demand.writes += 12.0 * rng.uniform(0.5, 1.5)
    demand.cores += 0.9


@dataclass(frozen=True, slots=True)
class Kind:
    """A hog, what its neighbours wait for, and what it is. `within_s`: how soon it is to be held."""

    hog: Hog
    resource: Resource
    nature: Nature
    within_s: float = 5.0


HOGS: Mapping[str, Kind] = {
    "CPU spin": Kind(_spin, Resource.CPU, Nature.HEAVY),
    "memory leak": Kind(_leak, Resource.MEMORY, Nature.HEAVY),
    "thrash": Kind(_thrash, Resource.MEMORY, Nature.HEAVY),
    "fork bomb": Kind(_forks, Resource.TASKS, Nature.HEAVY),
    "read I/O": Kind(_reads, Resource.IO, Nature.HEAVY, 12.0),
    "write I/O": Kind(_writes, Resource.IO, Nature.HEAVY, 12.0),
    "HTTP flood": Kind(_flood, Resource.CPU, Nature.CRAWLED),
    "viral": Kind(_viral, Resource.CPU, Nature.VIRAL),
    "crawler": Kind(_crawler, Resource.CPU, Nature.CRAWLED),
    "slow PHP": Kind(_slow, Resource.CPU, Nature.HEAVY),
    "mail flood": Kind(_mail, Resource.EGRESS, Nature.HACKED),
    "miner": Kind(_miner, Resource.CPU, Nature.HEAVY),
    "backup job": Kind(_backup, Resource.IO, Nature.HEAVY, 12.0),
}


@dataclass(slots=True)
class Dweller:
    """An ordinary site: its habits, and what it does at the moment."""

    base: float
    memory: float
    disk: float
    mood: float = 1.0
    burst_until: float = -1.0
    burst: float = 0.0
    write_until: float = -1.0


@dataclass(slots=True)
class Machine:
    """`sites` ordinary sites on `cores` CPUs, one disk of `disk` MiB/s and `memory` MiB."""

    rng: Random
    sites: int = 40
    cores: float = 6.0
    disk: float = 60.0
    memory: float = 5120.0
    busy: float = 0.5  # of the CPUs, by ordinary work
    hog: Kind | None = None
    starts_s: float = math.inf
    system_disk: float = 0.0  # MiB/s that no site moves, from the half of a minute on
    system_memory: float = (
        0.0  # MiB/s by which the system grows from the second minute on, until there is no more
    )
    cache: float = 0.0  # MiB of files that one innocent site has read long ago
    system_cores: float = 0.0  # that the system itself takes now and then, for some seconds
    system_until: float = 0.0
    tells_rest: bool = True  # whether the host says what it does beside its sites
    besides: Mapping[SiteId, Hog] = field(default_factory=dict)  # what innocent sites do
    now: float = 0.0
    dwellers: dict[SiteId, Dweller] = field(default_factory=dict)
    held: dict[SiteId, float] = field(default_factory=dict)
    penalties: dict[SiteId, Penalty] = field(default_factory=dict)
    shares: dict[tuple[SiteId, Resource], float] = field(default_factory=dict)
    harmed_at: float | None = None
    hurt_at: float = -math.inf

    def __post_init__(self) -> None:
        raw = {SiteId(f"s{n:03}"): self.rng.lognormvariate(0, 1.2) for n in range(self.sites)}
        per = self.cores * self.busy / sum(raw.values())
        self.dwellers = {
            site: Dweller(
                min(0.8, habit * per),
                self.rng.uniform(40, self.memory / self.sites),
                self.rng.lognormvariate(-2.5, 1.0),
            )
            for site, habit in raw.items()
        }

    @property
    def culprit(self) -> SiteId:
        """The site that the hog lives in: neither the largest nor an idle one."""
        ranked = sorted(self.dwellers, key=lambda site: self.dwellers[site].base)
        return ranked[len(ranked) // 2]

    def demands(self, dt: float, factor: float) -> dict[SiteId, Demand]:
        rng, found = self.rng, {}
        for site, one in self.dwellers.items():
            one.mood += 0.2 * dt * (1 - one.mood) + 0.15 * math.sqrt(dt) * rng.gauss(0, 1)
            one.mood = min(2.5, max(0.1, one.mood))
            if self.now > one.burst_until and rng.random() < 0.002 * dt:
                one.burst_until, one.burst = self.now + rng.uniform(2, 12), rng.uniform(0.3, 0.9)
            cores = one.base * one.mood * factor + (
                one.burst if self.now <= one.burst_until else 0.0
            )
            if self.now > one.write_until and rng.random() < 0.001 * dt:
                one.write_until = self.now + rng.uniform(1, 5)
            writes = 6.0 if self.now <= one.write_until else 0.0
            requests = cores / 0.08
            demand = Demand(
                cores=cores,
                memory=one.memory * (1 + 0.03 * (one.mood - 1)),
                reads=one.disk * one.mood,
                writes=one.disk * one.mood / 2 + writes,
                tasks=5 + 12 * cores,
                forks=0.2,
                requests=requests,
                clients=round(requests * 20),
            )
            if self.hog is not None and site == self.culprit and self.now >= self.starts_s:
                self.hog.hog(demand, self.now - self.starts_s, rng)
            if site in self.besides:
                self.besides[site](demand, self.now, rng)
            self._held_back(site, demand, dt)
            found[site] = demand
        return found

    def _held_back(self, site: SiteId, demand: Demand, dt: float) -> None:
        """Plan and penalty, as the kernel would hold them."""
        penalty = self.penalties.get(site)
        held = penalty if penalty and penalty.enforced else None
        share = {r: self.shares.get((site, r), 1.0) for r in Resource}
        if held and held.level >= Level.STOP:
            demand.cores = demand.scans = demand.reads = demand.writes = demand.forks = 0.0
        if held and held.level >= Level.ISOLATE:
            demand.mails = demand.destinations = 0.0
        if share[Resource.TASKS] < 1:  # what is left of a storm forks no more than it may
            demand.forks *= share[Resource.TASKS] / 4
        demand.tasks = min(demand.tasks, CAPS.tasks * share[Resource.TASKS])
        demand.reads = min(demand.reads, CAPS.read_bytes_per_s / MIB * share[Resource.IO])
        demand.writes = min(demand.writes, 2 * CAPS.write_bytes_per_s / MIB * share[Resource.IO])
        was = self.held.get(site, demand.memory)
        most = CAPS.memory_max_bytes / MIB
        if share[Resource.MEMORY] < 1:  # by a tenth in 5 s, and no further than is wanted
            most = max(most * share[Resource.MEMORY], was * (1 - 0.02 * dt))
            demand.scans *= 0.2
        self.held[site] = demand.memory = min(demand.memory, most)

    def part(self, dt: float, factor: float) -> tuple[HostSigns, dict[SiteId, SiteSigns]]:
        """One look of `dt` s."""
        self.now += dt
        if self.system_cores and self.now > self.system_until + 2 and self.rng.random() < 0.1 * dt:
            self.system_until = self.now + self.rng.uniform(2, 15)
        demands = self.demands(dt, factor)
        given, throttled = self._cpu(demands)
        excess = {
            site: max(0.0, min(d.cores, self._quota(site)) - given[site])
            for site, d in demands.items()
        }
        # Who does not get what it wants stands in everyone's way, by its weight.
        queue = sum(excess[s] * self._weight(s) / 100 for s in demands) / self.cores
        load = (sum(given.values()) + self._system()) / self.cores
        wait = min(2.0, 3.0 * queue + 0.3 * max(0.0, load - 0.7))
        wanted = {s: d.reads + d.writes for s, d in demands.items()}
        system = self.system_disk if self.now > 30 else 0.0
        disk = (sum(wanted.values()) + system) / self.disk
        slow = min(1.5, 4.0 * max(0.0, disk - 0.75))
        free = self.memory - sum(d.memory for d in demands.values())
        free = max(
            min(free, 0.02 * self.memory), free - self.system_memory * max(0.0, self.now - 60)
        )
        scans = sum(d.scans for d in demands.values())
        short = min(1.0, max(0.0, 0.08 - free / self.memory) * 8 + scans / 400)
        noise = self.rng.gauss
        sites = {}
        for site, d in demands.items():
            cache = self.cache if site == self.culprit else 0.0
            own = min(1.0, given[site])
            moved = wanted[site] / max(1.0, disk)
            stall = own * wait + (0.8 * excess[site] if excess[site] else 0.0)
            sites[site] = SiteSigns(
                attachment=Attachment.SLICE,
                every_s=ROUND_S,
                cpu_cores=given[site],
                throttled_ratio=throttled[site],
                cpu_stall=min(1.0, max(0.0, stall * (1 + noise(0, 0.2)))),
                memory_bytes=int((d.memory + 40 + cache) * MIB),
                anon_bytes=int(d.memory * MIB * (1 + noise(0, 0.001))),
                swap_bytes=0,
                memory_stall=min(1.0, max(0.0, short * (own + 0.02) * (1 + noise(0, 0.2)))),
                scanned_per_s=(d.scans + short * (own * 5 + cache * 0.1)) * MIB / 4096,
                stolen_per_s=(d.scans * 0.6 + short * (own * 4 + cache * 0.09)) * MIB / 4096,
                read_bytes_per_s=d.reads / (d.reads + d.writes + 1e-9) * moved * MIB,
                write_bytes_per_s=d.writes / (d.reads + d.writes + 1e-9) * moved * MIB,
                read_ops_per_s=d.reads * 8,
                write_ops_per_s=d.writes * 8,
                io_stall=min(1.0, max(0.0, (own + 0.02) * (slow + 0.05) * (1 + noise(0, 0.2)))),
                tasks=int(d.tasks),
                tasks_refused=int(20 * dt) if d.tasks >= CAPS.tasks else 0,
                requests_per_s=d.requests,
                clients=d.clients,
                new_destinations_per_s=d.destinations,
                direct_mail_per_s=d.mails,
                runs_from_uploads=d.uploads,
            )
        forks = 40 * (1 + noise(0, 0.3)) + sum(d.forks for d in demands.values())
        busy = sum(1 for d in demands.values() if d.cores > 0.05)
        host = HostSigns(
            cores=self.cores,
            memory_total_bytes=int(self.memory * MIB),
            memory_available_bytes=int(max(0.0, free) * MIB),
            has_swap=True,
            # Some task waits more often than each of them does.
            cpu_stall=min(1.0, max(0.0, 1.5 * wait + 0.1 * load * abs(noise(1, 0.5)))),
            memory_stall=min(1.0, max(0.0, short * (1 + noise(0, 0.2)))),
            io_stall=min(1.0, max(0.0, slow * 0.5 * (1 + noise(0, 0.2)) if busy else 0.0)),
            busy_cores=sum(given.values()) + self._system() if self.tells_rest else None,
            io_bytes_per_s=(
                (sum(wanted.values()) + system) / max(1.0, disk) * MIB if self.tells_rest else None
            ),
            io_ops_per_s=(sum(wanted.values()) + system) * 8 if self.tells_rest else None,
            forks_per_s=max(0.0, forks),
        )
        self._harm(host, wait, slow, short)
        return host, sites

    def _harm(self, host: HostSigns, wait: float, slow: float, short: float) -> None:
        """When the neighbours began to suffer, by the same measure that the policy has."""
        if self.now < self.starts_s or self.hog is None:
            return
        suffer = {
            Resource.CPU: wait / (1 + wait) >= 0.2,
            Resource.IO: slow / (1 + slow) >= 0.1 and slow * 0.5 >= 0.1,
            Resource.MEMORY: short >= 0.05,
            Resource.TASKS: (host.forks_per_s or 0) >= 500,
        }
        if suffer.get(self.hog.resource, True):
            if self.now - self.hurt_at > GONE_S:  # what went away by itself was another one
                self.harmed_at = self.now - ROUND_S / PARTS / 2
            self.hurt_at = self.now

    def _weight(self, site: SiteId) -> float:
        penalty = self.penalties.get(site)
        squeezed = penalty is not None and penalty.enforced and penalty.level >= Level.SOFT
        return 20.0 if squeezed else 100.0

    def _quota(self, site: SiteId) -> float:
        return CAPS.cpu_percent / 100 * self.shares.get((site, Resource.CPU), 1.0)

    def _system(self) -> float:
        """Cores that no site uses."""
        return self.system_cores if self.now < self.system_until else 0.0

    def _cpu(
        self, demands: Mapping[SiteId, Demand]
    ) -> tuple[dict[SiteId, float], dict[SiteId, float]]:
        """What each gets by weight, and how much of its time its own quota throttles it."""
        wanted = {site: min(d.cores, self._quota(site)) for site, d in demands.items()}
        given = dict.fromkeys(demands, 0.0)
        left, open_ = self.cores - self._system(), set(wanted)
        while open_ and left > 1e-6:
            each = left / sum(self._weight(site) for site in open_)
            done = {s for s in open_ if wanted[s] <= each * self._weight(s)}
            for site in done or open_:
                given[site] = min(wanted[site], each * self._weight(site))
            if not done:
                break
            left -= sum(given[site] for site in done)
            open_ -= done
        throttled = {
            site: min(0.9, 0.3 * (d.cores - wanted[site])) if d.cores > wanted[site] else 0.0
            for site, d in demands.items()
        }
        return given, throttled

    def round(self, factor: float = 1.0) -> Signals:
        """One reading: the mean of its parts."""
        looks = [self.part(ROUND_S / PARTS, factor) for _ in range(PARTS)]
        return Signals(
            at=self.now,
            host=_mean_host([host for host, _ in looks]),
            sites={site: _mean_site([one[site] for _, one in looks]) for site in self.dwellers},
        )

    def hold(self, decision: Decision) -> None:
        self.penalties = {penalty.site: penalty for penalty in decision.penalties}
        enforced = (p for p in decision.penalties if p.enforced and not p.is_relief)
        self.shares = {(p.site, p.resource): p.share for p in enforced}


def nightly(machine: Machine) -> dict[SiteId, Hog]:
    """Every site's jobs begin within one minute, as crontabs do, and take theirs: together more than there is."""

    def jobs(begins_s: float, lasts_s: float, cores: float) -> Hog:
        def work(demand: Demand, now: float, rng: Random) -> None:
            if begins_s <= now < begins_s + lasts_s:
                demand.cores += cores * rng.uniform(0.8, 1.2)
                demand.reads += rng.uniform(0.0, 2.0)

        return work

    rng = machine.rng
    return {
        site: jobs(rng.uniform(90, 150), rng.uniform(30, 240), rng.uniform(0.1, 0.9))
        for site in machine.dwellers
    }


def acclaimed(machine: Machine) -> dict[SiteId, Hog]:
    """One site takes two fifths of the host, by a crowd that came in twenty seconds, and there is enough for all."""

    def visited(demand: Demand, now: float, rng: Random) -> None:
        crowd = min(1.0, max(0.0, now - 100.0) / 20.0)
        demand.cores += 0.4 * machine.cores * crowd * rng.uniform(0.9, 1.1)
        demand.requests += 60 * crowd
        demand.clients += round(900 * crowd)

    return {machine.culprit: visited}


MEANS = (
    *("cpu_stall", "memory_stall", "io_stall", "forks_per_s"),
    *("busy_cores", "io_bytes_per_s", "io_ops_per_s"),
)
RATES = (
    *("cpu_cores", "throttled_ratio", "cpu_stall", "memory_stall", "io_stall"),
    *("scanned_per_s", "stolen_per_s", "read_bytes_per_s", "write_bytes_per_s"),
    *("read_ops_per_s", "write_ops_per_s", "requests_per_s"),
)


def _mean_host(looks: list[HostSigns]) -> HostSigns:
    means = {
        name: sum(getattr(one, name) for one in looks) / len(looks)
        for name in MEANS
        if getattr(looks[-1], name) is not None
    }
    return msgspec.structs.replace(looks[-1], **means)


def _mean_site(looks: list[SiteSigns]) -> SiteSigns:
    means = {name: sum(getattr(one, name) for one in looks) / len(looks) for name in RATES}
    return msgspec.structs.replace(looks[-1], **means)


def house(machine: Machine, *, enforced: bool = True) -> House:
    """All sites of `machine` on one plan."""
    begins = 0.0 if enforced else None
    tenant = Tenant(plan=PLAN, enforced_from=begins)
    return House(plans={PLAN: CAPS}, tenants=dict.fromkeys(machine.dwellers, tenant), rulings={})


@dataclass(slots=True)
class Course:
    """What became of one run: the first site that was held, when, as what; and every other one that ever was."""

    culprit: SiteId
    first: SiteId | None = None
    after_s: float | None = None
    nature: Nature | None = None
    score: float | None = None  # that it was first held with; None: not for what neighbours suffer
    others: set[SiteId] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    rounds: int = 0
    changes: list[str] = field(default_factory=list)


def run(
    kind: Kind | None,
    seed: int,
    *,
    rounds: int,
    quiet: int = 40,
    peaks: bool = False,
    system_disk: float = 0.0,
    system_cores: float = 0.0,
    system_memory: float = 0.0,
    cache: float = 0.0,
    tells_rest: bool = True,
    busy: float | None = None,
    besides: Callable[[Machine], dict[SiteId, Hog]] | None = None,
) -> Course:
    """Play `rounds` rounds of a host, the hog beginning somewhere in the round after `quiet`."""
    rng = Random(seed)
    # Half busy, a host takes in a site at its cap; with a hog it is to be more than that.
    busy = busy or (0.6 if kind else 0.5)
    machine = Machine(
        rng,
        hog=kind,
        busy=busy,
        system_disk=system_disk,
        system_cores=system_cores,
        system_memory=system_memory,
        cache=cache,
        tells_rest=tells_rest,
    )
    machine.besides = besides(machine) if besides else {}
    machine.starts_s = (quiet + rng.random()) * ROUND_S if kind else math.inf
    state, orders, course = State(), house(machine), Course(machine.culprit)
    for number in range(rounds):
        factor = 1.0 + (0.4 * math.sin(math.pi * number / rounds) if peaks else 0.0)
        signals = machine.round(factor)
        decision = decide(state, signals, orders, Policy(), signals.at, WALL + signals.at)
        state = decision.state
        machine.hold(decision)
        course.asked |= {why.code for why in decision.asks}
        for change in decision.changes:
            course.changes.append(f"{signals.at:g} {change.site} {change.to.name} {change.why}")
            if change.to < Level.SOFT or change.to <= change.was:
                continue
            if course.first is None:
                course.first = change.site
                course.nature = next(p.nature for p in decision.penalties if p.site == change.site)
                score = change.why.values.get("score")
                course.score = score if isinstance(score, float) else None
                began = machine.harmed_at
                course.after_s = None if began is None else signals.at - began
            if change.site != course.culprit:
                course.others.add(change.site)
        course.rounds += 1
    return course
