"""What a machine may tell of sites: use, and penalties that it claims, true or not."""

from fleet.caps import Attachment, Level, Penalty, Resource
from fleet.messages import SiteUse, Usage
from fleet.model import HostId, SiteId, Why
from runtime.clock import wall


def penalty(site: SiteId, level: Level = Level.STOP, for_s: float = 3600.0) -> Penalty:
    now = wall()
    return Penalty(
        site=site,
        level=level,
        resource=Resource.CPU,
        since=now,
        until=now + for_s,
        why=Why("cap-stopped"),
        enforced=True,
    )


def telling(
    host: HostId, *sites: SiteId, level: Level = Level.STOP, for_s: float = 3600.0
) -> Usage:
    """Each of `sites` is used a lot, and penalized."""
    return Usage(
        host=host,
        driver="systemd",
        sites={site: SiteUse(attachment=Attachment.SLICE, cpu_cores=9.0) for site in sites},
        penalties=tuple(penalty(site, level, for_s) for site in sites),
    )
