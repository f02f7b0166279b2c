"""What sites keep on disk under a real systemd, on ext4 and on XFS: each is held to its plan, and fails alone."""

import asyncio
import json
import shlex
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import pytest

from fleet.caps import Override
from fleet.model import Note
from tests.vm.capped import Capped, capped
from tests.vm.hosting import SITES, Tenancy, at_rest, rehouse
from tests.vm.machine import Result, Saved

pytestmark = pytest.mark.vm

GARDEN, ORCHARD, *_ = SITES
MIB = 1 << 20
SMALL_BYTES, SMALL_INODES = 8 * MIB, 300
SMALL = Override(
    caps={"disk_bytes": SMALL_BYTES, "inodes": SMALL_INODES},
    note=Note(owner="tests", reason="a small disk", since=0.0, until=1e10),
)
EXCEEDED = "Disk quota exceeded"
HELD_S, REPAIRED_S = 180.0, 180.0  # it is looked at each 50 s here, by an emulated processor
FILL = "dd if=/dev/zero of={file} bs=64k count={count} status=none"
# The program that the agent has started, as another hand that sets quotas.
PROGRAM = (
    "/usr/lib/relevo/bin/python3 -I -S "
    "/usr/lib/relevo/lib/python3.11/site-packages/agent/caps/quotactl.py"
)


@asynccontextmanager
async def with_quotas(saved: Saved, kind: str = "ext4") -> AsyncGenerator[Capped, None]:
    """The host once a person did what docs/caps.md says: ext4 counted already, now it holds."""
    async with capped(saved) as host:
        if kind == "xfs":
            await rehouse(host.vm, "mkfs.xfs -q -f /dev/vdb", "/dev/vdb", "noatime,usrquota")
        else:
            async with at_rest(host.vm):
                await host.vm.do("sed -i 's/rw,noatime/rw,noatime,usrquota/' /etc/fstab")
                await host.vm.do("systemctl daemon-reload && mount /srv")
        yield host


async def as_site(host: Capped, site: Tenancy, command: str) -> Result:
    """A job of the site, in its home."""
    job = site.inside(f"/bin/bash -c {shlex.quote(command)}", unit="job")
    return await host.vm.run(job.replace("--quiet", "--quiet --wait --pipe"))


async def until_held(host: Capped, users: int) -> None:
    """Wait until so many users' quotas are as they should be."""
    async with asyncio.timeout(HELD_S):
        while await host.total("relevo_caps_quotas", 'state="held"') != users:
            await asyncio.sleep(1.0)


async def until_hard(host: Capped, size_bytes: int) -> None:
    """Wait until the kernel says that this is where GARDEN is refused; 0: nowhere."""
    async with asyncio.timeout(REPAIRED_S):
        while await quotactl(host, {}) != size_bytes:
            await asyncio.sleep(2.0)


async def quotactl(host: Capped, limits: Mapping[str, int]) -> int:
    """Set GARDEN's limits as somebody else would, if any are given; gives where it is refused."""
    wish = {"users": [GARDEN.uid], "set": {str(GARDEN.uid): limits} if limits else {}}
    told = await host.vm.do(PROGRAM, stdin=f"{json.dumps({'/srv': wish})}\n".encode())
    return int(json.loads(told)["/srv"]["users"][str(GARDEN.uid)]["disk_hard_bytes"])


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
async def test_a_full_site_fails_alone(shadowed: Saved, kind: str) -> None:
    """Its own writes are refused at its plan and a tenth, of bytes and of files; its neighbours write on and answer."""
    async with with_quotas(shadowed, kind) as host:
        await host.order("wide", overrides={GARDEN.name: SMALL})
        await until_held(host, len(SITES))
        full = await as_site(host, GARDEN, FILL.format(file="big", count=256))
        assert full.code != 0 and EXCEEDED in full.output, full.output
        size = int(await host.vm.do(f"stat -c %s {GARDEN.home}/big"))
        assert 0.8 * SMALL_BYTES < size <= 1.1 * SMALL_BYTES
        free = await as_site(host, ORCHARD, FILL.format(file="big", count=256))
        assert free.code == 0, free.output
        await host.vm.do(f"visitors --once {ORCHARD.domain}")

        again = await as_site(host, GARDEN, "rm big && " + FILL.format(file="some", count=16))
        assert again.code == 0, again.output
        files = f"mkdir many && cd many && for n in $(seq {2 * SMALL_INODES}); do : > $n || exit 1; done"
        many = await as_site(host, GARDEN, files)
        assert many.code != 0 and EXCEEDED in many.output, many.output
        assert (await as_site(host, ORCHARD, files)).code == 0

        await host.order("wide", enforced=False)
        await until_hard(host, 0)
        assert (await as_site(host, GARDEN, FILL.format(file="big", count=256))).code == 0


@pytest.mark.long
async def test_a_site_that_keeps_too_much_is_not_broken_when_quotas_are_turned_on(
    shadowed: Saved,
) -> None:
    """It may add a little and not much; once it has shrunk its plan holds, also when somebody else changes it."""
    async with with_quotas(shadowed) as host:
        assert (await as_site(host, GARDEN, FILL.format(file="big", count=320))).code == 0
        await host.order("wide", overrides={GARDEN.name: SMALL})
        await until_held(host, len(SITES))
        little = await as_site(host, GARDEN, FILL.format(file="little", count=2))
        assert little.code == 0, little.output
        much = await as_site(host, GARDEN, FILL.format(file="much", count=64))
        assert much.code != 0 and EXCEEDED in much.output, much.output

        assert (await as_site(host, GARDEN, "rm big little much")).code == 0
        drift = await host.total("relevo_caps_drift_total")
        hard = SMALL_BYTES * 11 // 10 // (64 << 10) * (64 << 10)
        await until_hard(host, hard)
        wide = dict.fromkeys(("disk_bytes", "disk_hard_bytes", "inodes", "inodes_hard"), 0)
        assert await quotactl(host, wide) == 0
        await until_hard(host, hard)
        assert await host.total("relevo_caps_drift_total") == drift + 1


async def test_a_file_system_that_holds_nobody_is_named_with_its_remedy(shadowed: Saved) -> None:
    """Before anybody did anything for it: it counts, nothing is held, and the journal says once what to do."""
    async with capped(shadowed) as host:
        await host.order("wide", overrides={GARDEN.name: SMALL})
        await host.vm.until(
            "journalctl -b -q -u relevo-agent | grep -q 'usrquota.*umount /srv && mount /srv'",
            timeout_s=HELD_S,
        )
        assert (await as_site(host, GARDEN, FILL.format(file="big", count=256))).code == 0
        assert await host.total("relevo_caps_quotas", 'state="held"') == 0
