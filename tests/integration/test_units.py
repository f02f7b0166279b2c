"""The systemd units, checked by systemd's own tools."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine"
    ),
]


@pytest.fixture(params=["relevo-agent.service", "relevo-controller.service"])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit as it would be installed, its command pointing at a program that exists here."""
    text = (UNITS / request.param).read_text()
    text = text.replace("/usr/lib/relevo/bin/relevo", sys.executable)
    text = re.sub(r"^(User|Group)=relevo$", r"\1=root", text, flags=re.M)  # no such user here
    path: Path = tmp_path / request.param
    path.write_text(text)
    return path


def test_systemd_finds_no_fault_in_the_units(unit: Path) -> None:
    """`systemd-analyze verify` says nothing and succeeds."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_units_are_notified_and_watched(unit: Path) -> None:
    """Both daemons tell systemd when they are ready, and are restarted when their loop hangs."""
    text = unit.read_text()
    for line in ("Type=notify", "WatchdogSec=10", "Restart=always"):
        assert line in text.splitlines()
