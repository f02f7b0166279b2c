"""The demo on a terminal: a picture that follows the co-op, and keys that let things happen to it."""

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace

from rich.console import Console
from rich.live import Live

from deploy.demo.client import ApiFailed, StatusItem
from deploy.demo.lab import LONE, Kind, Machine, Staff, Store
from deploy.demo.network import NotPossible
from deploy.demo.picture import KEYS, LEADER_KEYS, ControllerItem, Picture, draw
from deploy.demo.programs import CONTROLLER, ETCD
from deploy.demo.show import Say, Show, show
from deploy.demo.stage import Fault
from failover.policy import Policy

LOOK_S = 0.25
DRAW_S = 0.2
HOME_S = 30.0
SETTLE_S = Policy().settle_s
KEYS_AT_ONCE = 32
ARROWS = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down"}
FAULT_KEYS = {"k": Fault.KILL, "f": Fault.FREEZE, "c": Fault.CUT, "s": Fault.SHUTDOWN}
LEADER_FAULTS = {"l": (CONTROLLER,), "e": (ETCD,), "m": (CONTROLLER, ETCD)}
DONE = {
    Fault.KILL: "killed",
    Fault.FREEZE: "frozen",
    Fault.CUT: "cut off",
    Fault.SHUTDOWN: "shut down",
}


async def live(
    say: Say, *, namespaces: bool | None = None, staff: Staff = LONE, seed: int = 1
) -> None:
    """Show it until `q`. Raises what `show` raises."""
    async with (
        show(say, namespaces=namespaces, staff=staff, seed=seed) as it,
        asyncio.TaskGroup() as group,
    ):
        view = View(it, group)
        view.tasks += [group.create_task(view.follow()), group.create_task(view.paint())]
        with _keyboard() as stdin:
            async with aclosing(_pressed(stdin)) as keys:
                async for key in keys:
                    if key == "q":
                        break
                    await view.press(key)
        for task in view.tasks:
            task.cancel()


class View:
    def __init__(self, it: Show, group: asyncio.TaskGroup) -> None:
        self._it, self._group = it, group
        self.tasks: list[asyncio.Task[None]] = []  # all end with the view
        staff = it.stage.lab.staff
        self._picture = Picture(
            missing=it.stage.network.missing,
            controllers=self._controllers(None),
            keys=KEYS + (LEADER_KEYS if staff.store is Store.ETCD else ()),
        )
        self._serving: dict[str, str] = {}

    async def follow(self) -> None:
        """Look at the controller's view of the world, again and again."""
        while True:
            try:
                await self._look()
            except ApiFailed as error:
                self._say(str(error))
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        client, visitors = self._it.client, self._it.visitors
        hosts, sites, incidents = (
            await client.hosts(),
            await client.sites(),
            await client.incidents(),
        )
        status = await client.status()
        newest = await client.incident(incidents[-1].id) if incidents else None
        self._serving = {site.id: site.host for site in sites}
        order = [machine.name for machine in self._it.stage.lab.hosts]
        self._picture = replace(
            self._picture,
            hosts=tuple(sorted(hosts, key=lambda host: order.index(host.id))),
            controllers=self._controllers(status),
            sites=len(sites),
            away=sum(site.host != site.home for site in sites),
            incident=newest,
            tallies=tuple(visitors.recent),
            ok=visitors.ok.total(),
            failed=dict(visitors.failed_at),
        )

    def _controllers(self, status: StatusItem | None) -> tuple[ControllerItem, ...]:
        """Every controller, whether it and its member of etcd run, and which one leads."""
        stage = self._it.stage
        return tuple(
            ControllerItem(
                id=machine.name,
                runs=stage.powers[machine.name].pid(CONTROLLER) is not None,
                stores=stage.powers[machine.name].pid(ETCD) is not None,
                leads=status is not None and status.led_by == machine.name,
            )
            for machine in stage.lab.of(Kind.CONTROLLER)
        )

    async def paint(self) -> None:
        console = Console()
        with Live(console=console, screen=True, auto_refresh=False) as screen:
            while True:
                width, height = console.size
                screen.update(draw(self._picture, width, height), refresh=True)
                await asyncio.sleep(DRAW_S)

    async def press(self, key: str) -> None:
        """Do what `key` stands for to the host that is chosen."""
        picture = self._picture
        try:
            if key.isdigit():
                self._picture = picture.with_selected(int(key) - 1)
            elif key in ("up", "down"):
                self._picture = picture.with_selected(
                    picture.selected + (1 if key == "down" else -1)
                )
            elif key == "p":
                await self._pause()
            elif key in FAULT_KEYS and picture.hosts:
                await self._strike(self._chosen(), FAULT_KEYS[key])
            elif key in LEADER_FAULTS and len(picture.keys) > len(KEYS):
                self._strike_leader(LEADER_FAULTS[key])
            elif key == "b" and picture.hosts:
                await self._back(self._chosen())
        except (ApiFailed, NotPossible) as finding:
            self._say(str(finding))

    def _chosen(self) -> Machine:
        return self._it.stage.lab.machines[self._picture.hosts[self._picture.selected].id]

    async def _strike(self, machine: Machine, fault: Fault) -> None:
        struck = await self._it.stage.strike(machine, fault, self._serving)
        self._picture = replace(
            self._picture,
            struck=self._picture.struck
            | {s.id for s in struck.sites}
            | set(map(str, machine.doors)),
            done={**self._picture.done, machine.name: DONE[fault]},
        )
        what = (
            "visitors who come by it fail until the DNS leaves it out"
            if machine.kind is Kind.EDGE
            else f"it served {len(struck.sites)} sites"
        )
        self._say(f"{machine.name} {DONE[fault]}: {what}")

    def _strike_leader(self, programs: tuple[str, ...]) -> None:
        """SIGKILL to programs of the machine whose controller leads; they start again as under systemd, in a moment.

        Both at once, as when its power fails: then the machine stays off until the same key turns it on.
        """
        stage = self._it.stage
        off = [m for m in stage.lab.of(Kind.CONTROLLER) if not stage.powers[m.name].is_on]
        if len(programs) > 1 and off:
            stage.powers[off[0].name].start()
            return self._say(f"{off[0].name} is on again")
        leading = next((item.id for item in self._picture.controllers if item.leads), None)
        if leading is None:
            return self._say("no controller leads just now")
        power = stage.powers[leading]
        if len(programs) > 1:
            power.kill()
            return self._say(f"{leading} has no power: another controller leads in a moment; m: on")
        for program in programs:
            if power.pid(program) is not None:
                power.signal(program, signal.SIGKILL)
        return self._say(f"{' and '.join(programs)} of {leading} killed")

    async def _back(self, machine: Machine) -> None:
        await self._it.stage.back(machine)
        done = {name: what for name, what in self._picture.done.items() if name != machine.name}
        self._picture = replace(self._picture, done=done)
        if machine.kind is Kind.EDGE:
            self._say(
                f"{machine.name} is back: the DNS names it once it has been up for {SETTLE_S:g} s"
            )
            return
        self._say(f"{machine.name} is back: its sites come home as soon as relevo sees it up")
        self.tasks.append(self._group.create_task(self._home(machine)))

    async def _home(self, machine: Machine) -> None:
        """Once the host is up, its sites may come home."""
        try:
            async with asyncio.timeout(HOME_S):
                while not self._is_up(machine):  # noqa: ASYNC110 - it is what `follow` sees
                    await asyncio.sleep(LOOK_S)
                await self._it.client.activate(machine.name)
        except ApiFailed as finding:
            self._say(f"{machine.name}: {finding}")
        except TimeoutError:
            self._say(f"{machine.name} is not up after {HOME_S:g} s: its sites stay where they are")
        else:
            self._say(f"{machine.name} is up, and its sites are at home")

    def _is_up(self, machine: Machine) -> bool:
        return any(h.id == machine.name and h.verdict == "up" for h in self._picture.hosts)

    async def _pause(self) -> None:
        paused = not self._picture.paused
        await (self._it.client.pause() if paused else self._it.client.resume())
        self._picture = replace(self._picture, paused=paused)

    def _say(self, text: str) -> None:
        self._picture = replace(self._picture, message=text.splitlines()[0])


@contextmanager
def _keyboard() -> Iterator[int]:
    """stdin, key by key and without echo; as it was before at the end."""
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    tty.setcbreak(stdin)
    try:
        yield stdin
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


async def _pressed(stdin: int) -> AsyncGenerator[str, None]:
    """Keys as they are pressed; an arrow is a word. Ends with the terminal."""
    queue: asyncio.Queue[bytes] = asyncio.Queue(KEYS_AT_ONCE)

    def read() -> None:
        data = os.read(stdin, KEYS_AT_ONCE)
        if not queue.full():
            queue.put_nowait(data)

    loop = asyncio.get_running_loop()
    loop.add_reader(stdin, read)
    try:
        while data := await queue.get():
            if data in ARROWS:
                yield ARROWS[data]
            else:
                for key in data.decode(errors="ignore"):
                    yield key
    finally:
        loop.remove_reader(stdin)
