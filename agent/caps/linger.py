"""Whose units run without anybody logged in: such a user's manager is a unit like any other. Source: loginctl(1)."""

from pathlib import Path

from agent.discover.accounts import accounts

LINGER = Path("/var/lib/systemd/linger")
PASSWD = Path("/etc/passwd")


def is_manager(unit: str) -> bool:
    """Whether it is a user's own systemd, which runs while that user is logged in, or lingers."""
    return unit.startswith("user@") and unit.endswith(".service")


def lingering(linger: Path = LINGER, passwd: Path = PASSWD) -> frozenset[str]:
    """The managers of users that linger. Raises OSError."""
    try:
        names = {each.name for each in linger.iterdir()}
    except FileNotFoundError:  # nobody ever did
        return frozenset()
    known = accounts(passwd.read_text(errors="replace")) if names else {}
    return frozenset(f"user@{known[name].uid}.service" for name in names & known.keys())
