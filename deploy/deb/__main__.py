"""`python -m deploy.deb` makes dist/relevo_VERSION_amd64.deb; `python -m deploy.deb lock` renews what it bundles.

The same commit makes the same bytes.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import click

from deploy.deb.tree import EDGE, MAINTAINER, OURS, fill
from deploy.deb.wheels import PYTHON, ROOT, CantBuild, lock, version

PACK_S = 600.0
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


def control(version: str, size_kib: int) -> str:
    """The package's own description. `python3.11` by its name: an upgrade of Debian leaves it, and us, in place."""
    return f"""\
Package: relevo
Version: {version}
Architecture: amd64
Maintainer: {MAINTAINER}
Installed-Size: {size_kib}
Depends: python{PYTHON}, libc6 (>= 2.34), libgcc-s1, libstdc++6, systemd (>= 252)
Suggests: haproxy, etcd-server, quota
Section: admin
Priority: optional
Description: keeps a hosting co-op's web sites up
 An agent on every server reports twice a second, controllers judge by several
 witnesses, and the sites of a server that died move to their standby: at the
 edges and in DNS, proven by real requests, and explained.
 .
 Nothing is started or enabled before somebody has configured it, and a new
 controller observes before it acts. See /usr/share/doc/relevo/install.md.
"""


def debian_version(version: str) -> str:
    """As dpkg orders it: a release candidate comes before its release, which Python's spelling would put after."""
    found = re.fullmatch(r"(\d+(?:\.\d+)*)((?:a|b|rc|\.dev)\d+)?(\.post\d+)?", version)
    if found is None:
        raise CantBuild(f"{version!r} is no version such as 1.2.3 or 1.2.3rc1")
    release, before, after = found.groups()
    return (
        f"{release}{'~' + before.lstrip('.') if before else ''}{'+' + after[1:] if after else ''}"
    )


def build(version: str, into: Path) -> Path:
    """The package of this checkout as `version`. Raises CantBuild."""
    debian, built_s = debian_version(version), _built_s()
    into.mkdir(parents=True, exist_ok=True)
    made = into / f"relevo_{debian}_amd64.deb"
    with tempfile.TemporaryDirectory(prefix="relevo-deb-") as folder:
        root = Path(folder, "root")
        root.mkdir()
        root.chmod(0o755)  # whatever the umask of whoever builds
        fill(root, version, built_s)
        _describe(root, debian)
        command = ("dpkg-deb", "--root-owner-group", "-Zxz", "-z3", "--build", str(root), str(made))
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(built_s)}
        try:
            subprocess.run(
                command, check=True, capture_output=True, timeout=PACK_S, env=environment
            )
        except FileNotFoundError as error:
            raise CantBuild("apt install dpkg: a Debian package is made by dpkg-deb") from error
        except subprocess.SubprocessError as error:
            raise CantBuild(f"{error}: {getattr(error, 'stderr', b'').decode()}") from error
    return made


def _describe(root: Path, version: str) -> None:
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    sums = [f"{_md5(path)}  {path.relative_to(root)}\n" for path in files]
    size_kib = sum(-(-path.stat().st_size // 1024) for path in files)
    folder = root / "DEBIAN"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "control").write_text(control(version, size_kib))
    (folder / "conffiles").write_text(
        "".join(f"/etc/relevo/edge/{name}\n" for name in EDGE.values())
    )
    (folder / "md5sums").write_text("".join(sums))
    for path in folder.iterdir():
        path.chmod(0o644)
    for script in SCRIPTS:
        shutil.copyfile(OURS / script, folder / script)
        (folder / script).chmod(0o755)


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _built_s() -> int:
    """When what is packed was made (Unix time): as told, else the last commit, else the last release note."""
    if told := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(told)
    command = ("git", "-C", str(ROOT), "log", "-1", "--format=%ct")
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return int((ROOT / "CHANGELOG.md").stat().st_mtime)
    return int(done.stdout)


@click.group(invoke_without_command=True)
@click.option("--version", "wanted", help="another version than pyproject.toml's")
@click.option("--into", type=click.Path(path_type=Path), default=ROOT / "dist")
@click.pass_context
def main(context: click.Context, wanted: str | None, into: Path) -> None:
    """Make the Debian package of this checkout."""
    if context.invoked_subcommand is None:
        try:
            click.echo(build(wanted or version(), into))
        except CantBuild as error:
            raise click.ClickException(str(error)) from error


@main.command("lock")
def renew() -> None:
    """Write down the newest versions that pyproject.toml allows."""
    try:
        lock()
    except CantBuild as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
