"""Virtual machines: boot one, run commands in it, save it, and boot again from where it was saved.

QEMU emulates the processor (TCG): it needs no /dev/kvm, and takes ten times as long as a processor would.
"""

import asyncio
import hashlib
import shlex
import shutil
import socket
import tempfile
from asyncio.subprocess import DEVNULL, Process
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.clock import wall
from tests.vm.image import Image
from tests.vm.lan import Lan
from tests.vm.wire import Gone, Wire, wire

MEMORY_MIB = 640
PROCESSORS = 2
RUN_S = 60.0
BOOT_S = 120.0
OFF_S = 60.0
MONITOR_S = 30.0
POLL_S = 0.2
TAIL_BYTES = 3000

KERNEL_LINE = (
    "root=/dev/vda rootfstype=ext4 rw console=ttyS0 quiet panic=-1 mitigations=off audit=0 psi=1 "
    "net.ifnames=0 systemd.unified_cgroup_hierarchy=1 random.trust_cpu=on"
)


class CommandFailed(AssertionError):
    """A command in a machine ended with another status than 0."""


@dataclass(frozen=True, slots=True)
class Result:
    """`output` is what the command wrote to standard output and standard error."""

    code: int
    raw: bytes

    @property
    def output(self) -> str:
        return self.raw.decode(errors="replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A second disk, /dev/vdb, an empty ext4 at first, and as slow as one that its sites can wear out.

    It counts what users keep, and holds nobody to anything before it is mounted so.
    """

    size_bytes: int
    bytes_per_s: int
    ops_per_s: int


@dataclass(frozen=True, slots=True)
class Saved:
    """A machine as it was in one instant: disk and memory. Any number of machines may go on from it."""

    image: Image
    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk.ext4"

    @property
    def data(self) -> Path:
        return self.folder / "data.raw"

    @property
    def memory(self) -> Path:
        return self.folder / "memory"


class Machine:
    """A machine that is on. Commands run as root, several at a time if they are asked at once."""

    def __init__(self, name: str, image: Image, guest: Wire, monitor: Wire, disk: Path) -> None:
        self.name = name
        self._image, self._guest, self._monitor, self._disk = image, guest, monitor, disk

    async def run(self, command: str, *, stdin: bytes = b"", timeout_s: float = RUN_S) -> Result:
        """Run `command` in bash. Raises Gone when the machine goes off meanwhile; TimeoutError."""
        order: dict[str, object] = {"command": command, "stdin": b64encode(stdin).decode()}
        told = await self._guest.ask(order, timeout_s=timeout_s)
        code, output = told["code"], told["output"]
        assert isinstance(code, int) and isinstance(output, str)
        return Result(code, b64decode(output))

    async def do(self, command: str, *, stdin: bytes = b"", timeout_s: float = RUN_S) -> str:
        """As `run`, but it must succeed; gives its output. Raises CommandFailed."""
        done = await self.run(command, stdin=stdin, timeout_s=timeout_s)
        if done.code != 0:
            raise CommandFailed(f"{self.name}: {command}\nstatus {done.code}\n{done.output}")
        return done.output.strip()

    async def until(self, command: str, *, timeout_s: float = RUN_S) -> str:
        """Run `command` again and again until it succeeds; gives the last output. Raises CommandFailed."""
        now = asyncio.get_running_loop().time
        deadline = now() + timeout_s
        while True:
            done = await self.run(command)
            if done.code == 0:
                return done.output.strip()
            if now() > deadline:
                raise CommandFailed(
                    f"{self.name}: not within {timeout_s:g} s: {command}\n{done.output}"
                )
            await asyncio.sleep(POLL_S)

    async def push(self, path: str, content: bytes, *, mode: int = 0o644, owner: str = "") -> None:
        """Write a file; its folder is made."""
        to, owned = shlex.quote(path), f"-o {owner}" if owner else ""
        await self.do(f"install -D -m {mode:o} {owned} /dev/stdin {to}", stdin=content)

    async def pull(self, path: str) -> bytes:
        done = await self.run(f"cat -- {shlex.quote(path)}")
        assert done.code == 0, done.output
        return done.raw

    async def booted(self, *, after: int = 0, timeout_s: float = BOOT_S) -> None:
        """Wait until it carries out commands; `after` is `boots` from before a reboot."""
        await self._guest.notice(lambda told: "boot" in told, after=after, timeout_s=timeout_s)

    @property
    def boots(self) -> int:
        """How many boots there were so far."""
        return len(self._guest.notices)

    async def reset_at(self, *, timeout_s: float = OFF_S) -> float:
        """Wait until the machine was reset, as a reboot ends; the instant (loop time, s)."""
        return await self._monitor.notice(
            lambda told: told.get("event") == "RESET", timeout_s=timeout_s
        )

    async def off_at(self, *, timeout_s: float = OFF_S) -> float:
        """Wait until the machine has switched itself off; the instant (loop time, s)."""
        return await self._monitor.notice(
            lambda told: told.get("event") == "SHUTDOWN", timeout_s=timeout_s
        )

    async def press_power_button(self) -> None:
        await self.monitor("system_powerdown")

    async def pause(self) -> None:
        """Stop its time. What it holds is small then, and on its disk."""
        await self.do("sync; echo 3 > /proc/sys/vm/drop_caches")
        await self.monitor("stop")

    async def save(self, folder: Path) -> Saved:
        """Keep a paused machine as it is, in a folder that is there; this one can't go on."""
        saved = Saved(self._image, folder)
        await self.monitor("migrate", uri=f"exec:cat > {shlex.quote(str(saved.memory))}")
        async with asyncio.timeout(MONITOR_S):
            while (state := (await self.monitor("query-migrate"))["status"]) != "completed":
                assert state != "failed"
                await asyncio.sleep(POLL_S / 10)
        shutil.move(self._disk, saved.disk)
        if (data := self._disk.with_name(saved.data.name)).exists():
            shutil.move(data, saved.data)
        return saved

    async def monitor(self, command: str, **arguments: object) -> dict[str, object]:
        """Ask QEMU. Source: QEMU QMP Reference Manual."""
        question: dict[str, object] = {"execute": command, "arguments": arguments}
        told = await self._monitor.ask(question, timeout_s=MONITOR_S)
        answer = told.get("return")
        assert isinstance(answer, dict), told
        return answer


@asynccontextmanager
async def machine(
    origin: Image | Saved,
    name: str = "vm",
    *,
    lan: Lan | None = None,
    memory_mib: int = MEMORY_MIB,
    data: Data | None = None,
) -> AsyncGenerator[Machine, None]:
    """A machine that boots from an image, or goes on from where it was saved; gone at the end with all it wrote.

    One that is to be saved, and those that go on from it, need the same memory, the same second disk or none, and
    the same network or none.
    """
    image = origin.image if isinstance(origin, Saved) else origin
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relevo-vm-")))
        disk = folder / "disk.ext4"
        await _copy(origin.disk, disk)
        second = await _second(origin, data, folder / "data.raw") if data else ()
        guest, its_guest = _pair(stack)
        monitor, its_monitor = _pair(stack)
        cable, its_cable = _pair(stack)
        command = (
            *_hardware(image, disk, memory_mib),
            *second,
            *("-chardev", f"socket,id=guest,fd={its_guest.fileno()}"),
            *("-chardev", f"socket,id=monitor,fd={its_monitor.fileno()}"),
            *("-netdev", f"socket,id=cable,fd={its_cable.fileno()}"),
            *("-device", f"virtio-net-pci,netdev=cable,romfile=,mac={_mac(name)}"),
        )
        if isinstance(origin, Saved):
            command = (*command, "-incoming", f"exec:cat {shlex.quote(str(origin.memory))}")
        theirs = (its_guest, its_monitor, its_cable)
        await stack.enter_async_context(_running(command, theirs, folder))
        if lan:
            await stack.enter_async_context(lan.port(name, cable))
        made = Machine(
            name,
            image,
            await stack.enter_async_context(wire(guest)),
            await stack.enter_async_context(wire(monitor)),
            disk,
        )
        await made.monitor("qmp_capabilities")
        if isinstance(origin, Saved):
            await _go_on(made)
        else:
            await _boot(made, folder)
        yield made


def _pair(stack: AsyncExitStack) -> tuple[socket.socket, socket.socket]:
    own, theirs = socket.socketpair()
    return stack.enter_context(own), stack.enter_context(theirs)


async def _copy(origin: Path, to: Path) -> None:
    command = ("cp", "--sparse=always", "--reflink=auto", str(origin), str(to))
    await (await asyncio.create_subprocess_exec(*command)).wait()


async def _second(origin: Image | Saved, data: Data, disk: Path) -> tuple[str, ...]:
    if isinstance(origin, Saved):
        await _copy(origin.data, disk)
    else:
        size = f"{data.size_bytes >> 10}k"
        features = ("-O", "^has_journal,quota", "-E", "quotatype=usrquota")
        make = ("mke2fs", "-q", "-t", "ext4", *features, str(disk), size)
        await (await asyncio.create_subprocess_exec(*make, stdout=DEVNULL)).wait()
    pace = f"throttling.bps-total={data.bytes_per_s},throttling.iops-total={data.ops_per_s}"
    return ("-drive", f"file={disk},format=raw,if=virtio,cache=unsafe,discard=unmap,{pace}")


def _mac(name: str) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"52:54:00:{digest[:2]}:{digest[2:4]}:{digest[4:6]}"


def _hardware(image: Image, disk: Path, memory_mib: int) -> tuple[str, ...]:
    return (
        # Named, for /dev/kvm may be there and not work. Should the test be killed, so is QEMU. Source: prctl(2).
        *("setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64"),
        *("-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "max"),
        *("-m", f"{memory_mib}", "-smp", f"{PROCESSORS}"),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initramfs), "-append", KERNEL_LINE),
        *("-drive", f"file={disk},format=raw,if=virtio,cache=unsafe,discard=unmap"),
        *("-serial", f"file:{disk.parent / 'console'}"),
        *("-mon", "chardev=monitor,mode=control", "-device", "virtio-rng-pci"),
        *("-device", "vmgenid,guid=auto"),  # a machine that goes on draws other random numbers
        *("-device", "virtio-serial-pci"),
        *("-device", "virtserialport,chardev=guest,name=relevo.tests"),
    )


@asynccontextmanager
async def _running(
    command: tuple[str, ...], theirs: tuple[socket.socket, ...], folder: Path
) -> AsyncGenerator[Process, None]:
    """QEMU. It has no work without the test: it is killed at the end."""
    with (folder / "qemu.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[one.fileno() for one in theirs],
        )
    for one in theirs:
        one.close()  # so that its end is seen
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _boot(made: Machine, folder: Path) -> None:
    try:
        await made.booted()
        await made.run("systemctl is-system-running --wait", timeout_s=BOOT_S)
    except (Gone, TimeoutError) as error:
        error.add_note((folder / "qemu.log").read_text())
        error.add_note((folder / "console").read_text(errors="replace")[-TAIL_BYTES:])
        raise


async def _go_on(made: Machine) -> None:
    async with asyncio.timeout(MONITOR_S):
        while (await made.monitor("query-status"))["status"] == "inmigrate":
            await asyncio.sleep(POLL_S / 10)
    await made.monitor("cont")
    await made.do(f"date -s @{wall():.3f}; ip link set eth0 address {_mac(made.name)}")
