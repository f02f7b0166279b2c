"""Orders: which to follow (rules R2, R7), their cache on disk, and following the newest of them.

Intent first: accepted orders are written to disk, then applied, then acknowledged. A crash after the writing
applies them again at the next start, which is idempotent. The other way round a crash between applying and writing
would bring older orders back into force at the next start: traffic would return to a host that was left.
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Never, Protocol

import msgspec

from agent.ports import DriverError
from fleet.messages import LINE_MAX, Applied, Orders, Recall, Recalled
from fleet.model import Domain, Epoch, HostId
from metrics.exporter import Exporter
from runtime import durable, log

RETRY_S = 1.0
WRITE_S = 2.0

_log = log.logger("orders")


class Answer(Enum):
    """What becomes of orders that arrive. Values are the reasons that metrics count."""

    FOLLOW = "follow"
    SAME = "same"  # the newest already: acknowledged again if they are in force
    OLDER = "older"  # rule R2
    CLUSTER = "cluster"  # another store's, or a wrong address
    HOST = "host"


def judge(orders: Orders, *, host: HostId, newest: Orders | None) -> Answer:
    """What to do with `orders` when `newest` are the newest ones accepted so far."""
    if orders.host != host:
        return Answer.HOST
    if newest is None:
        return Answer.FOLLOW
    if orders.cluster != newest.cluster:
        return Answer.CLUSTER
    if orders.epoch == newest.epoch:
        return Answer.SAME
    return Answer.FOLLOW if orders.epoch > newest.epoch else Answer.OLDER


class Cache(Protocol):
    """Where the newest orders survive a restart."""

    def read(self) -> Orders | None: ...

    async def write(self, orders: Orders) -> None:
        """Raises DriverError."""
        ...


class FileCache:
    """orders.json in the agent's state directory, replaced atomically, readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = threading.Event()

    def read(self) -> Orders | None:
        """The orders of last time; None if there are none, or none that can be read (rule R7: nothing is removed)."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Orders)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            aside = self._path.with_name(f"{self._path.name}.unreadable")
            with suppress(OSError):
                self._path.replace(aside)
            _log.error(
                "the cached orders can't be read: starting without, nothing is removed",
                path=str(self._path),
                set_aside=str(aside),
                error=str(error),
            )
            return None

    async def write(self, orders: Orders) -> None:
        """In a thread, bounded: a disk that is slow to sync must delay neither beats nor a failover."""
        if self._writing.is_set():
            raise DriverError(f"the disk under {self._path} is still busy with older orders")
        self._writing.set()
        try:
            async with asyncio.timeout(WRITE_S):
                await asyncio.to_thread(self._replace, msgspec.json.encode(orders))
        except OSError as error:  # includes TimeoutError
            raise DriverError(f"can't keep the orders at {self._path}: {error!r}") from error

    def _replace(self, content: bytes) -> None:
        try:
            durable.replace(self._path, content)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        finally:
            self._writing.clear()


Apply = Callable[[Orders], Awaitable[tuple[str, ...]]]
"""Makes orders true: idempotent; gives what was refused, for people. Raises DriverError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    orders: Orders
    applied: Applied


class Follower:
    """Follows the newest orders. Those that arrive while others are applied wait in one slot: the newest wins."""

    def __init__(
        self,
        host: HostId,
        cache: Cache,
        apply: Apply,
        *,
        acknowledge: Callable[[Applied], None],
        exporter: Exporter,
    ) -> None:
        self._host, self._cache, self._apply = host, cache, apply
        self._acknowledge, self._exporter = acknowledge, exporter
        self.newest = cache.read()
        self.in_force: InForce | None = None
        self._cached = self.newest
        self._arrived = asyncio.Event()
        if self.newest:
            _log.info("orders of last time", epoch=str(self.newest.epoch))
            self._arrived.set()

    @property
    def cluster(self) -> str:
        return self.newest.cluster if self.newest else ""

    @property
    def epoch(self) -> Epoch:
        """Of the orders in force."""
        return self.in_force.orders.epoch if self.in_force else Epoch()

    def offer(self, message: Orders | Recall) -> Applied | Recalled | None:
        """Take what came on a link; the answer, if there is one already, goes back on it."""
        return self._take(message) if isinstance(message, Orders) else self._recalled()

    def _recalled(self) -> Recalled | None:
        """The newest orders, for a store that has forgotten them."""
        if (newest := self.newest) is None:
            return None
        domains: dict[HostId, list[Domain]] = {}
        for domain, host in newest.routes.domains.items() if newest.routes else ():
            domains.setdefault(host, []).append(domain)
        return Recalled(
            cluster=newest.cluster,
            epoch=newest.epoch,
            sites=newest.sites,
            domains={host: tuple(found) for host, found in domains.items()}
            if newest.routes
            else None,
        )

    def _take(self, orders: Orders) -> Applied | None:
        answer = judge(orders, host=self._host, newest=self.newest)
        if answer is Answer.SAME:
            same = self.in_force and self.in_force.orders.epoch == orders.epoch
            return self.in_force.applied if self.in_force and same else None
        if answer is not Answer.FOLLOW:
            self._exporter.count("relevo_agent_orders_refused_total", reason=answer.value)
            _log.warning(
                "orders not followed",
                why=answer.value,
                epoch=str(orders.epoch),
                newest=str(self.newest.epoch if self.newest else Epoch()),
                cluster=orders.cluster,
                host=orders.host,
            )
            return None
        self.newest = orders
        self._arrived.set()
        return None

    async def keep(self) -> Never:
        """Eternal: keep, apply and acknowledge the newest orders; what fails is tried each second."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            assert self.newest is not None
            try:
                await self._follow(self.newest)
            except DriverError as error:
                self._exporter.count("relevo_agent_orders_refused_total", reason="failed")
                _log.error(
                    "orders not in force yet", epoch=str(self.newest.epoch), error=str(error)
                )
                with suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S):
                        await self._arrived.wait()
                self._arrived.set()

    async def _follow(self, orders: Orders) -> None:
        uncached = await self._keep_on_disk(orders)
        refused = tuple(said[:LINE_MAX] for said in ((await self._apply(orders))[:99] + uncached))
        applied = Applied(epoch=orders.epoch, refused=refused)
        self.in_force = InForce(orders=orders, applied=applied)
        self._exporter.set("relevo_agent_orders_epoch", orders.epoch.revision)
        _log.info("orders in force", epoch=str(orders.epoch), refused=refused)
        self._acknowledge(applied)

    async def _keep_on_disk(self, orders: Orders) -> tuple[str, ...]:
        """A full disk must not stop a failover: orders that can't be kept are followed, and that is said."""
        if orders is self._cached:
            return ()
        try:
            await self._cache.write(orders)
        except DriverError as error:
            _log.error("orders are followed but would not survive a restart", error=str(error))
            return (str(error),)
        self._cached = orders
        return ()
