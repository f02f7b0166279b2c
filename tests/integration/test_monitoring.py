"""What docs/monitoring.md says, with the files that it names: a real co-op fails over before a real Prometheus."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from deploy.demo.lab import Kind, Lab, Machine
from deploy.demo.once import strike_and_follow
from deploy.demo.packages import Tools
from deploy.demo.programs import Outfit, Toml
from deploy.demo.show import Show, show
from deploy.demo.stage import Fault
from fleet.model import Fleet
from tests.integration.prometheus import ask, prometheus, until
from tests.ports import free_port
from tests.unit.test_grafana import BOARDS, read

pytestmark = [pytest.mark.integration, pytest.mark.long]
SHIPPED = Path(__file__).parents[2] / "deploy" / "prometheus"
AGENTS_TOKEN = "what every agent.toml names"
# Grafana replaces these by what the person at the screen has chosen.
CHOSEN = {"$__rate_interval": "10s", "$__range": "5m", "$location": ".*"}


class Guarded(Outfit):
    """The demo's files, and doors for Prometheus at the agents."""

    def _metrics(self, machine: Machine) -> Toml:
        door = self.authority.issue(f"{machine.name}-metrics", machine.addresses)
        token = self.folder(machine) / "metrics.token"
        token.touch(mode=0o600)
        token.write_text(AGENTS_TOKEN)
        files = {"certificate": door.certificate, "key": door.key, "token": token}
        return {"address": machine.address, "port": self._lab.agent_port, **files}


def installed(home: Path, outfit: Outfit, lab: Lab, *, alertmanager: int) -> None:
    """The shipped files with this co-op's addresses, CA and tokens; everything is looked at each second."""
    for file in SHIPPED.iterdir():
        shutil.copy(file, home)
    shutil.copy(outfit.authority.path, home / "relevo-ca.crt")
    (home / "relevo.token").write_text(f"{outfit.token}\n")
    (home / "relevo-agent.token").write_text(f"{AGENTS_TOKEN}\n")
    (url,) = lab.apis.values()
    config = home / "prometheus.yml"
    text = config.read_text()
    for shipped, here in {
        "https://203.0.113.10:7410": url,
        "15s": "1s",
        "30s": "1s",
        "127.0.0.1:9093": f"127.0.0.1:{alertmanager}",
    }.items():
        assert shipped in text
        text = text.replace(shipped, here)
    said = yaml.safe_load(text)
    for job in said["scrape_configs"]:
        job["http_sd_configs"] *= 2  # as where two controllers tell the same
    config.write_text(yaml.safe_dump(said))


def check(tools: Tools, home: Path) -> None:
    """By their own tools: the configurations, the rules, and every file that they name."""
    for command in (
        ("promtool", "check", "config", "prometheus.yml"),
        ("amtool", "check-config", "alertmanager.yml"),
    ):
        done = subprocess.run(
            [str(tools.path(command[0])), *command[1:]],
            env=tools.env(),
            cwd=home,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@asynccontextmanager
async def alertmanager(port: int) -> AsyncIterator[list[dict[str, Any]]]:
    """Where Prometheus hands its alerts over; gives all that came. Source: Alertmanager's API v2, postAlerts."""
    alerts: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        alerts.extend(await request.json())
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/api/v2/alerts", take)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield alerts
    finally:
        await runner.cleanup()


def queries() -> Iterator[tuple[str, str]]:
    """Every query of every panel; the demo's sites use nothing of their own: see test_alerts.py for their board."""
    for path in BOARDS:
        if path.stem == "site":
            continue
        for panel in read(path)["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.stem}: {panel['title']}", target["expr"]


def with_choices(query: str, host: str) -> str:
    for variable, chosen in {**CHOSEN, "$host": host}.items():
        query = query.replace(variable, chosen)
    return query


async def test_dashboards_and_alerts_show_a_failover_of_a_real_coop(
    tools: Tools, tmp_path: Path
) -> None:
    """Prometheus finds all by one address, each query finds something, and the alert is handed over with its words."""
    outfits: list[Outfit] = []

    def tailor(lab: Lab, declared: Fleet, tools: Tools, directory: Path) -> Outfit:
        outfits.append(Guarded(lab, declared, tools, directory))
        return outfits[0]

    port = free_port()
    async with show(lambda _: None, namespaces=False, tailor=tailor) as it:
        installed(tmp_path, outfits[0], it.stage.lab, alertmanager=port)
        await asyncio.to_thread(check, tools, tmp_path)
        async with (
            alertmanager(port) as alerts,
            prometheus(tools, tmp_path) as url,
            aiohttp.ClientSession() as session,
        ):
            await sees_all(it, session, url)
            struck = (await strike_and_follow(it, Fault.KILL, lambda _: None)).struck
            await tells(session, url, struck.host, it.stage.lab.of(Kind.EDGE)[0].name)
            await handed_over(alerts, struck.host)


async def handed_over(alerts: list[dict[str, Any]], dead: str) -> None:
    """One alert, whose words name the host and the command."""
    async with asyncio.timeout(10):
        while not alerts:
            await asyncio.sleep(0.1)
    assert {(alert["labels"]["alertname"], alert["labels"]["host"]) for alert in alerts} == {
        ("RelevoHostDead", dead)
    }
    said = alerts[0]["annotations"]
    assert said["summary"] == f"Host {dead} is dead"
    assert f"`relevo host show {dead}`" in said["description"]


async def sees_all(it: Show, session: aiohttp.ClientSession, url: str) -> None:
    """The controller and every agent are scraped, each with its labels, and none twice."""
    lab = it.stage.lab
    async with asyncio.timeout(30):
        await until(session, url, f'sum(up{{job="relevo-agent"}}) == {len(lab.hosts)}')
        await until(session, url, 'sum(up{job="relevo-controller"}) == 1')
        # What is counted must have been seen before it grows.
        await until(session, url, "sum(relevo_moves_total) == 0")
    ups: list[dict[str, Any]] = [s["metric"] for s in await ask(session, url, "up")]
    assert len(ups) == len(lab.hosts) + len(lab.apis)
    agents = {up["host"]: up["location"] for up in ups if up["job"] == "relevo-agent"}
    assert agents == {machine.name: machine.location for machine in lab.hosts}
    assert {up["controller"] for up in ups if up["job"] == "relevo-controller"} == set(lab.apis)
    assert await ask(session, url, 'ALERTS{alertstate="firing"}') == []


async def tells(session: aiohttp.ClientSession, url: str, dead: str, edge: str) -> None:
    """The alert fires, no rule fails, no query finds nothing."""
    async with asyncio.timeout(30):
        fired = await until(session, url, 'ALERTS{alertname="RelevoHostDead",alertstate="firing"}')
        assert [alert["metric"]["host"] for alert in fired] == [dead]
        complete = 'increase(relevo_failover_phase_seconds_count{phase="complete"}[10s]) > 0'
        await until(session, url, complete)
    async with session.get(f"{url}/api/v1/rules") as answer:
        groups = (await answer.json())["data"]["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    empty = [
        f"{panel}: {query}"
        for panel, query in queries()
        if not any([await ask(session, url, with_choices(query, host)) for host in (edge, dead)])
    ]
    assert empty == []
