"""After a restore: asks every agent what it holds, and gives the store back what it has forgotten (rule R2)."""

from dataclasses import dataclass

import msgspec

from controller import incidents, settle
from controller.audited import Audited, Person
from controller.link import Link
from controller.mirror import Mirror
from controller.sight import Refused, Sight
from controller.store import Op, Put
from failover.recover import Claim, Recovery, recover
from fleet import keys
from fleet.messages import Recalled
from fleet.model import Arming, HostId, StoreId, Why
from runtime.clock import iso, wall

ANSWERS_S = 6.0  # for agents to say what they hold: they answer at once, and come back within 5 s
AT_ONCE = 50  # placement documents in one transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalling:
    """What recovery found, and by whose word."""

    recovery: Recovery
    heard: tuple[HostId, ...]
    strangers: tuple[HostId, ...]  # hold another cluster's orders


class Recoverer:
    """First look, then, by a person's word, recover. Both ask anew."""

    def __init__(self, mirror: Mirror, link: Link, sight: Sight, audited: Audited) -> None:
        self._mirror, self._link, self._sight, self._audited = mirror, link, sight, audited

    async def look(self) -> Recalling:
        """What recovering would write. Raises Refused where the store was not rewound."""
        mirror = self._mirror
        if self._sight.rewound is None:
            raise Refused(Why("not-rewound"))
        said = await self._link.recall(frozenset(mirror.fleet.hosts), ANSWERS_S)
        ours = {host: word for host, word in said.items() if word.cluster == mirror.id.cluster}
        if not ours:
            raise Refused(Why("nobody-recalls", {"strangers": len(said)}))
        recovery = recover(
            mirror.fleet,
            mirror.places,
            {host: _claim(word) for host, word in ours.items()},
            mirror.id.generation,
        )
        return Recalling(
            recovery=recovery,
            heard=tuple(sorted(ours)),
            strangers=tuple(sorted(said.keys() - ours.keys())),
        )

    async def recover(self, person: Person, *, anyway: bool = False) -> Recalling:
        """Write the placements, then the next generation, which makes them true. Can be repeated at any point.

        Sites that are in doubt stay where they are, and are observed until a person arms them again. Raises Refused,
        also where a declared host says nothing: it may be the only one that knows. `anyway`: it is gone for good.
        """
        found = await self.look()
        recovery, mirror = found.recovery, self._mirror
        if recovery.silent and not anyway:
            silent = ", ".join(recovery.silent[:10])
            count = len(recovery.silent)
            raise Refused(Why("recovery-unheard", {"silent": silent, "count": count}))
        now = wall()
        documents = settle.moved(
            mirror.placements,
            {site: home for home, doc in mirror.placements.items() for site in doc.sites},
            recovery.moved,
            since=iso(now),
            why=Why("recovered-from-agents"),
            incident=incidents.new_id("store", now),
        )
        puts = [Put(keys.placements(home), settle.encode(doc)) for home, doc in documents.items()]
        for at in range(0, len(puts), AT_ONCE):
            some = puts[at : at + AT_ONCE]
            await self._audited.txn(some, mirror.unchanged(*(put.key for put in some)))
        doubtful = {conflict.site: Arming.OBSERVE for conflict in recovery.conflicts}
        switches = msgspec.structs.replace(
            mirror.switches, sites={**mirror.switches.sites, **doubtful}
        )
        store = StoreId(cluster=mirror.id.cluster, generation=recovery.generation)
        operations: list[Op] = [
            Put(keys.SWITCHES, settle.encode(switches)),
            Put(keys.STORE, settle.encode(store)),
        ]
        await self._audited.commit(
            operations,
            mirror.unchanged(keys.SWITCHES, keys.STORE),
            person,
            "recover the store",
            f"generation {recovery.generation}",
        )
        return found


def _claim(word: Recalled) -> Claim:
    domains = None
    if word.domains is not None:
        domains = {domain: host for host, found in word.domains.items() for domain in found}
    return Claim(epoch=word.epoch, sites=frozenset(word.sites), domains=domains)
