"""The visitors as the demo sees them: the load process, and what it has told so far."""

import asyncio
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from deploy.demo.lab import Kind, Lab
from deploy.demo.load import TELL_EVERY_S, TIMEOUT_S, Crowd, Failure, Tally, Target
from deploy.demo.processes import Ended
from fleet.model import Site

RECENT = int(300 / TELL_EVERY_S)  # tallies: five minutes of them
LINE_LIMIT_BYTES = 1 << 20


class Visitors:
    """What the load process has told. `failed_at`: failed requests by site and door."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.ok: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.failed_at: Counter[tuple[str, str]] = Counter()
        self.failures: deque[Failure] = deque(maxlen=RECENT)
        self.recent: deque[Tally] = deque(maxlen=RECENT)
        self._process = process
        self._finished = asyncio.Event()

    @property
    def requests(self) -> int:
        return self.ok.total() + self.failed.total()

    async def listen(self) -> None:
        """Take in what the load process tells, until its last word."""
        assert self._process.stdout
        while line := await self._process.stdout.readline():
            tally = msgspec.json.decode(line, type=Tally)
            for site, (ok, failed) in tally.sites.items():
                self.ok[site] += ok
                self.failed[site] += failed
            self.failed_at.update((failure.site, failure.door) for failure in tally.failures)
            self.failures.extend(tally.failures)
            self.recent.append(tally)
            if tally.last:
                self._finished.set()
                return
        raise Ended("the load generator has ended")

    async def finish(self) -> None:
        """No more requests; wait for those under way."""
        assert self._process.stdin
        self._process.stdin.close()
        # A question to DNS, a visit, the next tally, and a machine that is busy with something else as well.
        async with asyncio.timeout(8 * TIMEOUT_S):
            await self._finished.wait()


@asynccontextmanager
async def visitors(
    crowd: Crowd, *, directory: Path, group: asyncio.TaskGroup
) -> AsyncIterator[Visitors]:
    """Visitors come, in a process of their own, until the block ends; its log is in `directory`."""
    with (directory / "load.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *(sys.executable, "-m", "deploy.demo.load"),
            cwd=directory,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            limit=LINE_LIMIT_BYTES,
        )
    try:
        assert process.stdin
        process.stdin.write(msgspec.json.encode(crowd) + b"\n")
        told = Visitors(process)
        listening = group.create_task(told.listen())
        try:
            yield told
        finally:
            listening.cancel()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def crowd(lab: Lab, sites: Iterable[Site], seed: int) -> Crowd:
    """Who visits `sites`."""
    sites = tuple(sites)
    return Crowd(
        sites=tuple(Target(s.id, s.domains[0]) for s in sites if s.route == "edges"),
        doors=tuple(door for edge in lab.of(Kind.EDGE) for door in edge.doors),
        direct=tuple(Target(s.id, s.domains[0]) for s in sites if s.route == "direct"),
        name_servers=lab.name_servers,
        direct_port=lab.http_port,
        direct_ipv6=any(":" in address for m in lab.of(Kind.WEB) for address in m.addresses),
        seed=seed,
    )
