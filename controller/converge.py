"""Carry out the zones' intents: send what differs, then ask every authoritative server until it answers so.

Level-triggered: a zone is worked on when its intent or what is armed changes, and looked at again now and then.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from controller.events import Events
from controller.mirror import Mirror
from controller.nameservers import NameServers, ZoneReport
from controller.ports import Work
from fleet import keys
from fleet.model import Domain, Epoch, Hold, Why, Zone, ZoneIntent, ZoneName
from runtime import log
from runtime.clock import wall

_log = log.logger("dns")
HUMAN = frozenset({"move", "bring-home"})  # why a site is where it is, by a person's order
LOOK_AGAIN_S = 300.0  # for a hand that changed a record meanwhile
RETRY_S = (
    0.5,
    1.0,
    2.0,
    5.0,
    15.0,
)  # after an error: soon at first, a server that is down is not hammered
VERIFY_S = (0.1, 0.1, 0.2, 0.2, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(slots=True)
class _Zone:
    """What is known of one zone's convergence."""

    revision: int = 0
    idle: bool = False
    names: Mapping[Domain, object] = field(default_factory=dict)
    sent_at: float | None = None
    done_at: float | None = None
    servers: dict[str, float] = field(default_factory=dict)
    report: ZoneReport | None = None
    error: Why | None = None
    waiting: dict[str, str] = field(default_factory=dict)


class Converger:
    """Every declared zone on its way to its intent. Only names of armed sites are written (rule R10)."""

    def __init__(
        self, mirror: Mirror, events: Events, name_servers: Callable[[str], NameServers]
    ) -> None:
        self._mirror, self._events, self._make = mirror, events, name_servers
        self._servers: NameServers | None = None
        self._zones: dict[ZoneName, _Zone] = {}

    def work(self, zone: str) -> Work | None:
        state = self._zones.get(ZoneName(zone))
        if state is None or (state.revision == 0 and not state.idle):
            return None
        return Work(
            revision=state.revision,
            idle=state.idle,
            sent_at=state.sent_at,
            servers=dict(state.servers),
            done_at=state.done_at,
        )

    def error(self, zone: ZoneName) -> Why | None:
        """What keeps a zone from converging, if a server said so."""
        return state.error if (state := self._zones.get(zone)) else None

    def converged(self) -> dict[str, bool]:
        """Of each zone that was worked on: whether every server was last seen to answer as intended."""
        return {
            zone: state.idle or (state.done_at is not None and state.error is None)
            for zone, state in self._zones.items()
            if zone in self._mirror.fleet.zones
        }

    def removed(self, zone: ZoneName) -> frozenset[Domain]:
        """Names told to be removed that the primary no longer has: the intent need not say so any more."""
        state = self._zones.get(zone)
        return frozenset(state.report.removed) if state and state.report else frozenset()

    def holds(self) -> dict[str, Hold]:
        """Names that wait for a human, and zones whose servers refuse, by hold id."""
        found = {}
        for zone, state in self._zones.items():
            if state.error is not None:
                id = f"dns-{zone}"
                found[id] = Hold(id=id, kind="dns", subject=zone, why=state.error, since=wall())
            for name, why in state.report.holds if state.report else ():
                id = f"dns-{name}"
                found[id] = Hold(id=id, kind="dns", subject=name, why=why, since=wall())
        return found

    async def run(self) -> None:
        """Eternal, while this controller leads: one task for each declared zone."""
        tasks: dict[ZoneName, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                seen = self._mirror.changed.count
                for zone in self._mirror.fleet.zones:
                    if self._mirror.id.cluster and (zone not in tasks or tasks[zone].done()):
                        tasks[zone] = group.create_task(self._keep(zone), name=f"dns {zone}")
                for gone in tasks.keys() - self._mirror.fleet.zones.keys():
                    tasks.pop(gone).cancel()
                    self._zones.pop(gone, None)
                await self._mirror.changed.after(seen)

    def _armed(self, zone: ZoneName) -> ZoneIntent:
        """The part of a zone's intent that people have armed."""
        mirror = self._mirror
        intent = mirror.dns.get(zone, ZoneIntent())
        names = {name: records for name, records in intent.names.items() if self._may_write(name)}
        removed = intent.removed if mirror.switches.all.value == "arm" else ()
        return msgspec.structs.replace(intent, names=names, removed=removed)

    def _may_write(self, name: Domain) -> bool:
        mirror = self._mirror
        site = mirror.site_of.get(name)
        place = mirror.places.get(site) if site is not None else None
        if site is None or place is None or place.host not in mirror.fleet.hosts:
            return False
        if place.why.code in HUMAN:
            return True  # a person moved it: that is meant for its visitors too, armed or not
        location = mirror.fleet.hosts[place.host].location
        return mirror.switches.armed(site, place.host, location)

    async def _keep(self, name: ZoneName) -> None:
        """One zone, for ever: converge, verify, wait for a change."""
        state = self._zones.setdefault(name, _Zone())
        failures = 0
        while (zone := self._mirror.fleet.zones.get(name)) is not None:
            seen = self._mirror.changed.count
            revision, intent = self._mirror.revision_of(keys.dns(name)), self._armed(name)
            if not revision or not (intent.names or intent.removed):
                state.revision, state.idle = revision, True
                state.sent_at = state.done_at = None
                await self._mirror.changed.after(seen)
                continue
            state.idle = False
            if await self._once(state, zone, intent, revision):
                failures = 0
                await self._until_changed(name, state, intent, LOOK_AGAIN_S)
            else:
                delay_s = RETRY_S[min(failures, len(RETRY_S) - 1)]
                failures += 1
                await self._until_changed(name, state, intent, delay_s)

    async def _until_changed(
        self, name: ZoneName, state: _Zone, intent: ZoneIntent, timeout_s: float
    ) -> None:
        """Wait until this zone's intent is another one, or `timeout_s`."""
        now = asyncio.get_running_loop().time
        end = now() + timeout_s
        while now() < end:
            seen = self._mirror.changed.count
            if self._outdated(name, state.revision, intent):
                return
            await self._mirror.changed.within(seen, end - now())

    def _outdated(self, name: ZoneName, revision: int, intent: ZoneIntent) -> bool:
        return self._mirror.revision_of(keys.dns(name)) != revision or self._armed(name) != intent

    async def _once(self, state: _Zone, zone: Zone, intent: ZoneIntent, revision: int) -> bool:
        """Send and verify one intent. False: try again soon."""
        if self._servers is None:
            self._servers = self._make(self._mirror.id.cluster)
        if revision != state.revision:
            state.revision, state.sent_at, state.done_at = revision, None, None
            state.servers.clear()
        epoch = Epoch(self._mirror.id.generation, revision)
        report = await self._servers.converge(zone, intent, epoch)
        self._note(state, zone, report)
        if report.error is not None:
            return False
        state.sent_at = state.sent_at or wall()
        held = {name for name, _ in report.holds}
        names = [name for name in intent.names if name not in held]
        return await self._verify(state, zone, intent, names)

    def _note(self, state: _Zone, zone: Zone, report: ZoneReport) -> None:
        if report.error != state.error:
            _log.info("zone", zone=zone.name, error=report.error.code if report.error else None)
        if report.sent:
            self._events.publish("dns", zone=zone.name, sent=len(report.sent))
        state.report = report
        if report.error is not None:
            state.error = report.error

    async def _verify(
        self, state: _Zone, zone: Zone, intent: ZoneIntent, names: list[Domain]
    ) -> bool:
        """Ask every server until all answer as intended. False: the intent changed, or patience ended."""
        assert self._servers is not None
        for delay_s in VERIFY_S:
            views = await self._servers.verify(zone, intent, names)
            for server, view in views.items():
                if view.converged:
                    state.servers.setdefault(server, wall())
                else:
                    state.servers.pop(server, None)
            if all(view.converged for view in views.values()):
                state.done_at, state.error = state.done_at or wall(), None
                return True
            if self._outdated(zone.name, state.revision, intent):
                return False
            await asyncio.sleep(delay_s)
        slow = sorted(server for server, view in views.items() if not view.converged)
        state.error = Why("dns-not-converged", {"zone": zone.name, "servers": ", ".join(slow)})
        return False
