"""What the file systems of this host's sites do about quotas, for a person who asks on the host itself."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.caps.quota import paths
from agent.caps.quotactl import Kernel, Linux
from agent.caps.quotakeeper import Files
from agent.caps.quotamounts import mounts, unheld
from agent.layout.attached import Attached
from fleet.caps import Tenant
from fleet.model import SiteId, Why

HERE = Path("/")


def on_disk(
    tenants: Mapping[SiteId, Tenant],
    attached: Mapping[SiteId, Attached],
    root: Path = HERE,
    kernel: Kernel | None = None,
) -> Iterator[Why]:
    """Each file system that holds files of sites: that it holds their users, or why not, with the remedy.

    Nothing of the files of another host: its kernel is not here to be asked. Raises OSError.
    """
    if root != HERE and kernel is None:
        return
    kernel = kernel or Linux()
    people = Files(root).people()
    found = mounts(paths(tenants, attached, people), root).values()
    for mount in sorted({*found}, key=lambda each: each.place):
        held = Why("quota-held", {"mount": mount.place, "kind": mount.kind})
        state = kernel.state(mount.place) if mount.has_quota else "off"
        yield unheld(mount, state) or held
