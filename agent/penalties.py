"""What isolation keeps on disk: who is held, which a restart must not forget; and recordings, to be replayed."""

import os
from pathlib import Path

import msgspec

from agent.isolate import State
from agent.ports import DriverError
from agent.signals import Signals
from runtime import durable, log

RECORD_MAX_BYTES = (
    256 << 20
)  # a day of a hundred sites: a recording that nobody stops must not fill the disk

_log = log.logger("isolation")


def read(path: Path) -> State:
    """What was kept; a new beginning where there is none, or none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return State()
    except (OSError, ValueError, RecursionError) as error:
        _log.error("the penalties can't be read: none stands", path=str(path), error=str(error))
        return State()


def write(path: Path, state: State) -> None:
    """Replaced as a whole. Raises DriverError."""
    try:
        durable.replace(path, msgspec.json.encode(state))
    except OSError as error:
        raise DriverError(f"can't keep the penalties at {path}: {error}") from error


def append(path: Path, signals: Signals) -> None:
    """One line of a recording. Raises DriverError, when it is as long as it may be too."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            if file.tell() > RECORD_MAX_BYTES:
                raise DriverError(f"{path} is above {RECORD_MAX_BYTES} bytes")
            file.write(msgspec.json.encode(signals) + b"\n")
    except OSError as error:
        raise DriverError(f"can't record at {path}: {error}") from error
