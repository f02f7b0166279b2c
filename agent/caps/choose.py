"""Which driver holds the caps on this host, and why; what of the host bears on them."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from agent import config
from agent.caps.cgroupfs import CgroupFs
from agent.caps.devices import scheduled_fairly
from agent.caps.driver import Driver
from agent.caps.egress import Rules
from agent.caps.limits import CONTROLLERS, HostFacts
from agent.caps.siting import Siting
from agent.caps.systemd import Systemd
from agent.discover.accounts import SHARED, accounts, is_person
from agent.discover.found import Account
from fleet.model import Why
from runtime import log
from runtime.pulse import Pulse
from runtime.words import explain

CGROUPS = Path("sys/fs/cgroup")
# Sites' PHP may run as these; as the rest of what is shared runs what is no site's.
WEB = SHARED - {"root", "nobody", "daemon"}

_log = log.logger("caps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """`driver`: None where nothing can be enforced; `why` then says what is missing."""

    driver: Driver | None
    why: Why

    @property
    def unable(self) -> Why | None:
        """Why nothing can be enforced; None: it can."""
        return None if self.driver else self.why


def choose(
    settings: config.Caps, changed: Pulse, root: Path = Path("/"), uid: int | None = None
) -> Chosen:
    """Judge this host. `changed` is the driver's to beat."""
    uid = os.geteuid() if uid is None else uid
    if settings.driver == "off":
        return Chosen(driver=None, why=Why("unable-off"))
    if settings.driver == "cgroupfs" or (settings.driver == "auto" and settings.subtree):
        return _cgroupfs(settings, changed)
    if reason := _no_systemd(root, uid):
        return Chosen(driver=None, why=reason)
    driver = Systemd(root / CGROUPS, root / "run/systemd", changed)
    return Chosen(driver=driver, why=Why("caps-by-systemd"))


def say(chosen: Chosen, settings: config.Caps) -> None:
    """Once there are sites: an edge holds none, and needs no caps."""
    if chosen.driver is not None:
        _log.info("caps are held", driver=chosen.driver.name, why=explain(chosen.why))
    elif settings.driver != "off":
        why = explain(chosen.why)
        _log.error("NO CAPS CAN BE HELD HERE: use is measured and told, nothing else", why=why)


def _no_systemd(root: Path, uid: int) -> Why | None:
    """Why systemd can't hold caps here; None if it can."""
    controllers = _controllers(root / CGROUPS)
    if controllers is None:
        return Why("unable-v1")
    if not controllers & CONTROLLERS.keys():
        return Why("unable-controllers")
    if not (root / "run/systemd/system").is_dir():
        return Why("unable-systemd")
    return None if uid == 0 else Why("unable-root")


def _cgroupfs(settings: config.Caps, changed: Pulse) -> Chosen:
    subtree = settings.subtree
    if subtree is None:
        return Chosen(driver=None, why=Why("unable-unnamed"))
    controllers = _controllers(subtree)
    if not controllers:
        return Chosen(driver=None, why=Why("unable-subtree", {"subtree": str(subtree)}))
    if not os.access(subtree, os.W_OK):
        return Chosen(driver=None, why=Why("unable-delegated", {"subtree": str(subtree)}))
    why = Why("caps-by-subtree", {"subtree": str(subtree)})
    return Chosen(driver=CgroupFs(subtree, changed), why=why)


def _controllers(group: Path) -> frozenset[str] | None:
    """None: that is no cgroup v2."""
    try:
        return frozenset((group / "cgroup.controllers").read_text().split())
    except OSError:
        return None


def resolvers(settings: config.Caps, root: Path = Path("/")) -> tuple[str, ...]:
    """Whom sites ask for names: as configured, or as /etc/resolv.conf says. Source: resolv.conf(5)."""
    if settings.resolvers:
        return settings.resolvers
    try:
        lines = (root / "etc/resolv.conf").read_text().splitlines()
    except OSError:
        return ()
    named = (line.split() for line in lines)
    servers = (words[1] for words in named if len(words) > 1 and words[0] == "nameserver")
    return tuple(server for server in servers if _is_address(server))


def servers(settings: config.Caps, root: Path = Path("/")) -> Callable[[], Rules]:
    """What reads anew whom sites still need when they are shut in, in a thread.

    A resolv.conf that names nobody is being written: whom it named before stays.
    """
    named: tuple[str, ...] = ()

    def read() -> Rules:
        nonlocal named
        named = resolvers(settings, root) or named
        return Rules(mail=settings.mail, resolvers=named, databases=settings.databases)

    return read


def _is_address(text: str) -> bool:
    """One with a zone, fe80::1%eth0, can't be named in a rule that holds for all sites."""
    try:
        return "%" not in text and bool(ip_address(text))
    except ValueError:
        return False


def people(root: Path = Path("/")) -> Callable[[], Mapping[str, int]]:
    """What reads who has an account that may be a site's, by name, in a thread. Raises OSError."""

    def read() -> Mapping[str, int]:
        found = _accounts(root)
        return {
            name: account.uid
            for name, account in found.items()
            if is_person(account) and name not in SHARED
        }

    return read


def common(root: Path = Path("/")) -> Callable[[], Mapping[str, int]]:
    """What reads the accounts of web servers, by name, in a thread. Raises OSError."""

    def read() -> Mapping[str, int]:
        return {name: account.uid for name, account in _accounts(root).items() if name in WEB}

    return read


def _accounts(root: Path) -> Mapping[str, Account]:
    return accounts((root / "etc/passwd").read_text(errors="replace"))


def facts(settings: config.Caps, siting: Siting, root: Path = Path("/")) -> Callable[[], HostFacts]:
    """What reads the host anew, in a thread. Raises OSError."""

    def read() -> HostFacts:
        disks = siting.disks()
        controllers = _controllers(settings.subtree or root / CGROUPS) or frozenset()
        return HostFacts(
            cores=float(os.cpu_count() or 1),
            memory_total_bytes=_memory_total(root),
            controllers=controllers & CONTROLLERS.keys(),
            devices=disks.numbers,
            no_disk=disks.why,
            diskless=disks.diskless,
            has_swap=len((root / "proc/swaps").read_text().splitlines()) > 1,
            has_io_weight=any(scheduled_fairly(device, root) for device in disks.numbers),
        )

    return read


def _memory_total(root: Path) -> int:
    """Source: proc_meminfo(5); the kernel's kB are KiB."""
    for line in (root / "proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            return int(rest.split()[0]) << 10
    return 0
