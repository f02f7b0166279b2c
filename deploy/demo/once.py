"""One fault, measured: the host with the most sites fails, and one line of JSON says how its sites lived on."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from deploy.demo.client import ApiFailed, Client, IncidentItem
from deploy.demo.crowd import Visitors
from deploy.demo.effect import Incomplete
from deploy.demo.lab import LONE, Kind, Machine, Staff
from deploy.demo.network import NO_CUT, NotPossible, has_namespaces
from deploy.demo.show import Say, Show, show
from deploy.demo.stage import POLL_S, Fault, Stage, Struck
from fleet.model import Phase

WARM_S = 3.0  # the visitors' load before the fault, so that nothing measured is a start
COMPLETE_S = 30.0


class NotComplete(Exception):
    """The fail-over did not come to its end in time; the message says what was missing."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds count from the fault. `own`: requests for sites of the host that failed; `others`: for all others."""

    sites_moved: int
    detected_s: float
    decided_s: float
    edges_s: float
    proven_s: float
    dns_s: float
    complete_s: float
    requests: int
    failed_requests_own: int
    failed_requests_others: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """A fault whose incident is complete. `proven_s` and `dns_s` were measured by effect, from the fault."""

    struck: Struck
    incident: IncidentItem
    proven_s: float
    dns_s: float


async def once(
    fault: Fault,
    say: Say,
    *,
    namespaces: bool | None = None,
    staff: Staff = LONE,
    seed: int = 1,
) -> Outcome:
    """Raises NotComplete, NotPossible, and what `show` raises."""
    if fault is Fault.CUT and not has_namespaces(namespaces):
        raise NotPossible(NO_CUT)
    async with show(say, namespaces=namespaces, staff=staff, seed=seed) as it:
        return await measure(it, fault, say)


async def measure(it: Show, fault: Fault, say: Say) -> Outcome:
    """Let `fault` happen to the host with the most sites, and follow what becomes of them."""
    await asyncio.sleep(WARM_S)
    followed = await strike_and_follow(it, fault, say)
    struck, incident = followed.struck, followed.incident
    await it.visitors.finish()
    _tell_failures(it.visitors, struck, say)
    own = sum(it.visitors.failed[site.id] for site in struck.sites)
    return Outcome(
        sites_moved=len(struck.sites),
        detected_s=since(struck, incident, Phase.VERDICT),
        decided_s=since(struck, incident, Phase.DECIDED),
        edges_s=since(struck, incident, Phase.EDGES),
        proven_s=followed.proven_s,
        dns_s=followed.dns_s,
        complete_s=max(followed.proven_s, followed.dns_s),
        requests=it.visitors.requests,
        failed_requests_own=own,
        failed_requests_others=it.visitors.failed.total() - own,
    )


async def strike_and_follow(it: Show, fault: Fault, say: Say) -> Followed:
    """Let `fault` happen to the host with the most sites, until its incident is complete. Raises NotComplete."""
    serving = {site.id: site.host for site in await it.client.sites()}
    machine = busiest(it.stage, serving.values())
    struck = await it.stage.strike(machine, fault, serving)
    say(f"{fault.value}: {machine.name} with {len(struck.sites)} sites")
    until = struck.at + COMPLETE_S
    proven, announced = await _effects(it.stage, struck, until)
    return Followed(
        struck=struck,
        incident=await _incident(it.client, struck, until),
        proven_s=round(proven - struck.at, 3),
        dns_s=round(announced - struck.at, 3),
    )


def busiest(stage: Stage, serving: Iterable[str]) -> Machine:
    hosts = list(serving)
    return max(stage.lab.of(Kind.WEB), key=lambda machine: hosts.count(machine.name))


async def _effects(stage: Stage, struck: Struck, until: float) -> tuple[float, float]:
    """When the sites answered from elsewhere through every edge, and when every name server said so (loop time)."""
    doors = [edge.doors[0] for edge in stage.lab.of(Kind.EDGE)]
    try:
        async with asyncio.TaskGroup() as group:
            served = group.create_task(
                stage.public.served(struck.sites, doors, not_by=struck.host, until=until)
            )
            announced = group.create_task(
                stage.public.announced(struck.sites, not_by=struck.host, until=until)
            )
    except* Incomplete as missing:
        reasons = "; ".join(str(finding) for finding in missing.exceptions)
        raise NotComplete(f"after {COMPLETE_S:g} s {reasons}") from None
    return served.result(), announced.result()


async def _incident(client: Client, struck: Struck, until: float) -> IncidentItem:
    """The controller's own record of it, once it is complete."""
    found: IncidentItem | None = None
    try:
        async with asyncio.timeout_at(until):
            while True:
                for incident in await client.incidents():
                    if incident.subject == struck.host and incident.began_at > struck.wall - 1:
                        found = await client.incident(incident.id)
                        if found.complete:
                            return found
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        reached = [entry.phase.value for entry in found.timeline] if found else []
        raise NotComplete(
            f"after {COMPLETE_S:g} s the controller's incident is not complete; it has: {reached}"
        ) from None
    except ApiFailed as error:
        raise NotComplete(str(error)) from error


def since(struck: Struck, incident: IncidentItem, phase: Phase) -> float:
    """From the fault to `phase`, s. Raises NotComplete where the incident has no such line."""
    if (at := incident.at(phase)) is None:
        raise NotComplete(f"incident {incident.id} has no {phase.value!r} in its timeline")
    return round(at - struck.wall, 3)


def _tell_failures(visitors: Visitors, struck: Struck, say: Say) -> None:
    """On stderr, what should not have failed: others' requests, and at a shutdown any."""
    own = {site.id for site in struck.sites} if struck.fault is not Fault.SHUTDOWN else set()
    for failure in [f for f in visitors.failures if f.site not in own][:10]:
        after = failure.due - struck.at
        say(f"failed: {failure.site} at {failure.door}, {after:+.3f} s: {failure.reason}")
