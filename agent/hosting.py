"""A web host's own loop, which needs no network: how its sites are attached, and what the kernel holds of them."""

from collections.abc import Coroutine
from typing import Any, Never

from agent.caps.choose import choose, facts, resolvers
from agent.caps.egress import Nft, Rules
from agent.caps.keeper import Keeper
from agent.config import Config
from agent.layout.keep import Layout
from fleet.messages import Orders
from metrics.exporter import Exporter
from runtime.pulse import Pulse


class Hosting:
    """Follows orders; without sites of its own it does nothing."""

    def __init__(self, config: Config, exporter: Exporter) -> None:
        caps, changed = config.caps, Pulse()
        chosen = choose(caps, changed)
        exporter.set("relevo_caps_enforceable", float(chosen.driver is not None))
        servers = Rules(mail=caps.mail, resolvers=resolvers(caps), databases=caps.databases)
        self.layout = Layout()
        self.keeper = Keeper(
            chosen.driver,
            Nft(config.state / "egress.nft", caps.nft) if chosen.driver and caps.egress else None,
            unable="" if chosen.driver else chosen.why,
            facts=facts(caps),
            state=config.state / "caps.json",
            exporter=exporter,
            changed=changed,
            servers=servers,
            verify_s=caps.verify_s,
        )

    def follow(self, orders: Orders) -> None:
        """Idempotent; what it asks for is done soon after."""
        self.layout.follow(orders.tenants)
        self.keeper.follow(orders)

    def services(self) -> dict[str, Coroutine[Any, Any, Any]]:
        """What this does, each eternal, by name."""
        return {
            "layout": self.layout.keep(),
            "attach": self._attach(),
            "caps": self.keeper.keep(),
        }

    async def _attach(self) -> Never:
        """Eternal: what was found of the sites' layout goes to whoever needs it."""
        count = 0
        while True:
            count = await self.layout.changed.after(count)
            self.keeper.attach(self.layout.attached)
