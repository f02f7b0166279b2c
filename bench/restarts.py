"""Each daemon restarted again and again under load: nothing may move, no visitor may notice.

HAProxy stopped and started closes its listening sockets between, so that is told for information, and once more
with sockets that a parent holds as a systemd socket unit would. Needs root, for network namespaces.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec

from agent.edge.runtime import Runtime
from agent.ports import DriverError
from bench.measure import machine, none, row, spread
from bench.stage import SEED, at_random, counted, quiet, rest, run, say, split, until
from deploy.demo.lab import Kind, Machine
from deploy.demo.processes import Program
from deploy.demo.programs import AGENT, HAPROXY, Outfit
from deploy.demo.show import Show, show
from fleet.model import HostId
from fleet.writing import write

RUNS = 20
# Longer than the silence after which a host is judged: what a restart sets off is seen before the next one.
SILENCE_S = 2.5
CONTROLLER = "controller"

Restart = Callable[[Show], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to restart something. `promised`: no request may fail of it."""

    name: str
    restart: Restart
    promised: bool = True


def main(runs: int = RUNS) -> None:
    print(
        f"  {machine()}; 200 requests/s through 2 edges, 20 direct; {runs} times each", flush=True
    )
    run(_run(WAYS, runs, Outfit))
    run(_run(HELD, runs, HeldSockets))


async def _run(ways: tuple[Way, ...], runs: int, outfit: type[Outfit]) -> None:
    random = Random(SEED)
    async with show(quiet, namespaces=True, tailor=outfit) as it:
        await rest(it)
        for way in ways:
            await _series(it, way, runs, random)


async def _series(it: Show, way: Way, runs: int, random: Random) -> None:
    now = asyncio.get_running_loop().time
    places = await _places(it)
    known = {incident.id for incident in await it.client.incidents()}
    before, began, took = await counted(it), now(), list[float]()
    for _ in range(runs):
        await at_random(random)
        at = now()
        await way.restart(it)
        await rest(it)
        took.append(now() - at)
        await asyncio.sleep(SILENCE_S)
    after, placed = await counted(it), await _places(it)
    fresh = [i for i in await it.client.incidents() if i.id not in known]
    moves = sum(len(incident.moved) for incident in fresh) + (placed != places)
    failed = sum(split(before, after, ()))
    requests = after.requests - before.requests
    none(f"{way.name}: moves", moves, f"{runs} restarts")
    if way.promised:
        none(f"{way.name}: failed requests", failed, f"{requests}")
    else:
        row(f"{way.name}: failed requests", f"{failed} of {requests}", "", reached=True)
    print(f"          all well again after: {spread(took)}", flush=True)
    for failure in [f for f in it.visitors.failures if f.due > began][:10]:
        say(f"{failure.site} at {failure.door}: {failure.reason}")
    for incident in fresh:
        say(f"incident {incident.id}: {incident.verdict}, {len(incident.moved)} moved")


async def _places(it: Show) -> dict[str, str]:
    return {site.id: site.host for site in await it.client.sites()}


def _restart(kind: Kind, program: str, number: signal.Signals) -> Restart:
    """Signal `program` on the first machine of `kind`; its service manager starts it again."""

    async def restart(it: Show) -> None:
        power = it.stage.powers[it.stage.lab.of(kind)[0].name]
        old = power.signal(program, number)

        async def is_back() -> bool:
            new = power.pid(program)
            return new not in (None, old) and await it.client.ready()

        await until(is_back)

    return restart


async def _reload_haproxy(it: Show) -> None:
    """What `systemctl reload haproxy` does: Debian's unit sends SIGUSR2 to the master."""
    for edge in it.stage.lab.of(Kind.EDGE):
        it.stage.powers[edge.name].signal(HAPROXY, signal.SIGUSR2)


async def _change_fleet(it: Show) -> None:
    """A fleet change that HAProxy can't follow by its map: another health check, so both agents reload it."""
    hosts = dict(it.stage.fleet.hosts)
    id = HostId("web4")
    check = "/" if hosts[id].check != "/" else "/check"
    hosts[id] = msgspec.structs.replace(hosts[id], check=check)
    it.stage.fleet = msgspec.structs.replace(it.stage.fleet, hosts=hosts)
    await it.client.apply(write(it.stage.fleet))


class HeldSockets(Outfit):
    """Edges whose listening sockets outlive HAProxy."""

    def programs(self, machine: Machine) -> tuple[Program, ...]:
        programs = super().programs(machine)
        if machine.kind is not Kind.EDGE:
            return programs
        config = self.folder(machine) / "agent.toml"
        haproxy, *others = programs
        holding = (sys.executable, str(Path(__file__).with_name("holding.py")))
        lines = {"bind": 'bind = ["fd@3", "fd@4"]'}
        text = config.read_text().splitlines()
        config.write_text("\n".join(lines.get(line.split(" ")[0], line) for line in text) + "\n")
        doors = [part for door in machine.doors for part in (door.address, str(door.port))]
        command = (*holding, *doors, "--", *haproxy.command)
        held = Program(
            name=HAPROXY, command=command, env=haproxy.env, needs=haproxy.needs, restart=True
        )
        return (held, *others)


async def _restart_held(it: Show) -> None:
    """Stop HAProxy in good order, while its parent holds the sockets and starts it again."""
    power = it.stage.powers[it.stage.lab.of(Kind.EDGE)[0].name]
    runtime = Runtime(power.directory / "haproxy.sock", power.directory)
    old = (await runtime.info()).pid
    power.signal(HAPROXY, signal.SIGUSR1)

    async def is_back() -> bool:
        try:
            return (await runtime.info()).pid != old
        except DriverError:
            return False

    await until(is_back)


TERM, KILL = signal.SIGTERM, signal.SIGKILL
WAYS = (
    Way(name="web agent, SIGTERM", restart=_restart(Kind.WEB, AGENT, TERM)),
    Way(name="web agent, SIGKILL", restart=_restart(Kind.WEB, AGENT, KILL)),
    Way(name="edge agent, SIGTERM", restart=_restart(Kind.EDGE, AGENT, TERM)),
    Way(name="edge agent, SIGKILL", restart=_restart(Kind.EDGE, AGENT, KILL)),
    Way(name="controller, SIGTERM", restart=_restart(Kind.CONTROLLER, CONTROLLER, TERM)),
    Way(name="controller, SIGKILL", restart=_restart(Kind.CONTROLLER, CONTROLLER, KILL)),
    Way(name="HAProxy, reload", restart=_reload_haproxy),
    Way(name="HAProxy, reloaded by the agents", restart=_change_fleet),
    Way(
        name="HAProxy, stop and start",
        restart=_restart(Kind.EDGE, HAPROXY, signal.SIGUSR1),
        promised=False,
    ),
)
HELD = (Way(name="HAProxy, stop and start, sockets held", restart=_restart_held),)
