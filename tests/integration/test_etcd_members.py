"""Members of the cluster die, freeze, are cut off: the store goes on, and nothing is lost, repeated or invented."""

import asyncio
import re

import pytest

from controller.store import Ambiguous, LeaseLost, Put, Unavailable
from controller.store.etcd import EtcdStore
from tests.etcds import NEW, OLD, Cluster, Member, cluster, metrics
from tests.integration.witness import witness

pytestmark = [pytest.mark.integration, pytest.mark.long]

LEADER = b"leader"
PARTITION_S = 30.0
SILENCE_S = 6.0  # an election takes up to 2 s, noticing a silent member 2 s, finding another 1 s


def first(one: Member, all: Cluster) -> tuple[str, ...]:
    """The cluster's endpoints, that of `one` preferred."""
    return (one.url, *(url for url in all.urls if url != one.url))


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_a_killed_leader_is_missed_by_nobody(version: str) -> None:
    """The member that leads, and that we speak with, dies: lease, watch and writes go on with the others."""
    async with cluster(version) as etcd:
        leader = await etcd.leader()
        async with EtcdStore.open(first(leader, etcd)) as store, witness(store) as seen:
            leader.kill()
            await seen.settled()
            assert seen.longest_silence_s < SILENCE_S
            assert len(seen.doubtful) <= 1, "at most the write that was under way"
            etcd.start(leader)
            await etcd.ready(leader)
            for other in etcd.members:  # now one after the other, as in an upgrade
                if other is not leader:
                    other.kill()
                    await seen.settled()
                    etcd.start(other)
                    await etcd.ready(other)
            assert not seen.lease.lost.is_set()
            assert await store.get(b"leased")


async def test_a_frozen_leader_is_left_and_thaws_without_harm() -> None:
    """Stopped for longer than the lease it says nothing, and closes nothing: it's noticed all the same."""
    async with cluster() as etcd:
        leader = await etcd.leader()
        async with EtcdStore.open(first(leader, etcd)) as store, witness(store, ttl=4) as seen:
            leader.freeze()
            await asyncio.sleep(8)
            assert seen.longest_silence_s < SILENCE_S
            assert not seen.lease.lost.is_set()
            leader.thaw()
            await etcd.ready(leader)


async def test_who_held_the_lease_through_a_frozen_member_is_followed_not_doubled() -> None:
    """R1: the deposed one knows by its own clock before the next one leads, and can't write after the thaw."""
    now = asyncio.get_running_loop().time
    async with cluster() as etcd:
        frozen = await etcd.leader()
        others = [member.url for member in etcd.members if member is not frozen]
        async with (
            EtcdStore.open([frozen.url]) as old,
            EtcdStore.open(others) as new,
            old.campaign(LEADER, b"old", ttl=3) as deposed,
        ):
            await asyncio.sleep(1.5)  # the lease was renewed once: its end counts from that
            await deposed.txn([Put(b"config", b"old")])
            frozen.freeze()
            # It still leads when it sends this, which waits in the frozen member until that is thawed.
            with pytest.raises(Ambiguous):
                await old.txn([deposed.fence], [Put(b"config", b"late")], timeout=1)
            async with new.campaign(LEADER, b"new", ttl=3) as successor:
                assert deposed.lost.is_set() and deposed.deadline <= now()
                await successor.txn([Put(b"config", b"new")])
                with pytest.raises(LeaseLost):
                    await deposed.txn([Put(b"config", b"stale")])
                frozen.thaw()
                await etcd.ready(frozen)
                assert not (await old.txn([deposed.fence], [Put(b"config", b"stale")])).ok
                kv = await new.get(b"config")
                assert kv and kv.value == b"new"


async def test_a_member_cut_off_from_its_peers_is_left() -> None:
    """It still answers us, but knows no leader: `hasleader` makes it say so, and the others serve."""
    async with cluster(relayed=True) as etcd:
        cut = await etcd.leader()
        found = re.search(r'etcd_server_id\{server_id="([0-9a-f]+)"\}', await metrics(cut))
        assert found
        async with EtcdStore.open(first(cut, etcd)) as store, witness(store) as seen:
            for name, relay in etcd.relays.items():
                relay.refuse(b"" if name == cut.name else b"X-Server-From: " + found[1].encode())
            await asyncio.sleep(PARTITION_S)
            assert "etcd_server_has_leader 0" in await metrics(cut), "it was not cut off"
            assert seen.longest_silence_s < SILENCE_S
            assert not seen.lease.lost.is_set()
            for relay in etcd.relays.values():
                relay.mend()
            await etcd.ready(cut)


async def test_without_a_quorum_calls_fail_and_nothing_hangs() -> None:
    """Writes are refused in time, a read nearby works, the lease is lost by its deadline; then all goes on."""
    async with cluster() as etcd:
        leader = await etcd.leader()
        rest = [member for member in etcd.members if member is not leader]
        async with EtcdStore.open(first(rest[0], etcd)) as store, witness(store, ttl=3) as seen:
            for member in (leader, rest[1]):
                member.kill()
            async with asyncio.timeout(8):
                await seen.lease.lost.wait()
            with pytest.raises(Unavailable):
                await store.get(b"leased")
            kv = await store.get(b"leased", serializable=True)
            assert kv and kv.lease == seen.lease.id
            with pytest.raises(Unavailable):
                await store.grant(3)
            began = asyncio.get_running_loop().time()
            with pytest.raises(Unavailable):
                await store.list(b"w/", timeout=0.5)
            assert asyncio.get_running_loop().time() - began < 1
            etcd.start(leader, rest[1])
            await etcd.ready()
