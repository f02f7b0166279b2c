"""Gauges that are looked up when somebody asks for them, not kept."""

from collections import Counter
from typing import TYPE_CHECKING

from controller.api.reported import report
from controller.api.views import View
from failover.judge import Kind
from fleet.model import Arming

if TYPE_CHECKING:
    from controller.parts import Controller


def measure(controller: "Controller") -> None:
    """Bring the exporter's gauges of fleet and failover up to date."""
    view, exporter, mirror = View(controller), controller.exporter, controller.mirror
    counts = view.verdict_counts()
    for kind in Kind:
        exporter.set("relevo_hosts", counts.get(kind.value, 0), verdict=kind.value)
    exporter.forget("relevo_host_verdict")
    for host in mirror.fleet.hosts:
        exporter.set("relevo_host_verdict", 1, host=host, verdict=view.verdict_of(host)[0])
    away = view.away()
    exporter.set("relevo_sites", len(mirror.fleet.sites) - away, place="home")
    exporter.set("relevo_sites", away, place="away")
    exporter.set("relevo_incidents_open", len(view.open_incidents()))
    exporter.forget("relevo_holds")
    for kind_of_hold, count in Counter(hold.kind for hold in mirror.holds.values()).items():
        exporter.set("relevo_holds", count, kind=kind_of_hold)
    spent, allowed = view.spent()
    exporter.set("relevo_budget_causes_spent", spent)
    exporter.set("relevo_budget_causes_allowed", allowed)
    exporter.set("relevo_failover_armed", mirror.switches.all is Arming.ARM)
    exporter.set("relevo_failover_paused", view.paused is not None)
    # Only who leads works on the zones: of an earlier leader's view nothing is left to be taken for today's.
    converged = controller.converger.converged() if controller.decides else {}
    exporter.keep("relevo_dns_converged", "zone", converged)
    for zone, well in converged.items():
        exporter.set("relevo_dns_converged", well, zone=zone)
    report(controller)
