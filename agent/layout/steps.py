"""The steps that move a pool between masters: each small, repeatable, safe to stop after; as text, an order."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Write:
    """Make `path` say this, at once and whole; what it said before is kept aside. `text`: see texts.

    `was`: what it said when this was planned ("": it was not there); None: whatever it says.
    """

    path: Path
    text: str
    mode: int = 0o644  # of a new file; a pool may say passwords
    was: str | None = None

    def __str__(self) -> str:
        return f"write {self.path}"


@dataclass(frozen=True, slots=True)
class PutAside:
    """Take `path` away; what it said is kept aside. `was`: as of Write."""

    path: Path
    was: str | None = None

    def __str__(self) -> str:
        return f"put {self.path} aside"


@dataclass(frozen=True, slots=True)
class Systemd:
    """Ask systemd: a verb of systemctl, and units."""

    verb: str
    units: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(("systemctl", self.verb, *self.units))


@dataclass(frozen=True, slots=True)
class Judge:
    """Have php-fpm judge its configuration: one that it refuses would end it with all its pools."""

    program: str
    main: str

    def __str__(self) -> str:
        return f"{self.program} --test --fpm-config {self.main}"


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the pool behind `socket`, until it answers."""

    socket: Path

    def __str__(self) -> str:
        return f"ask the pool at {self.socket} until it answers"


@dataclass(frozen=True, slots=True)
class Link:
    """Make `name` another name of the socket `target`, in one move: who connects finds the old one or the new one."""

    name: Path
    target: Path

    def __str__(self) -> str:
        return f"make {self.name} the socket {self.target}, in one move"


@dataclass(frozen=True, slots=True)
class Point:
    """Make `name` a symbolic link to `target`, in one move."""

    name: Path
    target: Path

    def __str__(self) -> str:
        return f"make {self.name} a link to {self.target}, in one move"


@dataclass(frozen=True, slots=True)
class Guard:
    """Mount `name` onto itself: php-fpm, which removes the socket of a pool that it lost, can't remove the new one."""

    name: Path

    def __str__(self) -> str:
        return f"guard {self.name} by a mount, for php-fpm would remove it"


@dataclass(frozen=True, slots=True)
class Unguard:
    name: Path

    def __str__(self) -> str:
        return f"lift the guard of {self.name}"


@dataclass(frozen=True, slots=True)
class Drain:
    """Wait until nobody is connected, or waits, at the listener that was bound as `bound`."""

    bound: str

    def __str__(self) -> str:
        return f"wait until the requests at the old {self.bound} have ended"


@dataclass(frozen=True, slots=True)
class Gone:
    """Wait until nobody listens at the name `bound` any more."""

    bound: str

    def __str__(self) -> str:
        return f"wait until the old {self.bound} is gone"


Step = Write | PutAside | Systemd | Judge | Ask | Link | Point | Guard | Unguard | Drain | Gone
