"""300 agents, two beats a second each, on one real controller: its CPU and memory, and the latest beat.

The agents are simulated in a process of their own: real WebSockets, beats of real size, acknowledgements timed.
"""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import msgspec

from bench.daemons import controller
from bench.measure import machine, row, spread
from fleet.documents import read
from fleet.messages import Ack, Beat, Check, Disk, FromController, Load, Pressure
from fleet.model import Health, HostId, Role
from fleet.writing import write

AGENTS, BEAT_S, SECONDS = 300, 0.5, 30.0
_decoder: msgspec.json.Decoder[FromController] = msgspec.json.Decoder(FromController)


def main() -> None:
    print(f"  {machine()}; {AGENTS} agents for {SECONDS:g} s, no TLS")
    asyncio.run(_run())


async def _run() -> None:
    hosts = [f"host-{n:03}" for n in range(AGENTS)]
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        async with controller(home, agents={host: f"token-{host}" for host in hosts}) as daemon:
            await daemon.until_ready()
            await daemon.put_fleet(_fleet(hosts))
            load = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench.beats", daemon.url, stdout=asyncio.subprocess.PIPE
            )
            await asyncio.sleep(8)  # all connected, first orders given
            used = daemon.process.cpu_times()
            began = time.monotonic()
            await asyncio.sleep(SECONDS - 10)
            now = daemon.process.cpu_times()
            cpu = (now.user + now.system - used.user - used.system) / (time.monotonic() - began)
            memory = daemon.process.memory_info().rss / 2**20
            output, _ = await load.communicate()
            status = await daemon.get("/v1/status")
    late = json.loads(output)
    row("controller CPU", f"{cpu:.1%} of a core", "<= 25 %", reached=cpu <= 0.25)
    row("controller memory", f"{memory:.0f} MB", "<= 150 MB", reached=memory <= 150)
    row(
        "latest beat acknowledged after", f"{max(late):.3f} s", "<= 1.5 s", reached=max(late) <= 1.5
    )
    print(f"          acknowledged after: {spread(late)}")
    print(f"          verdicts at the end: {status['hosts']}")


def _fleet(hosts: list[str]) -> str:
    """A fleet of 300 hosts, ten of them edges."""
    fleet = read((Path(__file__).parents[1] / "deploy/demo/coop.yaml").read_text(), "coop.yaml")
    location = next(iter(fleet.locations.values()))
    some = next(iter(fleet.hosts.values()))
    declared = {
        HostId(id): msgspec.structs.replace(
            some,
            id=HostId(id),
            tag=f"t{n}",
            location=location.id,
            addresses=(f"10.{n // 250}.{n % 250}.1",),
            roles=(Role.EDGE,) if n < 10 else some.roles,
        )
        for n, id in enumerate(hosts)
    }
    return write(msgspec.structs.replace(fleet, hosts=declared, sites={}, members={}, zones={}))


def _beat(host: str, sequence: int, checks: dict[HostId, Check]) -> bytes:
    disk = Disk(read_bytes_per_s=1e6, write_bytes_per_s=2e6, busy_ratio=0.1)
    load = Load(
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
    return msgspec.json.encode(
        Beat(
            host=HostId(host),
            sequence=sequence,
            boot_id="0b9ff3a0-6f5e-4d4c-9d3e-2f5b8f1f9d11",
            uptime_s=1e6 + sequence,
            kernel="6.1.0-18-amd64",
            version="0.1.0",
            load=load,
            checks=checks,
        )
    )


async def _agent(session: aiohttp.ClientSession, url: str, n: int, late: list[float]) -> None:
    """One agent for SECONDS; edges carry their checks of all hosts."""
    host = f"host-{n:03}"
    up = Check(health=Health.UP, since_s=100.0, detail="L7OK")
    checks = {HostId(f"host-{k:03}"): up for k in range(AGENTS) if k != n} if n < 10 else {}
    loop = asyncio.get_running_loop()
    sent: dict[int, float] = {}
    await asyncio.sleep(n / AGENTS * BEAT_S)
    async with session.ws_connect(
        f"{url}/v1/link/{host}",
        headers={"Authorization": f"Bearer token-{host}"},
        compress=0,
        max_msg_size=0,
    ) as socket:

        async def listen() -> None:
            async for message in socket:
                answer = _decoder.decode(message.data)
                if isinstance(answer, Ack) and (at := sent.pop(answer.sequence, None)):
                    late.append(loop.time() - at)

        async with asyncio.TaskGroup() as group:
            listener = group.create_task(listen())
            began = loop.time()
            for sequence in range(1, int(SECONDS / BEAT_S)):
                sent[sequence] = loop.time()
                await socket.send_bytes(_beat(host, sequence, checks))
                await asyncio.sleep(began + sequence * BEAT_S - loop.time())
            listener.cancel()
    now = loop.time()
    late.extend(now - at for at in sent.values() if now - at > BEAT_S)


async def _load(url: str) -> None:
    late: list[float] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
        for n in range(AGENTS):
            group.create_task(_agent(session, url, n, late))
    print(json.dumps(late))


if __name__ == "__main__":
    asyncio.run(_load(sys.argv[1]))
