"""A web host's own loop, which needs no network: how its sites are, who is squeezed for it, what the kernel holds."""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Never

from agent.caps.choose import Chosen, choose, common, facts, people, say, servers
from agent.caps.egress import Nft
from agent.caps.keeper import Keeper
from agent.caps.ours import boot_id
from agent.caps.quotakeeper import NOBODY, Files, QuotaKeeper
from agent.caps.quotaunit import runner
from agent.caps.siting import Siting
from agent.caps.systemd import Systemd
from agent.caps.telling import Kept, with_company
from agent.config import Config
from agent.isolation import Isolation
from agent.layout.adoption import Adoption
from agent.layout.keep import Layout
from agent.layout.running import CGROUPS
from agent.layout.scopes import SystemdScopes
from agent.questions import Questions
from agent.usage.habits import Observer, nobody_refused
from agent.usage.keep import Send, Usage, descriptors
from agent.usage.report import Held, Word
from agent.usage.sampler import Sampler
from fleet.messages import BESIDE_SHORT_MAX, Beside, Orders
from fleet.model import SiteId
from fleet.quota import DiskUse
from metrics.exporter import Exporter
from runtime.pulse import Pulse
from runtime.words import explain


class Hosting:
    """Follows orders; before it has sites of its own it does nothing. `send` takes what is told to controllers.

    `root`: where this host's own files are; a made-up host has them elsewhere.
    """

    def __init__(
        self, config: Config, exporter: Exporter, send: Send, root: Path = Path("/")
    ) -> None:
        self._begun = asyncio.Event()
        subtree = config.caps.subtree
        self.layout = Layout(str(root), cgroups=str(subtree) if subtree else None)
        self._settings = config.caps
        self._chosen = choose(config.caps, changed := Pulse(), root)
        exporter.set("relevo_caps_enforceable", float(self._chosen.driver is not None))
        firewall = _firewall(config, self._chosen)
        self.adoption = _adoption(config, self._chosen, self.layout, exporter)
        self.keeper = _keeper(config, self._chosen, firewall, changed, exporter, root)
        self.usage = Usage(
            config.host,
            config.usage,
            config.state,
            send=send,
            word=self.word,
            exporter=exporter,
            sampler=Sampler(
                descriptors=descriptors(),
                proc=root / "proc",
                sys=root / "sys",
                parent=config.usage.parent,
            ),
            observer=Observer(
                proc=root / "proc",
                crontabs=root / "var/spool/cron/crontabs",
                refused=firewall.refused if firewall else nobody_refused,
            ),
        )
        self.quotas = _quotas(config, exporter, root)
        self.questions = Questions(self.usage.told, exporter)
        self.isolation = Isolation(
            config.isolation,
            config.state,
            self.usage,
            self.keeper.penalize,
            exporter=exporter,
            proc=root / "proc",
        )

    def follow(self, orders: Orders) -> None:
        """Idempotent; what it asks for is done soon after."""
        self.layout.follow(orders.tenants)
        self.usage.follow(orders)
        self.isolation.follow(orders)
        self.keeper.follow(orders)
        self.quotas.follow(orders)
        if orders.tenants:
            self._begun.set()

    def word(self) -> Word:
        """What is known here beside use: who is penalized, what is held, and why."""
        lacks = (*self.keeper.lacks, *self.quotas.lacks)
        return Word(
            penalties=with_company(self.isolation.penalties, self.keeper.company),
            evidence=self.isolation.evidence,
            help=self.isolation.asks,
            driver=self.keeper.driver,
            unable=" ".join(map(explain, lacks)),
            lacks=lacks,
            drift=self.keeper.drift + self.quotas.drift,
            held=Helds(self.keeper.state(), self.quotas.state()),
            looked=self.keeper.looked,
        )

    def services(self) -> dict[str, Coroutine[Any, Any, Any]]:
        """What this does, each eternal, by name."""
        return {
            "caps": self.keeper.keep(),
            "quotas": self.quotas.keep(),
            "layout": self.layout.keep(),
            "attach": self._attach(),
            "adoption": self.adoption.keep(),
            "usage": self._use(),
            "isolation": self.isolation.keep(),
            "questions": self.questions.keep(),
        }

    async def _attach(self) -> Never:
        """Eternal: what was found of the sites' layout goes to whoever needs it."""
        count = 0
        while True:
            count = await self.layout.changed.after(count)
            self.usage.attach(self.layout.attached)
            self.isolation.attach(self.layout.attached)
            self.keeper.attach(self.layout.attached)
            self.adoption.attach(self.layout.attached)
            self.quotas.attach(self.layout.attached)

    async def _use(self) -> Never:
        """Eternal: an edge has no threads for sites that it does not host."""
        await self._begun.wait()
        say(self._chosen, self._settings)
        await self.usage.keep()


def _adoption(config: Config, chosen: Chosen, layout: Layout, exporter: Exporter) -> Adoption:
    """Workers are moved where systemd holds the caps, and nowhere else."""
    return Adoption(
        SystemdScopes() if isinstance(chosen.driver, Systemd) else None,
        everywhere=config.caps.adopt,
        state=config.state,
        cgroups=Path(CGROUPS),
        tell=layout.adopt,
        exporter=exporter,
    )


def _firewall(config: Config, chosen: Chosen) -> Nft | None:
    caps = config.caps
    return Nft(config.state / "egress.nft", caps.nft) if chosen.driver and caps.egress else None


class Helds(Mapping[SiteId, Held]):
    """Of sites in slices, and of those that keep something; each made when it is asked for: most words name a few."""

    def __init__(self, kept: Mapping[SiteId, Kept], disks: Mapping[SiteId, DiskUse]) -> None:
        self._kept, self._disks = kept, disks

    def __getitem__(self, site: SiteId) -> Held:
        kept, disk = self._kept.get(site), self._disks.get(site)
        if kept is None and disk is None:
            raise KeyError(site)
        return replace(_held(kept) if kept else Held(), disk=disk)

    def __iter__(self) -> Iterator[SiteId]:
        return iter(self._kept.keys() | self._disks.keys())

    def __len__(self) -> int:
        return len(self._kept.keys() | self._disks.keys())


def _held(kept: Kept) -> Held:
    return Held(
        slice=kept.slice,
        wanted=kept.wanted,
        held=kept.held,
        because=kept.because,
        short=kept.short,
        beside=tuple(map(_beside, sorted(kept.beside, key=_calm))),
    )


def _calm(kept: Kept) -> bool:
    """What is as it should be can be left out, where not all fits."""
    return kept.wanted == kept.held and not kept.short


def _beside(kept: Kept) -> Beside:
    return Beside(
        slice=kept.slice,
        wanted=kept.wanted,
        held=kept.held,
        because={field: why for field, why in kept.because.items() if why.code != "cap-plan"},
        short=kept.short[:BESIDE_SHORT_MAX],
    )


def _quotas(config: Config, exporter: Exporter, root: Path) -> QuotaKeeper:
    caps, usage = config.caps, config.usage
    ours = caps.quota and caps.driver != "off"
    quotas = runner() if ours else None
    return QuotaKeeper(
        quotas,
        Files(root),
        unable=NOBODY if ours and quotas is None else None,
        state=config.state / "quota.json",
        exporter=exporter,
        most={"all": None, "top": usage.top, "off": 0}[usage.per_site],
        every_s=10 * caps.verify_s,  # five minutes by default: no signal tells of a disk that fills
    )


def _keeper(
    config: Config,
    chosen: Chosen,
    firewall: Nft | None,
    changed: Pulse,
    exporter: Exporter,
    root: Path,
) -> Keeper:
    caps = config.caps
    siting = Siting(caps.disks, root)
    return Keeper(
        chosen.driver,
        firewall,
        unable=chosen.unable,
        facts=facts(caps, siting, root),
        find=siting.look,
        people=people(root),
        state=config.state / "caps.json",
        exporter=exporter,
        changed=changed,
        servers=servers(caps, root),
        common=common(root),
        verify_s=caps.verify_s,
        boot=boot_id(root),
    )
