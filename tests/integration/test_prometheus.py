"""The metrics as Prometheus' own tools and a real Prometheus see them."""

import asyncio
import json
import subprocess
from pathlib import Path

import aiohttp
import pytest

from deploy.demo.packages import Tools
from metrics.catalogue import AGENT, CONTROLLER, Metric
from metrics.exporter import Exporter
from tests.integration.controllers import ADMINS, Served, controller_served
from tests.integration.prometheus import ask, prometheus, until

pytestmark = pytest.mark.integration


def filled(catalogue: tuple[Metric, ...]) -> bytes:
    """An exposition in which every metric of the catalogue has a value."""
    exporter = Exporter(catalogue)
    for metric in catalogue:
        labels = dict.fromkeys(metric.labels, "some")
        if metric.whole:
            exporter.replace(metric.name, {tuple(labels.values()): 1})
            continue
        match metric.kind:
            case "counter":
                exporter.count(metric.name, 1, **labels)
            case "gauge":
                exporter.set(metric.name, 1, **labels)
            case "histogram":
                exporter.observe(metric.name, 0.2, **labels)
            case "info":
                exporter.info(metric.name, **labels)
    return exporter.render()


@pytest.mark.parametrize("catalogue", [AGENT, CONTROLLER], ids=["agent", "controller"])
def test_promtool_finds_no_fault_in_the_catalogue(
    tools: Tools, catalogue: tuple[Metric, ...]
) -> None:
    """Names, units, types and help follow Prometheus' conventions."""
    done = subprocess.run(
        [str(tools.path("promtool")), "check", "metrics"],
        input=filled(catalogue),
        env=tools.env(),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr.decode(), done.stdout.decode()) == (0, "", "")


def configured(home: Path, served: Served) -> None:
    """Scrapes the controller each second."""
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [
            {
                "job_name": "relevo",
                "scheme": "https",
                "authorization": {"credentials": ADMINS["ana"]},
                "tls_config": {"ca_file": str(served.ca)},
                "static_configs": [{"targets": [served.url.removeprefix("https://")]}],
            }
        ],
    }
    (home / "prometheus.yml").write_text(json.dumps(config))


async def test_a_real_prometheus_scrapes_the_controller(tools: Tools, tmp_path: Path) -> None:
    """Over TLS with an admin's token; the fleet's state can be asked for by name."""
    async with controller_served(tmp_path) as served:
        configured(tmp_path, served)
        await served.apply()
        async with (
            prometheus(tools, tmp_path) as url,
            aiohttp.ClientSession() as session,
            asyncio.timeout(30),
        ):
            await until(session, url, "relevo_controller_ready == 1")
            assert await ask(session, url, 'up{job="relevo"} == 1')
            await until(session, url, 'sum(relevo_hosts{verdict="unknown"}) > 0')
            series = await ask(session, url, 'count({__name__=~"relevo_.+"})')
        assert int(series[0]["value"][1]) < 500
