"""Gauges that are looked up when somebody asks for them, not kept."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from controller.api.reported import report
from controller.api.views import View
from controller.progress import MEASURED
from failover.judge import MOVING, Kind
from fleet.caps import Level
from fleet.model import Arming
from fleet.penalized import Penalized
from metrics.exporter import Exporter
from runtime.clock import wall

if TYPE_CHECKING:
    from controller.parts import Controller

CAUSES = (*sorted(kind.value for kind in MOVING), "drain")


def measure(controller: "Controller") -> None:
    """Bring the exporter's gauges of fleet and failover up to date."""
    _begin(controller.exporter, controller.mirror.fleet.zones)
    view, exporter, mirror = View(controller), controller.exporter, controller.mirror
    counts = view.verdict_counts()
    for kind in Kind:
        exporter.set("relevo_hosts", counts.get(kind.value, 0), verdict=kind.value)
    verdicts: dict[tuple[str, ...], float] = {
        (host, view.verdict_of(host)[0]): 1 for host in mirror.fleet.hosts
    }
    exporter.replace("relevo_host_verdict", verdicts)
    away = view.away()
    exporter.set("relevo_sites", len(mirror.fleet.sites) - away, place="home")
    exporter.set("relevo_sites", away, place="away")
    exporter.set("relevo_incidents_open", len(view.open_incidents()))
    exporter.forget("relevo_holds")
    for kind_of_hold, count in Counter(hold.kind for hold in mirror.holds.values()).items():
        exporter.set("relevo_holds", count, kind=kind_of_hold)
    _caps(controller)
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


def held(penalized: Iterable[Penalized], wall: float) -> Counter[tuple[str, bool]]:
    """Sites by the level of their hardest penalty at `wall` (Unix s), and by whether it is enforced."""
    worst = [found[0] for kept in penalized if (found := kept.taking(wall))]
    return Counter((Level(penalty.level).name.lower(), penalty.enforced) for penalty in worst)


def _caps(controller: "Controller") -> None:
    """Sites by what holds them beside their plan."""
    exporter, mirror, at = controller.exporter, controller.mirror, wall()
    exporter.forget("relevo_penalties")
    for (level, enforced), count in held(mirror.penalties.values(), at).items():
        exporter.set(
            "relevo_penalties", count, level=level, enforced="yes" if enforced else "shadow"
        )
    words = Counter(ruling.word for ruling in mirror.rulings.values())
    for word in ("quarantine", "release", "suspect"):
        exporter.set("relevo_rulings", words[word], word=word)
    exporter.set("relevo_overrides", len(mirror.overrides))


def _begin(exporter: Exporter, zones: Iterable[str]) -> None:
    """What is counted seldom stands at 0 before."""
    for cause in CAUSES:
        exporter.begin("relevo_incidents_total", verdict=cause)
        exporter.begin("relevo_moves_total", cause=cause)
    for phase in MEASURED.values():
        exporter.begin("relevo_failover_phase_seconds", phase=phase)
    for outcome in ("ok", "failed"):
        exporter.begin("relevo_proof_requests_total", outcome=outcome)
    for zone in zones:
        for outcome in ("sent", "held", "failed"):
            exporter.begin("relevo_dns_updates_total", zone=zone, outcome=outcome)
