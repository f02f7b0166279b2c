"""HAProxy's restarts under its own unit: who notices them, and who does not."""

import asyncio

import pytest

from tests.vm.coop import SOUTH, coop, visit
from tests.vm.installed import Pair, blocks, follow
from tests.vm.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.long]

# A visitor after the other, each on a connection of its own, until told to stop; prints how many were served, and not.
VISITORS = f"""\
import http.client, os, sys
served = refused = 0
open("/run/visiting", "w").close()
while os.path.exists("/run/visiting"):
    try:
        visit = http.client.HTTPConnection("{SOUTH}", timeout=10)
        visit.request("GET", "/", headers={{"Host": "garden.example.org"}})
        answer = visit.getresponse()
        answer.read()
        served, refused = served + (answer.status == 200), refused + (answer.status != 200)
    except OSError as error:
        refused += 1
        print(repr(error), file=sys.stderr)
    except http.client.HTTPException as error:
        refused += 1
        print(repr(error), file=sys.stderr)
print(served, refused)
"""


async def visited(north: Machine, south: Machine, *orders: str) -> tuple[int, int, str]:
    """Visitors while `orders` are carried out on the edge: how many were served, how many were not, and why."""
    async with asyncio.TaskGroup() as group:
        visiting = group.create_task(north.do("python3 -", stdin=VISITORS.encode()))
        await north.until("test -e /run/visiting")
        for order in orders:
            await asyncio.sleep(1)
            await south.do(order)
        await asyncio.sleep(1)
        await north.do("rm /run/visiting")
        told = (await visiting).splitlines()
    served, refused = told[-1].split()
    return int(served), int(refused), "; ".join(told[:-1])


async def test_with_held_sockets_no_restart_of_haproxy_refuses_a_visitor(packaged: Pair) -> None:
    """systemd holds the public sockets: reload, and stop and start, are noticed by nobody who comes meanwhile."""
    async with coop(packaged) as made:
        held = """sed -i 's/^bind = .*/bind = ["fd@3", "fd@4"]/' /etc/relevo/agent.toml"""
        await made.south.do(held)
        await follow(made.south, blocks("operate.md", "Restarting HAProxy")[0])
        await made.north.until(visit("garden.example.org"))
        await made.south.do("grep 'bind fd@3' /etc/haproxy/relevo/haproxy.cfg")
        served, refused, why = await visited(
            made.north, made.south, "systemctl reload haproxy", "systemctl restart haproxy"
        )
        assert served > 20
        assert refused == 0, why
