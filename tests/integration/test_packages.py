"""Programs from Debian's packages, with the machine left as it was."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy.demo.packages import NotBrought, Tools, bring, bring_from

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parents[2]
NOBODY = 65534


@pytest.fixture
def prefix() -> Iterator[Path]:
    """A folder that an ordinary user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="relevo-packages-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def machine() -> Mapping[str, object]:
    """What an installation would change: packages, units, users, and where their programs would be."""
    packages = subprocess.run(("dpkg-query", "-W"), capture_output=True, text=True, check=True)
    folders = ("/etc/systemd/system", "/lib/systemd/system", "/usr/sbin", "/usr/bin", "/etc")
    return {
        "packages": packages.stdout,
        "users": Path("/etc/passwd").read_text(),
        "lists": sorted(os.listdir("/var/lib/apt/lists")),
    } | {
        folder: sorted(str(path) for path in Path(folder).glob("**/*"))
        for folder in folders
        if Path(folder).is_dir()
    }


def services() -> set[str]:
    """The machine's own programs among these that run; those of a demo beside this test are in its folder."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/exe"):
        try:
            found.add(str(path.readlink()))
        except OSError:  # it has ended, or is the kernel's
            continue
    return found & {"/usr/sbin/haproxy", "/usr/sbin/knotd"}


def test_nothing_of_the_machine_changes(prefix: Path) -> None:
    """No package is installed, no unit enabled, no service started; the programs run from the folder."""
    before, ran = machine(), services()

    tools = Tools(bring(("haproxy", "knot"), prefix))

    assert machine() == before
    assert services() == ran
    for command in (("haproxy", "-v"), ("knotd", "-V")):
        done = subprocess.run(
            (tools.path(command[0]), command[1]),
            env=tools.env(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert "version" in done.stdout or "Knot DNS" in done.stdout


def test_another_release_comes_without_the_machine_s_lists(prefix: Path) -> None:
    """A newer Debian's program runs from the folder; apt's own sources and lists stay those of this release."""
    before = machine()
    path = bring_from("trixie", ("etcd-server",), prefix) / "usr/bin/etcd"
    assert machine() == before
    said = subprocess.run((path, "--version"), capture_output=True, text=True, check=True).stdout
    assert "etcd Version: 3.5." in said


def test_the_second_time_is_quick(tools: Tools) -> None:
    """What is there already costs no call of apt."""
    began = time.monotonic()
    bring(("haproxy", "knot"), tools.root.parent)
    assert time.monotonic() - began < 0.2


@pytest.mark.skipif(os.getuid() != 0, reason="becomes an ordinary user, which only root can")
def test_an_ordinary_user_can_bring_them_even_without_the_machine_s_lists(prefix: Path) -> None:
    """Without rights, it refreshes lists of its own when the machine's are missing; two at once don't collide."""
    os.chown(prefix, NOBODY, NOBODY)
    absent = prefix / "absent"
    (prefix / "apt.conf").write_text(f'Dir::State::lists "{absent}";\n')
    # The checkout may lie where an ordinary user can't read.
    script = prefix / "packages.py"
    shutil.copy(REPOSITORY / "deploy/demo/packages.py", script)
    program = (
        f"import sys; sys.path.insert(0, {str(prefix)!r}); import packages, pathlib;"
        f"print(packages.bring(('haproxy',), pathlib.Path({str(prefix / 'tools')!r})))"
    )
    user = (
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        "/usr/bin/python3",
        "-c",
        program,
    )
    both = [
        subprocess.Popen(
            user,
            env={"PATH": os.environ["PATH"], "APT_CONFIG": str(prefix / "apt.conf")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert out.strip() == str(prefix / "tools/root")
    program_path = Tools(prefix / "tools/root").path("haproxy")
    assert program_path.stat().st_mode & stat.S_IXOTH


def test_without_a_network_the_error_names_the_remedy(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, the message says what could not be had and the command that helps."""
    (prefix / "none").mkdir()
    (prefix / "sources").write_text("deb [trusted=yes] http://127.0.0.1:9/debian stable main\n")
    (prefix / "apt.conf").write_text(
        f'Dir::State::lists "{prefix}/none";\n'
        f'Dir::Etc::sourcelist "{prefix}/sources";\n'
        f'Dir::Etc::sourceparts "{prefix}/none";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(prefix / "apt.conf"))
    with pytest.raises(NotBrought, match="sudo apt install haproxy"):
        bring(("haproxy",), prefix / "tools")


def test_the_command_line_fails_with_a_sentence(prefix: Path) -> None:
    """A package that does not exist ends with status 1 and a message, without a traceback."""
    done = subprocess.run(
        (sys.executable, "-m", "deploy.demo.packages", "no-such-package-of-debian"),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no-such-package-of-debian" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_of_the_machine_comes_first(tmp_path: Path) -> None:
    """What the administrator installed is used; what is nowhere is an error."""
    own = tmp_path / "usr/bin/sh"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    assert Tools(tmp_path).path("sh") != own
    with pytest.raises(NotBrought, match="no-such-program"):
        Tools(tmp_path).path("no-such-program")
