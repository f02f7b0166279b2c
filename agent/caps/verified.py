"""What each slice was seen to hold: which are to be applied, what is drift, what falls short and was refused."""

import asyncio
from collections.abc import Collection, Mapping

import msgspec

from agent.caps.aims import Aim
from agent.caps.kernel import unlike
from agent.ports import DriverError
from fleet.caps import Limits
from fleet.model import Why
from metrics.exporter import Exporter
from runtime import log

ERROR_MAX = 200  # characters of an error that are told: it travels for each site

_log = log.logger("caps")


class Verified:
    """By slice. `drift`: how often somebody else had changed one; `failed`: what was refused, "": the look itself.

    `differs` is as `reckon.differing` gives it.
    """

    def __init__(self, exporter: Exporter) -> None:
        self.drift = 0
        self.failed: dict[str, str] = {}
        self._exporter = exporter
        self._good: dict[str, Aim] = {}
        self._short: dict[str, tuple[Why, ...]] = {}

    @property
    def in_steps(self) -> bool:
        """Whether one has not reached what it should hold."""
        return any(self._short.values())

    def holds(self, name: str, aim: Aim) -> bool:
        """Whether it was seen to hold that, in all that is ours of it."""
        good = self._good.get(name)
        if good is None or good.fields != aim.fields:
            return False
        return unlike(good.limits, aim.limits).isdisjoint(aim.fields)

    def reach_others(self) -> None:
        """Slices that are closed are so to others than before: verified no more."""
        for name in [name for name, aim in self._good.items() if aim.closes]:
            del self._good[name]

    def forget_others(self, slices: Collection[str]) -> None:
        """What was known of slices that are not ours any more."""
        ours = {*slices, ""}
        for known in (self._good, self._short, self.failed):
            for name in known.keys() - ours:
                del known[name]

    def fail(self, what: str, error: DriverError) -> None:
        """Logged on the edge, counted always."""
        self._exporter.count("relevo_caps_failures_total")
        if self.failed.get(what) != (text := str(error)):
            _log.error("caps are not as they should be", what=what or "all", error=text)
        self.failed[what] = text

    def fail_all(self, failed: Mapping[str, DriverError]) -> None:
        for name, error in failed.items():
            self.fail(name, error)

    def applied(self, name: str, short: tuple[Why, ...]) -> None:
        """`short`: what the driver could not make true, or not yet."""
        self._short[name] = short
        if self.failed.pop(name, None):
            _log.info("a slice holds again what it should", slice=name)

    async def wrong(
        self,
        aims: Mapping[str, Aim],
        held: Mapping[str, Limits],
        differs: Mapping[str, frozenset[str]],
    ) -> Mapping[str, Aim]:
        """What to apply; a change that nobody ordered is drift."""
        for name, fields in differs.items():
            if self.holds(name, aims[name]):
                self.drift += 1
                self._exporter.count("relevo_caps_drift_total")
                _log.warning(
                    "somebody else changed what a slice holds: repaired",
                    slice=name,
                    fields=sorted(fields),
                    found={each: getattr(held[name], each) for each in sorted(fields)},
                )
                await asyncio.sleep(0)  # it may be all of them, and a beat may be due
        return {
            name: aim for name, aim in aims.items() if name in differs or not self.holds(name, aim)
        }

    async def verify(
        self,
        aims: Mapping[str, Aim],
        held: Collection[str],
        differs: Mapping[str, frozenset[str]],
    ) -> None:
        """What is there must hold what was asked for; what is not there was told to its driver, and waits."""
        fresh = []
        for name, aim in aims.items():
            if name in self.failed:
                self._good.pop(name, None)
            elif name not in differs:
                if name in held and not self.holds(name, aim):
                    fresh.append(name)
                self._good[name] = aim
                self._short.pop(name, None)
            else:
                self._good.pop(name, None)
                steps = self._short.get(name, ())
                self._short[name] = steps or (
                    Why("cap-not-held", {"caps": ", ".join(sorted(differs[name]))}),
                )
        for name in fresh:
            limits = msgspec.to_builtins(aims[name].limits)
            _log.info("a slice holds what it should", slice=name, limits=limits)
            await asyncio.sleep(0)  # at the start it is all of them, and a beat may be due

    def short(
        self, slices: Collection[str], stops: Mapping[str, str]
    ) -> dict[str, tuple[Why, ...]]:
        """What of `slices` is not reached, or was refused lately; of others nothing. `stops`: could not be stopped."""
        suspect = (self._short.keys() | self.failed.keys() | stops.keys()) & set(slices)
        return {name: whys for name in suspect if (whys := self._falls_short(name, stops))}

    def _falls_short(self, name: str, stops: Mapping[str, str]) -> tuple[Why, ...]:
        told = [known[name] for known in (self.failed, stops) if name in known]
        refused = (Why("cap-refused", {"error": text[:ERROR_MAX]}) for text in told)
        return (*self._short.get(name, ()), *refused)
