"""Reads what every site uses, in rounds: often of those that work, seldom of the rest.

| a site that                          | is read                               | why |
|--------------------------------------|---------------------------------------|-----|
| worked in the last HOT_S             | all each round                        | it may be somebody's trouble in 2 s |
| works at all while CPUs are short    | the cheap each round, all each FULL_S | it may be the cause |
| works while memory or disks are slow | all each round                        | the culprit is among those |
| waits for its own memory or disks    | all each round                        | it may reclaim in vain |
| is to be looked at closely           | all each round, and what it uses each second | evidence needs every resource |
| does nothing                         | CPU time each round, all each FULL_S  | its beginning shows in the same round |
| has no cgroup of its own             | its users' processes, each FULL_S     | a look at /proc is the dearest |

Whoever calls may be a thread: nothing here is shared with another.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path

import msgspec

from agent.layout.attached import Attached
from agent.signals import HostSigns, Signals, SiteSigns
from agent.usage import host, processes, rates
from agent.usage.cgroup import Budget, Cgroup, Devices, Vanished
from agent.usage.host import Host
from agent.usage.kernel import Brief, Full
from agent.usage.seconds import Seconds
from fleet.caps import Attachment
from fleet.model import SiteId
from runtime import log

HOT_S = 10.0
FULL_S = 10.0
SPREAD = 10
EARLY_S = 0.5  # a round that comes a little early is still the one that was meant
# A site that uses less of a core than this is idle; PHP's own housekeeping is below.
BUSY_CORES = 0.01
# A stall from which nobody who works is idle: half of what the first alarm takes.
TROUBLE_RATIO = 0.05
TROUBLE_AVAILABLE_RATIO = 0.1
# Pools whose workers are of a user that many share: a site's own users run its cron and its logins only.
POOLS_OF_OTHERS = frozenset({"layout-pool-of-all"})

_log = log.logger("usage")


class Trouble(Enum):
    """What the host waits for: a busy one often waits a little for CPUs, which the cheap readings tell enough of."""

    NONE = "none"
    CPU = "cpu"
    DEEP = "memory or disks"


class Watched:
    """One cgroup and what was last seen of it. `phase_s`: when its first full look is due after the very first one."""

    def __init__(self, cgroup: Cgroup, attachment: Attachment, phase_s: float) -> None:
        self.cgroup, self.attachment = cgroup, attachment
        self.signs: SiteSigns | None = None
        self.fresh = False  # whether the last round read it anew
        self._phase_s = phase_s
        self._full_at = self._hot_until = float("-inf")
        self._brief: Brief | None = None
        self._full: Full | None = None

    def look(self, now: float, *, closely: bool, trouble: Trouble) -> None:
        """Read what is due at `now`; `closely`: all of it."""
        try:
            self._look(now, closely=closely, trouble=trouble)
        except Vanished:
            self.forget()

    def forget(self) -> None:
        """Nothing is known of it any more; what comes back begins anew."""
        self.cgroup.close()
        self.signs = self._brief = self._full = None
        self.fresh = False
        self._full_at = float("-inf")

    def _look(self, now: float, *, closely: bool, trouble: Trouble) -> None:
        due = closely or self._strained() or now >= self._full_at
        works = due or now <= self._hot_until or self._awake(now, trouble)
        self.fresh = works
        if not works:
            if self.signs:
                self.signs = rates.quiet(self.signs)
            return
        before, self._brief = self._brief, self.cgroup.brief(now)
        signs = rates.brief(before, self._brief, self.attachment)
        if _is_hot(signs):
            self._hot_until = now + HOT_S
        if due or now <= self._hot_until or trouble is Trouble.DEEP:
            self.signs = self._wholly(now, signs)
        elif self.signs:
            self.signs = rates.carried(self.signs, signs)

    def _strained(self) -> bool:
        """Whether it waits for its own memory or disks, be its host ever so calm."""
        signs = self.signs
        return signs is not None and (_much(signs.memory_stall) or _much(signs.io_stall))

    def _awake(self, now: float, trouble: Trouble) -> bool:
        used_us, was = self.cgroup.glance(), self._brief
        if was is None or was.cpu_us is None or used_us is None:
            return True
        least_us = 0 if trouble is not Trouble.NONE else BUSY_CORES * 1e6 * (now - was.at)
        return used_us - was.cpu_us > least_us or used_us < was.cpu_us

    def _wholly(self, now: float, signs: SiteSigns) -> SiteSigns:
        self._full_at = now + (FULL_S if self._full else self._phase_s)
        self.cgroup.again()
        before, self._full = self._full, self.cgroup.full(now)
        return rates.full(before, self._full, signs)


def _is_hot(signs: SiteSigns) -> bool:
    return (
        (signs.cpu_cores or 0.0) >= BUSY_CORES
        or (signs.cpu_stall or 0.0) >= BUSY_CORES
        or (signs.memory_stall or 0.0) >= BUSY_CORES
        or (signs.io_stall or 0.0) >= BUSY_CORES
    )


class Round(msgspec.Struct, frozen=True):
    """What one round saw. `fresh`: the sites that were read anew; of the others the last word stands."""

    signals: Signals
    fresh: frozenset[SiteId]


class Sampler:
    """`proc` and `sys` can be made up. `descriptors`: how many files may be held open at most."""

    def __init__(
        self,
        *,
        descriptors: int,
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
        parent: Path | None = None,
    ) -> None:
        self._before: host.Look | None = None
        self._budget, self._devices = Budget(descriptors), Devices(sys)
        self._host = Host(proc, parent, self._devices)
        self._sites: Mapping[SiteId, Attached] = {}
        self._watched: dict[Path, Watched] = {}
        self._parts: dict[SiteId, tuple[Watched, ...]] = {}
        self._close: frozenset[SiteId] = frozenset()
        self._users = Users(proc)
        self.seconds = Seconds()

    def follow(self, sites: Mapping[SiteId, Attached], close: Iterable[SiteId] = ()) -> None:
        """These are the sites from the next round on; those in `close` are read closely."""
        self._close = frozenset(close)
        if sites == self._sites:
            return
        self._sites = dict(sites)
        wanted = {path: a.attachment for a in sites.values() if by_kernel(a) for path in a.cgroups}
        for path in [path for path in self._watched if path not in wanted]:
            self._watched.pop(path).forget()
        for path, attachment in wanted.items():
            if (known := self._watched.get(path)) is not None:
                known.attachment = attachment
                continue
            # Spread: a thousand full looks in one round would keep the interpreter from the beat.
            phase_s = FULL_S * (len(self._watched) % SPREAD) / SPREAD
            cgroup = Cgroup(path, self._budget, self._devices)
            self._watched[path] = Watched(cgroup, attachment, phase_s)
        self._parts = {
            site: tuple(self._watched[path] for path in attached.cgroups)
            for site, attached in sites.items()
            if by_kernel(attached)
        }
        self._users.follow(frozenset(uid for a in sites.values() for uid in own_users(a)))

    def round(self, now: float) -> Round:
        """Look, at `now` (monotonic s)."""
        before, self._before = self._before, self._host.look(now)
        signs = host.between(before, self._before)
        trouble = trouble_of(signs)
        closely = {watched for site in self._close for watched in self._parts.get(site, ())}
        self._devices.forget_at(now)
        for watched in self._watched.values():
            watched.look(now, closely=watched in closely, trouble=trouble)
        near = any(own_users(self._sites[site]) for site in self._close & self._sites.keys())
        users_fresh = self._users.look(now, hurry=near or trouble is not Trouble.NONE)
        sites, fresh = {}, set()
        for site, attached in self._sites.items():
            if (parts := self._parts.get(site)) is not None:
                sites[site], anew = _by_kernel(attached, parts)
            else:
                sites[site], anew = self._users.signs(attached), users_fresh
            if anew:
                fresh.add(site)
        return Round(Signals(at=now, host=signs, sites=sites), frozenset(fresh))

    def second(self, now: float) -> None:
        """Look at those that are read closely, between the rounds too."""
        close = self._close & self._parts.keys()
        self.seconds.look(now, {s: [part.cgroup for part in self._parts[s]] for s in close})

    def close(self) -> None:
        """Let go of every file."""
        for watched in self._watched.values():
            watched.forget()


def _by_kernel(attached: Attached, parts: tuple[Watched, ...]) -> tuple[SiteSigns, bool]:
    if len(parts) == 1 and (signs := parts[0].signs) is not None:  # most of a thousand
        return signs, parts[0].fresh
    told = [part.signs for part in parts if part.signs]
    if not told:
        return SiteSigns(attachment=attached.attachment), False
    return rates.together(told), any(part.fresh for part in parts)


class Users:
    """What is told by whose processes they are."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._uids: frozenset[int] = frozenset()
        self._look: processes.Look | None = None
        self._used: Mapping[int, processes.Used] | None = None
        self._every_s = 0.0
        self._crowded = False

    def follow(self, uids: frozenset[int]) -> None:
        self._uids = uids

    def look(self, now: float, *, hurry: bool) -> bool:
        """Whether there was a look: each FULL_S, and each round when there is a `hurry`."""
        before = self._look
        if not self._uids or (before and not hurry and now - before.at < FULL_S - EARLY_S):
            return False
        try:
            self._look = processes.look(self._uids, now, self._proc)
        except (processes.TooMany, OSError) as error:
            if not self._crowded:
                _log.warning("what users' processes take is not known", error=str(error))
            self._crowded, self._look, self._used = True, None, None
            return True
        self._crowded = False
        self._used = processes.by_user(before, self._look)
        self._every_s = now - before.at if before else 0.0
        return True

    def signs(self, attached: Attached) -> SiteSigns:
        """Of a site by its users; nothing is told of one that has none of its own."""
        uids = own_users(attached)
        if self._used is None or not uids:
            return SiteSigns(attachment=attached.attachment)
        # A user without processes uses nothing, and that is known once there was a look before.
        idle = processes.Used(0.0 if self._every_s else None, 0, 0)
        used = [self._used.get(uid, idle) for uid in uids]
        cores = [one.cpu_cores for one in used if one.cpu_cores is not None]
        memory_bytes = sum(one.memory_bytes for one in used)
        return SiteSigns(
            attachment=attached.attachment,
            every_s=self._every_s,
            cpu_cores=sum(cores) if len(cores) == len(used) else None,
            memory_bytes=memory_bytes,
            anon_bytes=memory_bytes,  # what is shared, opcache above all, is nobody's
            tasks=sum(one.tasks for one in used),
        )


def by_kernel(attached: Attached) -> bool:
    """Whether cgroups tell of a site."""
    return bool(attached.cgroups)


def own_users(attached: Attached) -> tuple[int, ...]:
    """Whose processes are all of a site: only where its PHP runs as they do, in a pool of its own."""
    if by_kernel(attached) or attached.attachment is not Attachment.POOL:
        return ()
    return () if attached.why.code in POOLS_OF_OTHERS else attached.uids


def trouble_of(signs: HostSigns) -> Trouble:
    """Whether somebody may soon have to be found who causes it, and what for."""
    short = signs.memory_available_bytes < TROUBLE_AVAILABLE_RATIO * signs.memory_total_bytes
    if short or _much(signs.memory_stall) or _much(signs.io_stall):
        return Trouble.DEEP
    return Trouble.CPU if _much(signs.cpu_stall) else Trouble.NONE


def _much(stall: float | None) -> bool:
    return stall is not None and stall >= TROUBLE_RATIO
