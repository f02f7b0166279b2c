"""What is where in the package: a virtual environment on Debian's Python, units, what edges need, documents."""

import gzip
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from deploy.deb.wheels import PYTHON, ROOT, CantBuild, install, licences

MAINTAINER = f"{os.environ.get('DEBFULLNAME', 'relevo')} <{os.environ.get('DEBEMAIL', 'relevo@relevo.invalid')}>"
OURS = Path(__file__).with_name("debian")
LIB = Path("usr/lib/relevo")
PACKAGES = LIB / f"lib/python{PYTHON}/site-packages"
DOC = Path("usr/share/doc/relevo")
SHARE = Path("usr/share/relevo")
WATCHING = ("prometheus", "grafana")  # what docs/monitoring.md copies to where those run

UNITS = ("relevo-agent.service", "relevo-controller.service", "relevo.slice")
SLICE = "relevo-user-slice.conf"
# `relevo layout convert` writes its own copies: a site's PHP must not stop when relevo is removed.
PHP = ("relevo-php@.service", "relevo-php@.socket", "relevo-php-pool.conf")
# On an edge a person links these into systemd's folders. An upgrade keeps what was changed in them, and HAProxy keeps
# them when relevo is removed: visitors are served on.
EDGE = {
    "relevo-agent-edge.conf": "agent.conf",
    "haproxy-relevo.conf": "haproxy.conf",
    "haproxy-held.conf": "haproxy-held.conf",
    "haproxy.socket": "haproxy.socket",
}
# Isolated: neither the environment nor the folder of whoever calls it puts modules before ours.
COMMAND = f"""\
#!/{LIB}/bin/python3 -I
import sys

from cli.main import main

sys.exit(main())
"""


COMPILE = """\
import py_compile, sys
from pathlib import Path
root, packages = map(Path, sys.argv[1:])
for source in sorted(packages.rglob("*.py")):
    py_compile.compile(
        str(source),
        dfile=f"/{source.relative_to(root)}",
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP,
    )
"""


def fill(root: Path, version: str, built_s: int) -> None:
    """All files of the package under `root`; `built_s` (Unix time) is when each was changed. Raises CantBuild."""
    _environment(root, version)
    _files(root, version, built_s)
    for path in sorted(root.rglob("*"), reverse=True):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path == root / LIB / "bin/relevo" else 0o644)
        os.utime(path, (built_s, built_s), follow_symlinks=False)
    _compile(root)
    for path in (*root.rglob("__pycache__"), *root.rglob("*.pyc")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _environment(root: Path, version: str) -> None:
    """As `python3 -m venv --without-pip` makes it, for a Python that need not be on this machine."""
    packages, commands = root / PACKAGES, root / LIB / "bin"
    packages.mkdir(parents=True)
    commands.mkdir()
    install(version, packages)
    _prune(packages)
    (root / LIB / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {PYTHON}\n"
    )
    (commands / "python3").symlink_to(f"/usr/bin/python{PYTHON}")
    (commands / "relevo").write_text(COMMAND)
    (root / "usr/bin").mkdir()
    (root / "usr/bin/relevo").symlink_to("../lib/relevo/bin/relevo")


def _prune(packages: Path) -> None:
    """What only a compiler or a type checker reads."""
    for pattern in ("*.pyx", "*.pxd", "*.pxi", "*.c", "*.h", "*.pyi", "py.typed"):
        for path in packages.rglob(pattern):
            path.unlink()


def _files(root: Path, version: str, built_s: int) -> None:
    systemd = ROOT / "deploy" / "systemd"
    for unit in UNITS:
        _copy(systemd / unit, root / "usr/lib/systemd/system" / unit)
    _copy(systemd / SLICE, root / "usr/lib/systemd/system/user-.slice.d/50-relevo.conf")
    for name in PHP:
        _copy(systemd / name, root / DOC / "examples" / name)
    for name, there in EDGE.items():
        _copy(systemd / name, root / "etc/relevo/edge" / there)
    _copy(OURS / "sysusers.conf", root / "usr/lib/sysusers.d/relevo.conf")
    _copy(OURS / "lintian-overrides", root / "usr/share/lintian/overrides/relevo")
    watching(root)
    (root / "var/lib/relevo").mkdir(parents=True)
    for document in (*sorted((ROOT / "docs").glob("*.md")), ROOT / "CHANGELOG.md"):
        _copy(document, root / DOC / document.name)
    bundled = "".join(f"  {line}\n" for line in licences(root / PACKAGES))
    (root / DOC / "copyright").write_text((OURS / "copyright").read_text() + bundled)
    changes = (
        f"relevo ({version}) bookworm; urgency=medium\n\n  * See CHANGELOG.md.\n\n"
        f" -- {MAINTAINER}  {format_datetime(datetime.fromtimestamp(built_s, UTC))}\n"
    )
    with (root / DOC / "changelog.gz").open("wb") as file:
        file.write(gzip.compress(changes.encode(), mtime=0))


def watching(root: Path) -> None:
    """Alerts, dashboards, and the configurations that they come with."""
    for folder in WATCHING:
        for path in sorted((ROOT / "deploy" / folder).iterdir()):
            _copy(path, root / SHARE / folder / path.name)


def _compile(root: Path) -> None:
    """Bytecode, as root would write it on first use: nobody writes below /usr but dpkg. Raises CantBuild."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" != PYTHON:
        raise CantBuild(f"bytecode for Debian 12 is written by Python {PYTHON}: make deb PYTHON=…")
    # How objects are shared in bytecode, and the order of sets, depend on what the interpreter did before and on its
    # hash seed: a fresh one with a fixed seed writes the same each time.
    done = subprocess.run(
        (sys.executable, "-S", "-c", COMPILE, str(root), str(root / PACKAGES)),
        env={"PYTHONHASHSEED": "0"},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise CantBuild(done.stderr)


def _copy(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, to)
