"""What a move of one site's pool is planned from: its files, its sockets, its shared master. Reads only."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files as resources
from pathlib import Path

from agent.discover.accounts import is_person
from agent.discover.files import HostFiles
from agent.layout import pools
from agent.layout.attach import proposed
from agent.layout.carry import guarded, listening
from agent.layout.convert import convert as plan_convert
from agent.layout.convert import refuse_odd
from agent.layout.masters import slice_of
from agent.layout.moves import (
    CantMove,
    Places,
    Plan,
    Record,
    Shared,
    Sockets,
    conf_of,
    from_note,
    tmpfile_of,
)
from agent.layout.running import Running
from agent.layout.served import Part, Served, served
from agent.layout.undo import undo as plan_undo
from fleet.caps import Tenant
from fleet.model import SiteId

TEMPLATES = ("relevo-php@.service", "relevo-php@.socket")
WANTS = "sockets.target.wants"  # what `systemctl enable` of the socket writes
CLOCK_S = 2.0  # the kernel tells when it booted in whole seconds
MAIN = ("", "etc", "php")  # of Debian's own masters: /etc/php/8.2/fpm/php-fpm.conf


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host as it is. `files`: where its configuration is read."""

    running: Running
    tenants: Mapping[SiteId, Tenant]
    files: HostFiles = field(default_factory=HostFiles)
    places: Places = field(default_factory=Places)


def convert(host: Host, site: SiteId) -> Plan:
    """How `site` gets a unit of its own from where things stand. Raises CantMove."""
    here = served(host.tenants, host.running, Path("/"))
    record = kept(host.places, site)
    if record is None:
        record = _record(host, here, site)
        refuse_odd(record, _shared(host, record), same_disk=_same_disk(record, host.places))
    text = host.files.read(record.file)
    remains = pools.cut(text, record.pool) if text is not None else None
    templates = {name: (resources("deploy") / "systemd" / name).read_text() for name in TEMPLATES}
    shared = here.common_slice(site, pools.settings(record.section).get("user"))
    slice = here.tenants[site].slice or shared or record.slice
    plan = plan_convert(
        record,
        _shared(host, record),
        replace(sockets(record, host.places), slice=_runs_in(host, record)),
        remains,
        templates,
        host.places,
        slice,
    )
    if not plan.steps or slice != shared:
        return plan
    return replace(plan, notes=(*plan.notes, _sharing(slice, here.neighbours(site))))


def _runs_in(host: Host, record: Record) -> str | None:
    """The slice that its own unit is in, whatever was noted; None: it does not run.

    systemd leaves a unit in its old slice at a restart that leaves a process of it behind.
    """
    main = str(conf_of(record, host.places))
    return next(
        (slice_of(m.cgroup) for m in host.running.masters if m.main == main and m.pid), None
    )


def _sharing(slice: str, others: tuple[SiteId, ...]) -> str:
    return (
        f"{slice} is of a user whom {', '.join(others)} have too: one cap, of the roomiest of their plans, holds all "
        "that is in it, and none does before all of them are in force. relevo layout says who is elsewhere still."
    )


def undo(host: Host, site: SiteId, *, accept_cut: bool) -> Plan:
    """How `site` goes back into the shared master. Raises CantMove."""
    record = kept(host.places, site)
    if record is None:
        raise CantMove(f"{site}: was not converted by relevo: nothing to undo")
    text = host.files.read(record.file)
    return plan_undo(
        record,
        _shared(host, record),
        sockets(record, host.places),
        text,
        host.places,
        accept_cut=accept_cut,
    )


def kept(places: Places, site: SiteId) -> Record | None:
    """What a conversion of `site`, finished or not, has noted. Raises CantMove where that can't be read."""
    path = places.conf / f"{site}.json"
    try:
        return from_note(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CantMove(
            f"{path}: {error}: the note of a conversion; put it right by hand"
        ) from error


def _record(host: Host, here: Served, site: SiteId) -> Record:
    tenant = host.tenants[site]
    part, name = _pool(here, site)
    main = part.master.main.split("/")
    if tuple(main[:3]) != MAIN or len(main) != 6:
        raise CantMove(
            f"{part.master.main}: {part.pool.name}: not a master of Debian's php-fpm: only its pools are moved"
        )
    file = part.pool.place.rpartition(":")[0]
    text = host.files.read(file) or ""
    found = pools.cut(text, part.pool.name)
    if found is None:
        raise CantMove(f"{file} [{part.pool.name}]: not there once: write each pool once")
    accounts = [host.running.accounts.get(user) for user in here.own_users(site)]
    uids = tuple(a.uid for a in accounts if a is not None and is_person(a))
    bound = pools.settings(found.section).get("listen", "")
    return Record(
        site=site,
        pool=part.pool.name,
        slice=tenant.slice
        or here.common_slice(site, part.pool.user)
        or proposed(site, uids if len(tenant.users) == 1 else ()),
        unit=part.master.unit,
        program=f"/usr/sbin/php-fpm{main[3]}",
        main=part.master.main,
        file=file,
        section=text if found.is_all else found.section,
        name=name,
        bound=bound,
    )


def _pool(here: Served, site: SiteId) -> tuple[Part, str]:
    """The one pool that serves `site` and no other, and where the web server asks for it. Raises CantMove."""
    mine = here.parts(site)
    if not mine:
        raise CantMove(f"{site}: no pool of php-fpm: there is nothing to move; see relevo layout")
    places = {part.pool.place for part in mine.values()}
    if len(places) > 1:
        names = ", ".join(sorted(part.pool.name for part in mine.values()))
        raise CantMove(f"{site}: {names}: several pools; let it have one")
    name, part = next(iter(mine.items()))
    if len(mine) > 1:
        raise CantMove(f"{site}: {', '.join(sorted(mine))}: several names of one socket; use one")
    if others := sorted(here.by_pool.get(part.pool.place, frozenset()) - {site}):
        raise CantMove(
            f"{part.pool.place} [{part.pool.name}]: serves {', '.join(others)} too: give each a pool of its own first"
        )
    return part, name


def _shared(host: Host, record: Record) -> Shared:
    master = next((m for m in host.running.masters if m.main == record.main), None)
    found: Iterable[str] = () if master is None else (pool.name for pool in master.pools)
    return Shared(
        text=host.files.read(record.main) or "",
        siblings=tuple(sorted(set(found) - {record.pool})),
        is_running=master is not None and master.pid is not None,
        is_current=master is None or _is_current(host.files, record.main, master.pid),
    )


def _is_current(files: HostFiles, main: str, pid: int | None) -> bool:
    """Whether `main` has not changed since the process was started. Source: proc_stat(5), proc_pid_stat(5)."""
    stamp, stat = files.stamp(main), files.read(f"/proc/{pid}/stat")
    boot = re.search(r"^btime (\d+)$", files.read("/proc/stat") or "", re.M)
    if stamp is None or not stat or boot is None:
        return False
    ticks = int(stat.rpartition(")")[2].split()[19])
    started_s = int(boot[1]) + ticks / os.sysconf("SC_CLK_TCK")
    return stamp[2] / 1e9 < started_s + CLOCK_S


def sockets(record: Record, places: Places) -> Sockets:
    """How the name stands now."""
    name, own = Path(record.name), places.run / f"{record.site}.sock"
    try:
        ours = name.samefile(own)
    except OSError:  # one of them is not there
        ours = False
    return Sockets(
        ours=ours,
        link=name.is_symlink(),
        guarded=name in guarded(),
        at_boot=(places.units / WANTS / f"relevo-php@{record.site}.socket").is_symlink(),
        boot_link=tmpfile_of(record, places).exists(),
        listening=listening(),
    )


def _same_disk(record: Record, places: Places) -> bool:
    """Whether a socket can have names in both folders: one file system."""
    folder = next(path for path in (places.run, *places.run.parents) if path.exists())
    try:
        return Path(record.name).parent.stat().st_dev == folder.stat().st_dev
    except OSError:
        return False
