"""Where the demo's machines live: network namespaces of its own for root, addresses of the loopback for others."""

import asyncio
import ctypes
import os
import re
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

from deploy.demo.lab import LONE, Lab, Machine, Staff, in_namespaces, on_loopback

NAMESPACES = Path("/run/netns")
NAME = re.compile(r"^relevo-(\d+)-[a-z0-9]+$")
SWITCH = "switch"
IP_TIMEOUT_S = 20.0
CLONE_NEWNET = 0x40000000


NO_CUT = (
    "a host can't be cut off here: on one loopback the kernel answers for a dead machine; "
    "run as root, so that each machine gets a network namespace"
)


class NoNetwork(Exception):
    """Namespaces can't be made here; the message says why."""


class NotPossible(Exception):
    """This network can't do that; the message says what is missing."""


class Network(Protocol):
    """The machines' network. `missing`: what this kind of network can't show, empty where all is possible."""

    lab: Lab
    missing: str

    def command(self, machine: Machine) -> tuple[str, ...]:
        """What to put before a program's command line so that it runs on `machine`."""

    async def cut(self, machine: Machine) -> None:
        """From now on no packet leaves or reaches `machine`. Raises NotPossible."""

    async def mend(self, machine: Machine) -> None:
        """Undo `cut`. Idempotent."""


class Namespaces:
    """One network namespace per machine and one with the bridge that joins them."""

    missing = ""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._prefix = f"relevo-{os.getpid()}-"

    def name(self, machine: str) -> str:
        return f"{self._prefix}{machine}"

    def command(self, machine: Machine) -> tuple[str, ...]:
        return ("nsenter", f"--net={NAMESPACES / self.name(machine.name)}", "--")

    async def cut(self, machine: Machine) -> None:
        await self._port(machine, "down")

    async def mend(self, machine: Machine) -> None:
        await self._port(machine, "up")

    async def _port(self, machine: Machine, state: str) -> None:
        await _ip("-n", self.name(SWITCH), "link", "set", machine.name, state)

    def enter(self, machine: Machine) -> None:
        """Make `machine`'s network that of this thread and of what it starts. Source: setns(2)."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (NAMESPACES / self.name(machine.name)).open() as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise NoNetwork(f"can't enter {namespace.name}: {os.strerror(number)}")

    async def build(self) -> None:
        machines = self.lab.machines.values()
        await _batch(
            [f"netns add {self.name(name)}" for name in (SWITCH, *self.lab.machines)],
        )
        switch = self.name(SWITCH)
        await _batch(
            [
                # Snooping would withhold neighbour discovery from ports that have said nothing yet.
                "link add name bridge type bridge mcast_snooping 0",
                "link set bridge up",
                *(
                    line
                    for m in machines
                    for line in (
                        f"link add {m.name} type veth peer name eth0 netns {self.name(m.name)}",
                        f"link set {m.name} master bridge up",
                    )
                ),
            ],
            "-n",
            switch,
        )
        async with asyncio.TaskGroup() as group:
            for machine in machines:
                group.create_task(self._address(machine))

    async def _address(self, machine: Machine) -> None:
        v4, v6 = machine.addresses
        await _batch(
            [
                "link set lo up",
                f"address add {v4}/16 dev eth0",
                # Without duplicate address detection the address can be bound at once.
                f"address add {v6}/64 dev eth0 nodad",
                "link set eth0 up",
            ],
            "-n",
            self.name(machine.name),
        )

    async def remove(self) -> None:
        await _delete(self.name(name) for name in (*self.lab.machines, SWITCH))


class Loopback:
    """No network of its own: every machine is an address in 127.0.0.0/8."""

    missing = (
        "Without root all machines share one loopback: no host can be cut off without a packet, "
        "and sites have IPv6 at the edges only."
    )

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def command(self, machine: Machine) -> tuple[str, ...]:
        del machine
        return ()

    async def cut(self, machine: Machine) -> None:
        del machine
        raise NotPossible(NO_CUT)

    async def mend(self, machine: Machine) -> None:
        del machine


def has_namespaces(wanted: bool | None) -> bool:
    """Whether `network` will use namespaces."""
    if wanted is None:
        return os.geteuid() == 0 and shutil.which("ip") is not None
    return wanted


@asynccontextmanager
async def network(*, namespaces: bool | None = None, staff: Staff = LONE) -> AsyncIterator[Network]:
    """A network for the demo, gone at the end. `namespaces` None: where possible. Raises NoNetwork."""
    if not has_namespaces(namespaces):
        yield Loopback(_free_loopback(staff))
        return
    own = Namespaces(in_namespaces(staff))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(own.remove)
        await own.build()
        yield own


def _free_loopback(staff: Staff) -> Lab:
    """Addresses that no other demo uses: 127.1.0.0/16 is usual, our own start above it by our pid."""
    net = 64 + os.getpid() % 128
    first = 20_000 + os.getpid() % 400 * 25  # below the ephemeral ports
    ports = [port for port in range(first, first + 100) if _is_free("::1", port)]
    return on_loopback(net, ports, staff)


def _is_free(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as trial, suppress(OSError):
        trial.bind((address, port))
        return True
    return False


def stale() -> list[str]:
    """Namespaces of demos whose process is gone."""
    if not NAMESPACES.is_dir():
        return []
    found = ((entry.name, NAME.match(entry.name)) for entry in NAMESPACES.iterdir())
    return sorted(name for name, match in found if match and not is_alive(int(match[1])))


def is_alive(pid: int) -> bool:
    return Path("/proc", str(pid)).exists()


async def remove_stale() -> None:
    """Remove what a killed demo left. Its processes must be gone already."""
    await _delete(stale())


async def _delete(names: Iterable[str]) -> None:
    if there := [name for name in names if (NAMESPACES / name).exists()]:
        await _batch([f"netns delete {name}" for name in there], "-force")


async def _batch(lines: list[str], *options: str) -> None:
    await _ip(*options, "-batch", "-", text="\n".join(lines) + "\n")


async def _ip(*arguments: str, text: str = "") -> None:
    """Run ip(8), `text` on its stdin. Raises NoNetwork with what it said."""
    with tempfile.TemporaryFile() as lines:  # a file, not a pipe: it may end without reading
        lines.write(text.encode())
        lines.seek(0)
        process = await asyncio.create_subprocess_exec(
            "ip",
            *arguments,
            stdin=lines,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # ctrl-C is for the demo, which then removes what it made
        )
    async with asyncio.timeout(IP_TIMEOUT_S):
        said, _ = await process.communicate()
    if process.returncode != 0:
        raise NoNetwork(f"ip {' '.join(arguments)}: {said.decode(errors='replace').strip()}")
