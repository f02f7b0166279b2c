"""Probes of other hosts: each is asked twice a second whether its service answers."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Never

import aiohttp

from fleet.messages import Check, Target
from fleet.model import Health, HostId
from runtime.ask import ask, url_of

PROBE_S = 0.5
TIMEOUT_S = 0.5
FAILURES = 3
SUCCESSES = 2
AT_ONCE = 32
# A round of unanswered probes then takes a second at most; a host needs a few neighbours, not all.
MOST = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Streak:
    """What a row of probes says of one host; `row` counts the outcomes alike, `passed` tells which."""

    target: Target
    health: Health = Health.UNKNOWN
    since: float = 0.0
    passed: bool = False
    row: int = 0
    error: str = ""


def step(streak: Streak, error: str, now: float) -> Streak:
    """Judge one probe at `now`: three failures in a row are DOWN, two successes are UP."""
    passed = not error
    row = streak.row + 1 if passed is streak.passed else 1
    health = streak.health
    if passed and row >= SUCCESSES:
        health = Health.UP
    elif not passed and row >= FAILURES:
        health = Health.DOWN
    return Streak(
        target=streak.target,
        health=health,
        since=streak.since if health is streak.health else now,
        passed=passed,
        row=row,
        error=error,
    )


def view(streak: Streak, now: float) -> Check:
    return Check(
        health=streak.health, since_s=max(0.0, now - streak.since), detail=streak.error[:200]
    )


class Probes:
    """Probes what it was told to follow."""

    def __init__(self, session: aiohttp.ClientSession, *, most: int = MOST) -> None:
        self._session, self._most = session, most
        self._streaks: dict[HostId, Streak] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    def follow(self, probes: Mapping[HostId, Target]) -> tuple[str, ...]:
        """Probe these hosts from now on; a host whose target is the same keeps its streak. Gives what is too much."""
        chosen = sorted(probes)[: self._most]
        now = asyncio.get_running_loop().time()
        self._streaks = {
            host: old
            if (old := self._streaks.get(host)) and old.target == probes[host]
            else Streak(target=probes[host], since=now)
            for host in chosen
        }
        return tuple(
            f"{host}: not probed, {self._most} are" for host in sorted(probes)[self._most :][:20]
        )

    def checks(self, now: float) -> dict[HostId, Check]:
        return {host: view(streak, now) for host, streak in self._streaks.items()}

    async def keep(self) -> Never:
        """Eternal: the rounds of probes."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            async with asyncio.TaskGroup() as group:
                for host, streak in self._streaks.items():
                    group.create_task(self._probe(host, streak.target))
            await asyncio.sleep(max(0.0, started + PROBE_S - loop.time()))

    async def _probe(self, host: HostId, target: Target) -> None:
        async with self._slots:
            error = await ask(self._session, url_of(target), TIMEOUT_S)
        streak = self._streaks.get(host)
        if streak is not None and streak.target == target:  # else the orders changed meanwhile
            self._streaks[host] = step(streak, error, asyncio.get_running_loop().time())
