"""An honest agent never says what a controller refuses: it keeps to the bounds itself."""

import msgspec
import pytest

from agent.beat import within_bounds
from agent.daemon import BOOT_ID, identity
from agent.edge.plan import clip
from agent.sense.load import DiskCounters, Look, between
from fleet.messages import CHECKS_MAX, DISKS_MAX, LINE_MAX, SECONDS_MAX, Check, Load
from fleet.model import Health, HostId
from runtime.config import BadConfig


@pytest.mark.parametrize("boot_id", ["a b", "b\n", "x" * 65, "../b"])
def test_a_boot_id_that_no_controller_takes_is_bad_configuration(
    monkeypatch: pytest.MonkeyPatch, boot_id: str
) -> None:
    """It is said at the start, with the variable's name, instead of beats being refused for ever."""
    monkeypatch.setenv(BOOT_ID, boot_id)
    with pytest.raises(BadConfig, match=BOOT_ID):
        identity(HostId("h1"))


def test_views_beyond_the_bounds_are_left_out_or_cut() -> None:
    """Names that are none go, the rest up to the limit stays, and no age is negative or endless."""
    views = {
        HostId(f"h{n:05}"): Check(health=Health.UP, since_s=float(n)) for n in range(CHECKS_MAX + 5)
    }
    views[HostId("a b")] = Check(health=Health.UP, since_s=1.0)
    views[HostId("a1")] = Check(health=Health.DOWN, since_s=1e300)
    views[HostId("a2")] = Check(health=Health.DOWN, since_s=-1.0)
    kept = within_bounds(views)
    assert len(kept) == CHECKS_MAX
    assert HostId("a b") not in kept
    assert (kept[HostId("a1")].since_s, kept[HostId("a2")].since_s) == (SECONDS_MAX, 0.0)
    assert kept[HostId("h00001")] is views[HostId("h00001")]


def test_whatever_the_kernel_counts_the_load_can_be_sent() -> None:
    """Counters that jump, hundreds of disks and a negative swap give a load that decodes."""
    disks = {f"sd{n}": DiskCounters(read_bytes=2**63, write_bytes=0, busy_ms=9) for n in range(300)}
    none = {name: DiskCounters(read_bytes=0, write_bytes=0, busy_ms=0) for name in disks}
    before = Look(at=0.0, disks=none, links={"eth0": (0, 0)})
    after = Look(
        at=0.0, disks=disks, links={"eth0": (2**64, 2**64)}, load_1min=1e12, swap_used_bytes=-1
    )
    load = between(before, after)
    assert msgspec.json.decode(msgspec.json.encode(load), type=Load) == load
    assert len(load.disks) == DISKS_MAX


def test_texts_for_people_are_cut_to_what_a_frame_may_hold() -> None:
    """A line of HAProxy's may be as long as it likes."""
    assert [len(text) for text in clip(["x" * 9000, "y"])] == [LINE_MAX, 1]
