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


AGENT, CONTROLLER, HAPROXY = "relevo-agent.service", "relevo-controller.service", "haproxy.service"
# As Debian's, in what its drop-in bears on.
DEBIANS_HAPROXY = """\
[Unit]
After=network-online.target
Wants=network-online.target

[Service]
EnvironmentFile=-/etc/default/haproxy
Environment="CONFIG=/etc/haproxy/haproxy.cfg" "PIDFILE=/run/haproxy.pid" "EXTRAOPTS=-S /run/haproxy-master.sock"
ExecStart=/usr/sbin/haproxy -Ws -f $CONFIG -p $PIDFILE $EXTRAOPTS
Restart=always
SuccessExitStatus=143
Type=notify

[Install]
WantedBy=multi-user.target
"""


def install(name: str, text: str, folder: Path, drop_in: str = "") -> Path:
    """A unit as it would be installed, with its drop-in; its command is a program that exists here."""
    for program in ("/usr/lib/relevo/bin/relevo", "/usr/sbin/haproxy"):
        text = text.replace(program, sys.executable)
    text = re.sub(r"^(User|Group)=relevo$", r"\1=root", text, flags=re.M)  # no such user here
    path = folder / name
    path.write_text(text)
    if drop_in:
        beside = folder / f"{name}.d"
        beside.mkdir()
        (beside / "drop-in.conf").write_text(drop_in)
    return path


def complaints(unit: Path) -> tuple[int, list[str]]:
    """What `systemd-analyze verify` says of this unit and the drop-ins beside it."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]


@pytest.fixture(params=[AGENT, CONTROLLER])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return install(request.param, (UNITS / request.param).read_text(), tmp_path)


def test_systemd_finds_no_fault_in_the_units(unit: Path) -> None:
    """`systemd-analyze verify` says nothing and succeeds."""
    assert complaints(unit) == (0, [])


@pytest.mark.parametrize(
    ("name", "drop_in"),
    [(AGENT, "relevo-agent-edge.conf"), (HAPROXY, "haproxy-relevo.conf")],
)
def test_systemd_finds_no_fault_in_the_drop_ins_of_an_edge(
    name: str, drop_in: str, tmp_path: Path
) -> None:
    """Units together with their drop-ins; a word that systemd does not know in one is noticed."""
    text = DEBIANS_HAPROXY if name == HAPROXY else (UNITS / name).read_text()
    added = (UNITS / drop_in).read_text()
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder in (good, bad):
        folder.mkdir()
    assert complaints(install(name, text, good, added)) == (0, [])
    _, said = complaints(install(name, text, bad, f"{added}\nMisspelt=yes\n"))
    assert len(said) == 1 and "Misspelt" in said[0]


def test_systemd_finds_no_fault_in_the_sockets_of_an_edge(tmp_path: Path) -> None:
    """The public sockets and HAProxy's need of them, verified together."""
    (tmp_path / "haproxy.socket").write_text((UNITS / "haproxy.socket").read_text())
    held = (UNITS / "haproxy-held.conf").read_text()
    assert complaints(install(HAPROXY, DEBIANS_HAPROXY, tmp_path, held)) == (0, [])
    assert complaints(tmp_path / "haproxy.socket") == (0, [])


def test_an_edge_starts_in_any_order() -> None:
    """No path that an edge's agent may write must be there before it starts, and HAProxy tries until it can."""
    agent = (UNITS / "relevo-agent-edge.conf").read_text().splitlines()
    named = [p for line in agent if line.startswith("ReadWritePaths=") for p in line[15:].split()]
    assert named and all(path.startswith("-") for path in named)
    assert "ConfigurationDirectory=haproxy/relevo" in agent
    assert "StartLimitIntervalSec=0" in (UNITS / "haproxy-relevo.conf").read_text().splitlines()


def test_an_agent_is_never_given_up() -> None:
    """What it holds of sites ends only while it runs."""
    lines = (UNITS / AGENT).read_text().splitlines()
    assert {"StartLimitIntervalSec=0", "Restart=always"} <= {*lines}


def test_the_agents_slice_is_protected_like_the_agent(tmp_path: Path) -> None:
    """A minimum of memory counts only where every slice above has one too; systemd finds no fault in it."""
    slice = tmp_path / "relevo.slice"
    slice.write_text((UNITS / "relevo.slice").read_text())
    assert complaints(slice) == (0, [])
    agent = (UNITS / AGENT).read_text()
    assert "\nSlice=relevo.slice\n" in agent
    least = [
        int(re.findall(r"^MemoryMin=(\d+)M$", text, re.M)[0]) for text in (agent, slice.read_text())
    ]
    assert least[0] <= least[1]


def test_the_units_are_notified_and_watched(unit: Path) -> None:
    """Both daemons tell systemd when they are ready, and are restarted when their loop hangs."""
    text = unit.read_text()
    for line in ("Type=notify", "WatchdogSec=10", "Restart=always"):
        assert line in text.splitlines()
