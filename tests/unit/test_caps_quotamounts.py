"""Which file system a path is on, in made-up roots."""

from pathlib import Path

import pytest

from agent.caps.quotamounts import Mount, mounts

# As a Debian 12 shows it, with a bind mount of /srv/sites and a second file system mounted over /mnt.
MOUNTINFO = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:5 - proc proc rw
28 22 254:16 /sites /ro ro,noatime shared:15 - ext4 /dev/vdb rw,usrquota
29 22 254:16 / /srv rw,noatime shared:15 - ext4 /dev/vdb rw,usrquota
30 22 254:16 /sites /var/www rw,noatime shared:15 - ext4 /dev/vdb rw,usrquota
31 22 0:40 / /mnt rw - tmpfs tmpfs rw
32 31 253:0 / /mnt rw - xfs /dev/mapper/data-mnt rw,usrquota
34 22 0:40 / /var/spool/a rw - tmpfs tmpfs rw
33 22 0:41 / /home/two\\040words rw - nfs4 nas:/export rw
"""
SRV = Mount(place="/srv", kind="ext4", source="/dev/vdb")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/mountinfo").write_text(MOUNTINFO)
    for folder in ("srv/sites/shop", "home", "mnt"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "home/shop").symlink_to(tmp_path / "srv/sites/shop")
    (tmp_path / "srv/sites/circle").symlink_to("circle")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/srv/sites/shop", SRV),
        ("/srv/new/one", SRV),
        ("/var/www/shop", SRV),
        ("/ro/shop", SRV),
        ("/srv/sites/circle/public", SRV),
        ("/home/shop/public", SRV),
        ("/srvx", Mount(place="/", kind="ext4", source="/dev/vda1")),
        ("/var/spool/a/b", Mount(place="/var/spool/a", kind="tmpfs", source="tmpfs")),
        ("/mnt/a", Mount(place="/mnt", kind="xfs", source="/dev/mapper/data-mnt")),
        (
            "/home/two words/a",
            Mount(place="/home/two words", kind="nfs4", source="nas:/export"),
        ),
    ],
)
def test_a_path_is_on_one_file_system(root: Path, path: str, mount: Mount) -> None:
    """The innermost one, links followed; one that is mounted twice is known by the first where it can be written."""
    assert mounts([Path(path)], root) == {Path(path): mount}


def test_some_kinds_of_file_systems_have_quotas() -> None:
    """Of users, by the kernel's own call."""
    kinds = ("ext4", "xfs", "btrfs", "zfs", "nfs4", "tmpfs")
    told = [Mount(place="/", kind=kind, source="").has_quota for kind in kinds]
    assert told == [True, True, False, False, False, False]
