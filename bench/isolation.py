"""Who is held, over the modelled corpus of hogs: the right site, how soon, nobody on a quiet day; a round's cost."""

import time
from random import Random

from agent.isolate import Policy, State, decide
from bench.measure import machine, none, percentile, row, seconds
from fleet.caps import Resource
from tests.hogs import HOGS, WALL, Course, Machine, house, run

RUNS = 12  # of each hog, with other sites, another rhythm, another moment
ROUNDS = 90
QUIET_ROUNDS = (
    43_200 // 20
)  # a day at a twentieth of its length: its peaks come twenty times as steeply
RIGHT, SOON_S, SOON_IO_S = 0.95, 5.0, 12.0
SITES = 1000


def main(runs: int) -> None:
    print(f"  {machine()}; simulated time, {runs} runs of each hog among 40 sites")
    after: dict[bool, list[float]] = {True: [], False: []}
    right = natures = total = bystanders = 0
    for name, kind in HOGS.items():
        courses = [run(kind, seed, rounds=ROUNDS) for seed in range(runs)]
        hits = [course for course in courses if course.first == course.culprit]
        times = [course.after_s for course in hits if course.after_s is not None]
        after[kind.resource is Resource.IO] += times
        total, right = total + runs, right + len(hits)
        natures += sum(course.nature is kind.nature for course in hits)
        bystanders += sum(len(course.others) for course in courses)
        worst = f"p95 {percentile(times, 95):.1f} s" if times else "-"
        print(f"        {name:<12} {len(hits)}/{runs} found, {worst}")
    row(
        "right culprit",
        f"{right / total:.1%} of {total}",
        ">= 95 %",
        reached=right / total >= RIGHT,
    )
    row("its nature, of those", f"{natures / right:.1%}", "", reached=True)
    none("neighbours ever held", bystanders, f"{40 * total} sites")
    _soon("CPU, memory, tasks, egress: contention to squeeze", after[False], SOON_S)
    _soon("I/O: contention to squeeze", after[True], SOON_IO_S)
    quiet = [run(None, seed, rounds=QUIET_ROUNDS, peaks=True) for seed in range(max(1, runs // 5))]
    none("penalties in a quiet day", _held(quiet), f"{len(quiet)} days of 40 sites")
    _cost()


def _soon(what: str, found: list[float], goal_s: float) -> None:
    p95 = percentile(found, 95)
    row(f"{what}, p95", f"{p95:.1f} s (n={len(found)})", f"<= {goal_s:g} s", reached=p95 <= goal_s)


def _held(courses: list[Course]) -> int:
    return sum(course.first is not None for course in courses)


def _cost() -> None:
    """CPU time of one round with SITES sites: a calm one, and one in which everybody waits."""
    for what, busy in (("calm", 0.4), ("in contention", 1.2)):
        host = Machine(Random(1), sites=SITES, cores=32, memory=256_000, disk=4000, busy=busy)
        state, orders, costs = State(), house(host), list[float]()
        for _ in range(45):
            signals = host.round()
            begun = time.process_time()
            decision = decide(state, signals, orders, Policy(), signals.at, WALL + signals.at)
            costs.append(time.process_time() - begun)
            state = decision.state
        seconds(f"one round, {SITES} sites, {what} (CPU)", costs)
