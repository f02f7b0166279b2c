"""A stand-in for systemd on a private bus, with made-up cgroups under it: slices are capped as PID 1 would.

Source: org.freedesktop.systemd1(5), systemd.resource-control(5).
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dbus_fast import BusType, Message, MessageType, RequestNameReply, Variant
from dbus_fast.aio import MessageBus

from agent.caps.kernel import slice_path

NAME = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
INFINITY = 2**64 - 1
MOVES = ("StartTransientUnit", "AttachProcessesToUnit")
# What a slice of a kernel with all controllers shows, before anybody caps it.
PLAIN = {
    "cpu.weight": "100",
    "cpu.max": "max 100000",
    "memory.high": "max",
    "memory.max": "max",
    "memory.low": "0",
    "memory.swap.max": "max",
    "memory.current": "0",
    "pids.max": "max",
    "io.max": "",
    "io.weight": "default 100",
    "cgroup.freeze": "0",
    "cgroup.events": "populated 0\nfrozen 0",
    "cgroup.procs": "",
}
NUMBERS = {
    "CPUWeight": "cpu.weight",
    "MemoryHigh": "memory.high",
    "MemoryMax": "memory.max",
    "MemoryLow": "memory.low",
    "MemorySwapMax": "memory.swap.max",
    "TasksMax": "pids.max",
}
IO = {
    "IOReadBandwidthMax": "rbps",
    "IOWriteBandwidthMax": "wbps",
    "IOReadIOPSMax": "riops",
    "IOWriteIOPSMax": "wiops",
}


@dataclass
class Systemd:
    """`calls`: each method that was called with its unit; `sent`: the names of properties, call by call.

    `scopes`: the transient ones that are there, with their properties. `ended`: pids of processes that have.
    """

    bus: MessageBus
    cgroups: Path
    run: Path
    calls: list[tuple[str, str]] = field(default_factory=list)
    sent: list[list[str]] = field(default_factory=list)
    arrays: dict[tuple[str, str], list[list[object]]] = field(default_factory=dict)
    numbers: dict[tuple[str, str], object] = field(default_factory=dict)
    sockets: set[str] = field(default_factory=set)
    shut: set[str] = field(default_factory=set)  # of units, by their path's last part
    absent: set[str] = field(default_factory=set)
    own: dict[str, dict[str, Variant]] = field(default_factory=dict)  # of slices, as `shut`
    refuses: str = ""
    scopes: dict[str, dict[str, object]] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)

    def group(self, unit: str) -> Path:
        return self.cgroups / slice_path(unit)

    def appear(self, unit: str) -> Path:
        """A slice comes up: it holds what was set for it, and subscribers hear of it."""
        group = self.group(unit)
        group.mkdir(parents=True)
        for name, text in PLAIN.items():
            (group / name).write_text(f"{text}\n")
        self.realize(unit)
        self.signal("UnitNew", "so", unit, f"{PATH}/unit/x")
        return group

    def reload(self) -> None:
        """daemon-reload: every attribute of every slice is written anew."""
        self.signal("Reloading", "b", True)
        for unit in {unit for unit, _ in self.numbers}:
            self.realize(unit)
        self.signal("Reloading", "b", False)

    def signal(self, member: str, signature: str, *body: object) -> None:
        self.bus.send(Message.new_signal(PATH, MANAGER, member, signature, list(body)))

    def realize(self, unit: str) -> None:
        group = self.group(unit)
        if not group.is_dir():
            return
        for (of, name), value in self.numbers.items():
            if of != unit:
                continue
            if name == "CPUQuotaPerSecUSec":
                quota = "max" if value == INFINITY else str(int(str(value)) // 10)
                (group / "cpu.max").write_text(f"{quota} 100000\n")
            elif name == "IOWeight":
                (group / "io.weight").write_text(f"default {value}\n")
            else:
                text = "max" if value == INFINITY else str(value)
                (group / NUMBERS[name]).write_text(f"{text}\n")
        (group / "io.max").write_text(self._io_max(unit))

    def _io_max(self, unit: str) -> str:
        limits: dict[str, dict[str, str]] = {}
        for name, word in IO.items():
            for path, value in self.arrays.get((unit, name), []):
                if value != INFINITY:
                    limits.setdefault(str(path).removeprefix("/dev/block/"), {})[word] = str(value)
        words = {
            d: [f"{w}={told.get(w, 'max')}" for w in IO.values()] for d, told in limits.items()
        }
        return "".join(f"{device} {' '.join(told)}\n" for device, told in words.items())

    def answer(self, message: Message) -> Message | bool:
        """The bus' message handler."""
        if message.message_type is not MessageType.METHOD_CALL:
            return False
        if message.member in ("Get", "GetAll"):
            return self._told(message)
        if message.path != PATH:
            return False
        unit = str(message.body[0]) if message.body else ""
        self.calls.append((message.member or "", unit))
        if refused := self._refused(message, unit):
            return refused
        if message.member == "SetUnitProperties":
            assert message.body[1] is True, "at run time only"
            self._set(unit, message.body[2])
        elif message.member in ("FreezeUnit", "ThawUnit"):
            frozen = int(message.member == "FreezeUnit")
            (self.group(unit) / "cgroup.freeze").write_text(f"{frozen}\n")
        elif message.member == "KillUnit":
            self._kill(unit)
        elif message.member == "LoadUnit":
            name = (
                unit.removesuffix(".service").replace("-", "_").replace("@", "_").replace(".", "_")
            )
            return Message.new_method_return(message, "o", [f"{PATH}/unit/{name}"])
        elif message.member in ("StopUnit", "StartUnit"):
            self.scopes.pop(unit, None)
            return Message.new_method_return(message, "o", [f"{PATH}/job/1"])
        return Message.new_method_return(message)

    def _kill(self, unit: str) -> None:
        if unit.endswith(".slice"):
            (self.group(unit) / "cgroup.events").write_text("populated 0\nfrozen 0\n")

    def _refused(self, message: Message, unit: str) -> Message | None:
        if self.refuses == message.member:
            return Message.new_error(message, "org.freedesktop.DBus.Error.AccessDenied", "no")
        if unit in self.absent:
            return Message.new_error(message, f"{NAME}.NoSuchUnit", f"Unit {unit} not found.")
        return None

    def _told(self, message: Message) -> Message:
        """A property of a unit, by its path's last part, or all of a slice."""
        unit = (message.path or "").rpartition("/")[2]
        if message.member == "GetAll":
            assert message.body == [f"{NAME}.Slice"]
            return Message.new_method_return(message, "a{sv}", [self.own.get(unit, {})])
        if message.body[1] == "ActiveState":
            state = Variant("s", "inactive" if unit in self.shut else "active")
            return Message.new_method_return(message, "v", [state])
        assert message.body[1] == "TriggeredBy", message.body
        known = [each for each in self.sockets if each == f"{unit.replace('_', '-')}.socket"]
        return Message.new_method_return(message, "v", [Variant("as", known)])

    def answer_move(self, message: Message) -> Message | bool:
        """The bus' message handler for what moves processes; a pid that is gone fails a whole call, as with PID 1."""
        if message.message_type is not MessageType.METHOD_CALL or message.member not in MOVES:
            return False
        unit = str(message.body[0])
        self.calls.append((message.member, unit))
        if refused := self._refused(message, unit):
            return refused
        begins = message.member == "StartTransientUnit"
        pids = (self._begin if begins else self._take)(unit, *message.body[1:])
        if isinstance(pids, list) and pids and not self.ended & set(pids):
            held = self.scopes[unit].setdefault("pids", [])
            assert isinstance(held, list)
            held += pids
            return Message.new_method_return(message, *(("o", [f"{PATH}/job/1"]) if begins else ()))
        wrong = pids if isinstance(pids, str) else "No such process"
        if begins and not isinstance(pids, str):
            del self.scopes[unit]
        return Message.new_error(message, "org.freedesktop.systemd1.Refused", wrong)

    def _begin(
        self, unit: str, mode: str, told: list[tuple[str, Variant]], aux: list[object]
    ) -> list[int] | str:
        if unit in self.scopes:
            return f"Unit {unit} was already loaded or has a fragment file."
        assert (mode, aux) == ("fail", [])
        properties = {name: value.value for name, value in told}
        pids: list[int] = properties.pop("PIDs")
        self.scopes[unit] = properties
        return pids

    def _take(self, unit: str, below: str, pids: list[int]) -> list[int] | str:
        assert below == ""
        if unit not in self.scopes:
            return f"Unit {unit} not loaded."
        if self.scopes[unit].get("Delegate") is not True:
            return "Process migration not available on non-delegated units."
        return pids

    def _set(self, unit: str, properties: Iterable[tuple[str, Variant]]) -> None:
        names = []
        for name, value in properties:
            names.append(name)
            if value.signature == "t":
                assert name in NUMBERS or name in ("CPUQuotaPerSecUSec", "IOWeight"), name
                self.numbers[unit, name] = value.value
            else:
                told = self.arrays.setdefault((unit, name), [])
                told[:] = [*told, *value.value] if value.value else []  # arrays grow
                self._drop_in(unit, name, told)
        self.sent.append(names)
        self.realize(unit)

    def _drop_in(self, unit: str, name: str, values: list[list[object]]) -> None:
        folder = self.run / "system.control" / f"{unit}.d"
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{name}={value}\n" for value in values)
        (folder / f"50-{name}.conf").write_text(f"# made by hand\n[Slice]\n{name}=\n{lines}")


@asynccontextmanager
async def stand_in(address: str, folder: Path) -> AsyncIterator[Systemd]:
    """Own systemd's name on the bus at `address`; its cgroups and its /run are in `folder`."""
    bus = MessageBus(address, BusType.SYSTEM)
    async with asyncio.timeout(5):
        await bus.connect()
    cgroups, run = folder / "cgroup", folder / "run"
    cgroups.mkdir(exist_ok=True)
    run.mkdir(exist_ok=True)
    systemd = Systemd(bus, cgroups, run)
    try:
        bus.add_message_handler(systemd.answer_move)
        bus.add_message_handler(systemd.answer)
        if await bus.request_name(NAME) is not RequestNameReply.PRIMARY_OWNER:
            raise RuntimeError(f"{NAME} is taken on {address}: this must be a private bus")
        yield systemd
    finally:
        bus.disconnect()
