"""What `pip install` puts on a machine speaks both languages, without a step before it."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from gettext import GNUTranslations
from pathlib import Path

import pytest

from runtime.sentences import SENTENCES

ROOT = Path(__file__).parents[2]
CATALOGUE = "runtime/locale/es/LC_MESSAGES/relevo.mo"
# As pip calls it, but with the setuptools and babel of this environment: nothing is fetched.
BUILD = (
    "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of what a wheel is made from, as a fresh clone has it: nothing compiled."""
    copy = tmp_path / "relevo"
    copy.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    packages = tomllib.loads((copy / "pyproject.toml").read_text())["tool"]["setuptools"][
        "packages"
    ]
    for name in {package.partition(".")[0] for package in packages}:
        ignored = shutil.ignore_patterns("*.mo", "__pycache__")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    return copy


def build(what: str, sources: Path) -> zipfile.ZipFile:
    made = sources.parent / what
    made.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", BUILD, what, str(made)],
        cwd=sources,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = made.glob("*.whl")
    return zipfile.ZipFile(wheel)


def test_a_wheel_has_the_spanish_sentences_compiled(sources: Path) -> None:
    """Compiled from this tree's own catalogue; and the command, the units and the demo's fleet are in it too."""
    with build("build_wheel", sources) as wheel:
        with wheel.open(CATALOGUE) as compiled:
            spanish = GNUTranslations(compiled)
        assert spanish.gettext(str(SENTENCES["complete"])) == "Completo."
        assert {"deploy/systemd/relevo-agent.service", "deploy/demo/coop.yaml"} <= {
            *wheel.namelist()
        }
        assert "cli/main.py" in wheel.namelist()
        web = {path for path in wheel.namelist() if path.startswith("controller/web/")}
        here = {str(path.relative_to(ROOT)) for path in (ROOT / "controller/web").glob("*/*.*")}
        assert {path for path in here if not path.endswith(".pyc")} <= web, "the dashboard's pages"
        assert "runtime/locale/es/LC_MESSAGES/dashboard.mo" in wheel.namelist()


def test_an_editable_installation_compiles_beside_the_sources(sources: Path) -> None:
    """A developer's checkout speaks Spanish after `pip install --editable` alone."""
    with build("build_editable", sources), (sources / CATALOGUE).open("rb") as compiled:
        assert GNUTranslations(compiled).gettext(str(SENTENCES["complete"])) == "Completo."
