"""A host is killed, cut off, shut down, again and again in one running co-op: each phase, and what visitors lost.

Every fault begins at a random instant (seeded) of the beats, checks and rounds; then the host comes back and its
sites go home. Needs root: without network namespaces no host can be cut off.
"""

from dataclasses import dataclass, field
from random import Random

from bench.measure import machine, none, seconds
from bench.stage import SEED, Count, at_random, bring_home, counted, quiet, rest, run, say, split
from deploy.demo.once import since, strike_and_follow
from deploy.demo.show import Show, show
from deploy.demo.stage import Fault, Struck
from fleet.model import Phase

RUNS = 30
SHUTDOWNS = 10
# proven_s: p50, p99
GOALS = {Fault.KILL: (2.5, 4.0), Fault.CUT: (3.0, 4.5), Fault.SHUTDOWN: (1.0, 1.0)}
DNS_P50_S = 4.0
PHASES = {"detected": Phase.VERDICT, "decided": Phase.DECIDED, "edges": Phase.EDGES}


@dataclass(slots=True)
class Series:
    """What the runs of one fault have given."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    requests: int = 0
    own: int = 0
    others: int = 0
    returning: int = 0

    def add(self, name: str, value: float) -> None:
        self.seconds.setdefault(name, []).append(value)


def main(runs: int = RUNS) -> None:
    print(
        f"  {machine()}; 200 requests/s through 2 edges, 20 direct; seconds from the fault",
        flush=True,
    )
    run(_run(runs))


async def _run(runs: int) -> None:
    random = Random(SEED)
    async with show(say, namespaces=True) as it:
        await rest(it)
        before = await counted(it)
        for fault in GOALS:
            series = Series()
            for number in range(min(runs, SHUTDOWNS) if fault is Fault.SHUTDOWN else runs):
                before = await _once(it, fault, random, series, number, before)
            _tell(fault, series)


async def _once(
    it: Show, fault: Fault, random: Random, series: Series, number: int, before: Count
) -> Count:
    """Until the co-op is at rest again; gives what was counted by then."""
    await at_random(random)
    followed = await strike_and_follow(it, fault, quiet)
    struck, incident = followed.struck, followed.incident
    after = await counted(it)
    own, others = split(before, after, struck.sites)
    await bring_home(it, it.stage.lab.machines[struck.host])
    back = await counted(it)
    phases = {name: since(struck, incident, phase) for name, phase in PHASES.items()}
    effects = {"proven": followed.proven_s, "dns": followed.dns_s}
    effects["complete"] = max(effects.values())
    for name, value in {**phases, **effects}.items():
        series.add(name, value)
    returning = sum(split(after, back, ()))
    series.requests += back.requests - before.requests
    series.own, series.others = series.own + own, series.others + others
    series.returning += returning
    told = "  ".join(f"{name} {value:.3f}" for name, value in {**phases, **effects}.items())
    say(f"{fault.value} {number + 1}: {told}  failed {own} own, {others} others, {returning} after")
    _tell_failures(it, struck)
    return back


def _tell_failures(it: Show, struck: Struck) -> None:
    """What should not have failed, one by one."""
    own = {site.id for site in struck.sites} if struck.fault is not Fault.SHUTDOWN else set()
    for failure in it.visitors.failures:
        if failure.due >= struck.at - 1 and failure.site not in own:
            after = failure.due - struck.at
            say(f"  {failure.site} at {failure.door}, {after:+.3f} s: {failure.reason}")


def _tell(fault: Fault, series: Series) -> None:
    p50, p99 = GOALS[fault]
    for name, values in series.seconds.items():
        goals = {"proven": (p50, p99), "dns": (DNS_P50_S, None)}.get(name, (None, None))
        seconds(f"{fault.value}: {name}_s", values, p50=goals[0], p99=goals[1])
    of = f"{series.requests}"
    none(f"{fault.value}: failed requests of other hosts' sites", series.others, of)
    if fault is Fault.SHUTDOWN:
        none(f"{fault.value}: failed requests of its sites", series.own, of)
    else:
        print(f"          failed requests of its own sites: {series.own}")
    none(f"{fault.value}: failed from then until all was home again", series.returning, of)
