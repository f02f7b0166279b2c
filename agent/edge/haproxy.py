"""Makes HAProxy follow the routes: a move is one map transaction, a new or gone host one reload.

Three places hold what is served: the files (what HAProxy starts with), the worker (what it does), the orders (what
it should do). Each round reads the first two, merges the third in, and closes the difference.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Never

from agent.config import Edge
from agent.edge.checks import Checks
from agent.edge.files import Files
from agent.edge.limits import Holding, hosts_of, with_limits
from agent.edge.meter import Meter
from agent.edge.plan import Served, Wanted, clip, placed, plan
from agent.edge.render import FOLDER, digest_of, endpoint, knows_limits, map_path, render
from agent.edge.runtime import Master, Runtime, Unreached, entries_of
from agent.edge.view import Info
from agent.ports import DriverError, EdgeView
from fleet.messages import EdgeReport, Routes
from fleet.model import Epoch, Health, HostId
from metrics.exporter import Exporter
from runtime import log
from runtime.clock import wall

TICK_S = 1.0
LOOK_TIMEOUT_S = 1.0
COUNT_EVERY_S = 10.0
RELOAD_TIMEOUT_S = 5.0  # measured: 0.1 s with 300 hosts and 20,000 domains
RELOAD_AGAIN_S = 30.0  # after one that failed: meanwhile moves go on, through the old worker
RELOAD_POLL_S = 0.02

_log = log.logger("agent.edge")


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What the worker does now."""

    info: Info
    has_map: bool
    entries: Mapping[str, str]
    hosts: Mapping[HostId, str]  # and the `address:port` of each


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What HAProxy looked like when all was as wanted: a difference means that someone else had a hand in it."""

    pid: int
    digest: str
    map_hash: bytes


class HAProxy:
    """`agent.ports.Traffic` on HAProxy's runtime API. The only writer to it."""

    def __init__(self, edge: Edge, exporter: Exporter | None = None) -> None:
        if not FOLDER.fullmatch(str(edge.directory)):
            raise ValueError(f"directory {edge.directory} must be absolute, without white space")
        self._edge, self._meter = edge, Meter(exporter)
        self._files = Files(edge)
        self._runtime = Runtime(edge.socket, map_path(edge))
        self._master = Master(edge.master_socket)
        self._writing = asyncio.Lock()
        self._orders: tuple[Routes, Epoch] | None = None
        self._epoch = self._files.epoch()
        self._settled: Settled | None = None
        self._wanted: Wanted | None = None
        self._rejected: tuple[str, str] = ("", "")  # a configuration's digest, HAProxy's words
        self._reload_due: float | None = None
        self._reload_after = float("-inf")
        self._checks = Checks()
        self._holding = Holding()
        self._domains = 0
        self._count_due = float("-inf")
        self._error = ""

    async def follow(self, routes: Routes, epoch: Epoch) -> tuple[str, ...]:
        """Make `routes` true. A reload that comes too soon after the last one is left to `keep`.

        Gives what was refused and what was left. Raises DriverError: the next `keep` tries again.
        """
        async with self._writing:
            if epoch < self._epoch:
                raise DriverError(
                    f"routes of epoch {epoch} are older than those followed, {self._epoch}"
                )
            self._orders, self._rejected = (routes, epoch), ("", "")
            try:
                return await self._apply(routes, epoch)
            except DriverError as error:
                self._note(str(error))
                raise

    async def look(self) -> EdgeView:
        """HAProxy's view of each host now: one command."""
        try:
            stat = await self._runtime.stat(timeout_s=LOOK_TIMEOUT_S)
        except DriverError as error:
            self._meter.gone()
            report = EdgeReport(haproxy_up=False, routes=self._epoch, error=str(error)[:500])
            return EdgeView(checks={}, report=report)
        checks = self._checks.see(stat.servers, asyncio.get_running_loop().time())
        self._meter.seen(checks)
        report = EdgeReport(
            haproxy_up=True,
            routes=self._epoch,
            domains=self._domains,
            sessions=stat.sessions,
            strays=clip(self._wanted.strays) if self._wanted else (),
            error=self._error[:500],
        )
        return EdgeView(checks=checks, report=report)

    async def keep(self) -> Never:
        """Every second, or when a reload is due: see that all is as wanted, else make it so."""
        while True:
            try:
                async with self._writing:
                    await self._keep_once()
            except DriverError as error:
                self._note(str(error))
            await asyncio.sleep(self._pause_s())

    async def _keep_once(self) -> None:
        if self._orders is None:
            await self._adopt()
        elif self._limits_are_due() or await self._drifted():
            await self._apply(*self._orders)
        await self._count()

    def _limits_are_due(self) -> bool:
        return self._wanted is not None and wall() >= self._wanted.held.until

    async def _count(self) -> None:
        """What limits refused, every COUNT_EVERY_S: the table is 2 MB at most."""
        now = asyncio.get_running_loop().time()
        if self._settled is not None and now >= self._count_due:
            self._count_due = now + COUNT_EVERY_S
            self._meter.refused(self._settled.pid, await self._runtime.refused())

    async def _adopt(self) -> None:
        """Before the first orders: leave HAProxy to its files, and give it some to start with."""
        if not self._files.config_text():
            await self._files.write_config(render(self._edge, {}, ""))
            _log.info("haproxy has a configuration to start with", path=str(self._files.config))
        self._domains = len(entries_of(await self._runtime.dump() or ""))

    async def _drifted(self) -> bool:
        """Whether HAProxy is not as it was left. The whole map of 20,000 domains is read in 2 ms."""
        was = self._settled
        if was is None:
            return True
        info, map_hash = await self._runtime.info(), _hash(await self._runtime.dump())
        if info.pid != was.pid:
            _log.warning("haproxy was restarted", old=was.pid, new=info.pid, uptime_s=info.uptime_s)
        elif info.digest != was.digest:
            _log.warning("haproxy follows another configuration", old=was.digest, new=info.digest)
        elif map_hash != was.map_hash:
            _log.warning("haproxy's map was changed by someone else")
        else:
            return False
        return True

    async def _apply(self, routes: Routes, epoch: Epoch) -> tuple[str, ...]:
        """Close the difference between the orders and what is there: the moves first, they can't wait."""
        self._settled = None
        disk = self._files.served()
        live = await self._live_or_none()
        domains = {**disk.domains, **(hosts_of(live.entries) if live else {})}
        served = Served(hosts=disk.hosts, domains=domains, proof=disk.proof)
        wanted = plan(routes, served, self._holding.held(routes, wall()))
        text = render(self._edge, wanted.hosts, wanted.proof)

        if live:
            await self._move(live, wanted)
        await self._write(text, wanted, disk)
        self._say(wanted)
        if live is None:
            live = await self._live()  # says what is wrong with it
        if digest_of(text) != live.info.digest:
            if not self._reload_allowed():
                return wanted.said
            live = await self._reload(digest_of(text), live, wanted)
            await self._move(live, wanted)
        await self._settle(epoch, wanted)
        return wanted.said

    async def _move(self, live: Live, wanted: Wanted) -> None:
        """One transaction, if the map differs; what goes to a host that this worker lacks keeps its old place."""
        if not live.has_map:
            return  # it was not started with a configuration of ours: the reload brings the map
        target = placed(wanted.domains, live.hosts, was := hosts_of(live.entries))
        if live.info.limits:
            target = with_limits(target, wanted.held.entries)
        if target == live.entries:
            return
        started = asyncio.get_running_loop().time()
        await self._runtime.replace_map(target)
        took_s = asyncio.get_running_loop().time() - started
        changed = sum(live.entries.get(domain) != entry for domain, entry in target.items())
        changed += len(live.entries.keys() - target.keys())
        _log.info("map committed", entries=len(target), changed=changed, took_s=round(took_s, 4))
        self._meter.committed(took_s)
        await self._release(set(was.values()) - set(hosts_of(target).values()))

    async def _release(self, left: set[str]) -> None:
        """Visitors who wait for a host that is down and has no site any more may ask again, elsewhere."""
        servers = (await self._runtime.stat()).servers
        for host in sorted(left):
            view = servers.get(HostId(host))
            if view is not None and view.health is Health.DOWN:
                await self._runtime.end_sessions(host)

    async def _write(self, text: str, wanted: Wanted, disk: Served) -> None:
        if text != self._files.config_text():
            try:
                await self._check_in(text)
            except DriverError:
                # The old configuration stays, and with it the places that it can serve.
                await self._write_map(placed(wanted.domains, disk.hosts, disk.domains), wanted)
                raise
        await self._write_map(wanted.domains, wanted)

    async def _write_map(self, places: Mapping[str, str], wanted: Wanted) -> None:
        """With the limits, if the configuration beside it is one that reads them."""
        if knows_limits(self._files.config_text()):
            places = with_limits(places, wanted.held.entries)
        await self._files.write_map(places)

    async def _check_in(self, text: str) -> None:
        digest, words = self._rejected
        if digest == digest_of(text):
            raise DriverError(words)  # asked before: asking each second would keep a core busy
        try:
            await self._files.write_config(text)
        except DriverError as error:
            self._rejected = (digest_of(text), str(error))
            raise

    def _reload_allowed(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._reload_due = None
        if now < self._reload_after:
            self._reload_due = self._reload_after
            return False
        return True

    async def _reload(self, digest: str, before: Live, wanted: Wanted) -> Live:
        """Let a new worker take over with what the old one knows of the hosts' health."""
        now = asyncio.get_running_loop().time
        self._reload_after = now() + RELOAD_AGAIN_S
        state = await self._runtime.servers_state()
        same = {
            host
            for host, target in wanted.hosts.items()
            if before.hosts.get(host) == endpoint(target)
        }
        await self._files.write_state(_only(state, same))
        try:
            await self._master.reload()
            live = await self._await_worker(digest)
        except Unreached:
            self._reload_after = now() + TICK_S  # it is starting: its master listens last
            raise
        except DriverError:
            self._meter.reloaded("failed")
            raise
        finally:
            # A later start must not believe what was true now.
            await self._files.write_state()
        self._meter.reloaded("done")
        self._checks.reloaded(now())
        self._reload_after = now() + self._edge.reload_delay_s
        _log.info("haproxy reloaded", old=before.info.pid, new=live.info.pid, hosts=len(live.hosts))
        return live

    async def _await_worker(self, digest: str) -> Live:
        now = asyncio.get_running_loop().time
        deadline, found = now() + RELOAD_TIMEOUT_S, "no answer"
        while now() < deadline:
            try:
                live = await self._live()
                if live.info.digest == digest:
                    return live
                found = f"still the configuration {live.info.digest or 'of someone else'}"
            except DriverError as error:
                found = str(error)
            await asyncio.sleep(RELOAD_POLL_S)
        raise DriverError(
            f"haproxy did not reload within {RELOAD_TIMEOUT_S:g} s: {found}; its own log says why"
        )

    async def _live(self) -> Live:
        info, dump, stat = await self._runtime.whole()
        hosts = {host: view.address for host, view in stat.servers.items()}
        has_map = dump is not None
        return Live(info=info, has_map=has_map, entries=entries_of(dump or ""), hosts=hosts)

    async def _live_or_none(self) -> Live | None:
        try:
            return await self._live()
        except DriverError:
            return None

    async def _settle(self, epoch: Epoch, wanted: Wanted) -> None:
        """All is as wanted: remember what that looks like, and that these routes are followed."""
        info, dump, _ = await self._runtime.whole()
        map_hash = _hash(dump)
        if epoch != self._epoch:
            await self._files.write_epoch(epoch)
        self._epoch, self._reload_due = epoch, None
        self._settled = Settled(pid=info.pid, digest=info.digest, map_hash=map_hash)
        self._domains = len(wanted.domains)
        self._note("")
        self._meter.settled(self._domains, len(wanted.strays), wanted.held.states)

    def _pause_s(self) -> float:
        if self._reload_due is None:
            return TICK_S
        left = self._reload_due - asyncio.get_running_loop().time()
        return min(TICK_S, max(left, RELOAD_POLL_S))

    def _say(self, wanted: Wanted) -> None:
        """Log refusals and strays once per change."""
        if self._wanted is None or self._wanted.said != wanted.said:
            if wanted.refused:
                _log.warning(
                    "routes refused", count=len(wanted.refused), refused=wanted.refused[:10]
                )
            if wanted.strays:
                _log.warning("strays left", count=len(wanted.strays), strays=wanted.strays[:10])
        self._wanted = wanted

    def _note(self, error: str) -> None:
        if error != self._error:
            if error:
                _log.warning("haproxy does not follow", error=error)
            else:
                _log.info("haproxy follows again", was=self._error)
        self._error = error


def _hash(dump: str | None) -> bytes:
    return sha256((dump or "").encode()).digest()


def _only(state: str, hosts: set[HostId]) -> str:
    """A server state with the rows of `hosts`: another address has another health."""
    lines = state.splitlines()
    kept = [
        line
        for line in lines
        if line == "1" or line.startswith("#") or (line.split(" ", 2)[1:2] or [""])[0] in hosts
    ]
    return "\n".join(kept) + "\n"
