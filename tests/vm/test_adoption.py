"""Workers of a shared php-fpm held in their site's slice, under a real systemd, through all that happens to it."""

import asyncio
import shlex
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from agent.layout.adopt import scope_of
from fleet.model import SiteId
from tests.vm.capped import TIGHT, Capped, capped
from tests.vm.hosting import SITES, Tenancy, unpack
from tests.vm.machine import Machine, Saved
from tests.vm.test_layout import FPM, MOVE_S, layout, share, visited, where

pytestmark = pytest.mark.vm

GARDEN, ORCHARD = SITES[:2]
SCOPE = scope_of(SiteId(GARDEN.name))
SPUN_S = 4.0
ENOUGH = "/tmp/enough"
# PHP itself ends it after 30 s of a processor.
SPIN = f"""\
<?php
do {{ for ($i = 0; $i < 100000; $i++) md5($i); clearstatcache(); }} while (!file_exists('{ENOUGH}'));
"""
ADOPTED_S = 30.0  # two seconds of an agent on an emulated processor that others keep busy


def workers(site: Tenancy) -> str:
    """A command that tells their pids."""
    return f"pgrep --full 'php-fpm: pool {site.name}$'"


async def until_adopted(vm: Machine, site: Tenancy, *, least: int = 1) -> None:
    """Wait until there are workers, and every one is in the site's scope."""
    outside = f"grep -L {scope_of(SiteId(site.name))} $(printf '/proc/%s/cgroup ' $pids)"
    enough = f"test $(echo $pids | wc -w) -ge {least}"
    await vm.until(
        f'pids=$({workers(site)}); {enough} && test -z "$({outside})"', timeout_s=ADOPTED_S
    )


async def pids(vm: Machine, *sites: Tenancy) -> set[str]:
    told = [(await vm.do(workers(site))).split() for site in sites]
    return {pid for each in told for pid in each}


async def until_gone(vm: Machine, gone: set[str]) -> None:
    """Wait until none of these processes runs."""
    await vm.until(
        f"! ls -d {' '.join(f'/proc/{pid}' for pid in sorted(gone))} 2>/dev/null | grep ."
    )


async def cores(vm: Machine, site: Tenancy) -> float:
    """What its slice uses, for some seconds from now."""
    look = f"cut -d' ' -f1 /proc/uptime; grep ^usage_usec {site.cgroup}/cpu.stat | cut -d' ' -f2"
    told = [float(line) for line in (await vm.do(f"{look}; sleep {SPUN_S}; {look}")).split()]
    return (told[3] - told[1]) / 1e6 / (told[2] - told[0])


@asynccontextmanager
async def adopted(saved: Saved) -> AsyncGenerator[Capped, None]:
    """Two sites are pools of one php-fpm, plans are in force, and one of the sites is adopted."""
    async with capped(saved) as host:
        await share(host.vm, GARDEN, ORCHARD)
        await host.vm.do("relevo layout adopt garden --yes", timeout_s=MOVE_S)
        await host.order("tight")
        await until_adopted(host.vm, GARDEN)
        yield host


ENDS = (
    f"systemctl restart {FPM}",
    f"systemctl kill --signal=KILL --kill-whom=main {FPM}",
    f"systemctl stop {FPM}",
)


async def test_an_adopted_pool_is_held_while_its_php_fpm_reloads_restarts_and_dies(
    shadowed: Saved,
) -> None:
    """One pool spins and gets its plan's CPU, the other answers; no worker outlives its master; then it goes back."""
    async with adopted(shadowed) as host:
        vm = host.vm
        assert FPM in await where(vm, ORCHARD), "nobody asked for it"
        told = (await layout(vm))[GARDEN.name]
        assert (told["attachment"], told["slice"]) == ("pool", GARDEN.slice), told
        await host.until_held(GARDEN, "cpu.max", f"{TIGHT.cpu_percent * 1000} 100000")
        await host.until_held(GARDEN, "pids.max", f"{TIGHT.tasks}")
        await spins(vm)
        await reloads(vm)
        for end in ENDS:
            before = await pids(vm, GARDEN, ORCHARD)
            await vm.do(end)
            await until_gone(vm, before)
            assert await vm.do(f"systemctl is-active {SCOPE} || true") != "failed"
            await vm.until(
                f"systemctl start {FPM}"
            )  # one that died or was stopped is for its admin
            for site in (GARDEN, ORCHARD):
                await vm.until(f"visitors --once {site.domain}")
            await until_adopted(vm, GARDEN)
        async with visited(vm, GARDEN, ORCHARD):
            await vm.do("relevo layout release garden --yes", timeout_s=MOVE_S)
        found = await where(vm, GARDEN)
        assert FPM in found and SCOPE not in found


async def spins(vm: Machine) -> None:
    """Four workers ask for all of the processors; they get one, as planned, and the neighbour answers."""
    await unpack(vm, {f"{GARDEN.home}/public/spin.php": SPIN})
    # One after the other: ab waits for its first answer before it asks again.
    ask = f"ab -q -n 1 -s 60 -H 'Host: {GARDEN.domain}' http://127.0.0.1:8080/spin.php"
    four = shlex.quote(f"for n in 1 2 3 4; do {ask} & done; wait")
    await vm.do(f"systemd-run --quiet --collect --unit=spinners -- /bin/sh -c {four}")
    await until_adopted(vm, GARDEN, least=4)
    used = await cores(vm, GARDEN)
    await vm.do(f"visitors --once {ORCHARD.domain}")
    assert 0.3 < used < 1.2, used
    await vm.do(f"grep -q '^nr_throttled [1-9]' {GARDEN.cgroup}/cpu.stat")
    await vm.do(f"touch {ENOUGH}")
    await vm.until("! systemctl is-active --quiet spinners")


async def reloads(vm: Machine) -> None:
    """Every worker is another one, adopted as those before, and no visitor has noticed."""
    before = await pids(vm, GARDEN, ORCHARD)
    async with visited(vm, GARDEN, ORCHARD):
        await vm.do(f"systemctl reload {FPM}")
        await until_gone(vm, before)
        await until_adopted(vm, GARDEN)
        await asyncio.sleep(1.0)
