"""Keeps the firewall as it should be, beside the slices: a host in trouble may make it wait for seconds.

Whom it is closed to is on disk too, once it is so: what a restart finds unspoken of stays closed (rule R7).
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Never

from agent.caps.egress import Firewall, Rules
from agent.caps.outward import Closing
from agent.caps.shut import Shut, read, write
from agent.lane import Lane
from agent.ports import DriverError
from fleet.model import SiteId
from metrics.exporter import Exporter
from runtime import log
from runtime.pulse import Pulse

LOOK_S = 5.0  # asking costs a process of some 10 ms
WRITE_S = 2.0

_log = log.logger("caps")


class Guard:
    """`failed`: why what leaves the host is not held; "": it is. `drift`: how often somebody else changed it.

    `shut`: whom it is closed to for each site.
    """

    def __init__(
        self, firewall: Firewall, exporter: Exporter, *, state: Path, verify_s: float
    ) -> None:
        self.failed, self.drift = "", 0
        self._state, self._disk, self._unkept = state, Lane(), ""
        self.shut: Mapping[SiteId, Shut] = read(state)
        self._written: Mapping[SiteId, Shut] = self.shut
        self._firewall, self._exporter = firewall, exporter
        self._often_s = min(verify_s, LOOK_S)
        self._rules: Rules | None = None
        self._changed = Pulse()

    def follow(self, closing: Closing) -> None:
        """Soon; `shut` is replaced as a whole, so that the next closing may be worked out from it in a thread."""
        self.shut = closing.shut
        if closing.rules != self._rules:
            self._rules = closing.rules
            self._changed.beat()

    async def keep(self) -> Never:
        """Eternal: at once when the rules change, and again and again, for others may change them."""
        while True:
            count = self._changed.count
            if self._rules is not None:
                await self._hold(self._rules)
                await self._save()
            await self._changed.within(count, self._often_s)

    async def _hold(self, rules: Rules) -> None:
        try:
            changed = await self._firewall.hold(rules)
        except DriverError as error:
            self._exporter.count("relevo_caps_failures_total")
            if self.failed != (text := str(error)):
                _log.error("what sites send out is not held", error=text)
            self.failed = text
            return
        self.failed = ""
        if changed:
            self._exporter.count("relevo_caps_drift_total")
            self.drift += 1
            _log.warning("somebody else changed our firewall rules: repaired")

    async def _save(self) -> None:
        if (new := self.shut) == self._written:
            return
        try:
            await self._disk.run(WRITE_S, partial(write, self._state, new))
        except DriverError as error:
            self._exporter.count("relevo_caps_failures_total")
            if self._unkept != (text := str(error)):
                _log.error("a restart would forget whom egress is closed to", error=text)
            self._unkept = text
            return
        self._written, self._unkept = new, ""
