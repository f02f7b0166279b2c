"""What the leader writes of penalties: what hosts told since, what ended, and suspicions where a site has moved."""

from controller import settle
from controller.entries import entered
from controller.incidents import Times
from controller.mirror import Mirror
from controller.penalties import Said, following, is_history, steps, suspicion
from controller.store import Delete, Op, Put
from controller.uses import Uses
from fleet import keys
from fleet.caps import Level
from fleet.model import AuditEntry, HostId, SiteId
from fleet.penalized import Penalized
from runtime.words import explain

AT_ONCE = 40  # operations; a batch takes 50
LOOK_S = 1.0  # between two looks: the failover loop has its own work
# What one host may write into the audit in an hour: a liar must not wash people's orders out of it (rule R15).
AUDITED, AUDITED_PER_S = 12, 12 / 3600
# How often its word may change the store, and with it what edges hold: an incident has a dozen steps, a liar more.
WRITES, WRITES_PER_S = 20, 0.2


class Allowance:
    """What each host may do of something: so many at once, which comes back over time."""

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst, self._per_s = float(burst), per_s
        self._left: dict[HostId, tuple[float, float]] = {}  # how many, and when that was

    def takes(self, host: HostId, now: float) -> bool:
        left, at = self._left.get(host, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_s)
        self._left[host] = (left - 1 if left >= 1 else left, now)
        return left >= 1


class Recorder:
    """Compares what hosts said with what is stored; without `uses` only what is stored ends."""

    def __init__(self, mirror: Mirror, uses: Uses | None) -> None:
        self._mirror, self._uses = mirror, uses
        self._looked_at = float("-inf")
        self._audits = Allowance(AUDITED, AUDITED_PER_S)
        self._writes = Allowance(WRITES, WRITES_PER_S)

    def missing(self, times: Times) -> list[Op]:
        """What to write, a suspicion before the penalty that it comes from; each can be repeated."""
        if times.now - self._looked_at < LOOK_S:
            return []
        self._looked_at = times.now
        told = self._uses.hosts.values() if self._uses else ()
        sites = {site for word in told for site in word.penalties}
        operations: list[Op] = []
        standing = (
            site
            for site, kept in self._mirror.penalties.items()
            if not is_history(kept, times.wall)
        )
        for site in sorted(sites.union(standing)):
            if site in self._mirror.fleet.sites:
                operations += self._of(site, self._said(site), times)
            if len(operations) >= AT_ONCE:
                break
        return operations

    def _said(self, site: SiteId) -> Said | None:
        """By the host that serves it now, if that has said anything at all."""
        place = self._mirror.places.get(site)
        word = self._uses.hosts.get(place.host) if self._uses and place else None
        if word is None or place is None:
            return None
        penalties = word.penalties.get(site, ())
        return Said(host=place.host, penalties=penalties, evidence=word.evidence.get(site))

    def _of(self, site: SiteId, said: Said | None, times: Times) -> list[Op]:
        mirror = self._mirror
        stored, place = mirror.penalties.get(site), mirror.places.get(site)
        host = place.host if place else None
        found = following(stored, said, host, times.wall)
        if found is stored or not (host and self._writes.takes(host, times.now)):
            return []
        operations: list[Op] = []
        ruling = mirror.rulings.get(site)
        if stored and (suspected := suspicion(stored, host, ruling, times.wall)):
            operations.append(Put(keys.ruling(site), settle.encode(suspected)))
        key = keys.penalty(site)
        operations.append(Put(key, settle.encode(found)) if found else Delete(key))
        return [*operations, *self._entries(site, stored, found, times)]

    def _entries(
        self, site: SiteId, old: Penalized | None, new: Penalized | None, times: Times
    ) -> list[Op]:
        """The audit of what is enforced; shadow is told as events only."""
        found: list[Op] = []
        for number, step in enumerate(steps(old, new)):
            penalty = step.penalty
            if not penalty.enforced or not self._audits.takes(step.host, times.now):
                continue
            entry = AuditEntry(
                at=times.wall,
                who=penalty.owner if step.what == "began" else "relevo",
                what=f"penalty {step.what}",
                subject=site,
                reason=explain(penalty.why)[:500],
                after=f"{Level(penalty.level).name.lower()} {penalty.resource.value} on {step.host}",
            )
            found += entered(self._mirror.audit, f"{site}-{number}", entry)
        return found
