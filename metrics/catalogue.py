"""Each metric: name, type, labels, help. Names follow Prometheus' conventions: base units, `_total` for counters.

Labels are bounded by the fleet: hosts, locations, verdicts, phases; never domains (10,000 of them), and sites only in
`relevo_site_*`: those of one host, all of them or the busiest, as its agent is configured.
"""

from dataclasses import dataclass
from typing import Literal

PHASE_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 30.0, 60.0)
ROUND_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """`whole`: a gauge or counter of one value for each host or site, written anew as a whole and never one by one."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    whole: bool = False


# What its host sees of a site. A site of which a value is not known has no series of it: unknown is not zero.
SITES = tuple(
    Metric(f"relevo_site_{name}", "gauge", said, ("site",), whole=True)
    for name, said in (
        ("cpu_cores", "CPU that a site uses, in cores."),
        ("throttled_ratio", "Share of the time that its own quota holds a site."),
        ("memory_bytes", "Memory of a site, page cache included where its cgroup tells."),
        ("anon_memory_bytes", "Memory that is a site's own: no cache."),
        ("file_memory_bytes", "Page cache of a site."),
        ("swap_bytes", "Swap of a site."),
        ("read_bytes_per_second", "What a site reads from disks."),
        ("write_bytes_per_second", "What a site writes to disks."),
        ("tasks", "Processes and threads of a site."),
        ("requests_per_second", "Requests to a site, by its log or its php-fpm."),
        (
            "request_seconds",
            "How long a request to a site takes on average: an estimate, by its log.",
        ),
        ("queue", "Requests that wait for a worker of a site."),
        ("cpu_stall_ratio", "Share of the time that some task of a site waits for a CPU."),
        ("memory_stall_ratio", "Share of the time that all tasks of a site wait for memory."),
        ("io_stall_ratio", "Share of the time that all tasks of a site wait for disks."),
        ("disk_bytes", "What the users of a site keep on disk, as file systems count."),
        ("disk_inodes", "How many files the users of a site keep."),
        ("disk_ratio", "What they keep of what plans allow, of bytes or of files."),
    )
)

# These too, each with a label of its own beside the site.
SITES_BY = (
    Metric(
        "relevo_site_events_total",
        "counter",
        "What the kernel counted for a site: memory_high_hits, memory_max_hits, oom_hits, oom_kills, tasks_refused, "
        "throttled_periods.",
        ("site", "event"),
        whole=True,
    ),
    Metric(
        "relevo_site_device_bytes_per_second",
        "gauge",
        "What a site reads and writes by physical device, where it works on several.",
        ("site", "device"),
        whole=True,
    ),
)

AGENT = (
    Metric("relevo_agent_build", "info", "Version of this agent.", ("version",)),
    Metric("relevo_agent_beats_sent_total", "counter", "Beats sent.", ("controller",)),
    Metric(
        "relevo_agent_beats_acknowledged_total", "counter", "Beats acknowledged.", ("controller",)
    ),
    Metric(
        "relevo_agent_connected",
        "gauge",
        "1 while the link to a controller is up.",
        ("controller",),
    ),
    Metric(
        "relevo_agent_reconnects_total", "counter", "Links lost and tried again.", ("controller",)
    ),
    Metric(
        "relevo_agent_orders_refused_total",
        "counter",
        "Orders not followed, by reason.",
        ("reason",),
    ),
    Metric(
        "relevo_agent_unknown_messages_total",
        "counter",
        "Messages that this release does not know, of a newer controller: ignored.",
        ("controller",),
    ),
    Metric(
        "relevo_agent_unknown_caps_total",
        "counter",
        "Orders with caps that only a newer controller knows: followed, those caps are not held.",
        ("controller",),
    ),
    Metric("relevo_agent_orders_epoch", "gauge", "Store revision of the orders in force."),
    Metric(
        "relevo_agent_doubts_itself", "gauge", "1 while this agent's views of others do not count."
    ),
    Metric(
        "relevo_agent_beat_delay_seconds",
        "histogram",
        "How late each beat was.",
        buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
    ),
    Metric(
        "relevo_agent_copy_timestamp_seconds",
        "gauge",
        "When the newest copy of this name was written (Unix time); 0: there is none.",
        ("copy",),
    ),
    Metric(
        "relevo_agent_copy_stale_after_seconds",
        "gauge",
        "How old a copy of this name may be, as agent.toml says.",
        ("copy",),
    ),
    Metric(
        "relevo_certificate_expires_timestamp_seconds",
        "gauge",
        "When a certificate ends (Unix time): `ca`, by which controllers are known; `metrics`, of this door.",
        ("certificate",),
    ),
    Metric("relevo_host_cpu_ratio", "gauge", "Share of all CPUs in use."),
    Metric("relevo_host_load1", "gauge", "Load average over one minute."),
    Metric("relevo_host_memory_total_bytes", "gauge", "Physical memory."),
    Metric("relevo_host_memory_available_bytes", "gauge", "Memory available without swapping."),
    Metric("relevo_host_swap_used_bytes", "gauge", "Swap in use."),
    Metric(
        "relevo_host_pressure_ratio",
        "gauge",
        "Share of 10 s with some task stalled.",
        ("resource",),
    ),
    Metric(
        "relevo_host_network_bytes_per_second", "gauge", "Traffic of all links.", ("direction",)
    ),
    Metric(
        "relevo_host_disk_bytes_per_second", "gauge", "Traffic of a disk.", ("device", "direction")
    ),
    Metric("relevo_host_disk_busy_ratio", "gauge", "Share of time a disk was busy.", ("device",)),
    Metric(
        "relevo_caps_enforceable",
        "gauge",
        "1 where something here can hold sites to their caps.",
    ),
    Metric(
        "relevo_caps_slices",
        "gauge",
        "Slices that are capped: those that hold what they should, and those that fall short of it.",
        ("state",),
    ),
    Metric(
        "relevo_caps_drift_total",
        "counter",
        "Caps that somebody else had changed, repaired.",
    ),
    Metric("relevo_caps_failures_total", "counter", "Caps that could not be set, each try."),
    Metric(
        "relevo_adoption_sites",
        "gauge",
        "Sites whose workers, of a shared php-fpm, are held in the site's slice.",
    ),
    Metric(
        "relevo_adoption_processes_total",
        "counter",
        "Processes of shared php-fpms that were moved into the slices of their sites.",
    ),
    Metric(
        "relevo_adoption_failures_total",
        "counter",
        "Moves of such processes that failed, each try.",
    ),
    Metric(
        "relevo_caps_quotas",
        "gauge",
        "Users on file systems with a quota: those that are held as they should be, and those that are not.",
        ("state",),
    ),
    Metric(
        "relevo_isolation_penalties",
        "gauge",
        "Penalties that stand, by level, and whether they are held or in shadow.",
        ("level", "enforced"),
    ),
    Metric(
        "relevo_isolation_steps_total",
        "counter",
        "Steps up the ladder, by the level that they led to.",
        ("level",),
    ),
    Metric(
        "relevo_isolation_undone_total",
        "counter",
        "Steps taken back because they helped nobody.",
    ),
    Metric("relevo_isolation_asks", "gauge", "What this host needs a person for, at the moment."),
    Metric(
        "relevo_isolation_failures_total",
        "counter",
        "Times that a penalty or its evidence could not be kept on disk.",
    ),
    Metric("relevo_service_up", "gauge", "1 while the local check of the web service passes."),
    Metric(
        "relevo_service_restarts_total",
        "counter",
        "Local restarts tried, by outcome.",
        ("outcome",),
    ),
    Metric("relevo_edge_haproxy_up", "gauge", "1 while HAProxy answers on its socket."),
    Metric("relevo_edge_domains", "gauge", "Domains in the map that HAProxy follows."),
    Metric(
        "relevo_edge_strays", "gauge", "Domains in the map that are neither ordered nor removed."
    ),
    Metric("relevo_edge_reloads_total", "counter", "Reloads of HAProxy, by outcome.", ("outcome",)),
    Metric("relevo_edge_map_commits_total", "counter", "Map transactions committed."),
    Metric(
        "relevo_edge_map_commit_seconds",
        "histogram",
        "Time of one map transaction.",
        (),
        ROUND_BUCKETS,
    ),
    Metric(
        "relevo_edge_limited_sites",
        "gauge",
        "Sites with limits at this edge, by state.",
        ("state",),
    ),
    Metric(
        "relevo_edge_refused_total",
        "counter",
        "Requests refused by a site's limits: closed; client (its rate); crowd (too many wait); late (waited in vain).",
        ("reason",),
    ),
    Metric(
        "relevo_edge_host_up", "gauge", "1 while HAProxy's check of a host passes.", ("backend",)
    ),
    *SITES,
    *SITES_BY,
    Metric(
        "relevo_host_stall_ratio",
        "gauge",
        "Share of a round of readings in which some task waited for a CPU, or all for memory or disks.",
        ("resource",),
    ),
    Metric("relevo_usage_sites", "gauge", "Sites by how they are attached.", ("attachment",)),
    Metric(
        "relevo_usage_round_seconds",
        "histogram",
        "Time of one round of reading what sites use.",
        (),
        ROUND_BUCKETS,
    ),
    Metric(
        "relevo_usage_rows_total",
        "counter",
        "Five-minute rows of the history, by what became of them: kept, lost (the disk did not take them).",
        ("outcome",),
    ),
    Metric(
        "relevo_agent_questions_total",
        "counter",
        "Controllers' questions about the past of sites, by outcome: answered, failed.",
        ("outcome",),
    ),
    Metric(
        "relevo_site_oom_kills_total", "counter", "Processes of sites killed for want of memory."
    ),
    Metric("relevo_site_tasks_refused_total", "counter", "Forks refused to sites at their cap."),
)

# What a host's agent said last, told by every controller that it reports to. The names are not the agent's own: where
# an agent is scraped too, no sum counts it twice. `relevo_reported_beat_age_seconds` says how old the others are.
REPORTED = (
    Metric(
        "relevo_host_info",
        "gauge",
        "1 for each host of the fleet, with what is declared of it.",
        ("host", "location", "roles"),
        whole=True,
    ),
    Metric(
        "relevo_reported_agent_info",
        "gauge",
        "1 for the version that a host's agent said it has.",
        ("host", "version"),
        whole=True,
    ),
    *(
        Metric(
            f"relevo_reported_{name}",
            "gauge",
            f"Said by a host's agent: {said}",
            ("host",),
            whole=True,
        )
        for name, said in (
            ("beat_age_seconds", "how long ago that was."),
            ("uptime_seconds", "how long the machine is up."),
            ("doubts_itself", "1 while its views of others do not count."),
            ("package_run", "1 while packages are installed there."),
            ("cpu_ratio", "share of all CPUs in use."),
            ("load1", "load average over one minute."),
            ("memory_total_bytes", "physical memory."),
            ("memory_available_bytes", "memory available without swapping."),
            ("swap_used_bytes", "swap in use."),
            ("pressure_cpu_ratio", "share of 10 s with some task waiting for CPU."),
            ("pressure_memory_ratio", "share of 10 s with some task waiting for memory."),
            ("pressure_io_ratio", "share of 10 s with some task waiting for disks."),
            ("receive_bytes_per_second", "traffic received on all links."),
            ("transmit_bytes_per_second", "traffic sent on all links."),
            ("disk_busy_ratio", "share of time that its busiest disk was busy."),
            ("service_up", "1 if the check of its web service passed."),
            ("haproxy_up", "1 if its HAProxy answered."),
            ("haproxy_sessions", "sessions of its HAProxy."),
            ("haproxy_domains", "domains in the map of its HAProxy."),
            ("usage_age_seconds", "how long ago it told of its sites' use."),
            ("caps_unable", "1 while nothing can be enforced there."),
            ("caps_drift", "changes of caps by somebody else, repaired since its agent began."),
            ("help", "reasons for which it needs a person: see *Being called* in docs/caps.md."),
        )
    ),
)

CONTROLLER = (
    *REPORTED,
    Metric(
        "relevo_snapshot_timestamp_seconds",
        "gauge",
        "When this controller last copied the store and restored the copy (Unix time).",
    ),
    Metric("relevo_snapshot_failures_total", "counter", "Copies of the store that failed."),
    Metric("relevo_controller_build", "info", "Version of this controller.", ("version",)),
    Metric("relevo_controller_leader", "gauge", "1 while this controller leads."),
    Metric("relevo_controller_ready", "gauge", "1 once the store is mirrored."),
    Metric(
        "relevo_controller_doubts_itself", "gauge", "1 while this controller's views do not count."
    ),
    Metric(
        "relevo_controller_round_seconds",
        "histogram",
        "Time of one round of the loop.",
        (),
        ROUND_BUCKETS,
    ),
    Metric(
        "relevo_controller_store_errors_total",
        "counter",
        "Store calls that failed, by kind.",
        ("kind",),
    ),
    Metric("relevo_controller_store_revision", "gauge", "Store revision mirrored."),
    Metric(
        "relevo_controller_store_rewound",
        "gauge",
        "1 while the store is older than what agents hold.",
    ),
    Metric("relevo_link_agents", "gauge", "Agents connected."),
    Metric("relevo_link_beats_total", "counter", "Beats received."),
    Metric(
        "relevo_link_refused_total", "counter", "Links or frames refused, by reason.", ("reason",)
    ),
    Metric(
        "relevo_link_unknown_messages_total",
        "counter",
        "Messages that this release does not know, of newer agents: ignored.",
    ),
    Metric(
        "relevo_usage_foreign_sites_total",
        "counter",
        "Sites that hosts told the use of although they are placed elsewhere: not believed.",
    ),
    Metric(
        "relevo_link_questions_total",
        "counter",
        "Questions to hosts about the past of sites, by outcome: answered, failed, silent, not-linked, busy.",
        ("outcome",),
    ),
    Metric(
        "relevo_penalties",
        "gauge",
        "Sites with a penalty, by its level and by whether it is enforced or in shadow.",
        ("level", "enforced"),
    ),
    Metric(
        "relevo_rulings", "gauge", "Words on sites that their hosts follow, by kind.", ("word",)
    ),
    Metric("relevo_overrides", "gauge", "Sites whose caps differ from their plan's for a while."),
    Metric("relevo_link_orders_sent_total", "counter", "Orders sent."),
    Metric("relevo_hosts", "gauge", "Hosts by verdict.", ("verdict",)),
    Metric(
        "relevo_host_verdict",
        "gauge",
        "1 for the verdict a host has now.",
        ("host", "verdict"),
        whole=True,
    ),
    Metric("relevo_sites", "gauge", "Sites by where they are served.", ("place",)),
    Metric("relevo_incidents_total", "counter", "Incidents begun, by verdict.", ("verdict",)),
    Metric("relevo_incidents_open", "gauge", "Incidents not proven yet."),
    Metric("relevo_moves_total", "counter", "Sites moved, by cause.", ("cause",)),
    Metric("relevo_holds", "gauge", "Holds that wait, by kind.", ("kind",)),
    Metric("relevo_budget_causes_spent", "gauge", "Causes spent in the last hour."),
    Metric("relevo_budget_causes_allowed", "gauge", "Causes allowed in an hour."),
    Metric("relevo_failover_armed", "gauge", "1 if everything is armed, 0 if observing."),
    Metric("relevo_failover_paused", "gauge", "1 while failover is paused."),
    Metric(
        "relevo_failover_phase_seconds",
        "histogram",
        "From the first symptom to the end of a phase.",
        ("phase",),
        PHASE_BUCKETS,
    ),
    Metric(
        "relevo_dns_updates_total",
        "counter",
        "DNS updates, by zone and outcome.",
        ("zone", "outcome"),
    ),
    Metric(
        "relevo_dns_converged",
        "gauge",
        "1 while every server of a zone answers as intended.",
        ("zone",),
    ),
    Metric(
        "relevo_proof_requests_total",
        "counter",
        "Requests made to prove a move, by outcome.",
        ("outcome",),
    ),
    Metric("relevo_api_requests_total", "counter", "API requests, by status class.", ("status",)),
    Metric(
        "relevo_api_refused_total", "counter", "API requests not let in, by reason.", ("reason",)
    ),
    Metric(
        "relevo_certificate_expires_timestamp_seconds",
        "gauge",
        "When a certificate ends (Unix time): `server`, shown to agents and people; `store`, shown to etcd; `ca`.",
        ("certificate",),
    ),
    Metric(
        "relevo_notices_total",
        "counter",
        "Letters to people: sent, tries that failed, and letters given up; by receiver.",
        ("notifier", "outcome"),
    ),
    Metric("relevo_api_streams", "gauge", "Open event streams."),
)
