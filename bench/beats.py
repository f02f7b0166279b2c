"""300 agents, two beats a second each, on one real controller: its CPU and memory, and the latest beat.

Once without and once with TLS. The agents are simulated in a process of their own: real WebSockets, beats of real
size, orders for 1,050 sites taken and confirmed, the use of each site told each 10 s, acknowledgements timed.
"""

import asyncio
import json
import ssl
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import msgspec

from bench.daemons import controller
from bench.measure import machine, row, spread
from deploy.demo.certificates import Authority
from fleet.caps import Attachment, IoLimit, Limits
from fleet.documents import read
from fleet.messages import (
    Ack,
    Applied,
    Beat,
    Check,
    Disk,
    EdgeReport,
    FromController,
    Load,
    Orders,
    Pressure,
    Service,
    SiteUse,
    Usage,
)
from fleet.model import Fleet, Health, Host, HostId, Role, Site, Why
from fleet.writing import write

AGENTS, EDGES, BEAT_S, SECONDS = 300, 10, 0.5, 30.0
USAGE_BEATS = 20  # a host's sites are told each 10 s
LIMITS = Limits(
    cpu_weight=100,
    cpu_quota_us=1_500_000,
    memory_high_bytes=900 << 20,
    memory_max_bytes=1 << 30,
    memory_low_bytes=96 << 20,
    swap_max_bytes=100 << 20,
    tasks_max=120,
    io={
        "259:0": IoLimit(
            read_bytes_per_s=20_000_000,
            write_bytes_per_s=10_000_000,
            read_ops_per_s=2000,
            write_ops_per_s=1000,
        )
    },
)
SETTLE_S = 8.0  # all connected, first orders given
_decoder: msgspec.json.Decoder[FromController] = msgspec.json.Decoder(FromController)
_replace = msgspec.structs.replace


def main() -> None:
    fleet = _fleet()
    print(f"  {machine()}; {AGENTS} agents, {len(fleet.sites):,} sites, {SECONDS:g} s each")
    for tls in (False, True):
        asyncio.run(_run(write(fleet), tls=tls))


async def _run(fleet: str, *, tls: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        authority = Authority(home) if tls else None
        tokens = {host: f"token-{host}" for host in map(_name, range(AGENTS))}
        async with controller(home, agents=tokens, authority=authority) as daemon:
            await daemon.until_ready()
            await daemon.put_fleet(fleet)
            trusted = [str(authority.path)] if authority else []
            load = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "bench.beats",
                daemon.url,
                *trusted,
                stdout=asyncio.subprocess.PIPE,
            )
            await asyncio.sleep(SETTLE_S)
            used = daemon.process.cpu_times()
            began = time.monotonic()
            await asyncio.sleep(SECONDS - SETTLE_S - 2)
            now = daemon.process.cpu_times()
            cpu = (now.user + now.system - used.user - used.system) / (time.monotonic() - began)
            memory = daemon.process.memory_info().rss / 2**20
            status = await daemon.get("/v1/status")
            report = await daemon.get("/v1/caps/report?limit=1")
            output, _ = await load.communicate()
    said = json.loads(output)
    late, ordered = said["late"], said["ordered"]
    wire = "TLS" if tls else "no TLS"
    row(f"controller CPU, {wire}", f"{cpu:.1%} of a core", "<= 25 %", reached=cpu <= 0.25)
    row(f"controller memory, {wire}", f"{memory:.0f} MB", "<= 150 MB", reached=memory <= 150)
    row(
        f"latest beat acknowledged after, {wire}",
        f"{max(late):.3f} s",
        "<= 1.5 s",
        reached=max(late) <= 1.5,
    )
    print(f"          acknowledged after: {spread(late)}")
    print(f"          agents with orders: {ordered}; verdicts: {status['hosts']}")
    print(f"          sites of which nothing was told: {report['unheard']}")


def _name(n: int) -> str:
    return f"host-{n:03}"


def _fleet() -> Fleet:
    """300 hosts, the first ten of them edges; the sites of coop.yaml go round the others."""
    fleet = read((Path(__file__).parents[1] / "deploy/demo/coop.yaml").read_text(), "coop.yaml")
    locations = list(fleet.locations)
    hosts = [
        Host(
            id=HostId(_name(n)),
            tag=f"t{n}",
            location=locations[n % len(locations)],
            addresses=(f"10.{n // 250}.{n % 250}.1",),
            roles=(Role.EDGE if n < EDGES else Role.WEB,),
        )
        for n in range(AGENTS)
    ]
    webs = [host.id for host in hosts if not host.is_edge]
    sites = [_moved(site, n, webs) for n, site in enumerate(fleet.sites.values())]
    return _replace(
        fleet, hosts={host.id: host for host in hosts}, sites={site.id: site for site in sites}
    )


def _moved(site: Site, n: int, webs: list[HostId]) -> Site:
    home, *standbys = (webs[(n + step) % len(webs)] for step in range(1 + len(site.standbys)))
    return _replace(site, home=home, standbys=tuple(standbys))


def _load() -> Load:
    disk = Disk(read_bytes_per_s=1e6, write_bytes_per_s=2e6, busy_ratio=0.1)
    return Load(
        cpu_ratio=0.25,
        load_1min=3.1,
        memory_total_bytes=64 << 30,
        memory_available_bytes=20 << 30,
        swap_used_bytes=0,
        receive_bytes_per_s=1e7,
        transmit_bytes_per_s=2e7,
        disks={"nvme0n1": disk, "nvme1n1": disk},
        pressure=Pressure(cpu=0.01, memory=0.0, io=0.02),
    )


class _Agent:
    """One agent: beats, and what it was told. Edges see all other hosts, the others their own service."""

    def __init__(self, n: int) -> None:
        self.host = HostId(_name(n))
        self.late: list[float] = []
        self.orders: Orders | None = None
        self._sent: dict[int, float] = {}
        self._turn = n % USAGE_BEATS
        up = Check(health=Health.UP, since_s=100.0, detail="L7OK")
        others = (HostId(_name(k)) for k in range(AGENTS) if k != n)
        edge = n < EDGES
        self._beat = Beat(
            host=self.host,
            sequence=0,
            boot_id="0b9ff3a0-6f5e-4d4c-9d3e-2f5b8f1f9d11",
            uptime_s=1e6,
            kernel="6.1.0-18-amd64",
            version="0.1.0",
            load=_load(),
            service=None if edge else Service(check=up),
            checks=dict.fromkeys(others, up) if edge else {},
            edge=EdgeReport(haproxy_up=True) if edge else None,
        )

    async def run(self, session: aiohttp.ClientSession, url: str, begin_s: float) -> None:
        await asyncio.sleep(begin_s)
        loop = asyncio.get_running_loop()
        async with (
            session.ws_connect(
                f"{url}/v1/link/{self.host}",
                headers={"Authorization": f"Bearer token-{self.host}"},
                compress=0,
                max_msg_size=0,
            ) as socket,
            asyncio.TaskGroup() as group,
        ):
            listener = group.create_task(self._listen(socket))
            began = loop.time()
            for sequence in range(1, int(SECONDS / BEAT_S)):
                self._sent[sequence] = loop.time()
                await socket.send_bytes(msgspec.json.encode(self._say(sequence)))
                if (sequence + self._turn) % USAGE_BEATS == 0 and self.orders is not None:
                    await socket.send_bytes(msgspec.json.encode(self._usage(sequence)))
                await asyncio.sleep(began + sequence * BEAT_S - loop.time())
            listener.cancel()
        now = loop.time()
        self.late.extend(now - at for at in self._sent.values() if now - at > BEAT_S)

    def _say(self, sequence: int) -> Beat:
        beat = _replace(self._beat, sequence=sequence, uptime_s=1e6 + sequence)
        if (orders := self.orders) is None:
            return beat
        return _replace(
            beat,
            cluster=orders.cluster,
            orders=orders.epoch,
            newest=orders.epoch,
            commit=orders.commit,
            edge=beat.edge and _replace(beat.edge, routes=orders.epoch),
        )

    def _usage(self, sequence: int) -> Usage:
        """Of each site that it was given. What is held comes with every second one; agents tell it each minute."""
        held = LIMITS if sequence % (2 * USAGE_BEATS) < USAGE_BEATS else None
        use = SiteUse(
            attachment=Attachment.SLICE,
            cpu_cores=0.1 + sequence / 1000,
            throttled_ratio=0.0,
            memory_bytes=200 << 20,
            anon_bytes=150 << 20,
            file_bytes=40 << 20,
            memory_high_hits=3,
            throttled_periods=20,
            swap_bytes=0,
            read_bytes_per_s=1e5,
            write_bytes_per_s=1e5,
            tasks=12,
            requests_per_s=3.5,
            slice="user-1001.slice",
            wanted=held,
            held=held,
            because={"cpu_quota_us": Why("cap-plan")} if held else {},
        )
        assert self.orders is not None
        sites = dict.fromkeys(self.orders.sites, use)
        return Usage(host=self.host, sites=sites, driver="systemd")

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        now = asyncio.get_running_loop().time
        async for message in socket:
            match _decoder.decode(message.data):
                case Ack(sequence=sequence) if (at := self._sent.pop(sequence, None)) is not None:
                    self.late.append(now() - at)
                case Orders() as orders:
                    self.orders = orders
                    await socket.send_bytes(msgspec.json.encode(Applied(epoch=orders.epoch)))


async def _agents(url: str, *trusted: str) -> None:
    agents = [_Agent(n) for n in range(AGENTS)]
    tls = ssl.create_default_context(cafile=trusted[0]) if trusted else True
    connector = aiohttp.TCPConnector(limit=0, ssl=tls)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
        for n, agent in enumerate(agents):
            group.create_task(agent.run(session, url, n / AGENTS * BEAT_S))
    late = [second for agent in agents for second in agent.late]
    print(json.dumps({"late": late, "ordered": sum(a.orders is not None for a in agents)}))


if __name__ == "__main__":
    asyncio.run(_agents(*sys.argv[1:]))
