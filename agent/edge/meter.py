"""The edge's numbers, by the catalogue's names; without an exporter nobody counts."""

from collections.abc import Mapping

from agent.edge.gate import REASONS
from fleet.messages import Check, LimitState
from fleet.model import Health, HostId
from metrics.exporter import Exporter

NONE = (0,) * len(REASONS)


class Meter:
    def __init__(self, exporter: Exporter | None) -> None:
        self._exporter = exporter
        self._hosts: dict[HostId, Health] = {}
        self._worker = 0
        self._refused: Mapping[str, tuple[int, ...]] = {}
        if exporter:
            for reason in REASONS:
                exporter.begin("relevo_edge_refused_total", reason=reason)

    def gone(self) -> None:
        """HAProxy does not answer: what it thought of hosts is not known any more."""
        if self._exporter:
            self._exporter.set("relevo_edge_haproxy_up", 0)
            self._exporter.forget("relevo_edge_host_up")
        self._hosts = {}

    def seen(self, checks: Mapping[HostId, Check]) -> None:
        """Twice a second with 300 hosts: only what changed is written."""
        if self._exporter is None:
            return
        self._exporter.set("relevo_edge_haproxy_up", 1)
        if self._hosts.keys() - checks.keys():
            self._exporter.forget("relevo_edge_host_up")
            self._hosts = {}
        for host, check in checks.items():
            if self._hosts.get(host) is not check.health:
                up = float(check.health is Health.UP)
                self._exporter.set("relevo_edge_host_up", up, backend=host)
                self._hosts[host] = check.health

    def committed(self, took_s: float) -> None:
        if self._exporter:
            self._exporter.count("relevo_edge_map_commits_total")
            self._exporter.observe("relevo_edge_map_commit_seconds", took_s)

    def reloaded(self, outcome: str) -> None:
        if self._exporter:
            self._exporter.count("relevo_edge_reloads_total", outcome=outcome)

    def refused(self, worker: int, counts: Mapping[str, tuple[int, ...]]) -> None:
        """By site, as that worker has counted since its start; a site that rested for an hour begins at 0 again."""
        if self._exporter is None:
            return
        before = self._refused if worker == self._worker else {}
        self._worker, self._refused = worker, counts
        for at, reason in enumerate(REASONS):
            more = sum(
                _grown(count[at], before.get(site, NONE)[at]) for site, count in counts.items()
            )
            self._exporter.count("relevo_edge_refused_total", more, reason=reason)

    def settled(self, domains: int, strays: int, states: Mapping[LimitState, int]) -> None:
        if self._exporter:
            for state, sites in states.items():
                self._exporter.set("relevo_edge_limited_sites", sites, state=state.value)
            self._exporter.set("relevo_edge_domains", domains)
            self._exporter.set("relevo_edge_strays", strays)


def _grown(count: int, before: int) -> int:
    """A count that fell has begun again."""
    return count - before if count >= before else count
