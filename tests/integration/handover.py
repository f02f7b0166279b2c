"""A pool handed from a shared php-fpm to a unit of its own and back, under load; run in a mount namespace of its own.

`python -m tests.integration.handover FOLDER STORY` prints what came of it as one line of JSON. Real php-fpm, real
sockets, real mounts; only systemd is played, as far as sockets and processes go.
"""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.layout import pools
from agent.layout.carry import Carrier, guarded
from agent.layout.convert import convert
from agent.layout.moves import Places, Plan, Record, Shared, note_of
from agent.layout.steps import Guard, Step
from agent.layout.survey import WANTS, sockets
from agent.layout.undo import undo
from agent.usage.fpm import Stream, request
from deploy.demo.packages import Tools, bring

SITE, UNIT = "garden", "php8.2-fpm.service"
PROGRAM = "php-fpm8.2"
CLIENTS = 6  # more than the pool has workers: some always wait in the queue
SCRIPT = "<?php usleep(rand(5000, 60000)); echo 'pid=', getmypid();"
POOL = """\
[{name}]
user = nobody
group = nogroup
listen = {run}/{name}.sock
listen.mode = 0660
pm = {pm}
pm.max_children = 4
pm.start_servers = 2
pm.min_spare_servers = 1
pm.max_spare_servers = 3
"""


@dataclass
class Load:
    """Visitors of one pool, who ask until they are told to stop."""

    path: Path
    script: Path
    stopped: bool = False
    answers: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    last_pid: int = 0

    async def visit(self) -> None:
        while not self.stopped:
            try:
                async with asyncio.timeout(20):
                    self.last_pid = await self._ask()
                self.answers += 1
            except (OSError, ValueError) as error:
                self.failures[repr(error)[:80]] += 1
                await asyncio.sleep(0.01)

    async def _ask(self) -> int:
        stream = Stream()
        reader, writer = await asyncio.open_unix_connection(self.path)
        with closing(writer):
            writer.write(request(str(self.script)))
            while not stream.ended:
                data = await reader.read(1 << 16)
                if not data:
                    raise ValueError("closed before the end")
                stream.feed(data)
        found = re.search(rb"pid=(\d+)", stream.out)
        if found is None:
            raise ValueError(bytes(stream.out[:60]).decode(errors="replace"))
        return int(found[1])


class PlayedSystemd:
    """Sockets, services and drop-ins as systemd has them: what a unit says counts from the last daemon-reload on."""

    def __init__(self, folder: Path, places: Places, shared: Path) -> None:
        tools = Tools(bring((PROGRAM.replace("php-fpm", "php") + "-fpm",)))
        self.program = str(tools.path(PROGRAM))
        self._env = tools.env()
        self._folder, self._places, self._main = folder, places, shared
        self._listener: socket.socket | None = None
        self._own: asyncio.subprocess.Process | None = None
        self._shared: asyncio.subprocess.Process | None = None
        self._loaded: dict[str, str] = {}
        self.done: list[str] = []

    async def systemctl(self, verb: str, *units: str) -> None:
        self.done.append(" ".join((verb, *units)))
        match verb, units:
            case "daemon-reload", _:
                paths = self._places.units.glob("*.d/site.conf")
                self._loaded = {path.parent.name: path.read_text() for path in paths}
            case "start", _:
                self._listen()
                await self._start()
            case "stop", _:
                await self._stop()
                self._close()
            case "restart", (_,):
                await self._stop()
                await self._start()
            case "reload", _:
                assert self._shared is not None
                self._shared.send_signal(signal.SIGUSR2)
            case "is-active", _:
                assert self._shared is not None and self._shared.returncode is None
            case (("enable" | "disable"), (unit,)):
                wants = self._places.units / WANTS
                wants.mkdir(parents=True, exist_ok=True)
                (wants / unit).unlink(missing_ok=True)
                if verb == "enable":
                    (wants / unit).symlink_to("../relevo-php@.socket")
            case _:
                raise AssertionError(verb)

    async def start_shared(self) -> None:
        self._shared = await self._run(str(self._main))
        await asyncio.sleep(1)

    async def stop_shared(self) -> None:
        assert self._shared is not None
        self._shared.send_signal(signal.SIGQUIT)
        await self._shared.wait()

    @property
    def own_pid(self) -> int:
        return self._own.pid if self._own else 0

    @property
    def shared_pid(self) -> int:
        return self._shared.pid if self._shared else 0

    def _listen(self) -> None:
        if self._listener is None:
            path = self._places.run / f"{SITE}.sock"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen(4096)

    def _close(self) -> None:
        """As RemoveOnStop= does, the names of Symlinks= too."""
        if self._listener:
            self._listener.close()
            self._listener = None
        (self._places.run / f"{SITE}.sock").unlink(missing_ok=True)
        said = self._loaded.get(f"relevo-php@{SITE}.socket.d", "")
        for name in re.findall(r"^Symlinks=(.*)$", said, re.M):
            Path(name).unlink(missing_ok=True)

    async def _start(self) -> None:
        assert self._listener is not None
        said = self._loaded[f"relevo-php@{SITE}.service.d"]
        given = re.search(r"^Environment=FPM_SOCKETS=(.*)=3$", said, re.M)
        main = re.search(r"--fpm-config (\S+)$", said, re.M)
        assert given and main
        self._own = await self._run(main[1], f"{given[1]}={self._listener.fileno()}")

    async def _stop(self) -> None:
        if self._own and self._own.returncode is None:
            self._own.send_signal(signal.SIGQUIT)
            await self._own.wait()

    async def _run(self, main: str, given: str = "") -> asyncio.subprocess.Process:
        env = {**self._env, "FPM_SOCKETS": given} if given else self._env
        with (self._folder / "php.log").open("a") as log:
            return await asyncio.create_subprocess_exec(
                *(self.program, "-n", "--nodaemonize", "--fpm-config", main),
                env=env,
                stdout=log,
                stderr=log,
                pass_fds=(self._listener.fileno(),) if self._listener and given else (),
            )

    async def end(self) -> None:
        for process in (self._own, self._shared):
            if process and process.returncode is None:
                process.terminate()
                await process.wait()
        if self._listener:
            self._listener.close()


class Story:
    """A host of two pools, `garden` and its neighbour, in one php-fpm, with visitors."""

    def __init__(self, folder: Path, *, patience_s: int, pm: str = "dynamic") -> None:
        self._folder, self._patience_s = folder, patience_s
        self.run = folder / "run"
        self.pools = folder / "pool.d"
        for made in (self.run, self.pools):
            made.mkdir()
        self.places = Places(
            conf=folder / "relevo",
            units=folder / "units",
            tmpfiles=folder / "tmpfiles",
            run=self.run / "relevo-php",
        )
        for name in (SITE, "neighbour"):
            text = POOL.format(name=name, run=self.run, pm=pm)
            (self.pools / f"{name}.conf").write_text(text)
        self.main = folder / "php-fpm.conf"
        self.main.write_text(
            f"[global]\nerror_log = {folder}/php.log\nprocess_control_timeout = {patience_s}\n"
            f"include={self.pools}/*.conf\n"
        )
        self.script = folder / "index.php"
        self.script.write_text(SCRIPT)
        self.systemd = PlayedSystemd(folder, self.places, self.main)
        self.carrier = Carrier(self.places, self.systemd, drain_s=20)
        self.loads = [Load(self.run / f"{name}.sock", self.script) for name in (SITE, "neighbour")]
        section = (self.pools / f"{SITE}.conf").read_text()
        self.record = Record(
            site=SITE,
            pool=SITE,
            slice="user-1001.slice",
            unit=UNIT,
            program=self.systemd.program,
            main=str(self.main),
            file=str(self.pools / f"{SITE}.conf"),
            section=section,
            name=str(self.run / f"{SITE}.sock"),
            bound=str(self.run / f"{SITE}.sock"),
        )

    def convert(self, slice: str = "user-1001.slice") -> Plan:
        file = Path(self.record.file)
        remains = pools.cut(file.read_text(), SITE) if file.exists() else None
        found = sockets(self.record, self.places)
        return convert(self.record, self._shared, found, remains, {}, self.places, slice)

    def undo(self) -> Plan:
        file = Path(self.record.file)
        text = file.read_text() if file.exists() else None
        found = sockets(self.record, self.places)
        return undo(self.record, self._shared, found, text, self.places, accept_cut=False)

    @property
    def _shared(self) -> Shared:
        return Shared(text=self.main.read_text(), siblings=("neighbour",))

    async def carry_out(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            await self.carrier.carry_out(step)

    def noted_slice(self) -> str:
        """Where the unit is, by what the conversion has kept."""
        kept = note_of(self.record, self.places).read_bytes()
        return msgspec.json.decode(kept, type=Record).slice

    def note_again(self) -> None:
        """As a conversion would note the pool that an undo has left."""
        section = Path(self.record.file).read_text()
        bound = pools.settings(section)["listen"]
        self.record = msgspec.structs.replace(self.record, section=section, bound=bound)

    @property
    def is_link(self) -> bool:
        return Path(self.record.name).is_symlink()

    @property
    def is_guarded(self) -> bool:
        return Path(self.record.name) in guarded()

    def served_by(self) -> str:
        """Whose worker has answered a visitor of the site last."""
        parents = {self.systemd.own_pid: "own", self.systemd.shared_pid: "shared"}
        stat = Path(f"/proc/{self.loads[0].last_pid}/stat").read_text()
        return parents.get(int(stat.rpartition(")")[2].split()[1]), "nobody")


async def there_and_back(story: Story, *, guard: bool = True) -> dict[str, object]:
    """Out, into another slice by a restart of the site's own unit, back, and out once more."""
    served = []
    plan = story.convert().steps
    await story.carry_out(tuple(s for s in plan if guard or not isinstance(s, Guard)))
    await asyncio.sleep(0.5)
    served.append(story.served_by())
    await story.carry_out(story.convert("user-1002.slice").steps)
    await asyncio.sleep(0.5)
    if not guard:
        return {"served": served}
    slice = story.noted_slice()
    again = len(story.convert().steps)
    await story.carry_out(story.undo().steps)
    await asyncio.sleep(0.5)
    served.append(story.served_by())
    story.note_again()
    await story.carry_out(story.convert().steps)
    await asyncio.sleep(0.5)
    served.append(story.served_by())
    left = sorted(p.name for p in story.places.tmpfiles.glob("*"))
    return {"served": served, "again": again, "left": left, "slice": slice}


async def without_reload(story: Story) -> dict[str, object]:
    """The shared master cuts requests off when it reloads: it is left alone until somebody restarts it."""
    await story.carry_out(story.convert().steps)
    await asyncio.sleep(0.5)
    first = story.served_by()
    held = story.is_guarded
    reloads = [line for line in story.systemd.done if line.startswith("reload")]
    story.loads[1].stopped = True
    await asyncio.sleep(0.5)
    await story.systemd.stop_shared()
    await story.systemd.start_shared()
    rest = story.convert().steps
    await story.carry_out(rest)
    await asyncio.sleep(0.5)
    return {
        "served": [first, story.served_by()],
        "guarded": [held, story.is_guarded],
        "reloads": reloads,
        "rest": [type(step).__name__ for step in rest],
        "link": story.is_link,
    }


async def main(folder: Path, name: str) -> dict[str, object]:
    story = Story(folder, patience_s=0 if name == "without_reload" else 30)
    await story.systemd.start_shared()
    try:
        async with asyncio.TaskGroup() as group:
            for load in story.loads:
                for _ in range(CLIENTS):
                    group.create_task(load.visit())
            await asyncio.sleep(0.5)
            try:
                match name:
                    case "there_and_back":
                        told = await there_and_back(story)
                    case "unguarded":
                        told = await there_and_back(story, guard=False)
                    case _:
                        told = await without_reload(story)
            finally:
                for load in story.loads:
                    load.stopped = True
    finally:
        await story.systemd.end()
    failures = [dict(load.failures) for load in story.loads]
    return {**told, "answers": [load.answers for load in story.loads], "failures": failures}


if __name__ == "__main__":
    os.umask(0o022)
    sys.stdout.write(json.dumps(asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))) + "\n")
