"""What the caps ask of whatever holds them: systemd over D-Bus, or a delegated cgroup v2 subtree."""

import asyncio
from collections.abc import Mapping
from typing import Protocol

from fleet.caps import Limits


class Driver(Protocol):
    """Holds slices. `name` is "systemd" or "cgroupfs"; every call is bounded in time."""

    @property
    def name(self) -> str: ...

    async def slices(self) -> Mapping[str, str]:
        """The slices that are there now, by name (`user-1001.slice`), each with its cgroup's directory."""
        ...

    async def apply(self, slice: str, limits: Limits) -> tuple[str, ...]:
        """Make `limits` true for `slice`, at once if it is there and whenever it appears. Idempotent.

        Memory goes down in steps, never under what is used now: what was not reached yet is in what it gives, for
        people, beside what this kernel can't hold. Raises DriverError.
        """
        ...

    async def held(self, slice: str) -> Limits | None:
        """What the kernel itself says of `slice`; None: it is not there. Raises DriverError."""
        ...

    async def kill(self, slice: str) -> None:
        """End every process of `slice`, forks in flight too. Raises DriverError."""
        ...

    @property
    def reloaded(self) -> asyncio.Event:
        """Set when somebody may have changed what is held: a daemon-reload, a slice that appeared."""
        ...
