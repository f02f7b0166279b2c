"""Which driver a host gets, by what it is; what of the host the caps are made from."""

from pathlib import Path

import msgspec
import pytest

from agent import config
from agent.caps.choose import choose, facts, people, resolvers, servers
from agent.caps.siting import Siting
from fleet.model import Why
from runtime.pulse import Pulse
from runtime.words import explain


def host(root: Path, *, v2: str | None = "cpuset cpu io memory pids", systemd: bool = True) -> Path:
    """A made-up machine: which controllers its kernel offers, and whether systemd runs it."""
    cgroups = root / "sys/fs/cgroup"
    cgroups.mkdir(parents=True)
    if v2 is not None:
        (cgroups / "cgroup.controllers").write_text(f"{v2}\n")
    if systemd:
        (root / "run/systemd/system").mkdir(parents=True)
    return root


def test_a_host_of_systemd_has_its_driver(tmp_path: Path) -> None:
    """With cgroup v2 and as root."""
    chosen = choose(config.Caps(), Pulse(), host(tmp_path), uid=0)
    assert chosen.driver is not None and chosen.driver.name == "systemd"
    assert chosen.unable is None


@pytest.mark.parametrize(
    ("v2", "systemd", "uid", "why"),
    [
        (None, True, 0, "cgroup v1"),
        ("", True, 0, "no controllers"),
        ("cpuset hugetlb", True, 0, "no controllers"),
        ("cpu memory", False, 0, "systemd does not run here"),
        ("cpu memory", True, 1000, "not root"),
    ],
)
def test_where_nothing_can_be_held_it_says_what_is_missing(
    tmp_path: Path, v2: str | None, systemd: bool, uid: int, why: str
) -> None:
    """And has no driver: the agent goes on and reports."""
    chosen = choose(config.Caps(), Pulse(), host(tmp_path, v2=v2, systemd=systemd), uid=uid)
    assert chosen.driver is None and why in explain(chosen.why)


def test_a_delegated_subtree_is_used_where_one_is_named(tmp_path: Path) -> None:
    """In a container: neither root nor systemd is asked for; what is no such directory is said."""
    root = host(tmp_path, v2=None, systemd=False)
    subtree = tmp_path / "delegated"
    settings = config.Caps(subtree=subtree)
    told = choose(settings, Pulse(), root, uid=1000)
    assert told.driver is None and "no cgroup v2 directory" in explain(told.why)
    subtree.mkdir()
    (subtree / "cgroup.controllers").write_text("cpu memory pids\n")
    chosen = choose(settings, Pulse(), root, uid=1000)
    assert chosen.driver is not None and chosen.driver.name == "cgroupfs"
    told = choose(config.Caps(driver="cgroupfs"), Pulse(), root, uid=0)
    assert told.driver is None and "names no directory" in explain(told.why)


def test_switched_off_is_switched_off(tmp_path: Path) -> None:
    """Whatever the host could do."""
    chosen = choose(config.Caps(driver="off"), Pulse(), host(tmp_path), uid=0)
    assert chosen.driver is None and chosen.unable == Why("unable-off")


def test_what_is_known_of_a_host_is_read_anew(tmp_path: Path) -> None:
    """Memory in bytes, controllers that hold something, swap when it is there; without /proc/1 there are no disks."""
    root = host(tmp_path, v2="cpuset cpu memory")
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text("MemTotal:       1024 kB\nMemFree:  1 kB\n")
    (root / "proc/swaps").write_text("Filename Type Size Used Priority\n")
    read = facts(config.Caps(), Siting((), root), root)
    assert (read().memory_total_bytes, read().has_swap, read().devices) == (1 << 20, False, ())
    assert read().no_disk.code == "cap-disks-unseen"
    assert read().controllers == {"cpu", "memory"}
    with (root / "proc/swaps").open("a") as swaps:
        swaps.write("/dev/zram0 partition 100 0 -2\n")
    assert read().has_swap


def test_names_are_asked_where_the_host_asks(tmp_path: Path) -> None:
    """As resolv.conf says, unless the configuration knows better; what is no plain address is left out."""
    assert resolvers(config.Caps(), tmp_path) == ()
    (tmp_path / "etc").mkdir()
    lines = "# x\nnameserver 192.0.2.53\nsearch example.org\nnameserver fe80::1%eth0\nnameserver\n"
    (tmp_path / "etc/resolv.conf").write_text(lines)
    assert resolvers(config.Caps(), tmp_path) == ("192.0.2.53",)
    assert resolvers(config.Caps(resolvers=("192.0.2.9",)), tmp_path) == ("192.0.2.9",)


def test_whom_sites_need_is_read_anew_and_an_empty_word_is_none(tmp_path: Path) -> None:
    """Another resolv.conf counts without a restart; while it is being written, the last one does."""
    read = servers(config.Caps(mail=("192.0.2.25",)), tmp_path)
    assert read().resolvers == ()
    (tmp_path / "etc").mkdir()
    for address in ("192.0.2.53", "198.51.100.53"):
        (tmp_path / "etc/resolv.conf").write_text(f"nameserver {address}\n")
        assert (read().resolvers, read().mail) == ((address,), ("192.0.2.25",))
        (tmp_path / "etc/resolv.conf").write_text("")
        assert read().resolvers == (address,)


@pytest.mark.parametrize("field", ["mail", "databases", "resolvers"])
def test_a_server_without_an_address_is_refused_with_its_field(field: str) -> None:
    """Rules hold addresses: a name would be whatever it was when the agent started."""
    with pytest.raises(msgspec.ValidationError, match=rf"caps\.{field}.*mail\.example\.org"):
        msgspec.toml.decode(f'{field} = ["mail.example.org"]', type=config.Caps)


def test_no_service_is_taken_for_a_sites_user(tmp_path: Path) -> None:
    """Whatever a fleet file says: capping or shutting in www-data would hit every site."""
    (tmp_path / "etc").mkdir()
    lines = ("root:x:0:0", "www-data:x:33:33", "nginx:x:1001:1001", "shop:x:1002:1002")
    text = "".join(f"{line}::/:/bin/sh\n" for line in lines)
    (tmp_path / "etc/passwd").write_text(text)
    assert people(tmp_path)() == {"shop": 1002}
