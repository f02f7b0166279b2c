"""The edge's numbers, by the catalogue's names; without an exporter nobody counts."""

from collections.abc import Mapping

from fleet.messages import Check
from fleet.model import Health, HostId
from metrics.exporter import Exporter


class Meter:
    def __init__(self, exporter: Exporter | None) -> None:
        self._exporter = exporter
        self._hosts: dict[HostId, Health] = {}

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

    def settled(self, domains: int, strays: int) -> None:
        if self._exporter:
            self._exporter.set("relevo_edge_domains", domains)
            self._exporter.set("relevo_edge_strays", strays)
