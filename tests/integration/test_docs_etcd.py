"""docs/etcd.md is followed as it stands, on three addresses of the loopback: from certificates to a full quota."""

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from controller.config import Config
from controller.store import Compacted, NoSpace, StoreError
from controller.stores import Etcd, opening
from fleet.keys import PREFIX
from runtime.config import load
from tests.contract.stores import take
from tests.etcds import OLD, binary, control

pytestmark = pytest.mark.integration

DOCS = Path(__file__).parents[2] / "docs"
NAMES = {"c1": "203.0.113.10", "c2": "203.0.113.11", "c3": "203.0.113.12"}
NET = f"127.{64 + os.getpid() % 128}.7"  # another run's members stand beside ours
HERE = {address: f"{NET}.{number}" for number, address in enumerate(NAMES.values(), start=1)}
OTHERS_WORK = ("apt ", "systemctl ", "rm ")  # they are about a machine that is not this one
QUOTA_BYTES, LARGE_BYTES = 8 << 20, 1 << 20
READY_S = 30.0
ROOT = ("--user", "root:r")


def blocks(document: str, heading: str, kind: str = "") -> list[str]:
    text = (DOCS / document).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [found for said, found in fenced if said == kind]


class Machines:
    """Where the documents' files and addresses are here: each machine has a folder in place of /etc."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.bin / "etcdctl").symlink_to(control())
        for name in NAMES:
            (self.etc(name) / "relevo").mkdir(parents=True)

    def etc(self, name: str) -> Path:
        return self._folder / name / "etc"

    def here(self, text: str, name: str = "c1") -> str:
        text = text.replace("/root/etcd-ca", str(self._folder / "ca"))
        text = re.sub(r"(?<=[ =\"])/etc/", f"{self.etc(name)}/", text)
        for there, address in HERE.items():
            text = text.replace(there, address)
        return text

    def sh(self, text: str, name: str = "c1", *, stdin: str = "", cwd: str = "") -> str:
        """What the lines say, typed on the machine `name`. Raises AssertionError where one fails."""
        done = subprocess.run(
            ("bash", "-e", "-o", "pipefail", "-c", self.here(text, name)),
            env={**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}"},
            cwd=self._folder / cwd,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def install(self, name: str) -> None:
        """The block for one machine; who owns a file is no matter here, where one user does all."""
        (text,) = blocks("etcd.md", "Its own certificates")[1:]
        lines = [line for line in text.splitlines() if not line.startswith(OTHERS_WORK)]
        assert len(lines) == 6
        text = re.sub(r" -o \w+", "", "\n".join(lines))
        self.sh(text.replace(NAMES["c1"], NAMES[name]), name, cwd="ca")

    @contextmanager
    def etcd(self, name: str) -> Iterator[None]:
        """A member that runs by /etc/default/etcd."""
        (text,) = blocks("etcd.md", "Its settings", "sh")
        mine = [
            line
            if line.startswith("ETCD_INITIAL_CLUSTER=")
            else line.replace(NAMES["c1"], NAMES[name]).replace("=c1", f"={name}")
            for line in text.splitlines()
        ]
        settings = dict(self.here(line, name).split("=", 1) for line in mine)
        data = self._folder / name / "data"
        settings |= {"ETCD_DATA_DIR": str(data), "ETCD_QUOTA_BACKEND_BYTES": str(QUOTA_BYTES)}
        with (self._folder / name / "log").open("wb") as log:
            process = subprocess.Popen(
                ("setpriv", "--pdeathsig", "KILL", str(binary(OLD))),
                env={**os.environ, **settings},
                stdout=log,
                stderr=log,
            )
            try:
                yield
            finally:
                process.kill()
                process.wait(10)


@asynccontextmanager
async def three(machines: Machines) -> AsyncGenerator[str, None]:
    """The cluster, up; gives the lines that etcdctl needs before its own."""
    (health,) = blocks("etcd.md", "Its settings")
    exports = "".join(line for line in health.splitlines(True) if line.startswith("export "))
    with machines.etcd("c1"), machines.etcd("c2"), machines.etcd("c3"):
        async with asyncio.timeout(READY_S):
            while True:
                try:
                    said = await asyncio.to_thread(machines.sh, health)
                    break
                except AssertionError:
                    await asyncio.sleep(0.5)
        assert said.count("is healthy") == 3
        assert all(f"started, {name}," in said for name in NAMES)
        yield exports


def settings(machines: Machines, folder: Path, more: str = "") -> Etcd:
    """What install.md says for controller.toml."""
    (store,) = (one for one in blocks("install.md", "Three controllers", "toml") if "etcd" in one)
    path = folder / "controller.toml"
    path.write_text(f'id = "c1"\n{machines.here(store)}{more}')
    found = load(path, Config).store
    assert isinstance(found, Etcd)
    return found


async def test_an_etcd_is_set_up_as_the_page_says_and_a_full_one_emptied(tmp_path: Path) -> None:
    """Controllers read and write there with what install.md has them say; the quota is reached and lifted."""
    machines = Machines(tmp_path)
    # A member's peers look at where it comes from: on the loopback, from its first address.
    certificates = blocks("etcd.md", "Its own certificates")[0].replace(
        "IP:$ip", "IP:$ip,IP:127.0.0.1"
    )
    machines.sh(certificates)
    for name in NAMES:
        machines.install(name)
    async with three(machines) as exports:
        async with opening(settings(machines, tmp_path), tmp_path) as store:
            await store.put(PREFIX + b"a", b"1")
            with pytest.raises(NoSpace):
                for _ in range(3 * QUOTA_BYTES // LARGE_BYTES):
                    await store.put(PREFIX + b"large", bytes(LARGE_BYTES))
            (empty,) = blocks("etcd.md", "It says that there is no space")
            await asyncio.to_thread(machines.sh, exports + empty)
            try:
                await store.put(PREFIX + b"a", b"2")
            except NoSpace:  # a member was not through: once more, as the page says
                again = empty.partition("etcdctl defrag")
                await asyncio.to_thread(machines.sh, exports + again[1] + again[2])
                await store.put(PREFIX + b"a", b"2")
        await _shared(machines, exports, tmp_path)


async def _shared(machines: Machines, exports: str, folder: Path) -> None:
    """With authentication on, a role for relevo's own keys is enough, also for what it is told after a compaction."""
    (roles,) = blocks("etcd.md", "What controllers say: `[store]`")
    typed = roles.replace("user add relevo", "user add relevo --interactive=false")
    root = "etcdctl user add root:r\netcdctl user grant-role root root\netcdctl auth enable\n"
    await asyncio.to_thread(machines.sh, exports + typed + root, stdin="correct-horse\n")
    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text("correct-horse\n")
    more = f'user = "relevo"\npassword_file = "{password}"\nprefix = "coop"\n'
    async with opening(settings(machines, folder, more), folder) as store:
        first = await store.put(PREFIX + b"a", b"1")
        async with aclosing(store.watch(PREFIX, after=first - 1)) as batches:
            await take(batches, 1)
        last = await store.put(PREFIX + b"a", b"2")
        await asyncio.to_thread(machines.sh, f"{exports}etcdctl {' '.join(ROOT)} compact {last}")
        with pytest.raises(Compacted) as gone:
            await store.list(PREFIX, revision=first)
        assert gone.value.revision == last
        with pytest.raises(StoreError):
            await store.put(b"elsewhere", b"1")
