"""Three controllers on etcd: the one that leads is killed or frozen, alone and in the same moment as a host.

Its machine's member of etcd dies with it where it is said so. Needs root, for network namespaces.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random

from bench.measure import machine, none, seconds
from bench.stage import SEED, at_random, bring_home, rest, run, say, until
from deploy.demo.client import ApiFailed, Client, client
from deploy.demo.lab import Machine, Staff, Store
from deploy.demo.once import strike_and_follow
from deploy.demo.programs import CONTROLLER
from deploy.demo.show import Show, show
from deploy.demo.stage import Fault

RUNS = 15
THREE = Staff(store=Store.ETCD, controllers=3)
FROZEN_S = 10.0  # beyond the lease, and what etcd adds to it
POLL_S = 0.02
LONGEST_S = 30.0

Strike = Callable[[Show, Machine], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What befalls the leader; `end` undoes it. `p99_s`: the goal, until somebody decides again.

    `host_p99_s`: the same until a host that dies in that moment is failed over; None: not tried.
    `comes_back`: its service manager starts it again at once, and it may be the one who leads next.
    """

    name: str
    strike: Strike
    end: Strike
    p99_s: float | None
    host_p99_s: float | None = None
    comes_back: bool = False


def main(runs: int = RUNS) -> None:
    print(
        f"  {machine()}; 3 controllers, 3 members of etcd with TLS, 4 web hosts, 2 edges",
        flush=True,
    )
    run(_run(runs))


async def _run(runs: int) -> None:
    random = Random(SEED)
    async with show(say, namespaces=True, staff=THREE) as it, each(it) as desks:
        for way in WAYS:
            await _alone(it, desks, way, runs, random)
        for way in WAYS:
            if way.host_p99_s is not None:
                await _with_a_host(it, desks, way, runs, random)


async def _alone(
    it: Show, desks: Mapping[str, Client], way: Way, runs: int, random: Random
) -> None:
    now, took = asyncio.get_running_loop().time, list[float]()
    await rest(it)
    before = await _places(it)
    known = {incident.id for incident in await it.client.incidents()}
    for _ in range(runs):
        leader = await _leader(it, desks)
        await at_random(random)
        at = now()
        await way.strike(it, leader)
        others = {name: desk for name, desk in desks.items() if name != leader.name}
        await _decided(desks if way.comes_back else others)
        took.append(now() - at)
        await way.end(it, leader)
        await rest(it)
    fresh = [i for i in await it.client.incidents() if i.id not in known]
    moves = sum(len(incident.moved) for incident in fresh) + (before != await _places(it))
    seconds(f"leader {way.name}: one decides", took, p99=way.p99_s)
    none(f"leader {way.name}: moves", moves, f"{runs} times")


async def _with_a_host(
    it: Show, desks: Mapping[str, Client], way: Way, runs: int, random: Random
) -> None:
    """The host with the most sites loses power in the moment in which the leader is struck."""
    proven, announced = list[float](), list[float]()
    for number in range(runs):
        leader = await _leader(it, desks)
        await at_random(random)
        await way.strike(it, leader)
        followed = await strike_and_follow(it, Fault.KILL, lambda _: None)
        proven.append(followed.proven_s)
        announced.append(followed.dns_s)
        say(
            f"{way.name}, with a host {number + 1}: proven {proven[-1]:.3f}  dns {announced[-1]:.3f}"
        )
        await way.end(it, leader)
        await bring_home(it, it.stage.lab.machines[followed.struck.host])
        await _all_well(desks)
    seconds(f"leader {way.name}, with a host: proven", proven, p99=way.host_p99_s)
    seconds(f"leader {way.name}, with a host: dns", announced)


async def _leader(it: Show, desks: Mapping[str, Client]) -> Machine:
    """The machine of the controller that leads, once all three are well."""
    await _all_well(desks)
    found: list[str] = []

    async def led() -> bool:
        found[:] = [(await it.client.status()).led_by or ""]
        return found[0] in desks

    await until(led)
    return it.stage.lab.machines[found[0]]


async def _all_well(desks: Mapping[str, Client]) -> None:
    """Wait until each controller has watched for long enough to be a witness: what is tried is the loss of one."""

    async def well() -> bool:
        ready = all([await desk.ready() for desk in desks.values()])
        return ready and not any([(await desk.status()).doubts_itself for desk in desks.values()])

    await until(well)


async def _decided(desks: Mapping[str, Client]) -> None:
    """Wait until one of these controllers says that it leads."""
    async with asyncio.timeout(LONGEST_S):
        while True:
            for desk in desks.values():
                try:
                    async with asyncio.timeout(1.0):
                        if (await desk.status()).leader:
                            return
                except (ApiFailed, TimeoutError):
                    pass
            await asyncio.sleep(POLL_S)


async def _places(it: Show) -> dict[str, str]:
    return {site.id: site.host for site in await it.client.sites()}


@asynccontextmanager
async def each(it: Show) -> AsyncIterator[dict[str, Client]]:
    """A client of each controller alone."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(
                client([url], ca=it.outfit.authority.path, token=it.outfit.token)
            )
            for name, url in it.stage.lab.apis.items()
        }


def _signalled(number: signal.Signals) -> Strike:
    async def strike(it: Show, leader: Machine) -> None:
        it.stage.powers[leader.name].signal(CONTROLLER, number)

    return strike


async def _power_off(it: Show, leader: Machine) -> None:
    it.stage.powers[leader.name].kill()


async def _power_on(it: Show, leader: Machine) -> None:
    it.stage.powers[leader.name].start()


async def _thawed_late(it: Show, leader: Machine) -> None:
    """It goes on long after another one leads, and must find that out before it does anything."""
    await asyncio.sleep(FROZEN_S)
    it.stage.powers[leader.name].signal(CONTROLLER, signal.SIGCONT)


async def _nothing(it: Show, leader: Machine) -> None:
    """Its service manager has started it again."""


WAYS = (
    Way(
        name="stopped",
        strike=_signalled(signal.SIGTERM),
        end=_nothing,
        p99_s=None,
    ),
    Way(
        name="killed",
        strike=_signalled(signal.SIGKILL),
        end=_nothing,
        p99_s=5.0,
        host_p99_s=8.0,
        comes_back=True,
    ),
    Way(name="frozen", strike=_signalled(signal.SIGSTOP), end=_thawed_late, p99_s=6.0),
    Way(
        name="and its etcd without power",
        strike=_power_off,
        end=_power_on,
        p99_s=None,
        host_p99_s=8.0,
    ),
)
