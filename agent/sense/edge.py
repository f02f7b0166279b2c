"""HAProxy's view of the hosts, looked at on its own beat: a HAProxy that is slow to answer delays nothing else."""

import asyncio
from collections.abc import Mapping
from typing import Never

from agent.ports import EdgeView, Traffic
from fleet.messages import Check, EdgeReport
from fleet.model import HostId
from runtime.supervise import Watchdog

LOOK_S = 1.0
# Three rounds: beyond that nobody should take the checks for what HAProxy sees now.
STALE_S = 1.5

UNSEEN = EdgeView(checks={}, report=EdgeReport(haproxy_up=False, error="no look at HAProxy yet"))


class EdgeSense:
    """What the last look saw; when it is too old, nothing."""

    def __init__(self, traffic: Traffic, *, every_s: float, watchdog: Watchdog) -> None:
        self._traffic, self._every_s = traffic, every_s
        self._watchdog = watchdog
        self._view, self._at = UNSEEN, float("-inf")

    def checks(self, now: float) -> Mapping[HostId, Check]:
        return self._view.checks if now - self._at <= STALE_S else {}

    def report(self, now: float) -> EdgeReport:
        if now - self._at <= STALE_S or self._view is UNSEEN:
            return self._view.report
        return EdgeReport(
            haproxy_up=False, error=f"HAProxy was last looked at {now - self._at:.1f} s ago"
        )

    async def keep(self) -> Never:
        """Eternal: the looks."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                async with asyncio.timeout(LOOK_S):
                    view = await self._traffic.look()
            except TimeoutError:
                report = EdgeReport(haproxy_up=False, error=f"no answer within {LOOK_S:g} s")
                view = EdgeView(checks={}, report=report)
            self._view, self._at = view, loop.time()
            self._watchdog.finished("edge")
            await asyncio.sleep(max(0.0, started + self._every_s - loop.time()))
