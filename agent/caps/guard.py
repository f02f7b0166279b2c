"""Keeps the firewall as it should be, beside the slices: a host in trouble may make it wait for seconds."""

from typing import Never

from agent.caps.egress import Firewall, Rules
from agent.ports import DriverError
from metrics.exporter import Exporter
from runtime import log
from runtime.pulse import Pulse

LOOK_S = 5.0  # asking costs a process of some 10 ms

_log = log.logger("caps")


class Guard:
    """`failed`: why what leaves the host is not held; "": it is. `drift`: how often somebody else changed it."""

    def __init__(self, firewall: Firewall, exporter: Exporter, *, verify_s: float) -> None:
        self.failed, self.drift = "", 0
        self._firewall, self._exporter = firewall, exporter
        self._often_s = min(verify_s, LOOK_S)
        self._rules: Rules | None = None
        self._changed = Pulse()

    def follow(self, rules: Rules) -> None:
        if rules != self._rules:
            self._rules = rules
            self._changed.beat()

    async def keep(self) -> Never:
        """Eternal: at once when the rules change, and again and again, for others may change them."""
        while True:
            count = self._changed.count
            if self._rules is not None:
                await self._hold(self._rules)
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
