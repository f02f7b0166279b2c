"""The beat: what this host says of itself, on time, every time, from what its senses saw last."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Never

import msgspec

from agent.link import Links
from agent.orders import Follower
from agent.ports import Senses
from failover.doubt import Doubt, step
from failover.policy import Policy
from fleet.messages import CHECKS_MAX, SECONDS_MAX, AgentState, Beat, Check, Load
from fleet.model import NAMED, Epoch, Health, HostId
from metrics.exporter import Exporter
from runtime import log
from runtime.supervise import Watchdog

_log = log.logger("beat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What does not change while the agent lives."""

    host: HostId
    boot_id: str
    kernel: str
    version: str
    metrics_port: int | None = None


class Beats:
    """Sends a beat every `beat_s`, by a schedule that lateness does not shift."""

    def __init__(
        self,
        identity: Identity,
        senses: Senses,
        orders: Follower,
        links: Links,
        *,
        beat_s: float,
        policy: Policy,
        exporter: Exporter,
        watchdog: Watchdog,
    ) -> None:
        self._identity, self._senses = identity, senses
        self._orders, self._links = orders, links
        self._beat_s, self._policy = beat_s, policy
        self._exporter, self._watchdog = exporter, watchdog
        self._doubt = Doubt()
        self._sequence = 0
        self._hurry = asyncio.Event()
        self._last: tuple[float, float] | None = None  # loop time and uptime of the last round
        self._late_s = 0.0

    def hurry(self) -> None:
        """Send a beat now, between two of the schedule."""
        self._hurry.set()

    async def keep(self) -> Never:
        """Eternal: the rounds."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self._round(loop.time(), due)
            if self._hurry.is_set():
                self._hurry.clear()
            if loop.time() >= due:
                missed = (loop.time() - due) // self._beat_s
                due += (missed + 1) * self._beat_s
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._hurry.wait()

    def _round(self, now: float, due: float) -> None:
        uptime_s = self._senses.uptime_s()
        self._late_s = max(0.0, now - due, self._asleep_s(now, uptime_s))
        checks = within_bounds(self._senses.checks(now))
        links = {host: check.health is Health.UP for host, check in checks.items()}
        before, self._doubt = self._doubt, step(self._doubt, links, self._late_s, self._policy, now)
        if before.reason is not self._doubt.reason:
            _log.info("self-doubt", old=before.reason.value, new=self._doubt.reason.value)
        load = self._senses.load(now)
        newest = self._orders.newest
        self._sequence += 1
        self._links.beat(
            Beat(
                host=self._identity.host,
                cluster=self._orders.cluster,
                sequence=self._sequence,
                boot_id=self._identity.boot_id,
                uptime_s=uptime_s,
                kernel=self._identity.kernel,
                version=self._identity.version,
                state=self._senses.state(),
                load=load,
                service=self._senses.service(now),
                package_run=self._senses.package_run(),
                checks=checks,
                doubts_itself=self._doubt.doubts_itself,
                orders=self._orders.epoch,
                newest=newest.epoch if newest else Epoch(),
                commit=newest.commit if newest else "",
                edge=self._senses.edge(now),
                metrics_port=self._identity.metrics_port,
            )
        )
        self._measure(load)
        self._watchdog.finished("beat")

    def _asleep_s(self, now: float, uptime_s: float) -> float:
        """How long the machine, not the loop, stood still since the last round: a suspended VM's clock does too."""
        last, self._last = self._last, (now, uptime_s)
        return 0.0 if last is None else (uptime_s - last[1]) - (now - last[0])

    def unwell(self, now: float) -> str:
        """Why this agent is not well; empty if its last round was on time."""
        if self._last is None:
            return "no beat has been sent yet"
        limit_s = self._beat_s + self._policy.stall_s
        if (age_s := now - self._last[0]) > limit_s:
            return f"the last beat is {age_s:.1f} s old, above {limit_s:g} s"
        if self._late_s > self._policy.stall_s:
            return f"the last beat was {self._late_s:.1f} s late, above {self._policy.stall_s:g} s"
        return ""

    async def last_words(self, within_s: float) -> None:
        """One more beat, and wait until each linked controller has heard it, for `within_s` at most."""
        self._round(now := asyncio.get_running_loop().time(), now)
        if not await self._links.heard(within_s):
            _log.warning("the last beat was not acknowledged by all", within_s=within_s)

    def _measure(self, load: Load) -> None:
        self._exporter.set("relevo_agent_doubts_itself", self._doubt.doubts_itself)
        self._exporter.observe("relevo_agent_beat_delay_seconds", self._late_s)


def within_bounds(checks: Mapping[HostId, Check]) -> dict[HostId, Check]:
    """What of the views a controller takes: it refuses the whole beat for one that is out of bounds."""
    named = sorted(host for host in checks if NAMED.match(host))[:CHECKS_MAX]
    return {host: _aged(checks[host]) for host in named}


def _aged(check: Check) -> Check:
    since_s = min(max(0.0, check.since_s), SECONDS_MAX)
    same = since_s == check.since_s
    return check if same else msgspec.structs.replace(check, since_s=since_s)


def last_state(state: AgentState) -> AgentState:
    """What a stopping agent says: its own restart moves nothing, unless the machine itself is going."""
    return AgentState.LEAVING if state is AgentState.LEAVING else AgentState.RESTARTING
