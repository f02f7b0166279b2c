"""The physical disks under a path, on made-up machines."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.caps.devices import disks, is_diskless, mounts, scheduled_fairly


@dataclass
class Machine:
    """A root directory with the parts of /sys and /proc that say what lies on what."""

    root: Path
    mounted: str = ""

    def block(self, name: str, number: str, *on: str, of: str = "", dm: str = "") -> None:
        """A block device; `on`: what it is made of; `of`: the disk that it is a partition of."""
        device = self.root / "sys/devices" / of / name
        (device / "slaves").mkdir(parents=True)
        (device / "dev").write_text(f"{number}\n")
        if of:
            (device / "partition").write_text("1\n")
        if dm:
            (device / "dm").mkdir()
            (device / "dm/name").write_text(f"{dm}\n")
        for below in on:
            found = next((self.root / "sys/devices").rglob(f"{below}/dev")).parent
            (device / "slaves" / below).symlink_to(found)
        for folder, link in (("dev/block", number), ("class/block", name)):
            (self.root / "sys" / folder).mkdir(parents=True, exist_ok=True)
            (self.root / "sys" / folder / link).symlink_to(device)

    def mount(self, where: str, number: str, source: str, kind: str = "any") -> None:
        self.mounted += f"30 1 {number} / {where} rw,relatime shared:1 - {kind} {source} rw\n"

    def disks(self, *paths: str) -> tuple[str, ...]:
        (self.root / "proc/1").mkdir(parents=True, exist_ok=True)
        (self.root / "proc/1/mountinfo").write_text(self.mounted)
        return disks([*map(Path, paths)], self.root)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.block("sda", "8:0")
    made.block("sda1", "8:1", of="sda")
    made.mount("/", "8:1", "/dev/sda1")
    return made


def test_a_partition_is_its_disk(machine: Machine) -> None:
    """Limits are held by whole disks; a path that is not there yet counts where it would be."""
    assert machine.disks("/", "/home/none/yet") == ("8:0",)


def test_a_volume_on_crypt_on_raid_is_every_disk_below(machine: Machine) -> None:
    """LVM on dm-crypt on md on partitions: both disks, and none of what lies between."""
    machine.block("sdb", "8:16")
    machine.block("sdb1", "8:17", of="sdb")
    machine.block("md0", "9:0", "sda1", "sdb1")
    machine.block("dm-0", "253:0", "md0", dm="crypt")
    machine.block("dm-1", "253:1", "dm-0", dm="vg-home")
    machine.mount("/home", "253:1", "/dev/mapper/vg-home")
    assert machine.disks("/home/ana") == ("8:0", "8:16")
    assert machine.disks("/homely") == ("8:0",), "a name that begins alike is another folder"


def test_a_file_system_with_a_number_of_its_own_is_found_by_its_source(machine: Machine) -> None:
    """btrfs shows 0:31; its source is a partition's name, or a mapper's that the kernel calls dm-0."""
    machine.block("nvme0n1", "259:0")
    machine.block("nvme0n1p2", "259:2", of="nvme0n1")
    machine.block("dm-0", "253:0", "nvme0n1p2", dm="sites")
    machine.mount("/srv", "0:31", "/dev/nvme0n1p2")
    machine.mount("/var/www", "0:32", "/dev/mapper/sites")
    assert machine.disks("/srv/x") == ("259:0",)
    assert machine.disks("/var/www") == ("259:0",)


def test_what_is_on_no_disk_has_none(machine: Machine) -> None:
    """Memory, the network, a loop device, a mount whose device vanished: nothing to limit, and no error."""
    machine.block("loop3", "7:3")
    machine.mount("/tmp", "0:40", "tmpfs")
    machine.mount("/net", "0:41", "server:/export")
    machine.mount("/loop", "7:3", "/dev/loop3")
    machine.mount("/gone", "8:99", "/dev/sdz")
    assert machine.disks("/tmp", "/net", "/loop", "/gone") == ()


def test_files_on_no_disk_are_known(machine: Machine) -> None:
    """A network's, ZFS' and a container's: nothing holds what is read there. Memory and loops are held otherwise."""
    machine.block("loop3", "7:3")
    for where, number, source, kind in (
        ("/net", "0:41", "server:/export", "nfs4"),
        ("/tank", "0:42", "tank/home", "zfs"),
        ("/layers", "0:43", "overlay", "overlay"),
        ("/gone", "8:99", "/dev/sdz", "ext4"),
        ("/run", "0:44", "tmpfs", "tmpfs"),
        ("/auto", "0:45", "/etc/auto.home", "autofs"),
        ("/loop", "7:3", "/dev/loop3", "ext4"),
    ):
        machine.mount(where, number, source, kind)
    known = mounts(machine.mounted)
    off = {str(place) for place in known if is_diskless(place, known, machine.root)}
    assert off == {"/net", "/tank", "/layers", "/gone"}


def test_a_btrfs_of_several_disks_is_all_of_them(machine: Machine) -> None:
    """Its source is one of them; the kernel says who is with it."""
    machine.block("sdb", "8:16")
    machine.block("sdb1", "8:17", of="sdb")
    machine.block("sdc", "8:32")
    machine.block("dm-0", "253:0", "sdc", dm="more")
    members = machine.root / "sys/fs/btrfs/5f0e/devices"
    members.mkdir(parents=True)
    for name in ("sda1", "sdb1", "dm-0"):
        (members / name).symlink_to((machine.root / "sys/class/block" / name).resolve())
    machine.mount("/srv", "0:31", "/dev/sdb1", "btrfs")
    machine.mount("/data", "0:31", "/dev/mapper/more", "btrfs")
    for place in ("/srv", "/data"):
        assert machine.disks(place) == ("8:0", "8:16", "8:32")


def test_what_is_mounted_below_a_path_holds_its_sites_too(machine: Machine) -> None:
    """/srv/sites is where many have them; a disk of copies at /mnt is nobody's site."""
    machine.block("sdb", "8:16")
    machine.block("sdc", "8:32")
    machine.mount("/srv/sites", "8:16", "/dev/sdb")
    machine.mount("/mnt/copies", "8:32", "/dev/sdc")
    assert machine.disks("/srv") == ("8:0", "8:16")
    assert machine.disks("/") == ("8:0",)


def test_the_last_mount_of_a_place_counts_and_names_may_hold_spaces(machine: Machine) -> None:
    """As the kernel shows them: covered mounts come first, a space is \\040."""
    machine.block("sdb", "8:16")
    machine.mount("/a\\040b", "0:40", "tmpfs")
    machine.mount("/a\\040b", "8:16", "/dev/sdb")
    assert machine.disks("/a b/c") == ("8:16",)


def test_volumes_that_lie_on_themselves_are_not_followed_for_ever(machine: Machine) -> None:
    """A sysfs that no kernel would show ends in nothing."""
    machine.block("dm-0", "253:0")
    (machine.root / "sys/devices/dm-0/slaves/dm-0").symlink_to(machine.root / "sys/devices/dm-0")
    machine.mount("/x", "253:0", "/dev/dm-0")
    assert machine.disks("/x") == ()


def test_weights_of_io_mean_something_under_bfq_or_iocost_only(machine: Machine) -> None:
    """Debian's kernels have the files and no effect."""
    queue = machine.root / "sys/devices/sda/queue"
    queue.mkdir()
    (queue / "scheduler").write_text("[mq-deadline] none bfq\n")
    assert not scheduled_fairly("8:0", machine.root)
    (machine.root / "sys/fs/cgroup").mkdir(parents=True)
    qos = machine.root / "sys/fs/cgroup/io.cost.qos"
    qos.write_text("8:16 enable=1 ctrl=auto\n8:0 enable=0 ctrl=auto\n")
    assert not scheduled_fairly("8:0", machine.root)
    qos.write_text("8:0 enable=1 ctrl=auto\n")
    assert scheduled_fairly("8:0", machine.root)
    qos.unlink()
    (queue / "scheduler").write_text("mq-deadline none [bfq]\n")
    assert scheduled_fairly("8:0", machine.root)
