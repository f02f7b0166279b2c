"""The DNS provider against real Knot: what it writes, what it refuses to, and how it says what went wrong."""

import asyncio
import base64
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.tsig
import dns.update
import msgspec
import pytest

from controller.dns import Zones
from controller.nameservers import ZoneReport
from deploy.demo import knot
from deploy.demo.packages import Tools
from fleet.model import Domain, Epoch, NameServer, RecordSet, Zone, ZoneIntent, ZoneName
from tests.integration.knots import KEY, ZONE, lay_out, running

pytestmark = pytest.mark.integration

TSIG = dns.tsig.Key(KEY.name, base64.b64decode(KEY.secret), KEY.algorithm)
WWW, APEX = Domain(f"www.{ZONE}"), Domain(ZONE)
HERE = RecordSet(a=("192.0.2.1",), aaaa=("2001:db8::1",))
THERE = RecordSet(a=("192.0.2.2", "192.0.2.3"), aaaa=("2001:db8::2",))


def address(server: knot.Server, literal: str = "127.0.0.1") -> NameServer:
    return NameServer(address=literal, port=server.port)


@pytest.fixture(scope="module")
def servers(
    tools: Tools, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[knot.Server, knot.Server]]:
    """A running primary and its running secondary."""
    one, two = lay_out(tmp_path_factory.mktemp("knot"))
    with running(tools, one), running(tools, two):
        yield one, two


@pytest.fixture
def zone(servers: tuple[knot.Server, knot.Server]) -> Iterator[Zone]:
    """The zone on both servers; what a test wrote is taken out again."""
    one, two = servers
    yield Zone(
        name=ZoneName(ZONE),
        primary=address(one),
        secondaries=(address(two, "::1"),),
        key=KEY.name,
    )
    sweep(one)


def zones(cluster: str = "c1", key: dns.tsig.Key = TSIG, timeout_s: float = 3.0) -> Zones:
    return Zones(cluster, {KEY.name: key}, timeout_s=timeout_s)


def intent(**names: RecordSet) -> ZoneIntent:
    """Names as keywords: `www` is www.coop.example."""
    return ZoneIntent(names={Domain(f"{name}.{ZONE}"): found for name, found in names.items()})


def told(name: str) -> ZoneIntent:
    return ZoneIntent(removed=(Domain(f"{name}.{ZONE}"),))


def by_hand(server: knot.Server, *changes: tuple[str, ...]) -> None:
    """An admin's nsupdate: `("add", owner, ttl, type, value)` or `("delete", owner[, type])`."""
    message = dns.update.UpdateMessage(ZONE, keyring=TSIG)
    for verb, *words in changes:
        getattr(message, verb)(*words)
    answer = dns.query.tcp(message, "127.0.0.1", port=server.port, timeout=5)
    assert answer.rcode() == dns.rcode.NOERROR


def says(server: knot.Server, name: str, kind: str) -> list[str]:
    question = dns.message.make_query(name, kind, flags=0)
    answer = dns.query.tcp(question, "127.0.0.1", port=server.port, timeout=5)
    return sorted(rdata.to_text() for rrset in answer.answer for rdata in rrset)


def sweep(server: knot.Server) -> None:
    """Delete every name that a test may have made."""
    keep = {ZONE, f"ns0.{ZONE}", f"ns1.{ZONE}"}
    transfer = dns.message.make_query(ZONE, "AXFR")
    transfer.use_tsig(TSIG)
    found: set[str] = set()
    for message in dns.query.xfr(
        "127.0.0.1", ZONE, port=server.port, keyring={TSIG.name: TSIG}, relativize=False
    ):
        found |= {rrset.name.to_text(omit_final_dot=True) for rrset in message.answer}
    gone = sorted(found - keep)
    by_hand(server, ("delete", ZONE, "A"), ("delete", ZONE, "AAAA"))
    for start in range(0, len(gone), 200):
        by_hand(server, *(("delete", f"{name}.") for name in gone[start : start + 200]))


def say(text: str) -> None:
    """Shown by `pytest -rP`."""
    sys.stdout.write(f"{text}\n")


def codes(report: ZoneReport) -> dict[str, str]:
    return {name: why.code for name, why in report.holds}


async def test_a_name_is_created_replaced_and_removed(
    servers: tuple[knot.Server, knot.Server], zone: Zone
) -> None:
    """Each step writes A, AAAA and the mark together; the second look costs no write."""
    provider, (primary, _) = zones(), servers
    first = await provider.converge(zone, intent(www=HERE), Epoch(1, 10))
    assert first == ZoneReport(sent=(WWW,))
    assert says(primary, f"_relevo.{WWW}", "TXT") == ['"relevo cluster=c1 epoch=1.10"']
    again = await provider.converge(zone, intent(www=HERE), Epoch(1, 11))
    assert again == ZoneReport(unchanged=1)

    second = await provider.converge(zone, intent(www=THERE), Epoch(1, 12))
    assert second == ZoneReport(sent=(WWW,))
    assert says(primary, WWW, "A") == ["192.0.2.2", "192.0.2.3"]
    assert says(primary, WWW, "AAAA") == ["2001:db8::2"]
    assert says(primary, f"_relevo.{WWW}", "TXT") == ['"relevo cluster=c1 epoch=1.12"']

    third = await provider.converge(zone, told("www"), Epoch(1, 13))
    assert third == ZoneReport(sent=(WWW,), removed=(WWW,))
    assert says(primary, WWW, "A") == says(primary, f"_relevo.{WWW}", "TXT") == []
    assert await provider.converge(zone, told("www"), Epoch(1, 14)) == ZoneReport(
        unchanged=1, removed=(WWW,)
    )


async def test_the_apex_is_a_name_like_others(
    servers: tuple[knot.Server, knot.Server], zone: Zone
) -> None:
    """The zone's own name gets addresses, and keeps its SOA and NS through a removal."""
    provider, (primary, _) = zones(), servers
    report = await provider.converge(zone, ZoneIntent(names={APEX: HERE}), Epoch(1, 1))
    assert report == ZoneReport(sent=(APEX,))
    assert says(primary, f"_relevo.{ZONE}", "TXT")
    await provider.converge(zone, ZoneIntent(removed=(APEX,)), Epoch(1, 2))
    assert says(primary, ZONE, "A") == []
    assert len(says(primary, ZONE, "NS")) == 2


async def test_a_family_comes_and_goes(
    servers: tuple[knot.Server, knot.Server], zone: Zone
) -> None:
    """A name may lose its AAAA, or gain it, but is never empty in between: one message does both."""
    provider, (primary, _) = zones(), servers
    await provider.converge(zone, intent(www=RecordSet(a=("192.0.2.1",))), Epoch(1, 1))
    await provider.converge(zone, intent(www=RecordSet(aaaa=("2001:db8::1",))), Epoch(1, 2))
    assert (says(primary, WWW, "A"), says(primary, WWW, "AAAA")) == ([], ["2001:db8::1"])


async def test_equal_content_is_adopted(
    servers: tuple[knot.Server, knot.Server], zone: Zone
) -> None:
    """A record that an admin made with the right addresses gains our mark and changes nothing else."""
    provider, (primary, _) = zones(), servers
    by_hand(
        primary,
        ("add", f"{WWW}.", "300", "A", *HERE.a),
        ("add", f"{WWW}.", "300", "AAAA", *HERE.aaaa),
    )
    assert await provider.converge(zone, intent(www=HERE), Epoch(1, 1)) == ZoneReport(sent=(WWW,))
    assert says(primary, f"_relevo.{WWW}", "TXT") == ['"relevo cluster=c1 epoch=1.1"']
    assert await provider.converge(zone, intent(www=THERE), Epoch(1, 2)) == ZoneReport(sent=(WWW,))


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
async def test_the_newer_writer_wins_in_any_order(
    servers: tuple[knot.Server, knot.Server], zone: Zone, order: tuple[int, int]
) -> None:
    """Two writers that decided at different epochs: the zone ends as the newer one wanted (rule R10)."""
    wants = {1: HERE, 2: THERE}
    for revision in order:
        report = await zones().converge(zone, intent(www=wants[revision]), Epoch(1, revision))
    assert says(servers[0], WWW, "A") == list(THERE.a)
    assert codes(report) == ({WWW: "dns-newer-writer"} if order == (2, 1) else {})


async def test_two_writers_at_once_never_mix(
    servers: tuple[knot.Server, knot.Server], zone: Zone
) -> None:
    """Whoever writes when, a name's A, AAAA and mark are one writer's; after another round the newer one's."""
    wants = {3: HERE, 4: THERE}
    for _ in range(5):
        async with asyncio.TaskGroup() as group:
            for revision, want in wants.items():
                group.create_task(
                    zones().converge(zone, intent(a=want, b=want, c=want), Epoch(1, revision))
                )
        for name in ("a", "b", "c"):
            mark = says(servers[0], f"_relevo.{name}.{ZONE}", "TXT")[0]
            want = wants[int(mark.strip('"').rsplit(".", 1)[1])]
            assert says(servers[0], f"{name}.{ZONE}", "A") == list(want.a)
            assert says(servers[0], f"{name}.{ZONE}", "AAAA") == list(want.aaaa)
    await zones().converge(zone, intent(a=THERE, b=THERE, c=THERE), Epoch(1, 4))
    assert says(servers[0], f"a.{ZONE}", "A") == list(THERE.a)


async def test_what_is_not_ours_is_left_alone(
    servers: tuple[knot.Server, knot.Server], zone: Zone
) -> None:
    """Foreign addresses, an alias, another cluster's and an unreadable mark are held; the others are written."""
    primary = servers[0]
    by_hand(
        primary,
        ("add", f"foreign.{ZONE}.", "60", "A", "198.51.100.1"),
        ("add", f"alias.{ZONE}.", "60", "CNAME", f"ns0.{ZONE}."),
        ("add", f"theirs.{ZONE}.", "60", "A", "198.51.100.2"),
        ("add", f"_relevo.theirs.{ZONE}.", "60", "TXT", '"relevo cluster=c2 epoch=0.1"'),
        ("add", f"_relevo.odd.{ZONE}.", "60", "TXT", '"v=spf1 -all"'),
        ("add", f"sub.{ZONE}.", "60", "NS", f"ns0.{ZONE}."),
    )
    wanted = dict.fromkeys(("foreign", "alias", "theirs", "odd", "www"), HERE)
    names = dict(intent(**wanted).names) | {
        Domain(f"x.sub.{ZONE}"): HERE,
        Domain(".".join(["l" * 60] * 3 + ["k" * 50, ZONE])): HERE,
    }
    report = await zones().converge(zone, ZoneIntent(names=names), Epoch(1, 1))
    assert report.sent == (WWW,)
    assert report.error is None
    assert {name.split(".")[0]: code for name, code in codes(report).items()} == {
        "foreign": "dns-not-ours",
        "alias": "dns-cname",
        "theirs": "dns-other-cluster",
        "odd": "dns-bad-mark",
        "x": "dns-delegated",
        "l" * 60: "dns-name-too-long",
    }
    assert says(primary, f"foreign.{ZONE}", "A") == ["198.51.100.1"]


async def test_removal_needs_our_older_mark(
    servers: tuple[knot.Server, knot.Server], zone: Zone
) -> None:
    """A name told to be removed stays if it is another's or was written by a newer epoch."""
    primary = servers[0]
    by_hand(primary, ("add", f"foreign.{ZONE}.", "60", "A", "198.51.100.1"))
    await zones().converge(zone, intent(www=HERE), Epoch(2, 5))
    gone = ZoneIntent(removed=(Domain(f"foreign.{ZONE}"), WWW))
    report = await zones().converge(zone, gone, Epoch(1, 900))
    assert codes(report) == {f"foreign.{ZONE}": "dns-not-ours", WWW: "dns-newer-writer"}
    assert report.removed == ()
    assert says(primary, WWW, "A") == list(HERE.a)


@asynccontextmanager
async def meddled(server: knot.Server, meddle: Callable[[], None]) -> AsyncIterator[NameServer]:
    """A way to `server` on which `meddle` happens between the first connection (the look) and the second."""
    connections = open_now = 0

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections, open_now
        connections += 1
        open_now += 1
        if connections == 2:
            meddle()
        onward, outward = await asyncio.open_connection("127.0.0.1", server.port)
        with closing(writer), closing(outward):
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(reader, outward))
                group.create_task(pump(onward, writer))
        open_now -= 1

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async with await asyncio.start_server(forward, "127.0.0.1", 0) as proxy:
        yield NameServer(address="127.0.0.1", port=proxy.sockets[0].getsockname()[1])
        async with asyncio.timeout(5):
            while open_now:
                await asyncio.sleep(0.01)


async def test_a_change_between_look_and_write_is_not_overwritten(
    servers: tuple[knot.Server, knot.Server], zone: Zone
) -> None:
    """The names at fault are held, their batch goes through without them, and what others wrote stays."""
    provider, primary = zones(), servers[0]
    many = {f"n{number}": HERE for number in range(20)}
    await provider.converge(zone, intent(**many), Epoch(1, 1))

    def meddle() -> None:
        newer = '"relevo cluster=c1 epoch=9.9"'
        by_hand(primary, ("replace", f"n7.{ZONE}.", "60", "A", "198.51.100.7"))
        by_hand(primary, ("replace", f"_relevo.n5.{ZONE}.", "60", "TXT", newer))
        by_hand(primary, ("add", f"new.{ZONE}.", "60", "AAAA", "2001:db8:ffff::1"))
        by_hand(primary, ("add", f"_relevo.claimed.{ZONE}.", "60", "TXT", newer))
        by_hand(  # faster, and of our opinion
            primary,
            ("replace", f"n8.{ZONE}.", "60", "A", *THERE.a),
            ("replace", f"n8.{ZONE}.", "60", "AAAA", *THERE.aaaa),
        )

    async with meddled(primary, meddle) as way:
        report = await provider.converge(
            msgspec.structs.replace(zone, primary=way),
            intent(**dict.fromkeys([*many, "new", "claimed"], THERE)),
            Epoch(1, 2),
        )
    assert codes(report) == {
        f"claimed.{ZONE}": "dns-newer-writer",
        f"n5.{ZONE}": "dns-newer-writer",
        f"n7.{ZONE}": "dns-raced",
        f"new.{ZONE}": "dns-not-ours",
    }
    assert (len(report.sent), report.unchanged, report.error) == (17, 1, None)
    assert says(primary, f"n5.{ZONE}", "A") == list(HERE.a)
    assert says(primary, f"new.{ZONE}", "A") == []
    assert says(primary, f"n7.{ZONE}", "A") == ["198.51.100.7"]
    assert says(primary, f"n9.{ZONE}", "A") == list(THERE.a)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key": dns.tsig.Key("relevo", b"wrong" * 8)}, "dns-bad-key"),
        ({"key": dns.tsig.Key("stranger", b"wrong" * 8)}, "dns-bad-key"),
        ({"key": dns.tsig.Key("relevo", TSIG.secret, "hmac-sha512")}, "dns-bad-key"),
        ({"zone": "elsewhere.example"}, "dns-refused"),
    ],
)
async def test_a_primary_that_says_no_is_an_error_with_its_reason(
    servers: tuple[knot.Server, knot.Server], zone: Zone, change: dict[str, Any], code: str
) -> None:
    """A wrong secret, an unknown key, another algorithm, a zone that is not served: an error, and nothing sent."""
    zone = msgspec.structs.replace(zone, name=change.get("zone", zone.name))
    name = Domain(f"www.{zone.name}")
    report = await zones(key=change.get("key", TSIG)).converge(
        zone, ZoneIntent(names={name: HERE}), Epoch(1, 1)
    )
    assert report.error is not None
    assert (report.error.code, report.sent) == (code, ())
    assert report.error.values["server"] == str(zone.primary)
    assert report.error.values["zone"] == zone.name
    assert report.error.values["rcode"] in {"BADSIG", "BADKEY", "REFUSED"}
    assert says(servers[0], WWW, "A") == []


async def test_a_key_without_the_right_to_update_is_named(
    servers: tuple[knot.Server, knot.Server], zone: Zone
) -> None:
    """The secondary knows the key and grants it no update; Knot calls that BADKEY, and the reason names the key."""
    report = await zones().converge(
        msgspec.structs.replace(zone, primary=address(servers[1])), intent(www=HERE), Epoch(1, 1)
    )
    assert report.error is not None
    assert report.error.code == "dns-bad-key"
    assert report.error.values["key"] == KEY.name


async def test_secondaries_are_seen_to_converge(
    servers: tuple[knot.Server, knot.Server], zone: Zone
) -> None:
    """Every server is asked by itself, IPv4 and IPv6; the secondary answers about a second later."""
    provider, now = zones(), asyncio.get_running_loop().time
    wanted = intent(www=HERE, ftp=THERE)
    assert (await provider.converge(zone, wanted, Epoch(1, 1))).error is None
    began = now()
    views = await provider.verify(zone, wanted, wanted.names)
    assert views[str(zone.primary)].converged
    assert not views[str(zone.secondaries[0])].converged
    assert views[str(zone.secondaries[0])].differing == tuple(sorted(wanted.names))
    while not all(view.converged for view in views.values()):
        await asyncio.sleep(0.05)
        views = await provider.verify(zone, wanted, wanted.names)
        assert now() - began < 10
    say(f"secondary converged {now() - began:.2f} s after the primary")
    gone = ZoneIntent(removed=tuple(wanted.names))
    assert not (await provider.verify(zone, gone, wanted.names))[str(zone.primary)].converged


async def test_a_stale_secondary_is_named(tools: Tools, tmp_path: Path) -> None:
    """A secondary that is stopped is an error, one that stays behind is named with the names that differ."""
    one, two = lay_out(tmp_path)
    zone = Zone(
        name=ZoneName(ZONE), primary=address(one), secondaries=(address(two),), key=KEY.name
    )
    provider = zones(timeout_s=1.0)
    with running(tools, one):
        with running(tools, two):
            await provider.converge(zone, intent(www=HERE), Epoch(1, 1))
        down = (await provider.verify(zone, intent(www=HERE), [WWW]))[str(zone.secondaries[0])]
        assert down.error is not None
        assert down.error.code == "dns-unreachable"
        # Back, but cut off from its primary's transfers: it answers with what it has.
        text = two.config.read_text().replace(f"127.0.0.1@{one.port}", f"127.0.0.1@{one.port + 1}")
        two.config.write_text(text.replace("dGhl", "AAAA"))
        with running(tools, two):
            await provider.converge(zone, intent(www=THERE), Epoch(1, 2))
            await asyncio.sleep(1.5)
            view = (await provider.verify(zone, intent(www=THERE), [WWW]))[str(zone.secondaries[0])]
            assert view.differing == (WWW,)
            assert view.error is None


async def test_a_thousand_names_are_a_few_messages(
    servers: tuple[knot.Server, knot.Server], zone: Zone
) -> None:
    """1,000 names are created, compared, replaced and verified in seconds, by tens of messages."""
    provider = zones()
    clock = time.perf_counter
    wants = {f"n{number:04}": HERE for number in range(1000)}
    steps = [
        ("create", intent(**wants), Epoch(1, 1), 1000),
        ("compare", intent(**wants), Epoch(1, 2), 0),
        ("replace", intent(**dict.fromkeys(wants, THERE)), Epoch(1, 3), 1000),
    ]
    for what, wanted, epoch, sent in steps:
        began = clock()
        report = await provider.converge(zone, wanted, epoch)
        say(f"{what} 1,000 names: {clock() - began:.2f} s")
        assert (len(report.sent), report.holds, report.error) == (sent, (), None)
        assert clock() - began < 20
    began = clock()
    views = await provider.verify(zone, steps[-1][1], steps[-1][1].names)
    say(f"verify 1,000 names at 2 servers: {clock() - began:.2f} s")
    assert views[str(zone.primary)].converged
