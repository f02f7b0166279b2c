"""relevo on virtual machines, installed and configured by the words of docs/operate.md."""

import io
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

from tests.vm.image import CACHE, NotMade
from tests.vm.machine import Machine

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "operate.md"
CLONE = "/root/relevo"
WHEELS = "/root/wheels"
# A machine without a network finds here what pip would have downloaded.
PIP_CONF = f"[global]\nno-index = true\nfind-links = {WHEELS}\ndisable-pip-version-check = true\n"
NOT_CLONED = re.compile(
    r"\.|tests$|bench$|build$|dist$"
)  # what make left, and what installs nothing
LEFT_OUT = re.compile(r"__pycache__|\.mo$|\.egg-info")
INSTALL_S = 300.0
DOWNLOAD_S = 300.0

# Which of the blocks under a heading.
EVERYWHERE, CONTROLLER, EDGE, AGENT = (("Install", number) for number in range(4))
HELD = ("Restarting HAProxy", 0)


def commands(heading: str, number: int) -> list[str]:
    """The lines of a block of commands under `heading`."""
    section = DOCUMENT.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return str(re.findall(r"^```\n(.*?)^```", section, re.M | re.S)[number]).splitlines()


def sample(name: str) -> str:
    """The configuration file that the document shows for /etc/relevo/`name`."""
    section = DOCUMENT.read_text().partition(f": /etc/relevo/{name}\n")[2]
    found = re.search(r"^```toml\n(.*?)^```", section, re.M | re.S)
    assert found is not None
    return found.group(1)


async def follow(vm: Machine, part: tuple[str, int]) -> None:
    """Type the document's lines, in the clone. Raises CommandFailed at the first that fails."""
    for line in commands(*part):
        await vm.do(f"cd {CLONE} && {line}", timeout_s=INSTALL_S)


async def clone(vm: Machine) -> None:
    """The checkout, as a clone would hold it, and the packages that pip will ask for."""
    await _unpack(vm, CLONE, (path for path in ROOT.iterdir() if not NOT_CLONED.match(path.name)))
    await _unpack(vm, WHEELS, _wheels().iterdir())
    await vm.push("/etc/pip.conf", PIP_CONF.encode())


async def _unpack(vm: Machine, folder: str, paths: Iterable[Path]) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in paths:
            archive.add(path, path.name, filter=_wanted)
    await vm.do(f"mkdir -p {folder} && tar x -C {folder}", stdin=packed.getvalue())


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = 0
    return None if LEFT_OUT.search(member.name) else member


def _wheels() -> Path:
    """What pip installs for us on Debian 12, whatever Python runs these tests; asked again only for what is new."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    folder = CACHE / "wheels"
    glibc = range(17, 37)  # 2.17 to Debian 12's 2.36
    command = (
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--only-binary", ":all:", "--python-version", "3.11", "--implementation", "cp"),
        *(f"--platform=manylinux_2_{minor}_x86_64" for minor in reversed(glibc)),
        *("--platform=manylinux2014_x86_64", "--dest", str(folder), *wanted),
    )
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=DOWNLOAD_S)
    if done.returncode != 0:
        raise NotMade(f"can't download what relevo needs:\n{done.stderr[-2000:]}")
    return folder
