"""What there is to tell of what sites keep on disk, and of what holds it. Pure."""

from collections import defaultdict
from collections.abc import Mapping

import msgspec

from agent.caps.quota import Aim, Holder, Kept, Key, Seen, World, kept_of, known
from agent.caps.quotamounts import Mount, unheld
from fleet.model import SiteId, Why
from fleet.quota import RATIO_MAX, DiskUse, Quota


def uses(
    world: World,
    found: Mapping[Key, Holder],
    seen: Mapping[str, Seen],
    wanted: Mapping[Key, Aim],
) -> dict[SiteId, DiskUse]:
    """What there is to tell of each site; `seen` after what was set."""
    keys: dict[SiteId, dict[Key, Holder]] = defaultdict(dict)
    for key, holder in found.items():
        for site in holder.sites:
            keys[site][key] = holder
    return {site: _use(keys[site], seen, wanted) for site, _, _ in known(world)}


def _use(
    mine: Mapping[Key, Holder], seen: Mapping[str, Seen], wanted: Mapping[Key, Aim]
) -> DiskUse:
    if not mine:
        return DiskUse(because={"disk_bytes": Why("quota-no-user")})
    counted = {key: kept for key in mine if (kept := _counted(seen, key))}
    off = [why for each in _mounts(mine) if (why := unheld(each, _state(seen, each.place)))]
    told = DiskUse(
        shared=any(len(holder.sites) > 1 for holder in mine.values()),
        because={"disk_bytes": off[0]} if off else {},
    )
    if len(counted) < len(mine):
        return told
    full = {key: fullness(kept, mine[key].plan) for key, kept in counted.items()}
    nearest = max(full, key=lambda key: full[key])
    aim = wanted.get(nearest)
    because = aim.because if aim else mine[nearest].because
    return msgspec.structs.replace(
        told,
        used_bytes=sum(kept.used_bytes for kept in counted.values()),
        used_inodes=sum(kept.used_inodes for kept in counted.values()),
        ratio=min(full[nearest], RATIO_MAX),
        wanted=aim.quota if aim and not aim.release else None,
        held=counted[nearest].quota if kept_of(seen, nearest) else None,
        because={**because, **told.because},
    )


def _mounts(mine: Mapping[Key, Holder]) -> list[Mount]:
    return [*{key[0]: holder.mount for key, holder in sorted(mine.items())}.values()]


def _state(seen: Mapping[str, Seen], place: str) -> str:
    return seen[place].state if place in seen else "off"


def _counted(seen: Mapping[str, Seen], key: Key) -> Kept | None:
    mount = seen.get(key[0])
    return mount.users.get(key[1]) if mount else None


def fullness(kept: Kept, plan: Quota) -> float:
    """How much of what plans allow is kept, of bytes or of inodes, whichever is more; 1 is all."""
    return max(kept.used_bytes / (plan.disk_bytes or 1), kept.used_inodes / (plan.inodes or 1))
