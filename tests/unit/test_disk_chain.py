"""What a site keeps on disk, as its host tells it and people read it: from the plan to the file system."""

import msgspec
import pytest

from agent.signals import HostSigns, Signals, SiteSigns
from agent.usage.report import CAPS_TURNS, Held, Tellings, Word
from controller.api.capviews import share
from controller.chain import Link, differing, of_disk
from controller.uses import VALUE_CHARACTERS
from fleet.caps import Attachment, Override, effective
from fleet.messages import SiteUse, Usage
from fleet.model import Note, SiteId, Why
from fleet.quota import NO_QUOTA, DiskUse, Quota, quota, quota_of
from tests.unit.test_caps_limits import GB, STANDARD
from tests.unit.test_penalties import A
from tests.unit.test_uses import OURS, desk, use

PLAN = msgspec.structs.replace(STANDARD, disk_bytes=10 * GB, inodes=10_000)
LENT = Override(
    caps={"disk_bytes": 20 * GB}, note=Note(owner="ana", reason="a film", since=0.0, until=100.0)
)
DISK = DiskUse(
    used_bytes=5 * GB, used_inodes=9_000, ratio=0.9, wanted=quota_of(PLAN), held=quota_of(PLAN)
)


def links(disk: DiskUse | None, override: Override | None = None) -> dict[str, Link]:
    return {link.cap: link for link in of_disk(PLAN, effective(PLAN, override, 50.0), disk)}


def test_what_may_be_kept_is_told_from_the_plan_to_the_file_system() -> None:
    """Both limits of bytes and of files, what a person lent, and why the host wants something else."""
    over = DiskUse(
        wanted=quota(20 * GB, 10_000),
        held=quota(10 * GB, 10_000),
        because={"disk_bytes": Why("cap-override")},
    )
    told = links(over, LENT)
    assert list(told) == ["disk_bytes", "disk_hard_bytes", "inodes", "inodes_hard"]
    assert told["disk_bytes"] == Link(
        cap="disk_bytes",
        plan=10 * GB,
        override=20 * GB,
        wanted=20 * GB,
        held=10 * GB,
        because=Why("cap-override"),
        differs=True,
    )
    assert (told["inodes"].plan, told["inodes"].override, told["inodes"].differs) == (
        10_000,
        None,
        False,
    )


@pytest.mark.parametrize(
    "disk", [None, DiskUse(), DiskUse(held=quota(1 * GB, 5)), DiskUse(wanted=NO_QUOTA)]
)
def test_what_is_not_wanted_or_not_seen_does_not_differ(disk: DiskUse | None) -> None:
    """In shadow what somebody else set is nobody's fault."""
    assert not any(link.differs for link in links(disk).values())
    assert differing(SiteUse(attachment=Attachment.POOL, disk=disk)) == ()


def test_a_site_in_a_pool_differs_by_its_disk_too() -> None:
    """Quotas hold by user, however a site's processes are attached."""
    disk = DiskUse(wanted=quota_of(PLAN), held=Quota(disk_bytes=1))
    found = differing(SiteUse(attachment=Attachment.POOL, disk=disk))
    assert found == ("disk_bytes", "disk_hard_bytes", "inodes", "inodes_hard")


def test_use_is_told_against_each_plan_where_it_is_the_sites_own() -> None:
    """What several sites keep together is none's share."""
    told = share(SiteUse(attachment=Attachment.SLICE, disk=DISK), PLAN)
    assert (told.disk_ratio, told.inodes_ratio) == (0.5, 0.9)
    for disk in (None, DiskUse(), msgspec.structs.replace(DISK, shared=True)):
        told = share(SiteUse(attachment=Attachment.SLICE, disk=disk), PLAN)
        assert (told.disk_ratio, told.inodes_ratio) == (None, None)


def signals(count: int) -> Signals:
    host = HostSigns(cores=4, memory_total_bytes=1 << 36, memory_available_bytes=1 << 35)
    sites = {SiteId(f"s{n}"): SiteSigns(attachment=Attachment.POOL) for n in range(count)}
    return Signals(at=1.0, host=host, sites=sites)


def tell(tellings: Tellings, disk: DiskUse, count: int = 60) -> list[DiskUse]:
    of = signals(count)
    word = Word(held=dict.fromkeys(of.sites, Held(disk=disk)))
    told = [use for message in tellings.all(of, word, {}) for use in message.sites.values()]
    return [use.disk for use in told if use.disk]


def test_what_a_thousand_sites_keep_is_told_in_turns() -> None:
    """A look changes all of them at once: each is told within a minute; a limit that changed, at once."""
    tellings = Tellings(A)
    assert tell(tellings, DISK) == [DISK] * 60
    more = msgspec.structs.replace(DISK, used_bytes=6 * GB, ratio=0.91)
    told = [len(tell(tellings, more)) for _ in range(CAPS_TURNS)]
    assert sum(told) == 60 and max(told) < 30
    assert len(tell(tellings, msgspec.structs.replace(more, held=NO_QUOTA))) == 60


async def test_what_is_kept_stays_as_last_told() -> None:
    """Until it is told again; a host's reasons are no longer than ours."""
    _, uses = desk()
    long = DiskUse(used_bytes=1, because={"disk_bytes": Why("quota-unseen", {"error": "x" * 999})})
    uses.take(A, Usage(host=A, sites={OURS: use(disk=DISK)}))
    uses.take(A, Usage(host=A, sites={OURS: use(tasks=3)}))
    word = uses.of(OURS)
    assert word is not None and word.use.disk == DISK
    uses.take(A, Usage(host=A, sites={OURS: use(disk=long)}))
    word = uses.of(OURS)
    assert word is not None and word.use.disk is not None
    assert word.use.disk.used_bytes == 1
    why = word.use.disk.because["disk_bytes"]
    assert len(str(why.values["error"])) == VALUE_CHARACTERS
