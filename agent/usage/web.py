"""The web side of each site, by its access log, its php-fpm, and the kernel's word on who waits for that.

php-fpm is asked only where something runs: a question would start a worker in a pool that sleeps on demand, and never
let it sleep again. All of this may block for a while: it has a thread.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from agent.layout.attached import Attached
from agent.ports import DriverError
from agent.usage import accesslog, fpm
from agent.usage.accesslog import Log, Site, Web
from agent.usage.backlog import Place, Queue, place, queues
from agent.usage.rates import events, rate
from fleet.model import SiteId
from runtime import log

ASK_S = 10.0
# Pools that give no answer in one round, a quarter of a second each, before the others wait for the next.
SILENT = 4
NOTHING = Web()

_log = log.logger("usage")


class Followed:
    """The access logs of one site."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self.paths = paths
        self.logs, self.site = tuple(map(Log, paths)), Site()
        self._read_at: float | None = None
        self._failing = False

    def round(self, now: float) -> Web | None:
        """What its lines say since the last round; None at first, and where nothing can be read."""
        try:
            return self._told(now)
        except OSError as error:
            if not self._failing:
                paths = ", ".join(map(str, self.paths))
                _log.warning("an access log can't be read", path=paths, error=str(error))
            self._failing = True
            return None

    def _told(self, now: float) -> Web | None:
        if self._read_at is None:
            for each in self.logs:
                each.begin()
            self._read_at = now
            return None
        self.site.turn(now)
        for each in self.logs:
            lines, stands_for = each.portion(now)
            for line in map(accesslog.parse, lines):
                if line is not None:
                    self.site.add(line, stands_for)
        passed_s, self._read_at, self._failing = now - self._read_at, now, False
        return self.site.told(passed_s)

    def close(self) -> None:
        """Let go of every file."""
        for each in self.logs:
            each.close()


class Pool:
    """One site's php-fpm."""

    def __init__(self, path: Path, page: str, answer_s: float) -> None:
        self.address = (path, page)
        self._answer_s = answer_s
        self.asked_at = float("-inf")
        self._before: tuple[float, fpm.Status] | None = None
        self.told = Web()

    def tell(self) -> Web:
        """What it said last; that it had no worker left is said once."""
        told = self.told
        if told.workers_short:
            self.told = msgspec.structs.replace(told, workers_short=0)
        return told

    def ask(self, now: float) -> bool:
        """Whether it answered, or said at least that it has no room: then what it said before stands."""
        self.asked_at = now
        try:
            status = fpm.ask(*self.address, within_s=self._answer_s)
        except fpm.QueueFull:
            return True
        except fpm.NoAnswer:
            return False
        except DriverError:
            self._before, self.told = None, Web()
            return True
        at, was = self._before or (now, status)
        self.told = Web(
            requests_per_s=rate(was.accepted, status.accepted, now - at),
            busy=float(max(0, status.active - 1)),
            workers_short=events(was.short, status.short),
        )
        self._before = (now, status)
        return True


class WebSide:
    """All sites' logs and pools. Everything is called by one thread."""

    def __init__(
        self,
        answer_s: float = fpm.ANSWER_S,
        queues: Callable[[], Mapping[Place, Queue]] = queues,
    ) -> None:
        self._answer_s, self._queues = answer_s, queues
        self._sockets: dict[SiteId, Path] = {}
        self._failing = False
        self._logs: dict[SiteId, Followed] = {}
        self._pools: dict[SiteId, Pool] = {}

    def follow(self, sites: Mapping[SiteId, Attached]) -> None:
        """These are the sites from the next round on; what is known of those that stay is kept."""
        wanted = {site: attached.logs for site, attached in sites.items() if attached.logs}
        for site in [s for s, known in self._logs.items() if wanted.get(s) != known.paths]:
            self._logs.pop(site).close()
        for site, paths in wanted.items():
            if site not in self._logs:
                self._logs[site] = Followed(paths)
        self._sockets = {site: a.socket for site, a in sites.items() if a.socket}
        asked = {site: attached.status for site, attached in sites.items() if attached.status}
        self._pools = {
            site: known
            if (known := self._pools.get(site)) and known.address == address
            else Pool(*address, self._answer_s)
            for site, address in asked.items()
        }

    def round(
        self,
        now: float,
        awake: Collection[SiteId],
        stop: Callable[[], bool] = lambda: False,
    ) -> dict[SiteId, Web]:
        """What each site's web side did since the last round; only pools of `awake` sites are asked, until `stop`."""
        found: dict[SiteId, Web] = {}
        for site, followed in self._logs.items():
            if told := followed.round(now):
                found[site] = told
        self._ask(now, awake, stop)
        for site, pool in self._pools.items():
            found[site] = together(found.get(site), pool.tell() if site in awake else Web())
        for site, waiting in self._waiting().items():
            found[site] = msgspec.structs.replace(found.get(site, NOTHING), queue=waiting)
        return found

    def _waiting(self) -> dict[SiteId, int]:
        """How many wait for each site's php-fpm; not of a socket that is not there."""
        try:
            queues = self._queues() if self._sockets else {}
            self._failing = False
        except DriverError as error:
            if not self._failing:
                _log.warning("who waits for php-fpm is not known", error=str(error))
            self._failing = True
            return {}
        found = {}
        for site, path in self._sockets.items():
            with suppress(OSError):
                if queue := queues.get(place(path)):
                    found[site] = queue.waits
        return found

    def urls(self, site: SiteId) -> dict[str, int]:
        """What was asked for most in the last minute or two, without queries (rule R16)."""
        followed = self._logs.get(site)
        return followed.site.urls.top() if followed else {}

    def close(self) -> None:
        for followed in self._logs.values():
            followed.close()

    def _ask(self, now: float, awake: Collection[SiteId], stop: Callable[[], bool]) -> None:
        due = [
            self._pools[site]
            for site in awake
            if site in self._pools and now - self._pools[site].asked_at >= ASK_S
        ]
        silent = 0
        for pool in sorted(due, key=lambda pool: pool.asked_at):
            silent += not pool.ask(now)
            if silent >= SILENT or stop():
                break


def together(by_log: Web | None, by_pool: Web) -> Web:
    """The log counts what visitors asked; the pool knows how many of its workers they take."""
    if by_log is None:
        return by_pool
    return msgspec.structs.replace(
        by_log,
        busy=by_pool.busy if by_log.busy is None else by_log.busy,
        workers_short=by_pool.workers_short,
    )
