"""The machines of the co-op with their power switches, and the faults that befall them."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path

from deploy.demo.effect import Public
from deploy.demo.lab import Kind, Lab, Machine
from deploy.demo.logind import Logind, stand_in
from deploy.demo.network import Network, NotPossible
from deploy.demo.processes import Power, Program
from deploy.demo.programs import BUS_SOCKET, LOGIND_READY, Outfit
from fleet.model import Fleet, Site
from runtime.clock import wall

POLL_S = 0.05


class Fault(Enum):
    KILL = "kill"
    CUT = "cut"
    FREEZE = "freeze"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """A fault that has begun: `at` in loop time, `wall` in Unix s; `sites` were served there in that instant."""

    host: str
    fault: Fault
    at: float
    wall: float
    sites: tuple[Site, ...]


class Stage:
    def __init__(self, network: Network, fleet: Fleet, group: asyncio.TaskGroup) -> None:
        self.network, self.fleet = network, fleet
        self.public = Public(network.lab)
        self.powers: dict[str, Power] = {}
        self._group = group
        self._loginds: dict[str, Logind] = {}
        self._going: set[str] = set()

    @property
    def lab(self) -> Lab:
        return self.network.lab

    def furnish(self, outfit: Outfit) -> None:
        """Write every machine's files; all are off."""
        for machine in self.lab.machines.values():
            self.place(machine, outfit.programs(machine), outfit.folder(machine))

    def place(self, machine: Machine, programs: tuple[Program, ...], folder: Path) -> None:
        """A machine, off, with what it runs; in place of the one that had its name."""
        self.powers[machine.name] = Power(
            machine,
            programs,
            prefix=self.network.command(machine),
            directory=folder,
            group=self._group,
            attendants=(partial(self._attend, machine, folder),) if machine.is_host else (),
        )

    def start(self, *kinds: Kind) -> None:
        for machine in self.lab.of(*kinds):
            self.powers[machine.name].start()

    def end(self) -> None:
        for power in self.powers.values():
            power.kill()

    async def strike(self, machine: Machine, fault: Fault, serving: Mapping[str, str]) -> Struck:
        """Let `fault` happen to `machine`; `serving`: the host of each site. Raises NotPossible."""
        sites = tuple(s for s in self.fleet.sites.values() if serving.get(s.id) == machine.name)
        power = self.powers[machine.name]
        if not power.is_on or machine.name in self._going:
            raise NotPossible(f"{machine.name} is off already")
        logind = self._loginds.get(machine.name)
        if fault is Fault.SHUTDOWN and not logind:
            raise NotPossible(f"nobody speaks for logind on {machine.name}")
        at, at_wall = asyncio.get_running_loop().time(), wall()
        match fault:
            case Fault.KILL:
                power.kill()
            case Fault.FREEZE:
                power.freeze()
            case Fault.CUT:
                await self.network.cut(machine)
            case Fault.SHUTDOWN:
                assert logind
                self._group.create_task(self._shut_down(machine, logind))
        return Struck(host=machine.name, fault=fault, at=at, wall=at_wall, sites=sites)

    async def _shut_down(self, machine: Machine, logind: Logind) -> None:
        """As logind and systemd do it: announce, wait for those who delay it, end every program."""
        self._going.add(machine.name)
        await logind.shutdown()
        await self.powers[machine.name].halt()
        self._going.discard(machine.name)

    async def back(self, machine: Machine) -> None:
        """Undo whatever has happened to `machine`. Idempotent. Raises NotPossible during a shutdown."""
        if machine.name in self._going:
            raise NotPossible(f"{machine.name} is still going down")
        await self.network.mend(machine)
        power = self.powers[machine.name]
        power.thaw()
        power.start()

    async def _attend(self, machine: Machine, folder: Path) -> None:
        """Speak for logind on the machine's bus, as long as the machine is on."""
        ready = folder / LOGIND_READY
        try:
            while True:
                with suppress(OSError):  # the bus is not there yet
                    async with stand_in(f"unix:path={folder / BUS_SOCKET}") as logind:
                        self._loginds[machine.name] = logind
                        ready.touch()
                        await asyncio.Event().wait()
                await asyncio.sleep(POLL_S)
        finally:
            self._loginds.pop(machine.name, None)
            ready.unlink(missing_ok=True)
