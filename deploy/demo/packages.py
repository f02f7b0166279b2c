"""Brings programs out of Debian's packages without installing them, so that nothing of the machine changes.

apt resolves and verifies, `dpkg -x` unpacks into a folder of our own, no maintainer script ever runs.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DEMO = ("haproxy", "knot", "knot-dnsutils", "nginx-light", "dbus-daemon")
WITH_ETCD = (*DEMO, "etcd-server")
TESTS = (*DEMO, "prometheus", "prometheus-alertmanager")
PREFIX = Path(__file__).resolve().parents[2] / ".cache" / "tools"

SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
BIN_FOLDERS = ("usr/sbin", "usr/bin", "sbin", "bin")
LOCK_WAIT_S = 600.0  # another process may be downloading 30 MB over a slow line
APT_TIMEOUT_S = 600.0

# Read by `apt-get -c`, after the machine's own configuration, whose proxy and sources stay in force.
# The hooks are cleared because they would act on the machine (a container's hook empties its package cache).
APT_CONF = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
Debug::NoLocking "true";
APT::Sandbox::User "";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Get::Assume-Yes "true";
APT::Get::Download-Only "true";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Dir::Cache "{apt}/cache";
Dir::Cache::archives "{archives}";
"""
# Used when the machine's package lists are missing or too old; a user may not refresh those.
APT_LISTS = 'Dir::State::lists "{apt}/lists";\n'
# Another release of Debian is read from a list of our own, and from no other.
APT_SOURCES = 'Dir::Etc::sourcelist "{apt}/sources.list";\nDir::Etc::sourceparts "{apt}/none";\n'
DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class NotBrought(Exception):
    """The packages could not be had; the message says what to do instead."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs: those that the machine has, else those that were brought under `root`."""

    root: Path

    def path(self, program: str) -> Path:
        """Where `program` is, an absolute path. Raises NotBrought."""
        machine = (Path(folder, program) for folder in SYSTEM_FOLDERS)
        brought = (self.root / folder / program for folder in BIN_FOLDERS)
        for path in (*machine, *brought):
            if os.access(path, os.X_OK):
                return path
        raise NotBrought(f"there is no {program} on this machine or under {self.root}")

    def env(self) -> dict[str, str]:
        """This process' environment, and where a brought program finds its libraries."""
        folders = [str(path) for path in self._libraries()]
        if inherited := os.environ.get("LD_LIBRARY_PATH"):
            folders.append(inherited)
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(folders)}

    def _libraries(self) -> Iterator[Path]:
        for folder in (self.root / "usr/lib", self.root / "lib"):
            yield from sorted(folder.glob("*-linux-*"))
            if folder.is_dir():
                yield folder


def bring(names: Iterable[str] = DEMO, prefix: Path = PREFIX) -> Path:
    """Make the programs of Debian's packages `names` available; gives the root they are unpacked under.

    Idempotent; several processes may call it at once. Raises NotBrought.
    """
    wanted, root = frozenset(names), prefix / "root"
    if wanted <= _ready(prefix):
        return root
    try:
        with _locked(prefix):
            had = _ready(prefix)
            if missing := sorted(wanted - had):
                _unpack(_download(missing, prefix), root)
                _note_ready(prefix, had | wanted)
    except OSError as error:
        raise NotBrought(f"can't use {prefix}: {error}") from error
    return root


def bring_from(release: str, names: Iterable[str], prefix: Path = PREFIX) -> Path:
    """The same from another release of Debian ("trixie"), from the archive that this machine uses.

    The packages alone, without what they need: for programs that need nothing but the C library. Raises NotBrought.
    """
    own, wanted = prefix / release, frozenset(names)
    if wanted <= _ready(own):
        return own / "root"
    try:
        with _locked(own):
            if missing := sorted(wanted - _ready(own)):
                _unpack(_download_from(release, missing, own), own / "root")
                _note_ready(own, _ready(own) | wanted)
    except OSError as error:
        raise NotBrought(f"can't use {own}: {error}") from error
    return own / "root"


def _ready(prefix: Path) -> frozenset[str]:
    try:
        return frozenset(json.loads((prefix / "ready.json").read_text()))
    except (OSError, ValueError):
        return frozenset()


def _note_ready(prefix: Path, names: frozenset[str]) -> None:
    fresh = prefix / "ready.json.new"
    fresh.write_text(json.dumps(sorted(names)))
    fresh.rename(prefix / "ready.json")


@contextmanager
def _locked(prefix: Path) -> Iterator[None]:
    prefix.mkdir(parents=True, exist_ok=True)
    with (prefix / "lock").open("w") as lock:
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise NotBrought(
                        f"another process holds {prefix}/lock for more than {LOCK_WAIT_S:g} s"
                    ) from None
                time.sleep(0.1)
            else:
                break
        yield


def _download(names: list[str], prefix: Path) -> list[Path]:
    """The archives of `names` and of what they need that the machine lacks."""
    if not (lacking := [name for name in names if not _installed(name)]):
        return []
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise NotBrought(
            f"this needs apt and dpkg (Debian); elsewhere install these yourself: {' '.join(lacking)}"
        )
    apt, archives = prefix / "apt", prefix / "archives"
    shutil.rmtree(archives, ignore_errors=True)
    for folder in (apt / "cache", apt / "lists" / "partial", archives / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    machine, own = apt / "machine.conf", apt / "own.conf"
    text = APT_CONF.format(apt=apt, archives=archives)
    machine.write_text(text)
    own.write_text(text + APT_LISTS.format(apt=apt))

    if _apt(machine, "install", *lacking).returncode != 0:
        update = _apt(own, "update")
        install = _apt(own, "install", *lacking)
        if install.returncode != 0:
            raise NotBrought(_remedy(lacking, install.stderr, update.stderr))
    return sorted(archives.glob("*.deb"))


def _download_from(release: str, names: list[str], prefix: Path) -> list[Path]:
    apt, archives = prefix / "apt", prefix / "archives"
    shutil.rmtree(archives, ignore_errors=True)
    for folder in (apt / "none", apt / "lists" / "partial", archives / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    signed = f"[signed-by={DEBIAN_KEYS}] " if DEBIAN_KEYS.exists() else ""
    (apt / "sources.list").write_text(f"deb {signed}{_archive()} {release} main\n")
    config = apt / "apt.conf"
    text = (APT_CONF + APT_LISTS + APT_SOURCES).format(apt=apt, archives=archives)
    config.write_text(text)
    update = _apt(config, "update")
    download = _apt(config, "download", *names, folder=archives)
    if download.returncode != 0:
        raise NotBrought(_remedy(names, download.stderr, update.stderr))
    return sorted(archives.glob("*.deb"))


def _archive() -> str:
    """Where this machine has its Debian from."""
    targets = _run("apt-get", "indextargets", "--format", "$(ORIGIN) $(COMPONENT) $(REPO_URI)")
    for line in targets.stdout.splitlines():
        if line.startswith("Debian main ") and line.rstrip("/").endswith("/debian"):
            return line.removeprefix("Debian main ")
    raise NotBrought("apt knows no archive of Debian; is there one in /etc/apt/sources.list?")


def _installed(name: str) -> bool:
    query = ("dpkg-query", "--show", "--showformat=${db:Status-Status}", name)
    try:
        return _run(*query).stdout == "installed"
    except FileNotFoundError:
        return False


def _apt(
    config: Path, *arguments: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return _run("apt-get", "-q", "-c", str(config), *arguments, folder=folder)


def _run(*command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    plain: Mapping[str, str] = {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=APT_TIMEOUT_S,
            cwd=folder,
            env={**os.environ, **plain},
        )
    except subprocess.TimeoutExpired as error:
        raise NotBrought(
            f"{command[0]} took more than {APT_TIMEOUT_S:g} s; is the network there?"
        ) from error


def _unpack(archives: list[Path], root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        result = _run("dpkg", "-x", str(archive), str(root))
        if result.returncode != 0:
            raise NotBrought(f"can't unpack {archive.name}: {result.stderr.strip()}")
        archive.unlink()


def _remedy(names: list[str], *stderr: str) -> str:
    said = [line for text in stderr for line in text.splitlines() if line.startswith(("E:", "W:"))]
    return "\n".join(
        [
            f"can't download {' '.join(names)} from Debian:",
            *(f"  {line}" for line in said[:8]),
            "Check the network and /etc/apt/sources.list, or install them yourself:",
            f"  sudo apt install {' '.join(names)}",
        ]
    )


def main(arguments: list[str]) -> int:
    try:
        root = bring(arguments or DEMO)
    except NotBrought as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{root}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
