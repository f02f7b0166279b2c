"""People are called before a site can't write any more."""

import msgspec

from controller.notify import matters
from controller.notify.fills import Fill, Fills
from fleet.messages import Usage
from fleet.model import HostId, SiteId
from fleet.quota import DiskUse, quota
from tests.unit.test_notices import Reader, scene, told
from tests.unit.test_penalties import A, B
from tests.unit.test_uses import OURS, THEIRS, desk, use

GB = 1 << 30
SHOP = SiteId("shop")
HELD = DiskUse(used_bytes=9 * GB, used_inodes=10, ratio=0.9, wanted=quota(10 * GB, 1000))


def fill(ratio: float) -> Fill:
    return Fill(host=HostId("web1"), ratio=ratio, used_bytes=int(ratio * 10 * GB), used_inodes=1234)


def disk(ratio: float | None, *, held: bool = True) -> DiskUse:
    wanted = HELD.wanted if held else None
    return msgspec.structs.replace(HELD, ratio=ratio, wanted=wanted)


def test_a_disk_that_fills_is_told_of_once_and_again_when_it_is_full() -> None:
    """How much is kept, and what to type; a full one wants a person, and then it is over."""
    reader = Reader()
    near, full = (scene(disks={SHOP: fill(ratio)}) for ratio in (0.91, 1.02))
    assert reader.look(0, near) == ["[relevo] shop has nearly filled its disk on web1"]
    text = told(reader.got[0]).text
    for part in ("9.1 GiB in 1234 files", "relevo site usage shop", "relevo site override shop"):
        assert part in text, text
    assert reader.look(3600, near) == []
    assert reader.look(7200, full) == ["[relevo] shop keeps more than its plan's disk on web1"]
    assert reader.got[1].severity is matters.Severity.ACT
    assert reader.look(9000, scene(), {"disks/shop": 60.0}) == [
        "[relevo] shop: over, nobody need do anything"
    ]


async def test_who_is_near_is_known_by_the_last_words_of_hosts() -> None:
    """Of held sites alone; what a host says anew counts anew; a site that moved is its new host's."""
    made, uses = desk()
    fills = Fills(uses)
    assert fills.look() == {}
    uses.take(A, Usage(host=A, sites={OURS: use(disk=disk(0.95))}))
    uses.take(B, Usage(host=B, sites={THEIRS: use(disk=disk(0.99, held=False))}))
    assert {site: (near.host, near.ratio) for site, near in fills.look().items()} == {
        OURS: (A, 0.95)
    }
    uses.hosts[A].at += 1  # time stands still here
    uses.take(A, Usage(host=A, sites={OURS: use(disk=disk(0.89))}))
    uses.hosts[A].at += 2
    assert fills.look() == {}
    uses.hosts.pop(A)
    made.place({OURS: B, THEIRS: B})
    assert fills.look() == {}


async def test_nobody_says_that_it_is_over_before_it_is_known() -> None:
    """A site that nobody has told of yet, or that is barely under the mark, may be near all the same."""
    _, uses = desk()
    fills, key = Fills(uses), f"disks/{OURS}"
    assert fills.doubts(key), "a new leader has not heard of it yet"
    for found, doubtful in (
        (None, True),
        (disk(0.87), True),
        (disk(None), True),
        (disk(0.84), False),
        (disk(0.99, held=False), False),
    ):
        _, uses = desk()
        uses.take(A, Usage(host=A, sites={OURS: use(disk=found)}))
        assert Fills(uses).doubts(key) is doubtful, found
    assert not Fills(uses).doubts(f"penalties/{OURS}")
