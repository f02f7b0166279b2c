"""The dashboards, and the alerts' expressions: they are what Grafana reads, and name only what relevo measures."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from metrics.catalogue import AGENT, CONTROLLER, Metric

DEPLOY = Path(__file__).parents[2] / "deploy"
BOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
RULES = DEPLOY / "prometheus" / "relevo.rules.yml"
WIDTH = 24  # of a row, in Grafana's grid

Json = Any


def read(board: Path) -> dict[str, Json]:
    return dict(json.loads(board.read_text()))


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of dashboards, their variables and alerts, with where it stands."""
    for path in BOARDS:
        board = read(path)
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.name}: {panel['title']}", target["expr"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                yield f"{path.name}: ${variable['name']}", variable["query"]
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def series(metric: Metric) -> set[str]:
    """The names under which Prometheus keeps a metric."""
    match metric.kind:
        case "histogram":
            return {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
        case "info":
            return {f"{metric.name}_info"}
        case _:
            return {metric.name}


def lost(said: Json, kept: Json, where: str = "") -> Iterator[str]:
    """What of `said` is not in `kept`: Grafana's own types have no place for it."""
    if isinstance(said, dict) and isinstance(kept, dict):
        for key, value in said.items():
            if key in kept:
                yield from lost(value, kept[key], f"{where}.{key}")
            elif value is not None:
                yield f"{where}.{key}"
    elif isinstance(said, list) and isinstance(kept, list) and len(said) == len(kept):
        for number, (value, other) in enumerate(zip(said, kept, strict=True)):
            yield from lost(value, other, f"{where}[{number}]")
    elif said != kept:
        yield f"{where}: {said!r} is read as {kept!r}"


def understood(board: dict[str, Json]) -> Json:
    """The dashboard as Grafana's types (of Grafana 11.6) read it and write it again."""
    plugins.register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(board)))


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_grafana_understands_every_word_of(path: Path) -> None:
    """By the types that Grafana publishes of its schema, panel options included."""
    board = read(path)
    assert list(lost(board, understood(board))) == []


def test_a_word_that_grafana_does_not_know_is_noticed() -> None:
    """In the dashboard, in a panel's options, in a query, and a value of the wrong kind."""
    board = read(BOARDS[0])
    panel = next(panel for panel in board["panels"] if panel["type"] == "stat")
    board["titel"] = "fleet"
    panel["options"]["textmode"] = "name"
    panel["targets"][0]["expression"] = "up"
    at = board["panels"].index(panel)
    assert list(lost(board, understood(board))) == [
        f".panels[{at}].targets[0].expression",
        f".panels[{at}].options.textmode",
        ".titel",
    ]


def test_dashboards_and_alerts_name_only_what_is_measured() -> None:
    """Every name is in the catalogue, or is what Prometheus itself says of a scrape."""
    known = set().union(*(series(metric) for metric in (*AGENT, *CONTROLLER)))
    jobs = {"relevo-controller", "relevo-agent"}
    found = 0
    for where, expression in expressions():
        for name in re.findall(r"\brelevo[a-z0-9_]*\b(?!-)", expression):
            assert name in known, f"{where}: {name}"
            found += 1
        assert set(re.findall(r'job="([^"]*)"', expression)) <= jobs, where
    assert found > 100


def test_labels_are_those_of_the_catalogue_or_of_the_targets() -> None:
    """What a sum keeps, or a selector asks for, exists."""
    of_targets = {"host", "location", "controller", "job", "instance", "le"}
    labels = of_targets.union(*(metric.labels for metric in (*AGENT, *CONTROLLER)))
    for where, expression in expressions():
        asked = set(re.findall(r"[{,]\s*(\w+)\s*(?:=|!)", expression))
        for kept in re.findall(r"\b(?:by|on|group_left|group_right) \(([^)]*)\)", expression):
            asked |= {label.strip() for label in kept.split(",")} - {""}
        assert asked <= labels, f"{where}: {asked - labels}"


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_panels_are_told_apart_and_do_not_lie_on_each_other(path: Path) -> None:
    """Ids and titles are unique, each has a description, all fit the grid."""
    board = read(path)
    assert board["uid"] == f"relevo-{path.stem}"
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= WIDTH, panel["title"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
