"""The agent on the hosting server: installed from its package, with orders on its disk and no controller to be had."""

import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import msgspec

from agent.caps.dirty import BACKGROUND_BYTES, MOST_BYTES
from deploy.demo.plans import MIB, SOLIDARITY
from fleet.caps import Level, Override, Ruling, Tenant
from fleet.messages import Orders
from fleet.model import Caps, Epoch, HostId, Note, PlanId, SiteId
from runtime.clock import wall
from tests.vm.hosting import DISK, MEMORY_MIB, SITES, Tenancy, furnish
from tests.vm.image import Image
from tests.vm.machine import Machine, Saved, machine

HOST = HostId("h1")
STATE = "/var/lib/relevo/agent"
PACKAGE_S, START_S = 300.0, 60.0
JOURNAL_LINES = 80
METRIC = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.M)

RECORD = f"{STATE}/signals.jsonl"
VERIFY_S = 5.0
DOCS = Path(__file__).parents[2] / "docs"
UNINSTALL, CAPS = (DOCS / name for name in ("uninstall.md", "caps.md"))
WAITS = "/etc/sysctl.d/60-dirty.conf"
# A minute is three seconds; a step lasts long enough to be seen to work.
SCALE = 0.05
# Nothing listens there: it lives on its orders of last time.
CONFIG = f"""\
host = "{HOST}"
controllers = {{c1 = "https://127.0.0.1:9"}}
token = "/etc/relevo/agent.token"
[caps]
verify_s = {VERIFY_S}
[isolation]
scale = {SCALE}
record = "{RECORD}"
[isolation.signs]
miner_s = {600 * SCALE}
"""

# All within two emulated processors, 1.25 GiB and a disk of 24 MiB/s; far enough apart to be told from each other.
TIGHT = msgspec.structs.replace(
    SOLIDARITY.caps,
    cpu_weight=50,
    cpu_percent=100,
    memory_max_bytes=160 * MIB,
    memory_low_bytes=8 * MIB,
    tasks=40,
    read_bytes_per_s=2 * MIB,
    write_bytes_per_s=1 * MIB,
    read_iops=10_000,
    write_iops=10_000,
)
WIDE = msgspec.structs.replace(
    TIGHT,
    cpu_weight=100,
    cpu_percent=200,
    memory_max_bytes=2048 * MIB,  # more than there is: plans are over-committed
    tasks=300,
    read_bytes_per_s=64 * MIB,
    write_bytes_per_s=64 * MIB,
)
# Half of the host's processors and of its disk, as a plan is validated against its hosts.
FAIR = msgspec.structs.replace(
    WIDE,
    cpu_percent=100,
    memory_max_bytes=320 * MIB,
    tasks=120,
    read_bytes_per_s=12 * MIB,
    write_bytes_per_s=12 * MIB,
)
PLANS: dict[PlanId, Caps] = {PlanId("tight"): TIGHT, PlanId("fair"): FAIR, PlanId("wide"): WIDE}


def without_agent() -> str:
    """What is typed to give sites all of their host again."""
    return UNINSTALL.read_text().partition("## Without an agent")[2].split("```")[1]


def writes_that_wait() -> str:
    """What is written into WAITS for a disk like the one here."""
    told = CAPS.read_text().partition("### Writes that wait")[2].split("```")[1]
    for bound, seconds in ((BACKGROUND_BYTES, 0.25), (MOST_BYTES, 1.0)):
        assert f"= {bound}\n" in told
        told = told.replace(f"{bound}", f"{int(DISK.bytes_per_s * seconds)}")
    return told


def without_them() -> str:
    """What is typed to have the kernel's own bounds again."""
    found = re.search(rf"`(rm {WAITS} [^`]+)`", UNINSTALL.read_text())
    assert found
    return found[1]


class Change(msgspec.Struct, frozen=True):
    """A site's place on the ladder changed: a line of the agent's journal. `old`, `new`: levels in small letters."""

    site: str
    old: str
    new: str
    share: float
    enforced: bool
    why: str


@dataclass(frozen=True, slots=True)
class Capped:
    """The host, some seconds after its agent said that it is ready."""

    vm: Machine
    _revisions: Iterator[int] = field(default_factory=lambda: count(2))

    async def order(
        self,
        plan: str,
        *,
        enforced: bool = True,
        plans: Mapping[str, str] = {},
        overrides: Mapping[str, Override] = {},
        rulings: Mapping[str, Ruling] = {},
    ) -> None:
        """Every site is on `plan` but those in `plans`; in force when this returns. The agent is restarted for it."""
        orders = Orders(
            epoch=Epoch(generation=1, revision=next(self._revisions)),
            cluster="vm",
            host=HOST,
            sites=tuple(SiteId(site.name) for site in SITES),
            plans=PLANS,
            tenants={
                SiteId(site.name): Tenant(
                    plan=PlanId(plans.get(site.name, plan)),
                    users=(site.name,),
                    domains=(site.domain,),
                    override=overrides.get(site.name),
                    enforced_from=0.0 if enforced else None,
                )
                for site in SITES
            },
            rulings={SiteId(name): ruling for name, ruling in rulings.items()},
        )
        await self.vm.do("systemctl stop relevo-agent")
        content = msgspec.json.encode(orders)
        await self.vm.push(f"{STATE}/orders.json", content, mode=0o600)
        await self.vm.do("systemctl start relevo-agent", timeout_s=START_S)

    async def remove(self) -> None:
        """As if relevo had never been there: no agent, no caps, no firewall of its own."""
        await self.vm.do(f"{without_agent()}\ntrue")
        await self.vm.do(without_them())
        assert (await self.vm.do("cat /proc/sys/vm/dirty_background_bytes")).strip() == "0"
        assert (await self.vm.run("nft list table inet relevo")).code
        assert (await self.vm.do("cat /sys/fs/cgroup/user.slice/memory.low")).strip() == "0"
        for site in SITES:
            # After the last of them systemd takes the controller away, and its files with it.
            told = await self.vm.do(f"cd {site.cgroup} && {{ cat io.max cpu.max || true; }} 2>&-")
            assert told.strip() in {"", "max 100000"}, told

    async def held(self, site: Tenancy, name: str) -> str:
        """What the kernel says: a file of the site's cgroup."""
        return await self.vm.do(f"cat {site.cgroup}/{name}")

    async def until_held(
        self, site: Tenancy, name: str, value: str, *, timeout_s: float = 30.0
    ) -> None:
        """Wait until a file of the site's cgroup begins with `value`. Raises CommandFailed."""
        file = f"{site.cgroup}/{name}"
        look = f"grep -qx {value!r} {file} || {{ head {file}; exit 1; }}"
        await self.vm.until(look, timeout_s=timeout_s)

    async def metrics(self) -> dict[tuple[str, str], float]:
        """By name and labels, as they stand in the exposition."""
        ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:7411/metrics').read().decode())"
        told = await self.vm.do(f'python3 -c "{ask}"')
        return {(name, labels): float(value) for name, labels, value in METRIC.findall(told)}

    async def total(self, name: str, labels: str = "") -> float:
        """The sum of a metric over the labels that contain `labels`."""
        told = await self.metrics()
        return sum(value for (found, its), value in told.items() if found == name and labels in its)

    async def changes(self) -> list[Change]:
        """What isolation decided since the boot, oldest first."""
        only = """-u relevo-agent -g '"event": "penalty changed"'"""
        told = await self.vm.run(f"journalctl -b -q -o cat {only}")
        return [msgspec.json.decode(line, type=Change) for line in told.output.splitlines()]

    async def journal(self, lines: int = JOURNAL_LINES) -> str:
        no_links = "grep -v 'Cannot connect to host'"
        told = await self.vm.run(
            f"journalctl -b -q -o cat -u relevo-agent | {no_links} | tail -n {lines}"
        )
        return told.output


def quarantine(level: Level, for_s: float) -> Ruling:
    """A person's word, from now."""
    now = wall()
    note = Note(owner="ana", reason="it harms others", since=now, until=now + for_s)
    return Ruling(word="quarantine", level=level, note=note)


@asynccontextmanager
async def capped(saved: Saved, *, after: int = 2) -> AsyncGenerator[Capped, None]:
    """The host, gone on from where it was saved. What fails tells the end of its journal.

    `after` is the revision of the orders that it has.
    """
    async with machine(saved, "h1", memory_mib=MEMORY_MIB, data=DISK) as vm:
        host = Capped(vm, count(after + 1))
        try:
            yield host
        except (AssertionError, TimeoutError) as error:
            error.add_note(await host.journal())
            raise


async def ordered(saved: Saved, folder: Path, plan: str) -> Saved:
    """The same host, saved again once every site is held to `plan`."""
    async with capped(saved) as host:
        await host.order(plan)
        for site in SITES:
            await host.until_held(site, "pids.max", f"{PLANS[PlanId(plan)].tasks}")
        await host.vm.pause()
        return await host.vm.save(folder)


async def begin(image: Image, folder: Path, package: bytes) -> Saved:
    """The host with its agent, saved: every site answers, caps are in shadow."""
    async with machine(image, "h1", memory_mib=MEMORY_MIB, data=DISK) as vm:
        await furnish(vm)
        await vm.push("/root/relevo.deb", package)
        await vm.do("dpkg --install /root/relevo.deb && rm /root/relevo.deb", timeout_s=PACKAGE_S)
        await vm.push("/etc/relevo/agent.toml", CONFIG.encode())
        await vm.push(WAITS, writes_that_wait().encode())
        await vm.do("sysctl --quiet --system")
        await vm.push("/etc/relevo/agent.token", b"of-no-use-here", mode=0o600)
        await vm.do(f"systemctl enable relevo-agent && install -d -m 700 {STATE}")
        await Capped(vm).order("wide", enforced=False)
        await vm.pause()
        return await vm.save(folder)
