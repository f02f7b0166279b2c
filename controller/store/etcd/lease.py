"""A lease of etcd, kept alive from here."""

import asyncio
from contextlib import suppress

from controller.store.etcd import rpc_pb2 as rpc
from controller.store.etcd.client import AGAIN_S, Client
from controller.store.etcd.member import KEEP_ALIVE, REVOKE
from controller.store.protocol import TIMEOUT_S, LeaseLost, StoreError


class EtcdLease:
    """Lasts until `deadline`, which every accepted keepalive moves on."""

    def __init__(self, client: Client, id: int, ttl: int, *, asked_at: float) -> None:
        self.id, self.ttl = id, ttl
        self.lost = asyncio.Event()
        self._client = client
        self._deadline = asked_at + ttl
        self._abandoned = asyncio.Event()

    @property
    def deadline(self) -> float:
        """It counts from before a keepalive was sent: etcd's own count began later, and ends later."""
        now = asyncio.get_running_loop().time()
        return min(self._deadline, now) if self.lost.is_set() else self._deadline

    async def keep(self) -> None:
        """Keep it alive until it's revoked, abandoned or lost."""
        now = asyncio.get_running_loop().time
        wait_s = self.ttl / 3
        while not self.lost.is_set() and (left_s := self._deadline - now()) > 0:
            if await self._given_up(min(wait_s, left_s)):
                continue
            sent = now()
            try:
                answer = await self._client.call(
                    KEEP_ALIVE,
                    rpc.LeaseKeepAliveRequest(ID=self.id),
                    timeout=max(min(self.ttl / 3, self._deadline - sent), 0),
                )
            except StoreError:
                wait_s = AGAIN_S
                continue
            if answer.TTL <= 0:  # etcd no longer knows it
                break
            self._deadline, wait_s = sent + self.ttl, self.ttl / 3
        self.lost.set()

    async def _given_up(self, wait_s: float) -> bool:
        """Wait, but no longer than until nobody wants it kept; then wait for its end, a little at a time."""
        if self._abandoned.is_set():
            await asyncio.sleep(min(wait_s, AGAIN_S))
            return True
        try:
            async with asyncio.timeout(wait_s):
                await self._abandoned.wait()
        except TimeoutError:
            return False
        return True

    def abandon(self) -> None:
        """Stop keeping it alive, as when its process dies."""
        self._abandoned.set()

    async def revoke(self) -> None:
        """End it now, and its keys with it. Of an abandoned one: nothing, for its holder is gone."""
        if self._abandoned.is_set():
            return
        self.abandon()
        with suppress(LeaseLost):  # it ended before
            await self._client.call(REVOKE, rpc.LeaseRevokeRequest(ID=self.id), timeout=TIMEOUT_S)
        self.lost.set()
