"""Method calls on the system bus, each bounded in time."""

import asyncio
from collections.abc import Sequence
from typing import Never

from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus

from agent.ports import DriverError

BUS = "org.freedesktop.DBus"
BUS_PATH = "/org/freedesktop/DBus"
CALL_S = 5.0


async def call(
    bus: MessageBus,
    name: str,
    path: str,
    interface: str,
    member: str,
    signature: str = "",
    *body: object,
) -> Message:
    """Call a method. Raises DriverError."""
    message = Message(
        destination=name,
        path=path,
        interface=interface,
        member=member,
        signature=signature,
        body=list(body),
    )
    try:
        async with asyncio.timeout(CALL_S):
            answer = await bus.call(message)
    except TimeoutError as error:
        raise DriverError(f"{member}: no answer from {name} within {CALL_S:g} s") from error
    except (OSError, EOFError) as error:
        raise DriverError(f"{member}: the bus is gone: {error!r}") from error
    if answer is None or answer.message_type is MessageType.ERROR:
        told = f"{answer.error_name}: {answer.body[:1]}" if answer else "no answer"
        raise DriverError(f"{member}: {told}")
    return answer


async def listen(bus: MessageBus, rules: Sequence[str]) -> None:
    """Have the bus send us the signals that match `rules`. Raises DriverError."""
    for rule in rules:
        await call(bus, BUS, BUS_PATH, BUS, "AddMatch", "s", rule)


async def until_gone(bus: MessageBus) -> Never:
    """Raises DriverError, in the end."""
    await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
    raise DriverError("the system bus is gone")
