"""What isolation knows of a host's sites beside their signals: plans, whose sites they are, people's words."""

from collections.abc import Mapping
from dataclasses import dataclass

from fleet.caps import Ruling, Tenant, armed, effective
from fleet.model import Caps, PlanId, SiteId


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What the orders say of the sites of this host."""

    plans: Mapping[PlanId, Caps]
    tenants: Mapping[SiteId, Tenant]
    rulings: Mapping[SiteId, Ruling]

    def caps(self, wall: float) -> dict[SiteId, Caps]:
        """Of each site whose plan is known."""
        known = ((site, self.caps_of(site, wall)) for site in self.tenants)
        return {site: caps for site, caps in known if caps is not None}

    def caps_of(self, site: SiteId, wall: float) -> Caps | None:
        """What one site may have; None: its plan is not known."""
        tenant = self.tenants.get(site)
        plan = self.plans.get(tenant.plan) if tenant else None
        if tenant is None or plan is None:
            return None
        return effective(armed(plan, tenant.held, wall), tenant.override, wall)

    def enforced(self, site: SiteId, wall: float) -> bool:
        """Whether what is decided of a site is held, or in shadow."""
        tenant = self.tenants.get(site)
        begins = tenant.enforced_from if tenant else None
        return begins is not None and begins <= wall

    def ruling(self, site: SiteId, wall: float) -> Ruling | None:
        """What people say of a site now; every word of theirs ends too (rule R11).

        It counts from when it is heard, whatever its `since`: this host's clock may be slow.
        """
        ruling = self.rulings.get(site)
        return ruling if ruling and wall < ruling.note.until else None
