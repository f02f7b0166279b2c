"""A real HAProxy with the edge's driver, web servers behind it, and visitors in front: all on loopback."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from agent.config import Edge
from agent.edge.haproxy import HAProxy
from agent.ports import DriverError, EdgeView
from deploy.demo.packages import Tools
from fleet.messages import Routes, Target
from fleet.model import Domain, Epoch, Health, HostId
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from tests.ports import free_port

PROOF = "-a-proof-token-of-the-tests"  # as one in 64 random tokens begins


@dataclass(slots=True)
class Process:
    """HAProxy as a service manager runs it: a master that is started anew when it died."""

    tools: Tools
    edge: Edge
    master: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = (
            str(self.tools.path("haproxy")),
            "-W",
            "-S",
            str(self.edge.master_socket),
            "-f",
            str(self.edge.directory / "haproxy.cfg"),
        )
        with (self.edge.directory / "log").open("ab") as log:
            self.master = subprocess.Popen(command, env=self.tools.env(), stdout=log, stderr=log)

    def kill(self) -> None:
        """As the kernel's OOM killer would: the workers see their master's end and go too."""
        assert self.master
        self.master.kill()
        self.master.wait(10)

    def end(self) -> None:
        if self.master and self.master.poll() is None:
            self.master.terminate()
            try:
                self.master.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    @property
    def log(self) -> str:
        return (self.edge.directory / "log").read_text()


@dataclass(slots=True)
class Rig:
    """One edge: its HAProxy, its driver, and how visitors reach it."""

    edge: Edge
    process: Process
    driver: HAProxy
    exporter: Exporter
    url: str

    def again(self) -> HAProxy:
        """The driver of an agent that was started anew."""
        self.driver = HAProxy(self.edge, self.exporter)
        return self.driver

    def metric(self, name: str) -> float:
        for line in self.exporter.render().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        raise KeyError(name)

    def map_file(self) -> dict[str, str]:
        lines = (self.edge.directory / "domains.map").read_text().splitlines()
        return dict(line.split(" ") for line in lines)

    async def ask(self, command: str) -> str:
        """What HAProxy's own socket says, by another hand than the driver's."""
        reader, writer = await asyncio.open_unix_connection(self.edge.socket)
        try:
            writer.write(f"{command}\n".encode())
            async with asyncio.timeout(5):
                return (await reader.read()).decode()
        finally:
            writer.close()

    async def worker(self) -> int:
        """The pid of the worker that serves."""
        answer = await self.ask("show info")
        return int(answer.partition("\nPid: ")[2].split("\n")[0])

    async def get(self, domain: str, *, path: str = "/", proof: str = "") -> tuple[int, str, str]:
        """Status, body, and the host that says it answered."""
        headers = {"Host": domain} | ({"x-relevo-proof": proof} if proof else {})
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as client,
            client.get(self.url + path, headers=headers) as response,
        ):
            body = await response.text()
            return response.status, body, response.headers.get("x-relevo-host", "")

    async def seen(
        self, when: Callable[[EdgeView], bool], *, within_s: float = 5.0, every_s: float = 0.02
    ) -> float:
        """Seconds until a look shows `when`."""
        now = asyncio.get_running_loop().time
        began = now()
        while not when(view := await self.driver.look()):
            assert now() - began < within_s, (
                f"after {within_s} s: {view}\n{self.process.log[-2000:]}"
            )
            await asyncio.sleep(every_s)
        return now() - began

    async def up(self, *hosts: HostId) -> None:
        await self.seen(
            lambda view: all(
                host in view.checks and view.checks[host].health is Health.UP for host in hosts
            )
        )


@asynccontextmanager
async def running(
    tools: Tools, routes: Routes, epoch: Epoch, *, reload_delay_s: float = 2.0
) -> AsyncIterator[Rig]:
    """An edge that follows `routes`, from HAProxy's start to its end."""
    folder = Path(tempfile.mkdtemp(prefix="relevo-edge-"))  # short: a socket's path has 107 bytes
    port = free_port()
    edge = Edge(
        directory=folder,
        binary=str(tools.path("haproxy")),
        socket=folder / "sock",
        master_socket=folder / "master",
        bind=(f"127.0.0.1:{port}", f"[::1]:{port}"),
        max_connections=2000,
        threads=1,
        reload_delay_s=reload_delay_s,
    )
    exporter = Exporter(AGENT)
    process = Process(tools, edge)
    driver = HAProxy(edge, exporter)
    try:
        with library_path(tools):
            # Without HAProxy the driver can only lay out the files, and says so.
            with suppress(DriverError):
                await driver.follow(routes, epoch)
            process.start()
            rig = Rig(edge, process, driver, exporter, f"http://127.0.0.1:{port}")
            await rig.seen(lambda view: view.report.haproxy_up)
            await driver.follow(routes, epoch)
            yield rig
    finally:
        process.end()
        shutil.rmtree(folder)


@asynccontextmanager
async def keeping(rig: Rig) -> AsyncIterator[None]:
    """The driver's eternal loop, for as long as the block lasts."""
    async with asyncio.TaskGroup() as group:
        keeper = group.create_task(rig.driver.keep())
        try:
            yield
        finally:
            keeper.cancel()


@contextmanager
def library_path(tools: Tools) -> Iterator[None]:
    """The driver runs `haproxy -c`, which needs its libraries, in this process' environment."""
    was = os.environ.get("LD_LIBRARY_PATH")
    os.environ["LD_LIBRARY_PATH"] = tools.env()["LD_LIBRARY_PATH"]
    try:
        yield
    finally:
        if was is None:
            del os.environ["LD_LIBRARY_PATH"]
        else:
            os.environ["LD_LIBRARY_PATH"] = was


@asynccontextmanager
async def web_host(
    name: str, address: str, port: int = 0, *, slow: asyncio.Event | None = None
) -> AsyncIterator[Target]:
    """A web server that answers with its name; a lie about who it is, too, which the edge must not pass on.

    While `slow` is set it takes longer than any check waits.
    """

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(0.8 if slow is not None and slow.is_set() else 0.005)
        seen = ",".join(sorted(key.lower() for key in request.headers))
        headers = {
            "x-relevo-host": "a-lie",
            "x-seen": seen,
            "x-from": request.headers.get("x-forwarded-for", ""),
        }
        return web.Response(text=name, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, address, port or free_port(), reuse_address=True)
    await site.start()
    bound: tuple[str, int] = runner.addresses[0][:2]
    try:
        yield Target(address=address, port=bound[1], check="/health")
    finally:
        await runner.cleanup()


@dataclass(slots=True)
class Visitors:
    """What visitors saw: how many requests, and each that failed."""

    answers: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return self.answers.total() + len(self.failed)


@asynccontextmanager
async def visitors(url: str, *domains: str, clients: int = 8) -> AsyncIterator[Visitors]:
    """Visitors of `domains`, half on kept connections, half on a new one for each request, until the block ends."""
    seen = Visitors()
    stop = asyncio.Event()

    async def visit(number: int) -> None:
        connector = aiohttp.TCPConnector(force_close=number % 2 == 0)
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
            while not stop.is_set():
                for domain in domains:
                    await one(client, domain)
                    await asyncio.sleep(0.005)

    async def one(client: aiohttp.ClientSession, domain: str) -> None:
        try:
            async with client.get(url, headers={"Host": domain}) as response:
                body = await response.text()
        except (OSError, aiohttp.ClientError) as error:
            seen.failed.append(f"{domain}: {error!r}")
        else:
            if response.status == 200:
                seen.answers[body] += 1
            else:
                seen.failed.append(f"{domain}: {response.status}")

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(visit(number))
        try:
            yield seen
        finally:
            stop.set()


def domains(**hosts: str) -> dict[Domain, HostId]:
    """`a="w1"` as a.example -> w1."""
    return {Domain(f"{name}.example"): HostId(host) for name, host in hosts.items()}
