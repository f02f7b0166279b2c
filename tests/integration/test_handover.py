"""A pool moves between masters of a real php-fpm while visitors ask: no request fails."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="php-fpm starts other users' workers as root"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not on this machine"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's own, which only root may enter: workers run as somebody else."""
    with tempfile.TemporaryDirectory(prefix="handover-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def story(name: str, folder: Path) -> dict[str, Any]:
    """Told in a mount namespace of its own: this machine's mounts are left alone."""
    done = subprocess.run(
        (
            *("unshare", "--mount", "--propagation", "private"),
            *(sys.executable, "-m", "tests.integration.handover", str(folder), name),
        ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    log = folder / "php.log"
    assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.long
def test_no_request_fails_there_and_back(folder: Path) -> None:
    """Out into a unit, into another slice, back, and out again: neither the site nor its neighbour loses one."""
    told = story("there_and_back", folder)
    assert told["failures"] == [{}, {}]
    assert min(told["answers"]) > 100
    assert told["served"] == ["own", "shared", "own"]
    assert told["again"] == 0, "a conversion that is complete has nothing left to do"
    assert told["slice"] == "user-1002.slice"
    assert told["left"] == []


@pytest.mark.long
def test_a_master_that_would_cut_off_its_neighbours_is_not_reloaded(folder: Path) -> None:
    """With process_control_timeout 0 the name is guarded until the master is restarted; then the rest is done."""
    told = story("without_reload", folder)
    assert told["failures"] == [{}, {}] and told["reloads"] == []
    assert told["served"] == ["own", "own"]
    assert told["guarded"] == [True, False]
    assert told["rest"] == ["Unguard", "Point", "Ask"] and told["link"]


def test_without_the_guard_requests_fail(folder: Path) -> None:
    """php-fpm removes the socket of the pool that it lost: what the guard is for."""
    failures, _ = story("unguarded", folder)["failures"]
    assert any("FileNotFound" in what for what in failures)
