"""What the caps ask of whatever holds them: systemd over D-Bus, or a delegated cgroup v2 subtree."""

from collections.abc import Collection, Mapping
from typing import Never, Protocol

from fleet.caps import Limits
from runtime.pulse import Pulse


class Driver(Protocol):
    """Holds slices, by name (`user-1001.slice`); every call is bounded in time."""

    @property
    def name(self) -> str:
        """`systemd` or `cgroupfs`."""
        ...

    async def keep(self) -> Never:
        """Eternal: stay in touch with what holds the slices."""
        ...

    async def apply(self, slice: str, limits: Limits) -> tuple[str, ...]:
        """Make `limits` true for `slice`, at once if it is there and whenever it appears. Idempotent.

        Memory goes down in steps, never under what is used now: what was not reached yet is in what it gives, for
        people, beside what this kernel can't hold. Raises DriverError.
        """
        ...

    async def held(self, slices: Collection[str]) -> Mapping[str, Limits]:
        """What the kernel itself says of those of `slices` that are there. Raises DriverError."""
        ...

    async def kill(self, slice: str) -> tuple[str, ...]:
        """End every process of `slice`, forks in flight too, and what would start them again; give what was stopped.

        Raises DriverError.
        """
        ...

    async def start(self, units: Collection[str]) -> None:
        """Start what `kill` has stopped. Raises DriverError."""
        ...

    @property
    def reloaded(self) -> Pulse:
        """Beats when somebody may have changed what is held: a daemon-reload, a slice that appeared."""
        ...
