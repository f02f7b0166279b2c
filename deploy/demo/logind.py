"""A stand-in for logind's shutdown on a private bus: inhibitors, the announcement, the wait. Nothing is shut down.

Source: org.freedesktop.login1(5), systemd's "Inhibitor Locks".
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click
from dbus_fast import BusType, Message, MessageType, RequestNameReply, Variant
from dbus_fast.aio import MessageBus

NAME = "org.freedesktop.login1"
PATH = "/org/freedesktop/login1"
MANAGER = "org.freedesktop.login1.Manager"
DELAY_MAX_S = 5.0  # logind.conf(5): InhibitDelayMaxSec=
START_S = 5.0

BUS_CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/> <allow own="*"/>
    <allow send_destination="*"/> <allow receive_sender="*"/> <allow send_type="method_call"/>
  </policy>
</busconfig>
"""


@dataclass(frozen=True, slots=True)
class Inhibitor:
    """`reader` is our end of a pipe: it ends when the holder closes the last copy of the other."""

    who: str
    why: str
    reader: int


class Logind:
    """The part of logind's Manager that shutdowns need."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._held: dict[int, Inhibitor] = {}
        self._preparing = False
        self._changed = asyncio.Event()

    @property
    def inhibitors(self) -> tuple[Inhibitor, ...]:
        return tuple(self._held.values())

    async def shutdown(self, delay_max_s: float = DELAY_MAX_S) -> bool:
        """Announce a shutdown and wait for the inhibitors; False if some were still held after `delay_max_s`."""
        self._announce(True)
        try:
            async with asyncio.timeout(delay_max_s):
                await self.until_inhibitors(0)
        except TimeoutError:
            return False
        return True

    async def until_inhibitors(self, number: int) -> None:
        """Wait until exactly `number` inhibitors are held."""
        while len(self._held) != number:
            self._changed.clear()
            await self._changed.wait()

    def cancel(self) -> None:
        """Call the shutdown off."""
        self._announce(False)

    def close(self) -> None:
        for inhibitor in self.inhibitors:
            self._forget(inhibitor.reader)

    def _announce(self, preparing: bool) -> None:
        self._preparing = preparing
        message = Message.new_signal(PATH, MANAGER, "PrepareForShutdown", "b", [preparing])
        self._bus.send(message)

    def answer(self, message: Message) -> Message | bool:
        """The bus' message handler."""
        if message.message_type is not MessageType.METHOD_CALL or message.path != PATH:
            return False
        if message.member == "Inhibit" and message.signature == "ssss":
            return self._inhibit(message)
        if message.member == "Get" and message.body[1:] == ["PreparingForShutdown"]:
            return Message.new_method_return(message, "v", [Variant("b", self._preparing)])
        return False

    def _inhibit(self, message: Message) -> Message | bool:
        what, who, why, mode = message.body
        if what != "shutdown" or mode != "delay":
            return Message.new_error(
                message,
                "org.freedesktop.DBus.Error.InvalidArgs",
                f"only shutdown:delay, not {what}:{mode}",
            )
        if self._preparing:
            return Message.new_error(
                message,
                "org.freedesktop.login1.OperationInProgress",
                "the machine is already going down",
            )
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._held[reader] = Inhibitor(who, why, reader)
        asyncio.get_running_loop().add_reader(reader, self._forget, reader)
        reply = Message.new_method_return(message, "h", [0], [writer])
        self._bus.send(reply).add_done_callback(lambda _: os.close(writer))
        self._changed.set()
        return True

    def _forget(self, reader: int) -> None:
        asyncio.get_running_loop().remove_reader(reader)
        os.close(reader)
        del self._held[reader]
        self._changed.set()


@asynccontextmanager
async def stand_in(address: str) -> AsyncIterator[Logind]:
    """Own logind's name on the bus at `address`. Raises OSError; RuntimeError if the name is taken."""
    bus = MessageBus(address, BusType.SYSTEM, negotiate_unix_fd=True)
    async with asyncio.timeout(START_S):
        await bus.connect()
    logind = Logind(bus)
    try:
        bus.add_message_handler(logind.answer)
        if await bus.request_name(NAME) is not RequestNameReply.PRIMARY_OWNER:
            raise RuntimeError(f"{NAME} is taken on {address}: this must be a private bus")
        yield logind
    finally:
        logind.close()
        bus.disconnect()


@asynccontextmanager
async def private_bus(directory: Path) -> AsyncIterator[str]:
    """A dbus-daemon of our own with its socket in `directory` (a short path); gives its address."""
    path = directory / "bus"
    config = directory / "bus.conf"
    config.write_text(BUS_CONFIG.format(path=path))
    process = await asyncio.create_subprocess_exec(
        "dbus-daemon",
        f"--config-file={config}",
        "--nofork",
        "--nopidfile",
        "--print-address=1",
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_S):
            await process.stdout.readline()
        yield f"unix:path={path}"
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def serve(address: str) -> None:
    """SIGUSR1 announces a shutdown, SIGUSR2 calls it off, SIGTERM or SIGINT ends; says what happens on stdout."""
    loop = asyncio.get_running_loop()
    announce, stop = asyncio.Event(), asyncio.Event()
    async with stand_in(address) as logind, asyncio.TaskGroup() as group:

        async def shutdowns() -> None:
            while True:
                await announce.wait()
                announce.clear()
                began = loop.time()
                click.echo(f"announced to {len(logind.inhibitors)} inhibitors")
                released = await logind.shutdown()
                outcome = "released" if released else "held too long"
                click.echo(f"{outcome} after {loop.time() - began:.3f} s")

        loop.add_signal_handler(signal.SIGUSR1, announce.set)
        loop.add_signal_handler(signal.SIGUSR2, logind.cancel)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        task = group.create_task(shutdowns())
        click.echo(f"ready on {address}")
        await stop.wait()
        task.cancel()


@click.command(help=__doc__)
@click.option("--address", help="A private bus, as unix:path=/some/where.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Start a private bus with its socket in this directory.",
)
def command(address: str | None, directory: Path | None) -> None:
    async def run() -> None:
        if address:
            await serve(address)
        elif directory:
            async with private_bus(directory) as own:
                await serve(own)
        else:
            raise click.UsageError("one of --address and --directory is needed")

    asyncio.run(run())


if __name__ == "__main__":
    command()
