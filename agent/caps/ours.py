"""What this host's agent has put on slices, kept on disk: what it may take away again, after a restart too."""

import os
from pathlib import Path

import msgspec

from agent.ports import DriverError
from fleet.caps import Limits
from fleet.model import SiteId
from runtime import log

_log = log.logger("caps")


class Ours(msgspec.Struct, frozen=True, kw_only=True):
    """`stopped`: units that a penalty has stopped, to be started at its end; None: nothing is stopped."""

    sites: tuple[SiteId, ...]
    limits: Limits
    stopped: tuple[str, ...] | None = None


def read(path: Path) -> dict[str, Ours]:
    """By slice; empty where there is none, or none that can be read (rule R7: nothing is taken away then)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Ours])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _log.error("what was capped can't be read: it stays", path=str(path), error=str(error))
        return {}


def write(path: Path, ours: dict[str, Ours]) -> None:
    """Replaced as a whole. Raises DriverError."""
    new = path.with_name(f"{path.name}.new")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(ours))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise DriverError(f"can't keep what was capped at {path}: {error}") from error
