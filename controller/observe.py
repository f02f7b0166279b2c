"""Tells the other controllers what this one sees, so that a majority can judge (rule R4)."""

import asyncio
from contextlib import suppress
from typing import Never

from controller import settle
from controller.sight import Sight
from controller.store import Ambiguous, Lease, Store, StoreError, Unavailable
from fleet import keys
from fleet.model import ControllerId
from runtime import log

_log = log.logger("observe")
AGAIN_S = 0.1
PUT_S = 1.0  # an election of etcd's; who leads next waits for this word


class Observer:
    """Keeps one leased document; it is written when it changes, and gone when this controller is."""

    def __init__(self, sight: Sight, *, id: ControllerId, lease_ttl_s: int) -> None:
        self._sight, self._key = sight, keys.observer(id)
        self._lease_ttl_s = lease_ttl_s

    async def keep(self, store: Store) -> Never:
        """Eternal: a lease, and the document under it; a new one where it is lost."""
        while True:
            try:
                lease = await store.grant(self._lease_ttl_s)
                try:
                    await self._tell(store, lease)
                finally:
                    with suppress(StoreError):  # it ends by itself
                        await lease.revoke()
            except StoreError as error:
                _log.warning("can't tell the other controllers", error=str(error))
                await asyncio.sleep(AGAIN_S)

    async def _tell(self, store: Store, lease: Lease) -> None:
        told = None
        while not lease.lost.is_set():
            count = self._sight.looked.count
            if (seen := self._sight.observation()) != told:
                try:
                    await store.put(self._key, settle.encode(seen), lease=lease.id, timeout=PUT_S)
                except (Ambiguous, Unavailable) as error:
                    # An election of etcd's, most likely: the lease outlives it, and the word is wanted right after it.
                    _log.warning("can't tell the other controllers yet", error=str(error))
                    await asyncio.sleep(AGAIN_S)
                    continue
                told = seen
            await self._sight.looked.within(count, self._lease_ttl_s)
