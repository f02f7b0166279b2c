"""Isolation on a real host: every noisy site of the corpus is found, nobody else is touched, and everything ends."""

import asyncio
import os
import shlex
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from agent.signals import Signals
from fleet.caps import Level
from tests.replay import QUIET
from tests.vm import neighbours
from tests.vm.capped import CONFIG, RECORD, Capped, Change, capped, quarantine
from tests.vm.hogs import CORPUS, REFUSED_MAIL, Hog
from tests.vm.hosting import SITES, WORLD, Tenancy
from tests.vm.machine import Saved

pytestmark = pytest.mark.vm

NOISY = SITES[0]
READER = next(hog for hog in CORPUS if hog.name == "read I/O")  # the surest to be felt
# Where signals of these runs are kept for the ladder's replays; set to write them anew.
RECORDINGS = Path(__file__).parents[1] / "recordings"
REWRITE = "RELEVO_RECORD" in os.environ
ROUNDS = 40  # at most
QUIET_S = 14.0  # the ladder must have seen the host without trouble
FOUND_S = 60.0
ENDED_S = 120.0  # the longest of the scaled terms, and recovery in steps
CALM_S = 24.0
MORE_S = 6.0  # what is done to others would be done by now: three rounds
TRIED_S = 16.0  # a step is tried for less
TERM_S = 40.0  # of a person's word
CRON_TERM_S = 100.0  # a minute begins in it
JOBS_S = 15.0  # jobs are ended as they are seen, here each VERIFY_S
HARD_S = 20.0
BEAT_S = 0.5
DELAY = "relevo_agent_beat_delay_seconds"
LOCAL_MAIL = (
    "systemd-run --quiet --unit=mail -- /usr/bin/python3 -m http.server --bind 127.0.0.1 25"
)


@asynccontextmanager
async def noise(saved: Saved, hog: Hog) -> AsyncGenerator[Capped, None]:
    """A hog in one of the sites of a host that was quiet, with visitors at all others."""
    async with capped(saved) as host:
        await neighbours.begin(host.vm, but=(NOISY,))
        await asyncio.sleep(QUIET_S)
        assert await host.changes() == [], "a quiet host penalizes nobody"
        began = await neighbours.clock(host.vm)
        await hog.begin(host.vm, NOISY)
        try:
            yield host
        finally:
            await record(host, hog, began)


async def record(host: Capped, hog: Hog, began: float) -> None:
    """Keep the signals of this run for the replays, if that is wanted: QUIET of them are of the time before the hog."""
    if not REWRITE or hog.in_shadow:
        return
    rounds = (await host.vm.pull(RECORD)).splitlines(keepends=True)
    first = sum(msgspec.json.decode(each, type=Signals).at < began for each in rounds) - QUIET
    assert first >= 0
    kept = b"".join(rounds[first : first + ROUNDS])
    await asyncio.to_thread((RECORDINGS / f"{hog.file}.jsonl").write_bytes, kept)


async def found(host: Capped, at_least: Level) -> Change:
    """The first step up to that level; waits for it."""
    now = asyncio.get_running_loop().time
    deadline = now() + FOUND_S
    while True:
        changes = await host.changes()
        for change in changes:
            if Level[change.new.upper()] >= at_least:
                return change
        assert now() < deadline, changes
        await asyncio.sleep(1.0)


@pytest.mark.parametrize("hog", (*CORPUS, REFUSED_MAIL), ids=lambda hog: hog.name)
async def test_a_noisy_site_is_found_and_nobody_else(
    wide: Saved, shadowed: Saved, hog: Hog
) -> None:
    """Whoever is penalized is the one with the hog; where nobody need suffer, it alone is seen to wait."""
    async with noise(shadowed if hog.in_shadow else wide, hog) as host:
        if hog.level is Level.BASELINE:
            await asyncio.sleep(CALM_S)
            assert {change.site for change in await host.changes()} <= {NOISY.name}
            signals = msgspec.json.decode(
                (await host.vm.pull(RECORD)).splitlines()[-1], type=Signals
            )
            assert {site for site, signs in signals.sites.items() if signs.queue} == {NOISY.name}
            return
        change = await found(host, hog.level)
        assert change.site == NOISY.name
        await asyncio.sleep(MORE_S)
        touched = {change.site for change in await host.changes()}
        assert touched == {NOISY.name}, touched


@pytest.mark.long
async def test_a_hog_is_not_let_go_while_it_goes_on(wide: Saved) -> None:
    """A step that took away what the neighbours waited for is seen to have helped."""
    spin = next(hog for hog in CORPUS if hog.name == "cpu spin")
    async with noise(wide, spin) as host:
        await found(host, Level.CAP)
        await asyncio.sleep(TRIED_S)
        changes = await host.changes()
        assert "isolation-unhelpful" not in {change.why for change in changes}, changes


async def test_a_penalty_ends_when_the_noise_does(wide: Saved) -> None:
    """Once the hog has gone every step expires, and the kernel holds the plan and nothing else."""
    async with noise(wide, READER) as host:
        plan = await host.held(NOISY, "io.max")
        await found(host, Level.CAP)
        await host.vm.until(f"test \"$(cat {NOISY.cgroup}/io.max)\" != '{plan}'")
        await READER.end(host.vm, NOISY)
        now = asyncio.get_running_loop().time
        deadline = now() + ENDED_S
        while (last := (await host.changes())[-1]).new not in {"watch", "baseline"}:
            assert now() < deadline, last
            await asyncio.sleep(1.0)
        await host.vm.until(f"test \"$(cat {NOISY.cgroup}/io.max)\" = '{plan}'")


async def test_in_shadow_a_penalty_is_told_and_nobody_is_held(shadowed: Saved) -> None:
    """The same is decided and recorded, and the kernel knows nothing of it."""
    async with noise(shadowed, READER) as host:
        change = await found(host, Level.CAP)
        assert change.site == NOISY.name and not change.enforced
        told = await host.vm.run(f"cat {NOISY.cgroup}/io.max")
        assert told.output.strip() == "" or told.code != 0


async def test_a_stopped_site_starts_again_at_its_end(wide: Saved) -> None:
    """What a person stops has no process and no door, the others answer, and at the end it answers as before."""
    async with capped(wide) as host:
        await neighbours.begin(host.vm, but=(NOISY,))
        await host.vm.do(f"visitors --once {NOISY.domain}")
        began = await neighbours.clock(host.vm)
        plan = await host.held(NOISY, "cpu.max")
        await host.order("wide", rulings={NOISY.name: quarantine(Level.STOP, TERM_S)})
        await host.vm.until(f"! pgrep --euid {NOISY.name}")
        await host.vm.do(f"! visitors --once {NOISY.domain}")
        await host.vm.until(f"visitors --once {NOISY.domain}", timeout_s=2 * TERM_S)
        assert {visit.status for visit in await neighbours.visits(host.vm, since=began)} == {200}
        await host.until_held(NOISY, "cpu.max", plan)


@pytest.mark.long
async def test_cron_does_not_bring_a_stopped_site_back(wide: Saved) -> None:
    """Jobs that cron begins meanwhile are ended while a neighbour's run on; afterwards they run as before."""
    async with capped(wide) as host:
        # As docs/layout.md asks for.
        await host.vm.do("echo 'session optional pam_systemd.so' >> /etc/pam.d/cron")
        for site in (NOISY, SITES[1]):
            each_minute = shlex.quote("* * * * * date >> ran; exec sleep 45")
            await host.vm.do(f"echo {each_minute} | crontab -u {site.name} -")
        await host.order("wide", rulings={NOISY.name: quarantine(Level.STOP, CRON_TERM_S)})
        await host.vm.do("systemctl start cron")
        began = f"test -s {NOISY.home}/ran"
        await host.vm.until(began, timeout_s=CRON_TERM_S)
        await host.vm.until(f"! pgrep --euid {NOISY.name} --exact sleep", timeout_s=JOBS_S)
        await host.vm.do(f"pgrep --euid {SITES[1].name} --exact sleep")
        await host.vm.until(f"visitors --once {NOISY.domain}", timeout_s=2 * CRON_TERM_S)
        await host.vm.until(f"pgrep --euid {NOISY.name} --exact sleep", timeout_s=90)
        await asyncio.sleep(JOBS_S)
        await host.vm.do(f"pgrep --euid {NOISY.name} --exact sleep")


@pytest.mark.parametrize("nft", [True, False], ids=["both", "slice alone"])
async def test_an_isolated_site_reaches_what_it_needs_and_nothing_else(
    wide: Saved, *, nft: bool
) -> None:
    """While a person isolates it it can't call the world; its visitors come, it resolves names and mails by the host.

    Its neighbour calls whom it likes. The slice's own rules do that without the firewall's.
    """
    async with capped(wide) as host:
        await host.vm.do(f"echo nameserver {WORLD}.53 > /etc/resolv.conf")
        await host.vm.do(LOCAL_MAIL)
        if not nft:
            config = CONFIG.replace("[caps]\n", "[caps]\negress = false\n")
            await host.vm.push("/etc/relevo/agent.toml", config.encode())
            await host.vm.do("systemctl stop relevo-agent && nft delete table inet relevo")
        await host.vm.do(calls(NOISY))
        await host.order("wide", rulings={NOISY.name: quarantine(Level.ISOLATE, TERM_S)})
        await host.vm.until(f"! {calls(NOISY)}")
        await host.vm.do(calls(SITES[1]))
        await host.vm.do(calls(NOISY, f"{WORLD}.53", 53))
        await host.vm.do(calls(NOISY, "127.0.0.1", 25))
        await host.vm.do(f"! {calls(NOISY, f'{WORLD}.54', 53)}")
        await host.vm.do(f"visitors --once {NOISY.domain}")
        assert (await host.vm.run("nft list table inet relevo")).code == (0 if nft else 1)
        await host.vm.until(calls(NOISY), timeout_s=2 * TERM_S)


@pytest.mark.parametrize("name", ["fork bomb", "thrash"])
async def test_the_agent_keeps_its_beat(wide: Saved, name: str) -> None:
    """Whatever a site does to the host, beats go out each half second: hardly one is late by another half."""
    hog = next(hog for hog in CORPUS if hog.name == name)
    async with noise(wide, hog) as host:
        first, since = await host.metrics(), asyncio.get_running_loop().time()
        await asyncio.sleep(HARD_S)
        last, passed_s = await host.metrics(), asyncio.get_running_loop().time() - since
        beats, in_time, soon = (
            last[of] - first[of]
            for of in (
                (f"{DELAY}_count", ""),
                (f"{DELAY}_bucket", 'le="0.5"'),
                (f"{DELAY}_bucket", 'le="1.0"'),
            )
        )
        assert beats >= 0.9 * passed_s / BEAT_S
        # The processor is emulated, some fifteen times slower than one: one beat in twenty may be late here.
        assert in_time >= 0.95 * beats and soon == beats, (beats, in_time, soon)


def calls(site: Tenancy, address: str = f"{WORLD}.9", port: int = 80) -> str:
    """A command that succeeds if the site can call an address; the world's web, if none is named."""
    program = f'import socket; socket.create_connection(("{address}", {port}), 3)'
    job = site.inside(f"/usr/bin/python3 -c '{program}'", unit="call")
    return job.replace("--quiet", "--quiet --wait --pipe")
