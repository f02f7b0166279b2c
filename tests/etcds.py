"""Real etcd clusters for tests: on loopback, each member with a folder of its own, ended with the test."""

import asyncio
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import aiohttp

from deploy.demo.packages import bring, bring_from
from tests.ports import free_port
from tests.relays import Relay

START_S = 20.0
HOST = "127.0.0.1"
OLD, NEW = "3.4", "3.5"  # Debian 12's; Debian 13's, past the releases of 3.5 that lose data
ALONE = ("--heartbeat-interval", "20", "--election-timeout", "200")  # it elects itself, sooner
NEWER_RELEASE = "trixie"


@cache
def binary(version: str) -> Path:
    """etcd of that minor version, from Debian's packages."""
    names = ("etcd-server",)
    root = bring(names) if version == OLD else bring_from(NEWER_RELEASE, names)
    path = root / "usr/bin/etcd"
    said = subprocess.run((path, "--version"), capture_output=True, text=True, check=True).stdout
    found = re.search(r"etcd Version: (\d+\.\d+)\.(\d+)", said)
    assert found and found[1] == version, f"{path}: {said}"
    assert version != NEW or int(found[2]) >= 6, f"{path} can lose data: {said}"
    return path


@cache
def control() -> Path:
    """etcdctl; Debian 12's speaks with every version here."""
    return bring(("etcd-client",)) / "usr/bin/etcdctl"


@dataclass(slots=True, eq=False)
class Member:
    """One etcd process. Clients come to `url`, its peers to `peer_url`: a relay's, where they can be cut off."""

    name: str
    directory: Path
    client_port: int
    peer_port: int
    side_port: int
    peer_url: str
    scheme: str = "http"
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://{HOST}:{self.client_port}"

    @property
    def side_url(self) -> str:
        """Health and metrics, always in the clear and without a password."""
        return f"http://{HOST}:{self.side_port}"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def freeze(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(10)
            self.process = None


@dataclass(slots=True, eq=False)
class Cluster:
    version: str
    members: tuple[Member, ...]
    relays: dict[str, Relay]
    options: tuple[str, ...] = ()
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(member.url for member in self.members)

    def start(self, *members: Member) -> None:
        """Those named, else all of them."""
        for member in members or self.members:
            self._start(member)

    def _start(self, member: Member) -> None:
        everyone = ",".join(f"{one.name}={one.peer_url}" for one in self.members)
        command = (
            *("setpriv", "--pdeathsig", "KILL"),  # it dies with a test run that is ended
            *(str(binary(self.version)), "--name", member.name),
            *("--data-dir", str(member.directory / "data"), "--log-level", "warn"),
            *("--logger", "zap", "--initial-cluster-token", self.token),
            *("--listen-client-urls", member.url, "--advertise-client-urls", member.url),
            *("--listen-peer-urls", f"http://{HOST}:{member.peer_port}"),
            *("--initial-advertise-peer-urls", member.peer_url, "--initial-cluster", everyone),
            *("--listen-metrics-urls", member.side_url, "--initial-cluster-state", "new"),
            *(ALONE if len(self.members) == 1 else ()),
            *self.options,
        )
        with (member.directory / "log").open("ab") as log:
            member.process = subprocess.Popen(command, stdout=log, stderr=log)

    async def ready(self, *members: Member) -> None:
        """Wait until those named, else all of them, know a leader and answer."""
        async with asyncio.timeout(START_S):
            for member in members or self.members:
                while not await self._well(member):
                    assert member.process and member.process.poll() is None, member.log
                    await asyncio.sleep(0.05)

    async def _well(self, member: Member) -> bool:
        return '"health":"true"' in await fetch(f"{member.side_url}/health")

    async def leader(self) -> Member:
        async with asyncio.timeout(START_S):
            while True:
                for member in self.members:
                    if member.process and "etcd_server_is_leader 1" in await metrics(member):
                        return member
                await asyncio.sleep(0.05)

    async def watchers(self) -> int:
        """How many watchers all members together hold for their clients."""
        texts = [await metrics(member) for member in self.members]
        found = (re.search(r"^etcd_debugging_mvcc_watcher_total (\d+)", t, re.M) for t in texts)
        return sum(int(one[1]) for one in found if one)

    def stop(self) -> None:
        for member in self.members:
            if member.process:
                member.thaw()
                member.kill()


async def metrics(member: Member) -> str:
    return await fetch(f"{member.side_url}/metrics")


async def fetch(url: str) -> str:
    """What `url` says; nothing, if nobody answers within a second."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session,
            session.get(url) as response,
        ):
            return await response.text()
    except (aiohttp.ClientError, TimeoutError):
        return ""


@asynccontextmanager
async def cluster(
    version: str = NEW,
    *,
    size: int = 3,
    options: Sequence[str] = (),
    relayed: bool = False,
    scheme: str = "http",
    below: Path | None = None,
) -> AsyncGenerator[Cluster, None]:
    """A running cluster. `relayed`: its members can be cut off from one another. `scheme` is its clients'."""
    one = laid_out(version, size=size, options=options, relayed=relayed, scheme=scheme, below=below)
    try:
        for relay in one.relays.values():
            await relay.open()
        one.start()
        await one.ready()
        yield one
    finally:
        one.stop()
        for relay in one.relays.values():
            await relay.close()
        removed(one)


def removed(one: Cluster) -> None:
    shutil.rmtree(one.members[0].directory.parent)


def laid_out(
    version: str,
    *,
    size: int = 3,
    options: Sequence[str] = (),
    relayed: bool = False,
    scheme: str = "http",
    below: Path | None = None,
) -> Cluster:
    """The folders of a cluster, ready to start."""
    home = Path(tempfile.mkdtemp(prefix="relevo-etcd-", dir=below))
    members: list[Member] = []
    relays: dict[str, Relay] = {}
    for name in (f"m{number}" for number in range(1, size + 1)):
        client, peer, side, front = (free_port() for _ in range(4))
        if relayed:
            relays[name] = Relay(front, peer)
        (home / name).mkdir()
        url = f"http://{HOST}:{front if relayed else peer}"
        members.append(Member(name, home / name, client, peer, side, url, scheme))
    return Cluster(version, tuple(members), relays, tuple(options))
