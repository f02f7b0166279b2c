"""A person's word on a site, from the API to what visitors see at every edge: a whole co-op, on loopback."""

import asyncio
import ssl
import sys
from collections.abc import Iterable
from typing import Any

import aiohttp
import pytest

from agent.edge.limits import BETWEEN
from agent.edge.render import read_map
from deploy.demo.lab import Door, Kind
from deploy.demo.show import Show, show
from deploy.demo.visit import visit
from fleet.model import Site

pytestmark = [pytest.mark.integration, pytest.mark.long]

SOON_S = 10.0
POLL_S = 0.02


async def test_what_people_order_of_a_site_is_true_at_every_edge(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Closed and opened again, and plans in force for all: within seconds, and no other site misses an answer."""
    async with show(lambda _: None, namespaces=False) as it:
        doors = [door for edge in it.stage.lab.of(Kind.EDGE) for door in edge.doors]
        one, *others = [s for s in it.stage.fleet.sites.values() if s.route == "edges"]
        assert entries(it, one) == {1}
        path = f"/v1/sites/{one.id}/quarantine"
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(answered(others[:5], doors))
            await order(it, "PUT", path, level="isolate", reason="told", for_s=600)
            closed_s = await until(one, doors, 503)
            assert (await told(it, one))["state"] == "closed"
            await order(it, "DELETE", path, reason="told")
            opened_s = await until(one, doors, 200)
            await order(
                it,
                "PUT",
                "/v1/caps/enforcement",
                scope="all",
                word="arm",
                reason="told",
                untried=True,
            )
            async with asyncio.timeout(SOON_S):
                while entries(it, one) != {8}:
                    await asyncio.sleep(POLL_S)
            assert (await told(it, one))["state"] == "open"
            watching.cancel()
        await order(it, "PUT", "/v1/caps/enforcement", scope="all", word="shadow", reason="told")
        async with asyncio.timeout(SOON_S):
            while entries(it, one) != {1}:
                await asyncio.sleep(POLL_S)
        await until(one, doors, 200)
    with capsys.disabled():
        sys.stdout.write(f"\nclosed at both edges in {closed_s:.2f} s, open in {opened_s:.2f} s\n")


async def told(it: Show, site: Site) -> dict[str, Any]:
    """What people are told that the edges hold."""
    answer: dict[str, dict[str, Any]] = await order(it, "GET", f"/v1/sites/{site.id}/caps")
    return answer["edges"]


async def order(it: Show, method: str, path: str, **said: object) -> Any:
    tls = await asyncio.to_thread(ssl.create_default_context, cafile=str(it.outfit.authority.path))
    (base,) = it.stage.lab.apis.values()
    headers = {"Authorization": f"Bearer {it.outfit.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, f"{base}{path}", json=said or None, ssl=tls) as answer,
    ):
        assert answer.status < 300, await answer.text()
        return await answer.json()


async def until(site: Site, doors: Iterable[Door], status: int) -> float:
    """Seconds until every door answers so."""
    now = asyncio.get_running_loop().time
    began = now()
    async with asyncio.timeout(SOON_S):
        for door in doors:
            while (await visit(door, site.domains[0], until=now() + 5)).status != status:
                await asyncio.sleep(POLL_S)
    return now() - began


async def answered(sites: Iterable[Site], doors: Iterable[Door]) -> None:
    """Eternal: each of these sites answers, at every door."""
    now = asyncio.get_running_loop().time
    while True:
        for site in sites:
            for door in doors:
                assert (await visit(door, site.domains[0], until=now() + 5)).is_from(site.id)
        await asyncio.sleep(POLL_S)


def entries(it: Show, site: Site) -> set[int]:
    """How many words each edge's map has for the site's domains."""
    found = set()
    for edge in it.stage.lab.of(Kind.EDGE):
        text = (it.outfit.folder(edge) / "haproxy" / "domains.map").read_text()
        found |= {len(read_map(text)[domain].split(BETWEEN)) for domain in site.domains}
    return found
