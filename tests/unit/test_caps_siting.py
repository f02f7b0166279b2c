"""Which disks are under a host's sites: under their homes and document roots too, wherever these are."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.caps import siting as of
from agent.caps.devices import real
from agent.caps.limits import NO_DISK
from agent.caps.siting import Siting
from agent.layout.attached import Attached
from fleet.caps import Attachment, Tenant
from fleet.messages import Orders
from fleet.model import Epoch, HostId, PlanId, SiteId, Why
from tests.unit.test_caps_devices import Machine

ANA, BEA = SiteId("ana"), SiteId("bea")


def attached(*roots: str) -> Attached:
    return Attached(attachment=Attachment.POOL, why=Why("x"), roots=tuple(map(Path, roots)))


def orders(**users: tuple[str, ...]) -> Orders:
    return Orders(
        epoch=Epoch(1, 1),
        cluster="c",
        host=HostId("h1"),
        tenants={
            SiteId(site): Tenant(plan=PlanId("standard"), users=names)
            for site, names in users.items()
        },
    )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A disk of the system, and one at /data that nobody named; ana's home is a link there."""
    made = Machine(tmp_path)
    made.block("sda", "8:0")
    made.block("sdb", "8:16")
    made.block("sdb1", "8:17", of="sdb")
    made.mount("/", "8:0", "/dev/sda")
    made.mount("/data", "8:17", "/dev/sdb1")
    made.disks("/")
    (tmp_path / "etc").mkdir()
    homes = {"ana": (1001, "/home/ana"), "bea": (1002, "/home/bea"), "www-data": (33, "/data")}
    lines = (f"{name}:x:{uid}:{uid}::{home}:/bin/sh\n" for name, (uid, home) in homes.items())
    (tmp_path / "etc/passwd").write_text("".join(lines))
    for folder in ("home/bea", "data/ana"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "home/ana").symlink_to("../data/ana")
    return made


BEAS = orders(bea=("bea",))


async def test_a_disk_that_nobody_named_is_held_for_a_sites_files_on_it(machine: Machine) -> None:
    """By a home, links followed, or by a document root; the account of the web server is nobody's home."""
    siting = Siting((Path("/"),), machine.root)
    assert siting.disks().numbers == ("8:0",)
    await siting.look(BEAS, {BEA: attached()})
    assert siting.disks().numbers == ("8:0",)
    for told, here in (
        (orders(ana=("ana",)), {ANA: attached()}),
        (BEAS, {BEA: attached("/data/bea/web")}),
        (orders(bea=()), {BEA: attached("/data/bea/web")}),
    ):
        await siting.look(told, here)
        assert siting.disks().numbers == ("8:0", "8:16")
        await siting.look(orders(), {})
        assert siting.disks().numbers == ("8:0",)
    await siting.look(orders(bea=("www-data",)), {BEA: attached()})
    assert siting.disks().numbers == ("8:0",)


async def test_a_site_that_the_web_server_leads_to_no_more_keeps_its_disks(
    machine: Machine,
) -> None:
    """What still runs of it is held on; what was not looked at is not gone either. With other roots these count."""
    siting = Siting((Path("/"),), machine.root)
    await siting.look(BEAS, {BEA: attached("/data/bea")})
    for here in ({BEA: attached()}, {}, {BEA: attached()}):
        await siting.look(BEAS, here)
        assert siting.disks().numbers == ("8:0", "8:16")
    await siting.look(BEAS, {BEA: attached("/srv/bea")})
    assert siting.disks().numbers == ("8:0",)
    await siting.look(BEAS, {BEA: attached("/data/bea")})
    await siting.look(orders(), {})
    assert siting.disks().numbers == ("8:0",)


async def test_mounts_count_as_they_are_now(machine: Machine) -> None:
    """A disk that comes to a site's place is seen at the next look, without a new order."""
    siting = Siting((), machine.root)
    await siting.look(BEAS, {BEA: attached()})
    assert siting.disks().numbers == ("8:0",)
    machine.mount("/home/bea", "8:17", "/dev/sdb1")
    machine.disks("/")
    assert siting.disks().numbers == ("8:16",)
    machine.mount("/home/bea/big", "0:41", "server:/export", "nfs4")
    machine.disks("/")
    found = siting.disks()
    assert found.numbers == ("8:16",)
    assert found.diskless == {BEA: Why("cap-no-disk", {"mount": "/home/bea/big", "kind": "nfs4"})}


async def test_who_is_on_no_disk_is_known_by_site(machine: Machine) -> None:
    """Others' disks do not hold it; where there is none at all that is the host's word."""
    machine.mount("/home/bea", "0:42", "tank/bea", "zfs")
    machine.disks("/")
    siting = Siting((), machine.root)
    both = {ANA: attached(), BEA: attached()}
    await siting.look(orders(ana=("ana",), bea=("bea",)), both)
    found = siting.disks()
    assert (found.numbers, {*found.diskless}) == (("8:16",), {BEA})
    await siting.look(BEAS, both)
    assert (siting.disks().numbers, siting.disks().why) == ((), NO_DISK)


async def test_what_can_not_be_seen_stays_as_it_was(machine: Machine) -> None:
    """Caps are not lifted for a file that can't be read; where nothing was seen yet that is the reason."""
    siting, other = Siting((Path("/"),), machine.root), Siting((), machine.root)
    before = siting.disks()
    (machine.root / "proc/1/mountinfo").unlink()
    assert siting.disks() == before and before.numbers == ("8:0",)
    why = other.disks().why
    assert why.code == "cap-disks-unseen" and "mountinfo" in str(why.values["error"])


@asynccontextmanager
async def hanging(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[threading.Event]:
    """A disk that answers when the event is set."""
    answers = threading.Event()

    def slow(path: Path, root: Path) -> Path:
        answers.wait(5)
        return real(path, root)

    monkeypatch.setattr(of, "real", slow)
    monkeypatch.setattr(of, "LOOK_S", 0.4)
    try:
        yield answers
    finally:
        answers.set()


async def test_a_disk_that_hangs_is_waited_for_once_and_not_long(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was known holds meanwhile; what is late counts when it is there, without another look at it."""
    siting, now = Siting((Path("/"),), machine.root), asyncio.get_running_loop().time
    told, here = orders(ana=("ana",)), {ANA: attached()}
    async with hanging(machine, monkeypatch) as answers:
        for longest_s in (2.0, 0.3):
            began = now()
            await siting.look(told, here)
            assert now() - began < longest_s
            assert siting.disks().numbers == ("8:0",)
        answers.set()
        async with asyncio.timeout(5):
            while siting.disks().numbers != ("8:0", "8:16"):
                await asyncio.sleep(0.01)
        answers.clear()
        await siting.look(told, here)
        assert siting.disks().numbers == ("8:0", "8:16")


async def test_links_are_followed_anew_after_five_minutes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not before, unless orders or attachments have changed: a thousand sites' are some work."""
    siting, here = Siting((), machine.root), {BEA: attached()}
    await siting.look(BEAS, here)
    (machine.root / "home/bea").rmdir()
    (machine.root / "home/bea").symlink_to("../data/bea")
    await siting.look(orders(bea=("bea",)), here)
    assert siting.disks().numbers == ("8:0",)
    monkeypatch.setattr(siting, "_again", 0.0)
    await siting.look(BEAS, here)
    assert siting.disks().numbers == ("8:16",)
