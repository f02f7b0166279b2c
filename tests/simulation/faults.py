"""What goes wrong: each fault begins, lasts, and ends; a seeded schedule of many of them, some at once."""

import asyncio
from collections.abc import Awaitable, Callable

from controller.commands import Commands, NotLeading
from controller.sight import Refused
from controller.store import StoreError
from fleet.caps import Level
from fleet.model import HostId, SiteId
from tests.simulation.machines import Machine, now
from tests.simulation.rules import ANA
from tests.simulation.usage import telling
from tests.simulation.world import Seat, World

Fault = Callable[[World, float], Awaitable[None]]


async def kill_host(world: World, for_s: float) -> None:
    if machine := _idle(world):
        machine.busy = True
        world.log(f"{machine.id} loses power for {for_s:.1f} s")
        world.power_off(machine.id)
        await asyncio.sleep(for_s)
        world.boot(machine.id)
        world.log(f"{machine.id} boots")
        machine.busy = False


async def freeze_host(world: World, for_s: float) -> None:
    if machine := _idle(world):
        machine.busy = True
        world.log(f"{machine.id} hangs for {for_s:.1f} s")
        machine.freeze()
        await asyncio.sleep(for_s)
        machine.thaw()
        world.log(f"{machine.id} goes on")
        machine.busy = False


async def shut_down_host(world: World, for_s: float) -> None:
    if machine := _idle(world):
        machine.busy = True
        world.log(f"{machine.id} announces its shutdown")
        world.announce_shutdown(machine.id)
        await asyncio.sleep(4.0)
        world.power_off(machine.id)
        await asyncio.sleep(for_s)
        world.boot(machine.id)
        world.log(f"{machine.id} boots")
        machine.busy = False


async def cut_host(world: World, for_s: float) -> None:
    """From all, from the controllers, or from the edges; in both directions or in one."""
    host = world.random.choice(sorted(world.machines))
    groups: tuple[list[str], ...] = ([*world.seats], [*world.machines], world.others(host))
    others = [other for other in world.random.choice(groups) if other != host]
    ways = world.random.choice(("both", "in", "out"))
    world.log(f"{host} is cut from {others} ({ways}) for {for_s:.1f} s")
    cuts = [(host, o) for o in others if ways != "in"] + [
        (o, host) for o in others if ways != "out"
    ]
    for source, sink in cuts:
        world.network.cut(source, sink)
    await asyncio.sleep(for_s)
    for source, sink in cuts:
        world.network.heal(source, sink)
    world.log(f"{host} is reached again")


async def restart_agent(world: World, for_s: float) -> None:
    host = world.random.choice(sorted(world.machines))
    world.log(f"the agent of {host} restarts within {min(for_s, 20):.1f} s")
    await world.restart_agent(host, min(for_s, 20.0))


async def kill_agent(world: World, for_s: float) -> None:
    if (machine := _idle(world)) and machine.agent:
        machine.busy = True
        world.log(f"the agent of {machine.id} dies for {for_s:.1f} s")
        machine.agent.kill()
        await asyncio.sleep(for_s)
        if machine.agent.killed:  # a restart that was under way may have begun its new life
            machine.start_agent(world.group)
        machine.busy = False


async def stall_agent(world: World, for_s: float) -> None:
    """An observer's own loop stands still; its HAProxy goes on."""
    machine = world.random.choice([*world.machines.values()])
    if machine.agent and machine.agent.runs and not machine.busy:
        machine.busy = True
        world.log(f"the agent of {machine.id} stands still for {for_s / 8:.1f} s")
        machine.agent.freeze()
        await asyncio.sleep(for_s / 8)
        machine.agent.thaw()
        machine.busy = False


async def service_down(world: World, for_s: float) -> None:
    if (machine := _idle(world)) and not machine.haproxy:
        machine.busy = True
        world.log(f"the web server of {machine.id} is down for {for_s:.1f} s")
        machine.set_web(False)
        await asyncio.sleep(for_s)
        machine.set_web(True)
        machine.busy = False


async def flap(world: World, for_s: float) -> None:
    if (machine := _idle(world)) and not machine.haproxy:
        machine.busy = True
        world.log(f"the web server of {machine.id} flaps for {for_s:.1f} s")
        end = now() + for_s
        while now() < end:
            machine.set_web(not machine.web_up)
            await asyncio.sleep(world.random.uniform(0.2, 3.0))
        machine.set_web(True)
        machine.busy = False


async def restart_haproxy(world: World, for_s: float) -> None:
    edges = [m for m in world.machines.values() if m.haproxy and m.powered and not m.busy]
    if edges:
        edge = world.random.choice(edges)
        assert edge.haproxy is not None
        edge.busy = True
        world.log(f"HAProxy of {edge.id} restarts")
        edge.haproxy.up = False
        edge.note()
        await asyncio.sleep(min(for_s / 20, 1.0))
        edge.haproxy.up = True
        edge.checker.forget()
        edge.note()
        edge.busy = False


async def kill_controller(world: World, for_s: float) -> None:
    seat = _seat(world)
    if seat.runs:
        await seat.kill()
        await asyncio.sleep(for_s / 3)
        seat.start()


async def freeze_controller(world: World, for_s: float) -> None:
    seat = _seat(world)
    if seat.runs:
        world.log(f"{seat.id} stands still for {for_s / 4:.1f} s")
        process = seat.process
        seat.freeze(for_s / 4)
        await asyncio.sleep(for_s / 4)
        if process:
            process.thaw()


async def store_away(world: World, for_s: float) -> None:
    if not world.weather.away:
        world.log(f"the store is away for {for_s / 2:.1f} s")
        world.weather.leave()
        for seat in world.seats.values():
            if seat.client and for_s / 2 > 3.0:  # longer than a lease lasts
                seat.client.abandon()
        await asyncio.sleep(for_s / 2)
        world.weather.come_back()
        world.log("the store is back")


async def store_lossy(world: World, for_s: float) -> None:
    world.log(f"answers of the store get lost for {for_s:.1f} s")
    world.weather.lossy = 0.3
    await asyncio.sleep(for_s)
    world.weather.lossy = 0.0


async def dns_away(world: World, for_s: float) -> None:
    world.log(f"the name servers are away for {for_s:.1f} s")
    world.primary.away = True
    await asyncio.sleep(for_s)
    world.primary.away = False


async def pause(world: World, for_s: float) -> None:
    world.log(f"ana pauses for {for_s:.1f} s")
    await order(world, lambda commands: commands.pause(for_s, ANA))


async def drain(world: World, for_s: float) -> None:
    host = HostId(world.random.choice([id for id, m in world.machines.items() if not m.haproxy]))
    world.log(f"ana drains {host} for {for_s:.1f} s")
    await order(world, lambda commands: commands.drain(host, for_s, ANA))


async def move(world: World, for_s: float) -> None:
    site = SiteId(world.random.choice(sorted(world.fleet.sites)))
    target = world.random.choice(world.fleet.sites[site].standbys)
    world.log(f"ana moves {site} to {target}")
    await order(world, lambda commands: commands.move(site, target, ANA, old_host_stopped=True))


async def penalize(world: World, for_s: float) -> None:
    """A host penalizes sites of its own, and claims to penalize others'; in the end it lifts all that it may."""
    machine = world.random.choice([m for m in world.machines.values() if not m.haproxy])
    every = sorted(world.fleet.sites)
    world.log(f"{machine.id} penalizes for {for_s:.1f} s")
    end = now() + for_s
    while now() < end:
        some = world.random.sample(every, 3)
        level = world.random.choice((Level.WATCH, Level.SOFT, Level.CAP, Level.STOP))
        for_s = world.random.choice((5.0, 1e9))
        machine.tell(telling(machine.id, *some, level=level, for_s=for_s))
        await asyncio.sleep(world.random.uniform(1.0, 6.0))
    machine.tell(telling(machine.id))


FAULTS: tuple[Fault, ...] = (
    kill_host, kill_host, freeze_host, shut_down_host, cut_host, cut_host, cut_host, restart_agent,
    kill_agent, stall_agent, stall_agent, service_down, flap, restart_haproxy, kill_controller,
    freeze_controller, store_away, store_lossy, dns_away, pause, drain, move, penalize,
)  # fmt: skip


async def order(world: World, give: Callable[[Commands], Awaitable[object]]) -> bool:
    """Give an order to whoever leads, as a person would; False: it could not be given."""
    if (leader := world.leader) is None:
        return False
    try:
        async with asyncio.timeout(5.0):
            await give(leader.commands)
    except (NotLeading, Refused, StoreError, TimeoutError) as error:
        world.log(f"the order was refused: {error!r}")
        return False
    return True


async def mischief(world: World, count: int, within_s: float) -> None:
    """`count` faults that begin within `within_s`; returns when the last one is over."""
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            await asyncio.sleep(world.random.expovariate(count / within_s))
            fault = world.random.choice(FAULTS)
            group.create_task(_bounded(world, fault))


async def _bounded(world: World, fault: Fault) -> None:
    await fault(world, world.random.uniform(1.0, 30.0))


def _idle(world: World) -> Machine | None:
    """A machine that nothing else is being done to."""
    free = [m for m in world.machines.values() if m.powered and not m.frozen and not m.busy]
    return world.random.choice(free) if free else None


def _seat(world: World) -> Seat:
    return world.random.choice([*world.seats.values()])
