"""A program: three controllers on a real etcd, struck one after the other; a line for each thing that was seen.

It is a program because the demo's network belongs to a whole process.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

import uvloop

from bench.controllers import THREE, each
from bench.stage import bring_home, counted, rest, split, until
from deploy.demo.client import Client
from deploy.demo.lab import Kind
from deploy.demo.once import strike_and_follow
from deploy.demo.processes import Power
from deploy.demo.programs import CONTROLLER, ETCD
from deploy.demo.show import Show, show
from deploy.demo.stage import Fault


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - it is read by the test


async def main() -> None:
    async with show(say, namespaces=True, staff=THREE) as it, each(it) as desks:
        await rest(it)
        for name, step in (
            ("followers pass changes on", lambda: _followers_pass_changes_on(it, desks)),
            ("restarts move nothing", lambda: _restarts_move_nothing(it, desks)),
            ("an etcd member dies", lambda: _an_etcd_member_dies(it, desks)),
            ("the leader is cut off as a host dies", lambda: _leader_cut_off(it, desks)),
            ("leader and host die", lambda: _leader_and_host_die(it, desks)),
            ("without a quorum nothing changes", lambda: _without_a_quorum(it, desks)),
        ):
            await _told(name, step)


async def _told(name: str, step: Callable[[], Awaitable[None]]) -> None:
    await step()
    say(f"seen: {name}")


async def _leader(desks: dict[str, Client]) -> str:
    found: list[str] = []

    async def led() -> bool:
        found[:] = [name for name, desk in desks.items() if (await desk.status()).leader]
        return len(found) == 1

    await until(led)
    return found[0]


async def _followers_pass_changes_on(it: Show, desks: dict[str, Client]) -> None:
    """Paused by one follower, seen by the other, resumed by it."""
    leader = await _leader(desks)
    one, other = (desk for name, desk in desks.items() if name != leader)
    await one.pause()

    async def paused() -> bool:
        return (await other.status()).paused is not None

    await until(paused)
    await other.resume()

    async def resumed() -> bool:
        return (await one.status()).paused is None

    await until(resumed)


async def _restarts_move_nothing(it: Show, desks: dict[str, Client]) -> None:
    """Each controller in turn, by SIGTERM and by SIGKILL, as an upgrade or a crash does."""
    places, before = await _places(it), await counted(it)
    for name, desk in desks.items():
        for number in (signal.SIGTERM, signal.SIGKILL):
            power = it.stage.powers[name]
            old = power.signal(CONTROLLER, number)

            async def is_back(power: Power = power, old: int = old, desk: Client = desk) -> bool:
                return power.pid(CONTROLLER) not in (None, old) and await desk.ready()

            await until(is_back)
            await rest(it)
    after = await counted(it)
    assert await _places(it) == places
    assert sum(split(before, after, ())) == 0, [*it.visitors.failures]


async def _an_etcd_member_dies(it: Show, desks: dict[str, Client]) -> None:
    """The leader's own: it finds another one, and goes on or gives way."""
    places, before = await _places(it), await counted(it)
    leader = await _leader(desks)
    it.stage.powers[leader].signal(ETCD, signal.SIGKILL)
    await asyncio.sleep(5.0)
    await _leader(desks)

    async def paused_and_resumed() -> bool:
        await it.client.pause()
        await it.client.resume()
        return True

    await until(paused_and_resumed)
    after = await counted(it)
    assert await _places(it) == places
    assert sum(split(before, after, ())) == 0, [*it.visitors.failures]


async def _leader_cut_off(it: Show, desks: dict[str, Client]) -> None:
    """Not a packet to its machine or from it, its etcd's neither: the others move the host that dies in that moment."""
    before = await counted(it)
    leader = await _leader(desks)
    machine = it.stage.lab.machines[leader]
    await it.stage.strike(machine, Fault.CUT, {})
    followed = await strike_and_follow(it, Fault.KILL, say)
    _, others = split(before, await counted(it), followed.struck.sites)
    assert others == 0, [*it.visitors.failures]
    await it.stage.back(machine)
    await bring_home(it, it.stage.lab.machines[followed.struck.host])
    await _leader(desks)


async def _leader_and_host_die(it: Show, desks: dict[str, Client]) -> None:
    """Power lost in one moment: the host's sites are served elsewhere, nobody else's fail."""
    before = await counted(it)
    leader = await _leader(desks)
    it.stage.powers[leader].kill()
    followed = await strike_and_follow(it, Fault.KILL, say)
    _, others = split(before, await counted(it), followed.struck.sites)
    assert others == 0, [*it.visitors.failures]
    it.stage.powers[leader].start()
    await bring_home(it, it.stage.lab.machines[followed.struck.host])


async def _without_a_quorum(it: Show, desks: dict[str, Client]) -> None:
    """Two of three members of etcd frozen: traffic goes on; thawed, somebody leads again."""
    places, before = await _places(it), await counted(it)
    frozen = [machine.name for machine in it.stage.lab.of(Kind.CONTROLLER)][:2]
    for name in frozen:
        it.stage.powers[name].signal(ETCD, signal.SIGSTOP)
    await asyncio.sleep(10.0)
    for name in frozen:
        it.stage.powers[name].signal(ETCD, signal.SIGCONT)
    await _leader(desks)
    await rest(it)
    after = await counted(it)
    assert await _places(it) == places
    assert sum(split(before, after, ())) == 0, [*it.visitors.failures]


async def _places(it: Show) -> dict[str, str]:
    return {site.id: site.host for site in await it.client.sites()}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    sys.exit(0)
