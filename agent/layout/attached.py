"""Where the processes of a site are on this host, and so how much of it can be seen and held."""

from dataclasses import dataclass
from pathlib import Path

from fleet.caps import Attachment
from fleet.model import Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """One site as this host runs it.

    `slice`: the systemd slice that holds it all, for SLICE. `cgroups`: directories whose sum is the site, as far as the
    kernel tells it apart. `uids`: whose processes are its own alone. `socket`: where its own FPM pool takes requests,
    `status`: FPM's status by its socket and path, and `log`: the access log of its virtual hosts, where there are such.
    `roots`: the document roots of these.
    `why`: what was found, and what would better it.
    """

    attachment: Attachment
    why: Why
    slice: str | None = None
    cgroups: tuple[Path, ...] = ()
    uids: tuple[int, ...] = ()
    socket: Path | None = None
    status: tuple[Path, str] | None = None
    log: Path | None = None
    roots: tuple[Path, ...] = ()
