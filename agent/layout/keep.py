"""Keeps what is known of how each site is attached current: read again when orders change, and each minute."""

import asyncio
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Never

from agent.layout.adopt import Adopted
from agent.layout.attach import attach
from agent.layout.attached import Attached
from agent.layout.running import CGROUPS, Reader
from fleet.caps import Tenant
from fleet.model import SiteId
from runtime import log
from runtime.pulse import Pulse

EVERY_S = 60.0
LOOK_S = 30.0  # a disk that hangs must not stop the keeping; the next turn looks again

_log = log.logger("layout")


class Layout:
    """How the sites of this host are attached. `changed` beats when something of it did."""

    def __init__(self, root: str = "/", cgroups: str | None = None) -> None:
        self._reader = Reader(root)
        self._cgroups = Path(cgroups or f"{root.rstrip('/')}{CGROUPS}")
        self._tenants: Mapping[SiteId, Tenant] = {}
        self._adopted: Mapping[SiteId, Adopted] = {}
        self._asked = Pulse()
        self._looking = threading.Lock()  # one thread at most waits for a disk
        self.attached: Mapping[SiteId, Attached] = {}
        self.changed = Pulse()

    def follow(self, tenants: Mapping[SiteId, Tenant]) -> None:
        """Look for these sites from now on, soon."""
        if tenants != self._tenants:
            self._tenants = dict(tenants)
            self._asked.beat()

    def adopt(self, adopted: Mapping[SiteId, Adopted]) -> None:
        """The workers of these are held where they were not born, from now on."""
        self._adopted = adopted
        self._asked.beat()

    async def keep(self) -> Never:
        """Eternal: look, tell what changed, wait for new orders or a minute."""
        asked = 0
        while True:
            asked = self._asked.count
            try:
                async with asyncio.timeout(LOOK_S):
                    found = await asyncio.to_thread(self.look, self._tenants)
            except TimeoutError:
                _log.warning("the host's configuration takes too long to read", after_s=LOOK_S)
            else:
                self._tell(found)
            await self._asked.within(asked, EVERY_S)

    def look(self, tenants: Mapping[SiteId, Tenant]) -> dict[SiteId, Attached]:
        """How `tenants` are attached now; reads files, for a thread."""
        if not tenants:
            return {}
        if not self._looking.acquire(blocking=False):
            raise TimeoutError
        try:
            return attach(tenants, self._reader.look(), self._cgroups, self._adopted)
        finally:
            self._looking.release()

    def _tell(self, found: Mapping[SiteId, Attached]) -> None:
        if found == self.attached:
            return
        if not self.attached:
            counts = Counter(one.attachment.value for one in found.values())
            _log.info("sites are attached", **counts)
        else:
            self._log_changes(found)
        self.attached = found
        self.changed.beat()

    def _log_changes(self, found: Mapping[SiteId, Attached]) -> None:
        """Not each reason: where a cron job runs changes from minute to minute."""
        for site in found.keys() | self.attached.keys():
            old, new = _how(self.attached.get(site)), _how(found.get(site))
            if old != new:
                why = found[site].why if site in found else None
                _log.info("a site's attachment changed", site=site, old=old, new=new, why=why)


def _how(one: Attached | None) -> str | None:
    return f"{one.attachment.value} {one.slice or ''}".strip() if one else None
