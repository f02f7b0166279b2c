"""Who may use the store: TLS with client certificates, users with passwords, and what a refusal looks like."""

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import pytest

from controller import authority as authorities
from controller.authority import SERVER_VALID
from controller.store import Ambiguous, Denied, Unavailable
from controller.store.etcd import EtcdStore, Login, Tls
from deploy.demo.certificates import Authority
from runtime.clock import wall
from tests.contract.stores import take
from tests.etcds import HOST, NEW, OLD, Cluster, cluster, control

pytestmark = pytest.mark.integration

LOOK_S, ENDS_IN_S = 0.05, 4.0
RELEVO, GUEST = Login("relevo", "correct horse"), Login("guest", "battery staple")


def etcdctl(etcd: Cluster, *command: str, login: str = "") -> None:
    who = ("--user", login) if login else ()
    subprocess.run(
        (control(), "--endpoints", etcd.urls[0], *who, *command),
        env={**os.environ, "ETCDCTL_API": "3"},
        capture_output=True,
        timeout=10,
        check=True,
    )


def allow(etcd: Cluster) -> None:
    """root may everything, relevo what is below /relevo/, guest reads what is below /open/."""
    for user, password in (
        ("root", "r"),
        (RELEVO.name, RELEVO.password),
        (GUEST.name, GUEST.password),
    ):
        etcdctl(etcd, "user", "add", f"{user}:{password}")
        etcdctl(etcd, "role", "add", user)
        etcdctl(etcd, "user", "grant-role", user, user)
    etcdctl(etcd, "role", "grant-permission", "relevo", "--prefix", "readwrite", "/relevo/")
    etcdctl(etcd, "role", "grant-permission", "guest", "--prefix", "read", "/open/")
    etcdctl(etcd, "auth", "enable")


@asynccontextmanager
async def guarded(version: str, *, size: int = 1) -> AsyncGenerator[Cluster, None]:
    async with cluster(version, size=size) as etcd:
        await asyncio.to_thread(allow, etcd)
        yield etcd


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_a_user_reads_writes_watches_and_leads(version: str) -> None:
    """With a password; a token is asked for once, however many calls want it at the same time."""
    async with (
        guarded(version) as etcd,
        EtcdStore.open(etcd.urls, login=RELEVO, prefix=b"/relevo/") as store,
    ):
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(store.put(b"a", b"%d" % number))
        at = (await store.list(b"")).revision
        async with (
            store.campaign(b"leader", b"me", ttl=3) as leadership,
            aclosing(store.watch(b"", after=at)) as batches,
        ):
            assert leadership.term
            assert len(await take(batches, 1)) == 1


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_an_unknown_token_is_replaced(version: str) -> None:
    """Members forget tokens when they restart, and refuse them once rights changed: writes, watch and lease go on."""
    async with (
        guarded(version, size=3) as etcd,
        EtcdStore.open(etcd.urls, login=RELEVO, prefix=b"/relevo/") as store,
    ):
        lease = await store.grant(10)
        at = await store.put(b"a", b"1", lease=lease.id)
        async with aclosing(store.watch(b"a", after=at - 1)) as batches:
            await take(batches, 1)
            for member in etcd.members:
                member.kill()
            etcd.start()
            await etcd.ready()
            async with asyncio.timeout(10):
                await store.put(b"a", b"2", timeout=5)
                await take(batches, 1)
            grant = ("role", "grant-permission", "relevo", "readwrite", "/other")
            await asyncio.to_thread(etcdctl, etcd, *grant, login="root:r")
            await store.put(b"a", b"3")
            await take(batches, 1)
            assert not lease.lost.is_set()


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_who_may_not_is_denied_and_nothing_hangs(version: str) -> None:
    """A wrong password, none at all, and rights that end elsewhere: Denied, by calls and by a watch."""
    async with guarded(version) as etcd:
        nobody, wrong = None, Login(RELEVO.name, "wrong")
        for login, words in ((nobody, "set user and password_file"), (wrong, "invalid user ID")):
            async with (
                EtcdStore.open(etcd.urls, login=login, prefix=b"/relevo/") as store,
                asyncio.timeout(5),
            ):
                with pytest.raises(Denied, match=words):
                    await store.put(b"a", b"1")
                with pytest.raises(Denied):
                    await take(store.watch(b"", after=0), 1)
        async with (
            EtcdStore.open(etcd.urls, login=GUEST, prefix=b"/open/") as store,
            asyncio.timeout(5),
        ):
            assert (await store.list(b"")).items == ()
            with pytest.raises(Denied, match="permission denied"):
                await store.put(b"a", b"1")
        async with (
            EtcdStore.open(etcd.urls, login=GUEST, prefix=b"/relevo/") as store,
            asyncio.timeout(5),
        ):
            with pytest.raises(Denied, match="permission denied"):
                await take(store.watch(b"", after=0), 1)
            with pytest.raises(Denied, match="permission denied"):
                await store.list(b"")


async def test_a_watch_of_what_may_not_be_seen_is_refused_by_the_member_too() -> None:
    """Where a single key may be read and its neighbours not, it's the watch itself that is refused."""
    async with guarded(NEW) as etcd:
        await asyncio.to_thread(
            etcdctl,
            etcd,
            *("role", "grant-permission", "guest", "read", "/relevo/"),
            login="root:r",
        )
        async with (
            EtcdStore.open(etcd.urls, login=GUEST, prefix=b"/relevo/") as store,
            asyncio.timeout(5),
        ):
            with pytest.raises(Denied, match="permission denied"):
                await take(store.watch(b"", after=0), 1)
        assert await etcd.watchers() == 0


async def test_a_password_where_none_is_asked_for_does_no_harm() -> None:
    """Authentication not yet enabled: it works without; enabled meanwhile: it goes on with a token."""
    async with (
        cluster(size=1) as etcd,
        EtcdStore.open(etcd.urls, login=RELEVO, prefix=b"/relevo/") as store,
    ):
        await store.put(b"a", b"1")
        await asyncio.to_thread(allow, etcd)
        await store.put(b"a", b"2")


@asynccontextmanager
async def secured(authority: Authority, *, size: int = 3) -> AsyncGenerator[Cluster, None]:
    own = authority.issue("etcd", (HOST,))
    options = (
        *("--cert-file", str(own.certificate), "--key-file", str(own.key)),
        *("--client-cert-auth", "--trusted-ca-file", str(authority.path)),
    )
    async with cluster(size=size, options=options, scheme="https") as etcd:
        yield etcd


async def test_a_client_certificate_opens_the_door(tmp_path: Path) -> None:
    """TLS both ways: ours is asked for and shown, also to the member that takes over."""
    authority = Authority(tmp_path)
    mine = authority.issue("relevo", client=True)
    async with secured(authority) as etcd:
        tls = Tls(authority.path, mine.certificate, mine.key)
        leader = await etcd.leader()
        near, far = (member for member in etcd.members if member is not leader)
        async with EtcdStore.open((near.url, far.url, leader.url), tls=tls) as store:
            at = await store.put(b"a", b"1")
            async with aclosing(store.watch(b"a", after=at)) as batches:
                near.kill()
                await until_written(store)
                assert len(await take(batches, 1)) >= 1


async def test_a_renewed_client_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    """By connections that begin then, when the first one has ended; a broken one, or half of one, changes nothing."""
    authority = Authority(tmp_path)
    own = authorities.Authority(authority.path.read_bytes(), authority.key)
    ends_at = wall() + ENDS_IN_S
    cert, key = tmp_path / "client.crt", tmp_path / "client.key"
    first = own.issue("relevo", (), client=True, at=ends_at - SERVER_VALID.total_seconds())
    second = own.issue("relevo", (), client=True)
    cert.write_bytes(first.certificate)
    key.write_bytes(first.key)
    async with (
        secured(authority, size=1) as etcd,
        EtcdStore.open(etcd.urls, tls=Tls(authority.path, cert, key), look_s=LOOK_S) as store,
    ):
        at = await store.put(b"a", b"1")
        async with aclosing(store.watch(b"a", after=at)) as batches:
            for certificate in (b"", second.certificate):
                cert.write_bytes(certificate)
                await asyncio.sleep(5 * LOOK_S)
                await store.put(b"a", b"2")
            key.write_bytes(second.key)
            await asyncio.sleep(5 * LOOK_S)
            await store.put(b"a", b"3")
            assert len(await take(batches, 3)) == 3
            await asyncio.sleep(max(ends_at + 1 - wall(), 0))
            (member,) = etcd.members
            member.kill()
            etcd.start()
            await etcd.ready()
            await until_written(store)
            assert len(await take(batches, 1)) >= 1


async def until_written(store: EtcdStore) -> None:
    """The write that finds out that its member died may be in doubt; the next is not."""
    with suppress(Ambiguous):
        await store.put(b"a", b"2")
    await store.put(b"a", b"3", timeout=5)


async def test_without_the_right_certificates_nothing_is_said(tmp_path: Path) -> None:
    """None of our own, one of another authority, a server that another authority signed: Unavailable, no crash."""
    (tmp_path / "other").mkdir()
    authority, other = Authority(tmp_path), Authority(tmp_path / "other")
    mine, strange = authority.issue("relevo", client=True), other.issue("relevo", client=True)
    async with secured(authority, size=1) as etcd:
        for tls in (
            Tls(authority.path),
            Tls(authority.path, strange.certificate, strange.key),
            Tls(other.path, mine.certificate, mine.key),
        ):
            async with EtcdStore.open(etcd.urls, tls=tls) as store:
                with pytest.raises(Unavailable, match="check ca, cert and key"):
                    await store.put(b"a", b"1", timeout=1)
