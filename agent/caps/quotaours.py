"""What quotas this host's agent has set, kept on disk: what it may take away again, after a restart too."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from agent.caps.quota import Key, Ours
from runtime import durable, log

_log = log.logger("quota")


def read(path: Path) -> dict[Key, Ours]:
    """Empty where there is none, or none that can be read: nothing is taken away then (rule R7)."""
    try:
        told = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[int, Ours]])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _log.error(
            "what quotas were set can't be read: they stay", path=str(path), error=str(error)
        )
        return {}
    return {(place, uid): mine for place, users in told.items() for uid, mine in users.items()}


def write(path: Path, ours: Mapping[Key, Ours]) -> None:
    """Replaced as a whole. Raises OSError."""
    told: dict[str, dict[int, Ours]] = {}
    for (place, uid), mine in ours.items():
        told.setdefault(place, {})[uid] = mine
    durable.replace(path, msgspec.json.encode(told))
