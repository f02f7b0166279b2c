"""The templates for a site's own PHP, checked by systemd's and php-fpm's own tools."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent.discover.php import GIVEN
from deploy.demo.packages import Tools, bring
from tests.integration.test_units import UNITS, complaints

pytestmark = pytest.mark.integration

SERVICE, SOCKET, SLICE = "relevo-php@.service", "relevo-php@.socket", "relevo-user-slice.conf"
DROP_INS = {
    SERVICE: (
        "[Unit]\nPartOf=php8.2-fpm.service\n[Service]\nSlice=user-1001.slice\n"
        f"Environment=FPM_SOCKETS={GIVEN}/run/php/x.sock=3\n"
    ),
    SOCKET: "[Socket]\nSymlinks=/run/php/x.sock\nSocketUser=root\nSocketGroup=root\n",
}


def install(folder: Path, more: str = "") -> Path:
    """Both templates with a site's drop-ins; the program is one that exists here."""
    folder.mkdir()
    for name, said in DROP_INS.items():
        text = (UNITS / name).read_text().replace("/usr/sbin/php-fpm8.2", sys.executable)
        text = text.replace("=www-data", "=root")  # no such user on every machine
        (folder / name).write_text(text + more)
        beside = folder / f"{name}.d"
        beside.mkdir()
        (beside / "site.conf").write_text(said)
    return folder


def test_systemd_finds_no_fault_in_the_templates(tmp_path: Path) -> None:
    """Service and socket with a site's drop-ins; a word that systemd does not know is noticed."""
    good = install(tmp_path / "good")
    for name in (SERVICE, SOCKET):
        assert complaints(good / name) == (0, [])
    bad = install(tmp_path / "bad", "Misspelt=yes\n")
    assert any("Misspelt" in line for line in complaints(bad / SERVICE)[1])


def test_systemd_finds_no_fault_in_the_users_slices(tmp_path: Path) -> None:
    """The drop-in of every user's slice."""
    unit = tmp_path / "user-1001.slice"
    unit.write_text("[Unit]\nDescription=x\n")
    (tmp_path / "user-1001.slice.d").mkdir()
    (tmp_path / "user-1001.slice.d/50-relevo.conf").write_text((UNITS / SLICE).read_text())
    assert complaints(unit) == (0, [])


def test_php_fpm_finds_no_fault_in_the_pool_template(tmp_path: Path) -> None:
    """Filled in as its first lines say, php-fpm takes it; a setting that it does not know is noticed."""
    tools = Tools(bring(("php8.2-fpm",)))
    text = (UNITS / "relevo-php-pool.conf").read_text()
    text = text.replace("SITE", "x").replace("group = USER", "group = nogroup")
    text = text.replace("USER", "nobody")
    for more, fault in (("", 0), ("misspelt = yes\n", 78)):
        pool = tmp_path / "x.conf"
        pool.write_text(text + more)
        command = (str(tools.path("php-fpm8.2")), "-n", "-t", "-y", str(pool))
        done = subprocess.run(
            command, env=tools.env(), capture_output=True, timeout=30, check=False
        )
        assert done.returncode == fault, done.stderr
