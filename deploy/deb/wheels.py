"""What relevo is made of on Debian 12: its own code, and wheels that the lock names by version and hash.

pip asks for Debian's Python and C library, whatever machine this runs on.
"""

import email
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = Path(__file__).with_name("requirements.txt")
PYTHON = "3.11"  # Debian 12's
GLIBC_MINOR = 36  # Debian 12's 2.36
PIP_S = 600.0
BUILD_S = 120.0

# As pip calls setuptools, with those of this environment: nothing is fetched.
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
HEADER = f"""\
# What the Debian package bundles, for Debian 12's Python {PYTHON}. Written by `python -m deploy.deb lock`, which
# asks for the newest that pyproject.toml allows.
"""


class CantBuild(Exception):
    """Why there is no package, and what to do."""


def lock() -> None:
    """Write the newest versions that pyproject.toml allows, with their hashes. Raises CantBuild."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = ("--dry-run", "--ignore-installed", "--report", str(report))
        _pip(*command, "--target", folder, *_project()["dependencies"])
        found = json.loads(report.read_text())["install"]
    lines = [
        f"{one['metadata']['name'].lower()}=={one['metadata']['version']} \\\n"
        f"    --hash=sha256:{one['download_info']['archive_info']['hashes']['sha256']}\n"
        for one in found
    ]
    LOCK.write_text(HEADER + "".join(sorted(lines)))


def install(version: str, into: Path) -> None:
    """The wheels of the lock and relevo itself as `version`, importable from `into`. Raises CantBuild."""
    raise_unless_locked(LOCK.read_text(), _project()["dependencies"])
    _pip("--no-deps", "--require-hashes", "--target", str(into), "--requirement", str(LOCK))
    shutil.rmtree(into / "bin", ignore_errors=True)  # commands of others: nobody's on a server
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(_wheel(version, Path(folder))) as wheel,
    ):
        wheel.extractall(into)
    for about in into.glob("*.dist-info"):
        # From here on dpkg knows what belongs to what; the rest tells of the machine that built it.
        for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
            (about / name).unlink(missing_ok=True)


def raise_unless_locked(lock: str, dependencies: list[str]) -> None:
    """What the lock lacks would be missed on the servers. Raises CantBuild."""
    locked = {_plain(line.partition("==")[0]) for line in lock.splitlines() if "==" in line}
    needed = {_plain(re.split(r"[^A-Za-z0-9._-]", one, maxsplit=1)[0]) for one in dependencies}
    if lacking := sorted(needed - locked):
        raise CantBuild(f"the lock lacks {', '.join(lacking)}: python -m deploy.deb lock")


def _plain(name: str) -> str:
    """A distribution's name as others spell it too. Source: PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licences(folder: Path) -> list[str]:
    """A line for each distribution in `folder`: its name, version and licence, as its metadata have them."""
    lines = []
    for path in sorted(folder.glob("*.dist-info/METADATA")):
        about = email.message_from_bytes(path.read_bytes())
        classes = [
            one.split(" :: ")[-1] for one in about.get_all("Classifier", []) if "License" in one
        ]
        stated = about["License-Expression"] or about["License"] or ", ".join(classes)
        lines.append(f"{about['Name']} {about['Version']}: {stated.splitlines()[0]}")
    return lines


def version() -> str:
    return str(_project()["version"])


def _wheel(version: str, folder: Path) -> Path:
    """relevo's own wheel, from a copy: nothing is left in the checkout."""
    copy = folder / "relevo"
    copy.mkdir()
    with (ROOT / "pyproject.toml").open("rb") as file:
        packages = tomllib.load(file)["tool"]["setuptools"]["packages"]
    for name in SOURCES:
        shutil.copy(ROOT / name, copy)
    for name in {package.partition(".")[0] for package in packages}:
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.mo", "__pycache__")
        )
    project = copy / "pyproject.toml"
    project.write_text(
        re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', project.read_text(), count=1)
    )
    _run(sys.executable, "-c", BUILD, str(folder), cwd=copy, timeout_s=BUILD_S)
    (made,) = folder.glob("*.whl")
    return made


def _project() -> dict[str, list[str]]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project: dict[str, list[str]] = tomllib.load(file)["project"]
    return project


def _pip(*arguments: str) -> None:
    platforms = (f"--platform=manylinux_2_{minor}_x86_64" for minor in range(GLIBC_MINOR, 16, -1))
    _run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *(
            "--no-compile",
            "--only-binary=:all:",
            "--implementation=cp",
            f"--python-version={PYTHON}",
        ),
        *(*platforms, "--platform=manylinux2014_x86_64"),
        *arguments,
        cwd=ROOT,
        timeout_s=PIP_S,
    )


def _run(*command: str, cwd: Path, timeout_s: float) -> None:
    try:
        done = subprocess.run(
            command, cwd=cwd, check=False, capture_output=True, text=True, timeout=timeout_s
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CantBuild(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise CantBuild(f"{' '.join(command[:4])} …: {done.stderr[-2000:]}")
