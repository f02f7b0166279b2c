"""What the Debian package is made of: versions that dpkg orders rightly, and a lock that has all that is needed."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy.deb.__main__ import control, debian_version
from deploy.deb.tree import EDGE, PHP, SHARE, SLICE, UNITS, watching
from deploy.deb.wheels import LOCK, CantBuild, raise_unless_locked

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("python", "debian"),
    [
        ("0.1.0", "0.1.0"),
        ("1.0rc1", "1.0~rc1"),
        ("1.0a2", "1.0~a2"),
        ("1.0.dev3", "1.0~dev3"),
        ("1.0.post1", "1.0+post1"),
    ],
)
def test_a_candidate_comes_before_its_release(python: str, debian: str) -> None:
    """dpkg takes `~` for less than nothing; without it 1.0rc1 would be newer than 1.0, and the release a downgrade."""
    assert debian_version(python) == debian
    assert f"\nVersion: {debian}\n" in control(debian_version(python), 1)


@pytest.mark.parametrize("version", ["", "latest", "1.0-1", "1.0; rm", "1.0\nDepends: x"])
def test_what_is_no_version_makes_no_package(version: str) -> None:
    """Nothing of it reaches a file name or the control file."""
    with pytest.raises(CantBuild):
        debian_version(version)


def test_the_lock_has_what_the_project_needs() -> None:
    """Each dependency of pyproject.toml, in a version that it allows, with a hash."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = LOCK.read_text()
    raise_unless_locked(lock, project["dependencies"])
    heads = [line.removesuffix(" \\") for line in lock.splitlines() if "==" in line]
    assert lock.count("--hash=sha256:") == len(heads)
    locked = {
        one.name.lower().replace("_", "-"): str(one.specifier)[2:]
        for one in map(Requirement, heads)
    }
    for wanted in map(Requirement, project["dependencies"]):
        assert locked[wanted.name.lower()] in wanted.specifier, wanted


def test_a_dependency_that_the_lock_lacks_stops_the_build() -> None:
    """Whatever its spelling; one that is there does not."""
    lock = "aiohttp-jinja2==1.6 \\\n    --hash=sha256:00\n"
    raise_unless_locked(lock, ["aiohttp_jinja2>=1.6,<2"])
    with pytest.raises(CantBuild, match="lacks msgspec"):
        raise_unless_locked(lock, ["aiohttp-jinja2", "msgspec>=0.20"])


def test_each_file_for_systemd_is_in_the_package() -> None:
    """What an edge links is what docs/operate.md copies; the rest is installed, or shown as an example."""
    units = {path.name for path in (ROOT / "deploy" / "systemd").iterdir()}
    assert {*EDGE, *UNITS, *PHP, SLICE} == units


def test_what_monitoring_needs_is_in_the_package(tmp_path: Path) -> None:
    """Where docs/monitoring.md takes it from: nobody needs a clone of the repository."""
    watching(tmp_path)
    for folder in ("prometheus", "grafana"):
        there = {path.name for path in (tmp_path / SHARE / folder).iterdir()}
        assert there == {path.name for path in (ROOT / "deploy" / folder).iterdir()} != set()
    said = (ROOT / "docs" / "monitoring.md").read_text()
    named = re.findall(r"/usr/share/relevo/(\S+?)[\s`]", said)
    assert named
    for name in named:
        assert (tmp_path / SHARE / name).exists(), name
