"""Five minutes of each site become one row: average, 95th percentile and maximum, each weighted by its time.

Pure but for its memory. `now` is monotonic s; a row is named by the wall's clock, in slots of SLOT_S since 1970.
"""

from array import array
from collections.abc import Collection, Iterable, Mapping

import msgspec

from agent.signals import HostSigns, Signals, SiteSigns
from agent.usage.whatif import Marks, at_cap, least, marks, plans_reached, weighted
from fleet.caps import Level, Penalty, Tenant, armed, effective
from fleet.model import Caps, PlanId, SiteId

SLOT_S = 300
# What a row keeps of a site; what is None in a reading was not known then.
MEASURES = (
    "cpu_cores",
    "memory_bytes",
    "read_bytes_per_s",
    "write_bytes_per_s",
    "tasks",
    "requests_per_s",
)
# A reading stands for the time since the one before, but not for a pause in which nobody looked.
LONGEST_S = 15.0
EVERY_S = 10.0  # what is not read anew is added as it was, this often


class Summary(msgspec.Struct, frozen=True):
    average: float
    p95: float
    max: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One site's five minutes, of which it was seen for `seen_s`: by the kernel, or by the log alone.

    `at_cap_s`: how long each plan would have held it, 0 too; of a plan that is not in it nothing is known.
    """

    site: SiteId
    slot: int
    seen_s: float
    measures: dict[str, Summary] = {}
    at_cap_s: dict[PlanId, float] = {}
    shadow_s: float = 0.0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What use is measured against. `shadowed`: sites whose caps are not enforced, with what these would be.

    `slowed`: sites that a penalty in shadow would hold.
    """

    plans: dict[PlanId, Caps] = {}
    shadowed: dict[SiteId, Caps] = {}
    slowed: frozenset[SiteId] = frozenset()


def terms(
    plans: Mapping[PlanId, Caps],
    tenants: Mapping[SiteId, Tenant],
    penalties: Iterable[Penalty],
    now: float,
) -> Terms:
    """What use is measured against at `now` (Unix s)."""
    return Terms(
        plans=dict(plans),
        shadowed={
            site: effective(plans[tenant.plan], tenant.override, now)
            for site, tenant in tenants.items()
            if tenant.plan in plans and _only_watched(tenant, plans[tenant.plan], now)
        },
        slowed=frozenset(
            penalty.site
            for penalty in penalties
            if not (penalty.enforced or penalty.is_relief)
            and penalty.level >= Level.SOFT
            and penalty.until > now
        ),
    )


class Against(msgspec.Struct, frozen=True, kw_only=True):
    """Terms as one host would hold them. `smallest`: of all plans."""

    plans: dict[PlanId, Marks] = {}
    smallest: Marks | None = None
    shadowed: dict[SiteId, Marks] = {}
    slowed: frozenset[SiteId] = frozenset()


def against(terms: Terms, cores: float, *, has_swap: bool) -> Against:
    """`terms` on a host that has so many cores, and swap or none."""
    plans = {plan: marks(caps, cores, has_swap=has_swap) for plan, caps in terms.plans.items()}
    return Against(
        plans=plans,
        smallest=least(plans.values()),
        shadowed={
            site: marks(caps, cores, has_swap=has_swap) for site, caps in terms.shadowed.items()
        },
        slowed=terms.slowed,
    )


def _only_watched(tenant: Tenant, plan: Caps, now: float) -> bool:
    """Whether its plan's own numbers hold nothing: it is in shadow, or what was armed is looser."""
    begins = tenant.enforced_from
    return begins is None or begins > now or armed(plan, tenant.held, now) != plan


class Open:
    """One site's row in the making. Arrays, not lists: a thousand sites' readings are some 4 MB."""

    def __init__(self, now: float) -> None:
        self.added_at = now
        self.weights = array("f")
        self.values = {measure: array("d") for measure in MEASURES}
        self.at_cap_s: dict[PlanId, float] = {}
        self.compared: Mapping[PlanId, Marks] | None = None
        self.shadow_s = 0.0


class Ledger:
    """All sites' rows in the making."""

    def __init__(self) -> None:
        self._slot: int | None = None
        self._open: dict[SiteId, Open] = {}
        self._terms: tuple[Terms, float, bool] | None = None
        self._against = Against()

    def add(
        self, signals: Signals, fresh: Collection[SiteId], terms: Terms, wall: float
    ) -> tuple[Row, ...]:
        """Add one round. Gives the rows of the slot before when `wall` (Unix s) has left it."""
        slot, compared = int(wall // SLOT_S), self._compared(terms, signals.host)
        turns = self._slot not in {slot, None}
        done = self._turn(signals, compared, signals.at - wall % SLOT_S) if turns else ()
        self._slot = slot
        for site, signs in signals.sites.items():
            row = self._open.get(site)
            if row is None:
                row = self._open[site] = Open(signals.at)
            elif site in fresh or signals.at - row.added_at >= EVERY_S:
                _add(row, site, signs, min(signals.at - row.added_at, LONGEST_S), compared)
                row.added_at = signals.at
        return done

    def _compared(self, terms: Terms, host: HostSigns) -> Against:
        """Reckoned when words or the host have changed: swap may come and go."""
        known = self._terms
        if known is None or known[0] is not terms or known[1:] != (host.cores, host.has_swap):
            self._terms = (terms, host.cores, host.has_swap)
            self._against = against(terms, host.cores, has_swap=host.has_swap)
        return self._against

    def _turn(self, signals: Signals, compared: Against, border: float) -> tuple[Row, ...]:
        """The rows up to `border` (monotonic s): a reading that lies across it counts for its part in each."""
        begun = {}
        for site, row in self._open.items():
            if (signs := signals.sites.get(site)) is not None:
                since = max(row.added_at, signals.at - LONGEST_S)
                _add(row, site, signs, border - since, compared)
                begun[site] = Open(max(since, border))
        done = self.close()
        self._open = begun
        return done

    def close(self) -> tuple[Row, ...]:
        """The rows so far, of sites of which anything was known; the next ones begin."""
        rows = [_row(site, self._slot or 0, row) for site, row in self._open.items()]
        self._open = {}
        return tuple(row for row in rows if row.measures)


def _add(row: Open, site: SiteId, signs: SiteSigns, weight_s: float, to: Against) -> None:
    if weight_s <= 0 or not _tells(signs):
        return
    row.weights.append(weight_s)
    for measure, values in row.values.items():
        told = getattr(signs, measure)
        values.append(NOT_TOLD if told is None else told)
    # Who runs in no group and as no user of its own reaches no cap that anybody could see.
    if signs.cpu_cores is not None and row.compared is not to.plans:
        row.compared = to.plans
        row.at_cap_s = {**dict.fromkeys(to.plans, 0.0), **row.at_cap_s}
    for plan in plans_reached(signs, to.plans, to.smallest):
        row.at_cap_s[plan] = row.at_cap_s.get(plan, 0.0) + weight_s
    own = to.shadowed.get(site)
    if site in to.slowed or (own is not None and at_cap(signs, own)):
        row.shadow_s += weight_s


def _tells(signs: SiteSigns) -> bool:
    """Whether anything of what a row keeps is known."""
    return any(getattr(signs, measure) is not None for measure in MEASURES)


NOT_TOLD = -1.0  # no reading is negative


def _row(site: SiteId, slot: int, row: Open) -> Row:
    return Row(
        site=site,
        slot=slot,
        seen_s=_seen_s(row),
        measures=_measures(row),
        at_cap_s=row.at_cap_s,
        shadow_s=row.shadow_s,
    )


def _seen_s(row: Open) -> float:
    """By the kernel's word, where it had one: the log goes on to tell of a slice that is gone."""
    cores = zip(row.values["cpu_cores"], row.weights, strict=True)
    return sum(weight for told, weight in cores if told >= 0) or sum(row.weights)


def _measures(row: Open) -> dict[str, Summary]:
    found = {}
    for measure, values in row.values.items():
        told = [
            (value, weight) for value, weight in zip(values, row.weights, strict=True) if value >= 0
        ]
        if told:
            found[measure] = summary(told)
    return found


def summary(values: list[tuple[float, float]]) -> Summary:
    """Of (value, weight), not empty, weights above 0."""
    total = sum(weight for _, weight in values)
    average = sum(value * weight for value, weight in values) / total
    top = max(value for value, _ in values)
    return Summary(min(average, top), weighted(values, 0.95), top)
