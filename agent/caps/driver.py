"""What the caps ask of whatever holds them: systemd over D-Bus, or a delegated cgroup v2 subtree."""

from collections.abc import Collection, Mapping
from typing import Never, Protocol

from fleet.caps import Limits
from fleet.model import Why
from runtime.pulse import Pulse

EVERY = Limits.__struct_fields__


class Driver(Protocol):
    """Holds slices, by name (`user-1001.slice`); every call is bounded in time."""

    @property
    def name(self) -> str:
        """`systemd` or `cgroupfs`."""
        ...

    async def keep(self) -> Never:
        """Eternal: stay in touch with what holds the slices."""
        ...

    def reach(self, addresses: Collection[str]) -> bool:
        """Whom a slice may speak with while its egress is closed, beside this machine.

        Gives whether that is new: those that are closed are then to be applied anew.
        """
        ...

    async def apply(
        self, slice: str, limits: Limits, fields: Collection[str] = EVERY
    ) -> tuple[Why, ...]:
        """Make `limits` true for `slice`, at once if it is there and whenever it appears. Idempotent.

        What is not in `fields` is left as it is, and to what a slice that appears has by itself.
        Memory goes down in steps (agent.caps.steps): what was not reached yet is in what it gives, beside what this
        kernel can't hold. Raises DriverError.
        """
        ...

    async def held(self, slices: Collection[str]) -> Mapping[str, Limits]:
        """What the kernel itself says of those of `slices` that are there. Raises DriverError."""
        ...

    async def by_itself(self, slice: str) -> Limits:
        """What a slice that is not there, and of which nothing was said yet, will hold when it comes.

        Raises DriverError.
        """
        ...

    async def units(self, slice: str) -> tuple[str, ...]:
        """What keeps `slice` running, and would start it again: its doors first. Raises DriverError.

        Of users' own managers only those that run without anybody logged in.
        """
        ...

    async def visited(self, slice: str) -> bool:
        """Whether somebody is logged in there. Raises DriverError."""
        ...

    async def kill(self, slice: str, units: Collection[str]) -> None:
        """Stop `units` and sessions, then end every process of `slice`, forks in flight too. Idempotent.

        Raises DriverError.
        """
        ...

    async def end_jobs(self, slice: str) -> tuple[str, ...]:
        """End what runs in `slice` as nobody's unit and nobody's login: cron's jobs. What ended. Raises DriverError."""
        ...

    async def start(self, units: Collection[str]) -> Mapping[str, str]:
        """Start what `kill` has stopped, each whatever becomes of the others; those that were refused, and why.

        What is not there any more, or was switched off, is not refused: a person has decided.
        """
        ...

    @property
    def reloaded(self) -> Pulse:
        """Beats when somebody may have changed what is held: a daemon-reload, a slice that appeared."""
        ...
