"""What each host's agent said last, as metrics of the controller: hosts behind NAT are seen too.

The names differ from those of the agent's own metrics, so that no sum counts a host twice; the age stands beside them.
"""

import asyncio
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fleet.messages import Beat, Load
from fleet.model import Health, Host
from metrics.catalogue import REPORTED

if TYPE_CHECKING:
    from controller.parts import Controller

# A version is a label's value, and the only one that an agent chooses (rule R15).
VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}([a-z+.-][a-z0-9.+-]{0,20})?")


def report(controller: "Controller") -> None:
    """Write the last words of every declared host anew; hosts that were never heard have none.

    What goes into labels needs no quoting: ids are names, and a version is looked at.
    """
    hosts, heard = controller.mirror.fleet.hosts, controller.link.heard
    now = asyncio.get_running_loop().time()
    found: dict[str, dict[tuple[str, ...], float]] = {metric.name: {} for metric in REPORTED}
    for id, host in hosts.items():
        found["relevo_host_info"][id, host.location, _roles(host)] = 1
        if (last := heard.get(id)) is None:
            continue
        found["relevo_reported_beat_age_seconds"][id,] = max(0.0, now - last.at)
        found["relevo_reported_agent_info"][id, _version(last.beat)] = 1
        for name, value in _values(last.beat):
            found[name][id,] = value
        if (word := controller.uses.hosts.get(id)) is not None:
            found["relevo_reported_usage_age_seconds"][id,] = max(0.0, now - word.at)
            found["relevo_reported_caps_unable"][id,] = not word.driver
            found["relevo_reported_caps_drift"][id,] = word.drift
            found["relevo_reported_help"][id,] = len(word.help)
    for name, values in found.items():
        controller.exporter.replace(name, values)


def _version(beat: Beat) -> str:
    return beat.version if VERSION.fullmatch(beat.version) else "unreadable"


def _roles(host: Host) -> str:
    return ",".join(role.value for role in host.roles)


def _values(beat: Beat) -> Iterator[tuple[str, float]]:
    yield "relevo_reported_uptime_seconds", beat.uptime_s
    yield "relevo_reported_doubts_itself", beat.doubts_itself
    yield "relevo_reported_package_run", beat.package_run
    yield from _load(beat.load)
    if beat.service is not None and beat.service.check.health is not Health.UNKNOWN:
        yield "relevo_reported_service_up", beat.service.check.health is Health.UP
    if beat.edge is not None:
        yield "relevo_reported_haproxy_up", beat.edge.haproxy_up
        yield "relevo_reported_haproxy_sessions", beat.edge.sessions
        yield "relevo_reported_haproxy_domains", beat.edge.domains


def _load(load: Load) -> Iterator[tuple[str, float]]:
    yield "relevo_reported_cpu_ratio", load.cpu_ratio
    yield "relevo_reported_load1", load.load_1min
    yield "relevo_reported_memory_total_bytes", load.memory_total_bytes
    yield "relevo_reported_memory_available_bytes", load.memory_available_bytes
    yield "relevo_reported_swap_used_bytes", load.swap_used_bytes
    yield "relevo_reported_receive_bytes_per_second", load.receive_bytes_per_s
    yield "relevo_reported_transmit_bytes_per_second", load.transmit_bytes_per_s
    if load.pressure is not None:
        yield "relevo_reported_pressure_cpu_ratio", load.pressure.cpu
        yield "relevo_reported_pressure_memory_ratio", load.pressure.memory
        yield "relevo_reported_pressure_io_ratio", load.pressure.io
    if load.disks:
        busiest = max(disk.busy_ratio for disk in load.disks.values())
        yield "relevo_reported_disk_busy_ratio", busiest
