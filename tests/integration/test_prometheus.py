"""The metrics as Prometheus' own tools and a real Prometheus see them."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from deploy.demo.packages import Tools
from metrics.catalogue import AGENT, CONTROLLER, Metric
from metrics.exporter import Exporter
from tests.integration.controllers import ADMINS, Served, controller_served
from tests.integration.edges import free_port

pytestmark = pytest.mark.integration


def filled(catalogue: tuple[Metric, ...]) -> bytes:
    """An exposition in which every metric of the catalogue has a value."""
    exporter = Exporter(catalogue)
    for metric in catalogue:
        labels = dict.fromkeys(metric.labels, "some")
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


@asynccontextmanager
async def prometheus(tools: Tools, served: Served, home: Path) -> AsyncIterator[str]:
    """A real Prometheus that scrapes the controller each second; gives its URL."""
    port = free_port()
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
    with (home / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(tools.path("prometheus")),
            f"--config.file={home}/prometheus.yml",
            f"--storage.tsdb.path={home}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
            env=tools.env(),
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        async with asyncio.timeout(20):
            await process.wait()


async def ask(session: aiohttp.ClientSession, url: str, query: str) -> list[dict[str, object]]:
    """The result vector of an instant query; empty while Prometheus is not up yet."""
    try:
        async with session.get(f"{url}/api/v1/query", params={"query": query}) as answer:
            found: list[dict[str, object]] = (await answer.json())["data"]["result"]
            return found
    except (aiohttp.ClientError, KeyError):
        return []


async def test_a_real_prometheus_scrapes_the_controller(tools: Tools, tmp_path: Path) -> None:
    """Over TLS with an admin's token; the fleet's state can be asked for by name."""
    async with controller_served(tmp_path) as served, prometheus(tools, served, tmp_path) as url:
        await served.apply()
        async with aiohttp.ClientSession() as session, asyncio.timeout(30):
            while not await ask(session, url, "relevo_controller_ready == 1"):
                await asyncio.sleep(0.1)
            assert await ask(session, url, 'up{job="relevo"} == 1')
            while not await ask(session, url, 'sum(relevo_hosts{verdict="unknown"}) > 0'):
                await asyncio.sleep(0.1)
            series = await ask(session, url, 'count({__name__=~"relevo_.+"})')
        assert int(series[0]["value"][1]) < 500  # type: ignore[index]
