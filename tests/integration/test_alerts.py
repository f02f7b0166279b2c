"""The alert rules, as promtool runs them: each fires when it should, and not otherwise."""

import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.demo.packages import Tools
from metrics.catalogue import SITES
from tests.unit.test_docs import understand
from tests.unit.test_grafana import read

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "relevo.rules.yml"
EACH_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """`series`: samples each 30 s, in promtool's notation. `fires` and `quiet`: when the alert does, and does not."""

    alert: str
    shows: str
    series: Mapping[str, str]
    fires: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()


def verdict(kind: str, host: str = "web1", controller: str = "c1") -> str:
    return f'relevo_host_verdict{{host="{host}",verdict="{kind}",controller="{controller}"}}'


def of(name: str, controller: str = "c1", **labels: str) -> str:
    said = "".join(f',{name}="{value}"' for name, value in labels.items())
    return f'{name}{{controller="{controller}",instance="{controller}:7410",job="relevo-controller"{said}}}'


def up(controller: str) -> str:
    return of("up", controller)


HOSTS = (
    Story(
        alert="RelevoHostDead",
        shows="at once; a verdict that flaps is one alert; it ends two minutes after the host is back",
        series={verdict("up"): "1x3 stale", verdict("dead"): "_x3 1x1 stale _x1 1x1 stale"},
        fires=("2m", "3m", "4m", "5m"),
        quiet=("0m", "1m", "7m"),
    ),
    Story(
        alert="RelevoHostDead",
        shows="not for what is less than dead",
        series={verdict("suspect"): "1x20", verdict("agent-lost"): "1x20", verdict("up"): "1x20"},
        quiet=("0m", "5m"),
    ),
    Story(
        alert="RelevoServiceDown",
        shows="at once, and until two minutes after it answers again",
        series={verdict("service-down"): "1x3 stale", verdict("up"): "_x4 1x20"},
        fires=("0m", "3m"),
        quiet=("5m",),
    ),
    Story(
        alert="RelevoAgentLost",
        shows="after two minutes, also while each controller says so for a part of the time",
        series={
            verdict("agent-lost"): "1x4 stale",
            verdict("agent-lost", controller="c2"): "_x3 1x9 stale",
        },
        fires=("2m", "6m", "9m"),
        quiet=("1m", "13m"),
    ),
    Story(
        alert="RelevoAgentLost",
        shows="not for restarts of a minute",
        series={verdict("agent-lost"): "1x1 stale _x4 1x1 stale _x4 1x1 stale"},
        quiet=("1m", "4m", "7m"),
    ),
    Story(
        alert="RelevoHostUnsteady",
        shows="a host that is suspect every other minute, none of which is an alert by itself",
        series={
            verdict(
                "suspect"
            ): "1x1 stale _x1 1x1 stale _x1 1x1 stale _x1 1x1 stale _x1 1x1 stale _x1 1x1 stale"
        },
        fires=("12m",),
        quiet=("3m", "50m"),
    ),
    Story(
        alert="RelevoHostUnsteady",
        shows="not one short suspicion, and not a host that has died",
        series={
            verdict("suspect"): "1x3 stale",
            verdict("suspect", "web2"): "1x20 stale",
            verdict("dead", "web2"): "_x10 1x80",
        },
        quiet=("5m", "11m"),
    ),
    Story(
        alert="RelevoHostUnknown",
        shows="where nobody knows better",
        series={
            verdict("unknown"): "1x40",
            verdict("unknown", controller="c2"): "1x40",
            verdict("unknown", "web2"): "1x40",
            verdict("up", "web2", "c2"): "1x40",
        },
        fires=("11m",),
        quiet=("9m",),
    ),
    Story(
        alert="RelevoHaproxyDown",
        shows="for a minute, by a fresh word; a flap or an old word is none",
        series={
            of("relevo_reported_haproxy_up", host="edge1"): "0x20",
            of("relevo_reported_beat_age_seconds", host="edge1"): "0x9 60x20",
            of("relevo_reported_haproxy_up", host="edge2"): "0 1 0 1 0 1 0 1x20",
            of("relevo_reported_beat_age_seconds", host="edge2"): "0x20",
        },
        fires=("1m", "4m"),
        quiet=("0m", "6m"),
    ),
)
CAPS = (
    Story(
        alert="RelevoSiteIsolated",
        shows="after a minute, once for all controllers; not what is only recorded, nor what is gentler",
        series={
            of("relevo_penalties", id, level="isolate", enforced="yes"): "_x2 1x9 stale"
            for id in ("c1", "c2")
        },
        fires=("2m", "5m"),
        quiet=("1m30s", "6m"),
    ),
    Story(
        alert="RelevoSiteIsolated",
        shows="not for shadow, nor for a cap, nor for a moment",
        series={
            of("relevo_penalties", level="stop", enforced="shadow"): "3x20",
            of("relevo_penalties", level="cap", enforced="yes"): "3x20",
            of("relevo_penalties", level="stop", enforced="yes"): "_x5 1 stale",
        },
        quiet=("2m30s", "3m30s", "9m"),
    ),
    Story(
        alert="RelevoHostAsksForHelp",
        shows="after two minutes, while the host says so",
        series={
            of("relevo_reported_help", host="web1"): "1x9 0x9",
            of("relevo_reported_usage_age_seconds", host="web1"): "5x20",
        },
        fires=("2m30s", "4m"),
        quiet=("1m30s", "6m"),
    ),
    Story(
        alert="RelevoHostAsksForHelp",
        shows="not by a word that is old",
        series={
            of("relevo_reported_help", host="web1"): "1x20",
            of("relevo_reported_usage_age_seconds", host="web1"): "0 30 60 90 120x20",
        },
        quiet=("1m", "3m", "5m"),
    ),
)
FAILOVER = (
    Story(
        alert="RelevoHoldWaiting",
        shows="after five minutes, by kind; three controllers are one alert",
        series={of("relevo_holds", id, kind="move"): "2x20 stale" for id in ("c1", "c2", "c3")},
        fires=("5m", "10m"),
        quiet=("4m", "11m"),
    ),
    Story(
        alert="RelevoHoldWaiting",
        shows="not for a hold that goes away, nor for the brake, which has its own",
        series={
            of("relevo_holds", kind="dns"): "1x4 stale _x2 1x4 stale",
            of("relevo_holds", kind="brake"): "1x40",
        },
        quiet=("2m", "6m", "10m"),
    ),
    Story(
        alert="RelevoBrakeOn",
        shows="when the hour's causes are spent, before anything is held",
        series={
            of("relevo_budget_causes_spent"): "2x3 3x3 2x40",
            of("relevo_budget_causes_allowed"): "3x60",
        },
        fires=("2m", "7m"),
        quiet=("1m", "9m"),
    ),
    Story(
        alert="RelevoBrakeOn",
        shows="when it holds something",
        series={of("relevo_holds", kind="brake"): "_x3 1x9 stale"},
        fires=("2m",),
        quiet=("0m", "13m"),
    ),
    Story(
        alert="RelevoPausedLong",
        shows="after four hours, and the resume ends it",
        series={of("relevo_failover_paused"): "1x490 0x10"},
        fires=("4h1m",),
        quiet=("3h59m", "4h6m"),
    ),
    Story(
        alert="RelevoProofFailing",
        shows="proofs that fail on and on",
        series={
            of("relevo_proof_requests_total", outcome="failed"): "0+5x40",
            of("relevo_incidents_open"): "1x40",
        },
        fires=("6m",),
        quiet=("3m",),
    ),
    Story(
        alert="RelevoProofFailing",
        shows="not the few that a move needs until it is made",
        series={
            of("relevo_proof_requests_total", outcome="failed"): "0 9 9x40",
            of("relevo_proof_requests_total", outcome="ok"): "0+5x40",
            of("relevo_incidents_open"): "1x40",
        },
        quiet=("5m", "6m", "10m"),
    ),
    Story(
        alert="RelevoDnsNotConverged",
        shows="a zone that stays behind; one that catches up is none",
        series={
            of("relevo_dns_converged", zone="a.example"): "0x40",
            of("relevo_dns_converged", zone="b.example"): "0x10 1x5 0x10 1x15",
        },
        fires=("10m", "20m"),
        quiet=("9m",),
    ),
)
CONTROLLERS = (
    Story(
        alert="RelevoNotScraped",
        shows="no controller is known",
        series={'up{job="another"}': "1x60"},
        fires=("10m",),
        quiet=("9m",),
    ),
    Story(
        alert="RelevoNotScraped",
        shows="one that is down is known",
        series={up("c1"): "0x60"},
        quiet=("11m",),
    ),
    Story(
        alert="RelevoControllerDown",
        shows="after a minute; a restart is none",
        series={up("c1"): "1x2 0x4 1x20", up("c2"): "1x2 0 1x20"},
        fires=("2m30s",),
        quiet=("2m", "5m"),
    ),
    Story(
        alert="RelevoControllersMinority",
        shows="one of three answers",
        series={up("c1"): "1x20", up("c2"): "1x3 0x20", up("c3"): "1x6 0x3 1x20"},
        fires=("4m",),
        quiet=("3m", "3m30s", "6m"),
    ),
    Story(
        alert="RelevoControllersMinority",
        shows="the only one is down",
        series={up("c1"): "1x3 0x20"},
        fires=("3m",),
        quiet=("1m",),
    ),
    Story(
        alert="RelevoNoLeader",
        shows="an election is over within a minute, or there is something wrong",
        series={
            of("relevo_controller_leader", "c1"): "1x5 0x20",
            of("relevo_controller_leader", "c2"): "0x6 1x3 0x20",
        },
        fires=("6m30s",),
        quiet=("3m", "5m"),
    ),
    Story(
        alert="RelevoControllerNotReady",
        shows="one that does not come to know the store",
        series={
            of("relevo_controller_ready", "c1"): "0x20",
            of("relevo_controller_ready", "c2"): "0x5 1x20",
        },
        fires=("5m",),
        quiet=("4m",),
    ),
    Story(
        alert="RelevoControllerDoubtsItself",
        shows="for five minutes; a stall is none",
        series={
            of("relevo_controller_doubts_itself", "c1"): "1x20",
            of("relevo_controller_doubts_itself", "c2"): "0 1 1 0x20",
        },
        fires=("5m",),
        quiet=("4m",),
    ),
    Story(
        alert="RelevoCredentialRefused",
        shows="one who tries on and on; a single wrong word, or a flood, is none",
        series={
            of("relevo_link_refused_total", "c1", reason="foreign-token"): "0+3x80",
            of("relevo_link_refused_total", "c2", reason="wrong-token"): "0 1 1x80",
            of("relevo_link_refused_total", "c3", reason="flood"): "0+3x80",
        },
        fires=("11m", "30m"),
        quiet=("9m",),
    ),
    Story(
        alert="RelevoAgentNotScraped",
        shows="a host that lives and can't be scraped",
        series={
            'up{job="relevo-agent",host="web1"}': "0x60",
            verdict("up"): "1x60",
            'up{job="relevo-agent",host="web2"}': "0x60",
            verdict("dead", "web2"): "1x60",
            verdict("suspect", "web2", "c2"): "1x60",
        },
        fires=("16m",),
        quiet=("14m",),
    ),
)
STORE = (
    Story(
        alert="RelevoStoreRewound",
        shows="at once, by one controller's word",
        series={
            of("relevo_controller_store_rewound", "c1"): "0x3 1x10 0x10",
            of("relevo_controller_store_rewound", "c2"): "0x30",
        },
        fires=("2m",),
        quiet=("1m", "8m"),
    ),
    Story(
        alert="RelevoStoreErrors",
        shows="errors that go on; the few of an election are none",
        series={
            of("relevo_controller_store_errors_total", "c1", kind="NoSpace"): "0+2x40",
            of("relevo_controller_store_errors_total", "c2", kind="Unavailable"): "0 3 3x40",
        },
        fires=("5m",),
        quiet=("2m30s",),
    ),
    Story(
        alert="RelevoCopyStale",
        shows="past its bound, by name; what was written again, or in time, is well",
        series={
            'relevo_agent_copy_timestamp_seconds{host="web1",copy="sql"}': "0x240 7200x240",
            'relevo_agent_copy_stale_after_seconds{host="web1",copy="sql"}': "3600x480",
            'relevo_agent_copy_timestamp_seconds{host="web1",copy="mail"}': "0x120 3600x240 9000x120",
            'relevo_agent_copy_stale_after_seconds{host="web1",copy="mail"}': "7200x480",
        },
        fires=("1h30m",),
        quiet=("1h10m", "2h30m"),
    ),
    Story(
        alert="RelevoSnapshotStale",
        shows="three hours old, on one controller; a controller that never took one is another case of it",
        series={
            of("relevo_snapshot_timestamp_seconds", "c1"): "0x500",
            of("relevo_controller_ready", "c1"): "1x500",
            of("relevo_snapshot_timestamp_seconds", "c2"): "0x200 6000x300",
            of("relevo_controller_ready", "c2"): "1x500",
        },
        fires=("3h20m",),
        quiet=("3h10m",),
    ),
    Story(
        alert="RelevoSnapshotFailing",
        shows="after half an hour of failures, one a minute",
        series={of("relevo_snapshot_failures_total"): "0x20 0+0.5x200"},
        fires=("45m",),
        quiet=("35m",),
    ),
    Story(
        alert="RelevoSnapshotFailing",
        shows="not for another machine that is away for ten minutes",
        series={of("relevo_snapshot_failures_total"): "0x20 0+0.5x20 10x200"},
        quiet=("15m", "35m", "45m"),
    ),
    Story(
        alert="RelevoCertificateEnding",
        shows="three weeks before",
        series={
            of("relevo_certificate_expires_timestamp_seconds", certificate="server"): "1818000x250",
            of("relevo_certificate_expires_timestamp_seconds", certificate="ca"): "9818000x250",
        },
        fires=("2h5m",),
        quiet=("1h30m",),
    ),
    Story(
        alert="RelevoCertificateEnding",
        shows="the one for etcd too",
        series={
            of("relevo_certificate_expires_timestamp_seconds", certificate="store"): "1818000x250"
        },
        fires=("2h5m",),
    ),
    Story(
        alert="RelevoCertificateEnding",
        shows="an agent's too",
        series={
            'relevo_certificate_expires_timestamp_seconds{certificate="metrics",host="web1"}': "1818000x250",
        },
        fires=("2h5m",),
    ),
    Story(
        alert="RelevoNoticesDropped",
        shows="for an hour, also where it is the first one ever",
        series={
            of("relevo_notices_total", notifier="chat", outcome="dropped"): "_x20 1x400",
            of("relevo_notices_total", notifier="chat", outcome="sent"): "0+1x400",
            of("relevo_notices_total", notifier="chat", outcome="failed"): "0+1x400",
        },
        fires=("11m", "1h5m"),
        quiet=("9m", "1h15m"),
    ),
    Story(
        alert="RelevoNoticesDropped",
        shows="where the controller has restarted since",
        series={of("relevo_notices_total", notifier="chat", outcome="dropped"): "5x300 0 1x100"},
        fires=("2h32m",),
        quiet=("2h15m",),
    ),
    Story(
        alert="RelevoCertificateEnds",
        shows="two days before",
        series={
            'relevo_certificate_expires_timestamp_seconds{certificate="metrics",host="web1"}': "176400x250",
        },
        fires=("1h2m",),
        quiet=("59m",),
    ),
)
STORIES = (*HOSTS, *CAPS, *FAILOVER, *CONTROLLERS, *STORE)


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def told(stories: Iterable[Story]) -> dict[str, object]:
    """The stories as one of promtool's test files."""
    firing = 'count(ALERTS{{alertname="{}",alertstate="firing"}}) or vector(0)'
    return {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{EACH_S}s",
        "tests": [
            {
                "name": f"{story.alert}: {story.shows}",
                "interval": f"{EACH_S}s",
                "input_series": [
                    {"series": name, "values": values} for name, values in story.series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": firing.format(story.alert),
                        "eval_time": at,
                        "exp_samples": [{"labels": "{}", "value": count}],
                    }
                    for count, times in ((1, story.fires), (0, story.quiet))
                    for at in times
                ],
            }
            for story in stories
        ],
    }


def run(tools: Tools, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(tools.path("promtool")), *arguments],
        env=tools.env(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_promtool_finds_no_fault_in_the_rules(tools: Tools) -> None:
    """Expressions, labels and templates."""
    done = run(tools, "check", "rules", "--lint=all", "--lint-fatal", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alerts())} rules found" in done.stdout


def test_each_alert_fires_when_it_should_and_not_otherwise(tools: Tools, tmp_path: Path) -> None:
    """Promtool runs every story, also those in which something flaps."""
    path = tmp_path / "stories.yml"
    path.write_text(json.dumps(told(STORIES)))
    done = run(tools, "test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_story_that_fires_and_one_that_does_not() -> None:
    """No rule is without its test, and no story tells of a rule that is gone."""
    names = {rule["alert"] for rule in alerts()}
    assert names == {story.alert for story in STORIES if story.fires}
    assert names == {story.alert for story in STORIES if story.quiet}


def test_an_alert_without_its_patience_fails_its_story(tools: Tools, tmp_path: Path) -> None:
    """Each `for` and each `keep_firing_for` is there because a story needs it."""
    checked = 0
    for rule in alerts():
        for patience in rule.keys() & {"for", "keep_firing_for"}:
            broken = {key: value for key, value in rule.items() if key != patience}
            (tmp_path / "rules.yml").write_text(
                json.dumps({"groups": [{"name": "broken", "rules": [broken]}]})
            )
            stories = told(story for story in STORIES if story.alert == rule["alert"])
            stories["rule_files"] = ["rules.yml"]
            (tmp_path / "stories.yml").write_text(json.dumps(stories))
            done = run(tools, "test", "rules", str(tmp_path / "stories.yml"))
            assert "FAILED" in done.stdout + done.stderr, (rule["alert"], patience)
            checked += 1
    assert checked > 20


def test_an_alert_says_how_bad_what_it_means_and_what_to_do() -> None:
    """Severity, summary, description, and the runbook's place in the documents, which is there."""
    for rule in alerts():
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]
        said = rule["annotations"]
        assert said.keys() == {"summary", "description", "runbook"}, rule["alert"]
        document, _, anchor = said["runbook"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / document).read_text(), re.M)
        assert anchor == rule["alert"].lower(), rule["alert"]
        assert rule["alert"] in headings, said["runbook"]


def test_every_alert_names_a_command_and_relevo_understands_it() -> None:
    """What a person is told to type at night is a command that exists."""
    for rule in alerts():
        said = rule["annotations"]["description"]
        commands = re.findall(r"`([^`]+)`", said)
        assert commands or "Status >" in said, rule["alert"]
        for command in commands:
            if command.startswith("relevo "):
                understand(re.sub(r"\{\{.*?\}\}", "some", command))


def test_the_alert_of_isolated_sites_counts_them_once_for_all_controllers(
    tools: Tools, tmp_path: Path
) -> None:
    """Three that are isolated and two that are stopped are five sites, whoever tells of them."""
    series = [
        {"series": of("relevo_penalties", id, level=level, enforced="yes"), "values": f"{count}x9"}
        for id in ("c1", "c2")
        for level, count in (("isolate", 3), ("stop", 2))
    ]
    (rule,) = (rule for rule in alerts() if rule["alert"] == "RelevoSiteIsolated")
    samples = [{"labels": "{}", "value": 5}]
    test = {
        "name": "five",
        "interval": f"{EACH_S}s",
        "input_series": series,
        "promql_expr_test": [{"expr": rule["expr"], "eval_time": "2m", "exp_samples": samples}],
    }
    path = tmp_path / "five.yml"
    path.write_text(json.dumps({"rule_files": [], "evaluation_interval": "30s", "tests": [test]}))
    done = run(tools, "test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_panel_of_a_site_shows_what_agents_tell_and_nothing_of_other_hosts(
    tools: Tools, tmp_path: Path
) -> None:
    """The site that was chosen, and those beside it; not one on another host."""
    board = read(ROOT / "deploy" / "grafana" / "site.json")
    placed = {"garden": "web1", "school": "web1", "far": "web2"}
    series = [
        {
            "series": f'{metric.name}{{site="{site}",host="{host}",job="relevo-agent",instance="{host}"}}',
            "values": "0.5x20",
        }
        for metric in SITES
        for site, host in placed.items()
    ]
    queries = {
        target["expr"].replace("$site", "garden")
        for panel in board["panels"]
        for target in panel.get("targets", ())
    }
    assert len(queries) > 12

    def counted(expression: str, count: int) -> dict[str, object]:
        samples = [{"labels": "{}", "value": count}]
        return {"expr": expression, "eval_time": "5m", "exp_samples": samples}

    expected = []
    for query in queries:
        beside = query.startswith("topk") and 'site!="garden"' not in query
        elsewhere = f'({query}) and on (host) relevo_site_tasks{{host="web2"}}'
        expected += [
            counted(f"count({query})", 2 if beside else 1),
            counted(f"count({elsewhere}) or vector(0)", 0),
        ]
    test = {
        "name": "garden",
        "interval": f"{EACH_S}s",
        "input_series": series,
        "promql_expr_test": expected,
    }
    path = tmp_path / "site.yml"
    path.write_text(json.dumps({"rule_files": [], "evaluation_interval": "30s", "tests": [test]}))
    done = run(tools, "test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
