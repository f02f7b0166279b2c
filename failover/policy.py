"""The numbers that decisions turn on, each with its reason; all in the controller's configuration."""

from typing import Annotated

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(gt=0)]


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Defaults follow DESIGN's detection times; relations between them are checked."""

    beat_s: Seconds = 0.5
    suspect_s: Seconds = 1.5  # three beats: one lost packet and one late one are no symptom
    unreachable_s: Seconds = 2.0
    live_edge_s: Seconds = 1.5
    stall_s: Seconds = 1.0  # a loop this late may have missed beats that were sent
    first_beat_s: Seconds = 10.0  # agents reconnect within 5 s after a controller's start
    restart_grace_s: Seconds = 60.0  # an upgrade of the agent's package
    service_down_s: Seconds = 15.0
    leaving_s: Seconds = (
        600.0  # a machine that announced its shutdown and stayed has changed its mind
    )
    settle_s: Seconds = (
        30.0  # a host that came back is no refuge, and an edge no address, before it stayed up
    )
    accept_single_witness: bool = False
    # The brake (rule R8): causes in an hour; None: 3, or one for each 50 hosts where that is more.
    causes_per_hour: Annotated[int, Meta(ge=0)] | None = None
    # Hosts of one location lost within a minute, beyond which the question is the location, not the hosts.
    location_window_s: Seconds = 60.0
    location_ratio: Annotated[float, Meta(gt=0, le=1)] = 0.3
    low_memory_ratio: Annotated[float, Meta(ge=0, lt=1)] = 0.05
    # Names of one zone that intent may change or remove at once without a human (rule R10).
    dns_change_ratio: Annotated[float, Meta(gt=0, le=1)] = 0.3
    dns_change_minimum: Annotated[int, Meta(ge=1)] = 10

    def __post_init__(self) -> None:
        if self.suspect_s < 2 * self.beat_s:
            raise ValueError(
                f"suspect_s = {self.suspect_s:g} is under two beats of {self.beat_s:g} s: "
                "one lost beat would be a symptom; raise suspect_s"
            )
        if self.unreachable_s <= self.suspect_s:
            raise ValueError(
                f"unreachable_s = {self.unreachable_s:g} must be above suspect_s = {self.suspect_s:g}"
            )

    def causes_allowed(self, hosts: int) -> int:
        """How many causes automatic action may spend in an hour on a fleet of `hosts`."""
        return max(3, hosts // 50) if self.causes_per_hour is None else self.causes_per_hour
