"""What a person is told on a host of the file systems that its sites are on."""

from pathlib import Path

from agent.caps.quotactl import Limits
from agent.caps.quotalook import on_disk
from agent.layout.attached import Attached
from fleet.caps import Attachment, Tenant
from fleet.model import PlanId, SiteId, Why
from runtime.words import explain

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
shop:x:1001:1001::/srv/shop:/bin/sh
news:x:1002:1002::/home/news:/bin/sh
blog:x:1003:1003::/data/blog:/bin/sh
"""
MOUNTINFO = """\
22 1 254:1 / / rw - ext4 /dev/vda1 rw
29 22 254:16 / /srv rw - ext4 /dev/vdb rw,usrquota
30 22 254:32 / /data rw - xfs /dev/vdc rw
31 22 0:44 / /backup rw - btrfs /dev/vdd rw
"""
SITES = {SiteId(name): Tenant(plan=PlanId("p"), users=(name,)) for name in ("shop", "news", "blog")}


class Kernel:
    def state(self, mount: str) -> str:
        return {"/srv": "enforced", "/": "off", "/data": "off"}[mount]

    def get(self, mount: str, uid: int) -> Limits:
        raise AssertionError

    def put(self, mount: str, uid: int, limits: Limits) -> None:
        raise AssertionError


def host(folder: Path) -> Path:
    (folder / "etc").mkdir()
    (folder / "etc/passwd").write_text(PASSWD)
    (folder / "proc/1").mkdir(parents=True)
    (folder / "proc/1/mountinfo").write_text(MOUNTINFO)
    return folder


def test_each_file_system_of_sites_is_told_once(tmp_path: Path) -> None:
    """Which holds its users, and which does not with what would change that; those without sites are left out."""
    attached = {
        site: Attached(attachment=Attachment.POOL, why=Why("x"), roots=(Path("/srv/shop/public"),))
        for site in SITES
    }
    told = [*on_disk(SITES, attached, host(tmp_path), Kernel())]
    assert [(why.code, why.values["mount"]) for why in told] == [
        ("quota-root", "/"),
        ("quota-mount", "/data"),
        ("quota-held", "/srv"),
    ]
    assert "umount /data && mount /data" in explain(told[1])


def test_another_hosts_files_say_nothing_of_its_kernel(tmp_path: Path) -> None:
    """`relevo layout --root` looks at files alone."""
    assert [*on_disk(SITES, {}, host(tmp_path))] == []
