"""How soon HAProxy's checks see that a host died, by the manner of its death."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from deploy.demo.packages import Tools
from fleet.messages import Routes, Target
from fleet.model import Epoch, Health, HostId
from tests.integration.edges import domains, running
from tests.ports import free_port

pytestmark = pytest.mark.integration

HOST = HostId("w1")
ADDRESS = "127.0.0.21"
ROUNDS = 3

Server = subprocess.Popen[bytes]


@contextmanager
def serving(port: int) -> Iterator[Server]:
    """A web server in a process of its own, so that it can be killed and frozen."""
    command = (sys.executable, "-m", "http.server", "--bind", ADDRESS, str(port))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            yield server
        finally:
            server.kill()


def killed(server: Server, port: int, stack: ExitStack) -> None:
    """Its kernel refuses connections."""
    server.kill()
    server.wait(5)


def frozen(server: Server, port: int, stack: ExitStack) -> None:
    """Its kernel takes connections, and nobody answers."""
    server.send_signal(signal.SIGSTOP)


def cut_off(server: Server, port: int, stack: ExitStack) -> None:
    """Every packet to it is dropped: Linux drops each SYN to a listener whose backlog is full."""
    killed(server, port, stack)
    stack.enter_context(socket.create_server((ADDRESS, port), backlog=0))
    for _ in range(3):
        clog = stack.enter_context(socket.socket())
        clog.setblocking(False)
        clog.connect_ex((ADDRESS, port))


@pytest.mark.long
@pytest.mark.parametrize(
    ("death", "bound_s", "detail"),
    [(killed, 1.2, "L4CON"), (frozen, 2.2, "L7TOUT"), (cut_off, 2.2, "L4TOUT")],
)
async def test_a_death_is_seen_in_time(
    tools: Tools,
    capsys: pytest.CaptureFixture[str],
    death: Callable[[Server, int, ExitStack], None],
    bound_s: float,
    detail: str,
) -> None:
    """A refusing host is down within 1.2 s, a silent one within 2.2 s; a healed one is up again within 2 s."""
    port, took, back = free_port(), [], []
    target = Target(address=ADDRESS, port=port)
    routes = Routes(hosts={HOST: target}, domains=domains(a="w1"))
    async with running(tools, routes, Epoch(1, 1)) as rig:
        for round in range(ROUNDS):
            with ExitStack() as stack:
                server = stack.enter_context(serving(port))
                healed = await rig.seen(lambda view: view.checks[HOST].health is Health.UP)
                back.append(healed)
                await asyncio.sleep(1.0 + round * 0.5 / ROUNDS)  # anywhere between two checks
                death(server, port, stack)
                took.append(await rig.seen(lambda view: view.checks[HOST].health is Health.DOWN))
                assert detail in (await rig.driver.look()).checks[HOST].detail
    with capsys.disabled():
        shown = " ".join(f"{seconds:.2f}" for seconds in took)
        sys.stdout.write(f"\n{death.__name__}: down after {shown} s; up after {max(back):.2f} s\n")
    assert max(took) <= bound_s
    assert max(back) <= 2.0
