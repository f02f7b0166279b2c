"""Whom of each site the firewall was closed to, kept on disk: who is not spoken of any more stays shut (rule R7)."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from agent.ports import DriverError
from fleet.model import SiteId
from runtime import durable, log

_log = log.logger("caps")


class Shut(msgspec.Struct, frozen=True, kw_only=True):
    """Accounts, by name: a uid may be another person's tomorrow. `isolated`: who is shut in, until when (Unix s)."""

    mail: tuple[str, ...] = ()
    isolated: tuple[str, ...] = ()
    until: float | None = None


def read(path: Path) -> dict[SiteId, Shut]:
    """Empty where there is none, or none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[SiteId, Shut])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _log.error("whom egress was closed to can't be read", path=str(path), error=str(error))
        return {}


def write(path: Path, shut: Mapping[SiteId, Shut]) -> None:
    """Replaced as a whole. Raises DriverError."""
    try:
        durable.replace(path, msgspec.json.encode(shut))
    except OSError as error:
        raise DriverError(f"can't keep whom egress is closed to at {path}: {error}") from error
