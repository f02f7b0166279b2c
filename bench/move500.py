"""A host with 500 sites is killed: from the leader's decision to the last edge that follows, and to all proven.

Real controller, agents, HAProxy and web servers, under the demo's load. Most of the domains are in no zone of ours:
only traffic moves. Placement documents are counted in the store's own journal, map commits in the agents' logs.
Needs root, for network namespaces.
"""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench.measure import machine, none, row, seconds
from bench.stage import bring_home, counted, quiet, rest, run, say, split
from deploy.demo.client import IncidentItem
from deploy.demo.lab import Door, Kind, Lab
from deploy.demo.once import COMPLETE_S, strike_and_follow
from deploy.demo.packages import Tools
from deploy.demo.programs import AGENT, Outfit
from deploy.demo.show import Show, show
from deploy.demo.stage import Fault
from deploy.demo.visit import NoAnswer, visit
from fleet import keys
from fleet.model import Domain, Fleet, HostId, IncidentId, Phase, Site, SiteId
from fleet.writing import write

RUNS = 5
SITES = 500
HOST = HostId("web1")
GOAL_S = 1.0
FOLLOW_S = 5.0
AT_ONCE = 32
COMMITTED = b'"map committed"'


@dataclass(slots=True)
class Series:
    """What the runs have given; `wrong`: sites that an edge did not serve from elsewhere after all was proven."""

    edges: list[float] = field(default_factory=list)
    proven: list[float] = field(default_factory=list)
    commits: list[int] = field(default_factory=list)
    moved: list[int] = field(default_factory=list)
    wrong: int = 0
    others: int = 0
    requests: int = 0
    incidents: list[IncidentId] = field(default_factory=list)


def main(runs: int = RUNS) -> None:
    print(f"  {machine()}; {SITES} sites, killed {runs} times", flush=True)
    run(_run(runs))


async def _run(runs: int) -> None:
    series = Series()
    async with show(quiet, namespaces=True, tailor=_tailor) as it:
        await rest(it)
        # The demo's own fleet stays on stage: its visitors are the load.
        grown = _grown(it.stage.fleet)
        await it.client.apply(write(grown))
        await asyncio.sleep(FOLLOW_S)
        for _ in range(runs):
            await _once(it, grown, series)
        controller = it.stage.powers[it.stage.lab.the(Kind.CONTROLLER).name]
        controller.kill()  # it holds its store locked
        store = controller.directory / "state" / "store.db"
        puts = await asyncio.to_thread(_placements_put, store, series.incidents)
    _tell(series, puts)


def _tailor(lab: Lab, fleet: Fleet, tools: Tools, directory: Path) -> Outfit:
    """Web servers that know all the sites from the beginning."""
    return Outfit(lab, _grown(fleet), tools, directory)


def _grown(fleet: Fleet) -> Fleet:
    """`fleet` with so many more sites at home on one host that it has `SITES`."""
    like = next(s for s in fleet.sites.values() if s.home == HOST and s.route == "edges")
    there = sum(site.home == HOST for site in fleet.sites.values())
    more: dict[SiteId, Site] = {}
    for number in range(SITES - there):
        id, turn = SiteId(f"more{number:03}"), number % len(like.standbys)
        more[id] = msgspec.structs.replace(
            like,
            id=id,
            domains=(Domain(f"{id}.example.net"),),
            standbys=(*like.standbys[turn:], *like.standbys[:turn]),
            users=(),
        )
    return msgspec.structs.replace(fleet, sites=fleet.sites | more)


async def _once(it: Show, grown: Fleet, series: Series) -> None:
    edges = it.stage.lab.of(Kind.EDGE)
    logs = [it.stage.powers[edge.name].log(AGENT) for edge in edges]
    before, commits = await counted(it), [_commits(log) for log in logs]
    followed = await strike_and_follow(it, Fault.KILL, quiet)
    incident, struck = followed.incident, followed.struck
    new = [_commits(log) - old for log, old in zip(logs, commits, strict=True)]
    wrong = await _wrong(it, grown, [edge.doors[0] for edge in edges])
    others = split(before, await counted(it), struck.sites)[1]
    await bring_home(it, it.stage.lab.machines[struck.host])
    decided = _at(incident, Phase.DECIDED)
    series.edges.append(_at(incident, Phase.EDGES) - decided)
    series.proven.append(_at(incident, Phase.PROVEN) - decided)
    series.moved.append(len(incident.moved))
    series.commits += new
    series.incidents.append(IncidentId(incident.id))
    series.wrong += wrong
    series.others += others
    series.requests += (await counted(it)).requests - before.requests
    say(
        f"{len(incident.moved)} sites: edges {series.edges[-1]:.3f} proven {series.proven[-1]:.3f} "
        f"commits {new} wrong {wrong} failed {others} others"
    )


def _at(incident: IncidentItem, phase: Phase) -> float:
    at = incident.at(phase)
    assert at is not None, f"incident {incident.id} is complete without {phase.value}"
    return at


def _commits(log: Path) -> int:
    return log.read_bytes().count(COMMITTED)


async def _wrong(it: Show, grown: Fleet, doors: list[Door]) -> int:
    """How many of the moved host's sites some edge does not serve from another host."""
    slots, now = asyncio.Semaphore(AT_ONCE), asyncio.get_running_loop().time
    tag = it.stage.lab.machines[HOST].tag

    async def is_right(site: Site, door: Door) -> bool:
        async with slots:
            try:
                answer = await visit(door, site.domains[0], until=now() + COMPLETE_S)
            except NoAnswer:
                return False
        return answer.is_from(site.id) and answer.host not in ("", tag)

    sites = [s for s in grown.sites.values() if s.home == HOST and s.route == "edges"]
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(is_right(s, door)) for s in sites for door in doors]
    return sum(not task.result() for task in asked)


def _placements_put(store: Path, incidents: list[IncidentId]) -> list[int]:
    """How many placement documents were put in the transaction that began each incident."""
    first = "SELECT min(revision) FROM versions WHERE key = ?"
    puts = "SELECT count(*) FROM versions WHERE revision = ? AND substr(key, 1, ?) = ?"
    with closing(sqlite3.connect(store)) as db:
        found = []
        for incident in incidents:
            (revision,) = db.execute(first, (keys.incident(incident),)).fetchone()
            wanted = (revision, len(keys.PLACEMENTS), keys.PLACEMENTS)
            found += [count for (count,) in db.execute(puts, wanted)]
        return found


def _tell(series: Series, puts: list[int]) -> None:
    row(
        "sites moved by one incident",
        f"{min(series.moved)} to {max(series.moved)}",
        f"{SITES}",
        reached=set(series.moved) == {SITES},
    )
    row("placement documents in the commit", f"{puts}", "1 each", reached=set(puts) == {1})
    row("map commits per edge", f"{series.commits}", "1 each", reached=set(series.commits) == {1})
    seconds("decided -> last edge follows", series.edges, p50=GOAL_S, p99=GOAL_S)
    seconds("decided -> all proven through both edges", series.proven)
    none("sites that an edge served wrong afterwards", series.wrong, f"{2 * sum(series.moved)}")
    none("failed requests of other hosts' sites", series.others, f"{series.requests}")
