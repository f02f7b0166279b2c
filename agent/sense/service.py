"""The web service of this host: is it well, and the one restart that an outage gets.

| restart     | when                                                          | becomes     | why |
|-------------|---------------------------------------------------------------|-------------|-----|
| NONE        | DOWN for restart_after_s, no package run, a command is given  | RUNNING     | most outages end so |
| NONE        | DOWN for restart_after_s, no package run, no command is given | UNAVAILABLE | nothing to try |
| RUNNING     | the command has ended and a check passes                      | DONE        | proven by effect |
| RUNNING     | the command ended PROVE_S ago, no check passed                | FAILED      | its sites may move |
| not RUNNING | UP for HEALED_S                                               | NONE        | the outage is over |
"""

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import Never

import aiohttp

from agent import config
from agent.sense.packages import PackageSense
from fleet.messages import Check, RestartState, Service
from fleet.model import Health
from metrics.exporter import Exporter
from runtime import log
from runtime.ask import ask

CHECK_S = 1.0
FAILURES = 2
PROVE_S = 5.0
HEALED_S = 60.0

_log = log.logger("service")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One check's outcome and what bears on it. `error` is empty for a check that passed."""

    error: str
    package_run: bool = False
    can_restart: bool = True
    restart_after_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """`since`: when `health` took its value. `ended_at`: when the restart's command ended."""

    health: Health = Health.UNKNOWN
    since: float = 0.0
    failures: int = 0
    error: str = ""
    restart: RestartState = RestartState.NONE
    ended_at: float | None = None


class Action(Enum):
    NOTHING = "nothing"
    RESTART = "restart"


def step(state: State, seen: Seen, now: float) -> tuple[State, Action]:
    """Judge one check at `now` (monotonic s)."""
    state = judge(state, seen.error, now)
    match state.restart:
        case RestartState.NONE:
            if (
                state.health is not Health.DOWN
                or now - state.since < seen.restart_after_s
                or seen.package_run
            ):
                return state, Action.NOTHING
            if not seen.can_restart:
                return replace(state, restart=RestartState.UNAVAILABLE), Action.NOTHING
            return replace(state, restart=RestartState.RUNNING, ended_at=None), Action.RESTART
        case RestartState.RUNNING:
            if state.ended_at is None:
                return state, Action.NOTHING
            if not seen.error:
                return replace(state, restart=RestartState.DONE), Action.NOTHING
            if now - state.ended_at >= PROVE_S:
                return replace(state, restart=RestartState.FAILED), Action.NOTHING
        case RestartState.DONE | RestartState.FAILED | RestartState.UNAVAILABLE:
            if state.health is Health.UP and now - state.since >= HEALED_S:
                return replace(state, restart=RestartState.NONE, ended_at=None), Action.NOTHING
    return state, Action.NOTHING


def judge(state: State, error: str, now: float) -> State:
    """Health after a check: two failures in a row are DOWN, one success is UP."""
    failures = state.failures + 1 if error else 0
    health = state.health
    if not error:
        health = Health.UP
    elif failures >= FAILURES:
        health = Health.DOWN
    since = state.since if health is state.health else now
    return replace(state, health=health, since=since, failures=failures, error=error)


def ended(state: State, now: float) -> State:
    """The restart's command has ended, well or not: the next checks tell."""
    return replace(state, ended_at=now)


class ServiceSense:
    """Checks the service each second, and restarts it once per outage."""

    def __init__(
        self,
        config: config.Service,
        session: aiohttp.ClientSession,
        packages: PackageSense,
        exporter: Exporter,
    ) -> None:
        self._config, self._session, self._packages = config, session, packages
        self._exporter = exporter
        self._state = State()

    def service(self, now: float) -> Service:
        state = self._state
        since_s = max(0.0, now - state.since) if state.health is not Health.UNKNOWN else 0.0
        return Service(
            check=Check(health=state.health, since_s=since_s, detail=state.error[:200]),
            restart=state.restart,
        )

    async def keep(self) -> Never:
        """Eternal: check, judge, perhaps restart, each second."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                started = loop.time()
                error = await ask(self._session, self._config.check, self._config.timeout_s)
                if self._judge(error, loop.time()) is Action.RESTART:
                    group.create_task(self._restart())
                await asyncio.sleep(max(0.0, started + CHECK_S - loop.time()))

    def _judge(self, error: str, now: float) -> Action:
        before = self._state
        seen = Seen(
            error=error,
            package_run=before.health is Health.DOWN and self._packages.running(),
            can_restart=bool(self._config.restart),
            restart_after_s=self._config.restart_after_s,
        )
        self._state, action = step(before, seen, now)
        after = self._state
        if after.health is not before.health:
            self._exporter.set("relevo_service_up", after.health is Health.UP)
            _log.info(
                "service", old=before.health.value, new=after.health.value, why=error or "answers"
            )
        if after.restart is not before.restart:
            if before.restart is RestartState.RUNNING:
                outcome = after.restart.value
                self._exporter.count("relevo_service_restarts_total", outcome=outcome)
            _log.info("service restart", old=before.restart.value, new=after.restart.value)
        return action

    async def _restart(self) -> None:
        outcome = await run(self._config.restart, self._config.restart_timeout_s)
        _log.info("restart command ended", command=self._config.restart, outcome=outcome)
        self._state = ended(self._state, asyncio.get_running_loop().time())


async def run(command: tuple[str, ...], timeout_s: float) -> str:
    """Run `command` in a process group of its own, killed whole if it takes too long. How it ended, for people."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        return f"can't be started: {error}"
    try:
        async with asyncio.timeout(timeout_s):
            return f"exit {await process.wait()}"
    except TimeoutError:
        return f"killed after {timeout_s:g} s"
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
