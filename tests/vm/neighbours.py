"""Visitors of the sites on the hosting server: how long each waited, told by the machine's own clock."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.vm.hosting import SITES, Tenancy
from tests.vm.machine import Machine

EVERY_S = 0.3  # of seven sites together: they cost less than a tenth of an emulated processor
FILE = "/run/visits"


@dataclass(frozen=True, slots=True)
class Visit:
    """`at`: when it ended (s since boot). `status`: 0 without an answer."""

    at: float
    domain: str
    took_s: float
    status: int


async def begin(vm: Machine, *, but: Sequence[Tenancy] = (), every_s: float = EVERY_S) -> None:
    """Visit each site in turn from now on, those of `but` left out; idempotent."""
    domains = " ".join(site.domain for site in SITES if site not in but)
    start = "systemd-run --quiet --collect --unit=visitors --slice=visitors.slice -p CPUWeight=1000"
    visitors = f"visitors {domains} --every {every_s} --into {FILE}"
    await vm.do(f"systemctl is-active -q visitors || {start} -- {visitors}")


async def clock(vm: Machine) -> float:
    """Now, by the clock that visits are told by."""
    return float(await vm.do("cut -d' ' -f1 /proc/uptime"))


async def visits(vm: Machine, *, since: float = 0.0, until: float = float("inf")) -> list[Visit]:
    """Those that began in this time and have ended, in the order of their ends."""
    told = await vm.do(f"cat {FILE}")
    found = []
    for line in told.splitlines():
        at, domain, took, status = line.split()
        found.append(Visit(float(at), domain, float(took), int(status)))
    return [visit for visit in found if since <= visit.at - visit.took_s <= until]
