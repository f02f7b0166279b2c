"""Whom Prometheus is told to scrape, and what a controller tells of hosts that nobody can."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from aiohttp.test_utils import make_mocked_request
from prometheus_client.parser import text_string_to_metric_families

from controller.admission import NotKnownYet
from controller.api.routes import Call
from controller.api.targets import Targets, TargetsQuery
from fleet.messages import Beat, Check, EdgeReport, Load, Pressure, Service
from fleet.model import Health, HostId
from metrics.catalogue import REPORTED
from tests.integration.controllers import AGENTS, Served, controller_served

pytestmark = pytest.mark.integration
LOAD = Load(
    cpu_ratio=0.25,
    load_1min=1.5,
    memory_total_bytes=8 << 30,
    memory_available_bytes=2 << 30,
    swap_used_bytes=0,
    receive_bytes_per_s=1e6,
    transmit_bytes_per_s=2e6,
    pressure=Pressure(cpu=0.1, memory=0.2, io=0.3),
)


def beat(host: str, **more: Any) -> Beat:
    said: dict[str, Any] = {
        "sequence": 1,
        "boot_id": "b1",
        "uptime_s": 60.0,
        "kernel": "6.1",
        "version": "0.1.0",
    }
    return Beat(host=HostId(host), load=LOAD, **(said | more))


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served, None]:
    async with controller_served(tmp_path) as controller:
        await controller.apply()
        yield controller


async def say(served: Served, said: Beat) -> None:
    """One beat over a real link, heard."""
    token = AGENTS[said.host]
    admission = {"Authorization": f"Bearer {token}"}
    url = f"{served.url}/v1/link/{said.host}"
    async with served.session.ws_connect(url, headers=admission) as link, asyncio.timeout(5):
        await link.send_bytes(msgspec.json.encode(said))
        while served.controller.link.heard.get(said.host) is None or (
            served.controller.link.heard[said.host].beat != said
        ):
            await link.receive()


async def targets(served: Served, of: str = "") -> list[dict[str, Any]]:
    status, headers, body = await served.raw("GET", f"/v1/prometheus/targets{of}")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    return cast(list[dict[str, Any]], msgspec.json.decode(body))


async def reported(served: Served) -> dict[str, dict[str, float]]:
    """Of each metric that stands for hosts' own words: host -> value."""
    _, _, body = await served.raw("GET", "/metrics")
    names = {metric.name for metric in REPORTED}
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            if sample.name in names:
                found.setdefault(sample.name, {})[sample.labels["host"]] = sample.value
    return found


async def test_agents_that_let_prometheus_in_are_targets(served: Served) -> None:
    """At the declared address and the port that they say, over TLS, with what the fleet says of them."""
    await say(served, beat("mx1-edge-01", metrics_port=7411))
    await say(served, beat("mx1-web-01"))
    host = served.controller.mirror.fleet.hosts[HostId("mx1-edge-01")]
    assert await targets(served, "?of=agents") == [
        {
            "targets": [f"{host.addresses[0]}:7411"],
            "labels": {
                "host": "mx1-edge-01",
                "location": host.location,
                "__scheme__": "https",
                "__meta_relevo_tag": host.tag,
                "__meta_relevo_roles": ",edge,",
            },
        }
    ]


async def test_a_lone_controller_is_a_target_where_it_was_asked(served: Served) -> None:
    """Without `urls` there is nothing else that could be told."""
    assert await targets(served, "?of=controllers") == [
        {
            "targets": [served.url.removeprefix("https://")],
            "labels": {"controller": "c1", "__scheme__": "https"},
        }
    ]
    assert await targets(served) == await targets(served, "?of=controllers")


async def test_the_targets_are_for_those_who_may_look(served: Served) -> None:
    """No token, or a host's own: nothing. An unknown kind is a problem that names the parameter."""
    for token in (None, AGENTS["mx1-web-01"]):
        assert (await served.ask("GET", "/v1/prometheus/targets", token=token))[0] == 401
    status, told = await served.ask("GET", "/v1/prometheus/targets?of=sites")
    assert (status, told["field"]) == (400, "of")


async def test_a_controller_that_has_heard_nobody_yet_does_not_say_that_there_is_nobody(
    served: Served,
) -> None:
    """It refuses, and Prometheus keeps the targets that it had."""
    served.controller.link.settled = False  # until its next look; nothing is awaited before that
    query = TargetsQuery(of="agents")
    call = Call(make_mocked_request("GET", "/v1/prometheus/targets"), query, None, "en")
    with pytest.raises(NotKnownYet):
        await Targets(served.controller).targets(call)


async def test_a_controller_tells_what_each_host_said_last(served: Served) -> None:
    """Load, memory, pressure, service, HAProxy, each by host, with its age; a silent host has none."""
    service = Service(check=Check(health=Health.DOWN, since_s=3.0))
    await say(served, beat("mx1-web-01", service=service))
    await say(served, beat("mx1-edge-01", edge=EdgeReport(haproxy_up=True, domains=7, sessions=3)))
    found = await reported(served)
    assert found["relevo_host_info"].keys() == set(served.controller.mirror.fleet.hosts)
    both = {"mx1-web-01", "mx1-edge-01"}
    ages = found["relevo_reported_beat_age_seconds"]
    assert ages.keys() == both and 0 <= min(ages.values()) <= max(ages.values()) < 5
    for name, value in {
        "relevo_reported_load1": 1.5,
        "relevo_reported_memory_total_bytes": 8 << 30,
        "relevo_reported_memory_available_bytes": 2 << 30,
        "relevo_reported_pressure_io_ratio": 0.3,
    }.items():
        assert found[name] == dict.fromkeys(both, value), name
    assert found["relevo_reported_service_up"] == {"mx1-web-01": 0}
    assert found["relevo_reported_haproxy_up"] == {"mx1-edge-01": 1}
    assert found["relevo_reported_haproxy_domains"] == {"mx1-edge-01": 7}


async def test_what_a_host_said_last_stays_with_its_age_until_it_leaves_the_fleet(
    served: Served,
) -> None:
    """Its link has ended: the values are the same, their age grows."""
    await say(served, beat("mx1-web-01"))
    first = await reported(served)
    await asyncio.sleep(0.05)
    later = await reported(served)
    assert later["relevo_reported_load1"] == first["relevo_reported_load1"]
    age = "relevo_reported_beat_age_seconds"
    assert later[age]["mx1-web-01"] >= first[age]["mx1-web-01"] + 0.05


async def test_a_hosts_version_is_no_place_for_anything_else(served: Served) -> None:
    """A compromised host can't write into the labels of the controllers' metrics (rule R15)."""
    await say(served, beat("mx1-web-01", version='0.1" } evil 1\n'))
    _, _, body = await served.raw("GET", "/metrics")
    assert b'relevo_reported_agent_info{host="mx1-web-01",version="unreadable"} 1.0' in body
    assert b"evil" not in body


async def test_a_prometheus_that_can_not_be_let_in_is_told_nothing(served: Served) -> None:
    """Over another CA the connection itself is refused."""
    async with aiohttp.ClientSession() as stranger:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await stranger.get(f"{served.url}/v1/prometheus/targets")
