"""The Debian 12 that virtual machines boot, made from Debian's packages once and kept under .cache/vm by its recipe."""

import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.vm import guest

CACHE = Path(__file__).parents[2] / ".cache" / "vm"
RELEASE = "bookworm"
KERNEL = "linux-image-cloud-amd64"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "kmod", "iproute2", "procps", "ca-certificates"),
    *("python3", "python3-venv", "haproxy", "nginx-light"),
    # Sites: their users' sessions, their PHP, their crowds, what they may send out.
    *("libpam-systemd", "php-fpm", "apache2", "nftables", "cron"),
    # What their disks may lie on.
    *("fdisk", "mdadm", "cryptsetup-bin", "lvm2", "xfsprogs"),
    *("tiny-initramfs", KERNEL),
)
# What an image is made with, and the packages that have it.
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
}
DISK_BYTES = 3 << 30  # sparse; what is not written takes no room
MAKE_TIMEOUT_S = 600.0

MODULES = "virtio_pci,virtio_blk,ext4"  # without which the root file system is not seen
# Not of a machine that lives for a minute.
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer"),
    *("e2scrub_all.timer", "e2scrub_reap.service", "systemd-pstore.service", "getty@tty1.service"),
    *("systemd-timesyncd.service", "phpsessionclean.timer"),
)
PHP = "8.2"  # of this release
# It lives on while the machine shuts down: tests look at that too.
GUEST_UNIT = """\
[Unit]
Description=Carries out the tests' commands
DefaultDependencies=no
After=dbus.socket systemd-udev-trigger.service

[Service]
ExecStart=/usr/bin/python3 /usr/local/sbin/guest.py
Restart=always
RestartSec=0.2
KillMode=process
OOMScoreAdjust=-1000

[Install]
WantedBy=multi-user.target
"""


class NotMade(Exception):
    """The image could not be made; the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class Image:
    """A machine that is off: its kernel, its initramfs and its root file system, none of which is ever written to."""

    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initrd.img"

    @property
    def disk(self) -> Path:
        return self.folder / "disk.ext4"


def debian() -> Image:
    """The image, from the cache, or made anew in about a minute. Needs root. Raises NotMade."""
    if lacking := [package for program, package in PROGRAMS.items() if not shutil.which(program)]:
        raise NotMade(f"install what virtual machines need: apt install {' '.join(lacking)}")
    folder = CACHE / f"debian-{_recipe()}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="making-") as making:
            made = Path(making, "image")
            made.mkdir()
            _make(Path(making, "root"), Image(made))
            made.rename(folder)
    return Image(folder)


def _recipe() -> str:
    own = (Path(__file__), Path(guest.__file__))
    return hashlib.sha256(b"".join(path.read_bytes() for path in own)).hexdigest()[:16]


def _make(root: Path, image: Image) -> None:
    initramfs = f'mktirfs -m no --include-modules={MODULES} -o /boot/tests.img "$(ls /lib/modules)"'
    excluded = (f"path-exclude=/usr/share/{what}/*" for what in ("doc", "man", "locale"))
    # mmdebstrap mounts what maintainer scripts need: in a mount namespace of its own, where the machine sees nothing.
    _run(
        *("unshare", "--mount", "mmdebstrap", "--quiet", "--mode=root", "--variant=apt"),
        *("--format=directory", '--aptopt=APT::Install-Recommends "false"'),
        *(f"--dpkgopt={option}" for option in excluded),
        f"--include={','.join(PACKAGES)}",
        f"--customize-hook=chroot \"$1\" sh -c '{initramfs}'",
        *(RELEASE, str(root), *_sources()),
    )
    _furnish(root)
    shutil.copy((root / "boot/tests.img"), image.initramfs)
    shutil.copy(root / "boot" / (root / "vmlinuz").readlink().name, image.kernel)
    # No journal: what a killed machine had not written yet is nobody's loss.
    options = ("-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root))
    _run("mke2fs", *options, str(image.disk), f"{DISK_BYTES >> 10}k")


def _sources() -> tuple[str, ...]:
    """The machine's own sources of this release, which may be a mirror; without any mmdebstrap knows Debian's."""
    wanted = ("Created-By: Packages", "Origin: Debian")
    line = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    told = _run("apt-get", "indextargets", "--format", line, *wanted)
    return tuple(
        source for source in told.splitlines() if source.split()[2].partition("-")[0] == RELEASE
    )


def _furnish(root: Path) -> None:
    """What a Debian needs to be a test's machine: the guest's side of it, and no night shift."""
    (root / "etc/hostname").write_text("debian\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (root / "etc/fstab").write_text("/dev/vda / ext4 rw,noatime 0 1\n")
    (root / "etc/machine-id").write_text("")  # systemd gives each machine its own
    shutil.copy(guest.__file__, root / "usr/local/sbin/guest.py")
    units = root / "etc/systemd/system"
    (units / "guest.service").write_text(GUEST_UNIT)
    (units / "multi-user.target.wants/guest.service").symlink_to("../guest.service")
    # Sites are served on 8080: an edge that is a host too has its HAProxy on 80.
    site = root / "etc/nginx/sites-available/default"
    site.write_text('server { listen 8080; return 200 "a site\\n"; }\n')
    # What sites share is there for tests that want it, and started by nobody else.
    for name in (f"php{PHP}-fpm", "apache2", "cron"):
        (units / f"multi-user.target.wants/{name}.service").unlink(missing_ok=True)
    for name in MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=MAKE_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotMade(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        said = "\n".join(done.stderr.splitlines()[-20:])
        raise NotMade(f"{command[0]} ended with status {done.returncode}:\n{said}")
    return done.stdout
