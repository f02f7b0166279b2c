"""Name servers that misbehave: each becomes a reason in the report, in bounded time, with nothing guessed."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.update
import pytest

from controller.config import TsigKey
from controller.dns import Zones
from controller.dnswire import read_keys
from fleet.model import Domain, Epoch, NameServer, RecordSet, Why, Zone, ZoneIntent, ZoneName
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from runtime.config import BadConfig

KEY = dns.tsig.Key("relevo", b"0123456789abcdef0123456789abcdef")
HERE = RecordSet(a=("192.0.2.1",))
Answerer = Callable[[bytes], bytes | None]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def names(count: int = 2) -> ZoneIntent:
    return ZoneIntent(names={Domain(f"n{number:03}.coop.example"): HERE for number in range(count)})


def zone(port: int) -> Zone:
    return Zone(
        name=ZoneName("coop.example"),
        primary=NameServer(address="127.0.0.1", port=port),
        key="relevo",
    )


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[Zone]:
    """A zone whose primary is `handler`."""
    busy = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal busy
        busy += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await handler(reader, writer)
        finally:
            writer.transport.abort()
            busy -= 1

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield zone(server.sockets[0].getsockname()[1])
        async with asyncio.timeout(5):
            while busy:
                await asyncio.sleep(0.01)


def answering(answer: Answerer, *, at_most: int = 1 << 30) -> Handler:
    """A server that answers each message by `answer` (None: ends the connection), some per connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(at_most):
            length = int.from_bytes(await reader.readexactly(2))
            wire = answer(await reader.readexactly(length))
            if wire is None:
                break
            writer.write(len(wire).to_bytes(2) + wire)
            await writer.drain()

    return handle


class Primary:
    """Answers like a primary whose zone is empty; updates get `verdict(names)`."""

    def __init__(self, verdict: Callable[[list[str]], dns.rcode.Rcode] | None = None) -> None:
        self.updates: list[list[str]] = []
        self._verdict = verdict or (lambda names: dns.rcode.NOERROR)

    def __call__(self, wire: bytes) -> bytes:
        question = dns.message.from_wire(wire, keyring=KEY)
        response = dns.message.make_response(question)
        response.flags |= dns.flags.AA
        if isinstance(question, dns.update.UpdateMessage):
            updated = {
                rrset.name.to_text(omit_final_dot=True)
                for rrset in question.update
                if rrset.rdtype == dns.rdatatype.A
            }
            self.updates.append(sorted(updated))
            response.set_rcode(self._verdict(self.updates[-1]))
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire()


async def error_of(handler: Handler, *, timeout_s: float = 0.3) -> Why:
    """What converge and verify both report of such a primary."""
    async with listening(handler) as target:
        zones = Zones("c1", {"relevo": KEY}, timeout_s=timeout_s, patience_s=2)
        report = await zones.converge(target, names(), Epoch(1, 1))
        views = await zones.verify(target, names(), names().names)
    assert report.error is not None
    assert (report.sent, report.holds) == ((), ())
    [view] = views.values()
    assert not view.converged
    assert view.error is not None
    assert view.error.code == report.error.code
    assert report.error.values["server"] == str(target.primary)
    return report.error


def rcode(code: dns.rcode.Rcode, *, authoritative: bool = True) -> Callable[[bytes], bytes]:
    def answer(wire: bytes) -> bytes:
        response = dns.message.make_response(dns.message.from_wire(wire, keyring=KEY))
        response.set_rcode(code)
        if authoritative:
            response.flags |= dns.flags.AA
        return response.to_wire()

    return answer


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (dns.rcode.REFUSED, "dns-refused"),
        (dns.rcode.NOTAUTH, "dns-not-served"),
        (dns.rcode.SERVFAIL, "dns-server-failed"),
        (dns.rcode.NOTIMP, "dns-server-failed"),
    ],
)
async def test_a_server_that_refuses_questions_is_named(
    code: dns.rcode.Rcode, expected: str
) -> None:
    """The rcode is in the reason."""
    why = await error_of(answering(rcode(code)))
    assert (why.code, why.values["rcode"]) == (expected, dns.rcode.to_text(code))


async def test_answers_without_authority_do_not_count() -> None:
    """A resolver or a lame server proves nothing."""
    lame = rcode(dns.rcode.NOERROR, authoritative=False)
    assert (await error_of(answering(lame))).code == "dns-not-authoritative"


async def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    """It accepts, reads and says nothing."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    began = asyncio.get_running_loop().time()
    assert (await error_of(mute)).code == "dns-timeout"
    assert asyncio.get_running_loop().time() - began < 1.5


async def test_a_server_that_drips_is_given_up_in_time() -> None:
    """One byte each 50 ms keeps no round alive."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"\xff")
            await asyncio.sleep(0.05)

    began = asyncio.get_running_loop().time()
    assert (await error_of(drip)).code == "dns-timeout"
    assert asyncio.get_running_loop().time() - began < 1.5


async def test_nobody_listening_is_unreachable() -> None:
    """Connection refused, named with the system's words."""
    async with listening(answering(lambda wire: None)) as target:
        pass
    report = await Zones("c1", {"relevo": KEY}).converge(target, names(), Epoch(1, 1))
    assert report.error is not None
    assert report.error.code == "dns-unreachable"
    assert "refused" in str(report.error.values["error"]).lower()


async def test_an_ended_connection_is_unreachable() -> None:
    """The server hangs up on every question."""
    assert (await error_of(answering(lambda wire: None))).code == "dns-unreachable"


async def test_a_server_that_ends_connections_now_and_then_is_asked_on() -> None:
    """Some servers answer a number of questions per connection: the rest is asked on the next one."""
    primary = Primary()
    async with listening(answering(primary, at_most=250)) as target:
        zones = Zones("c1", {"relevo": KEY})
        report = await zones.converge(target, names(200), Epoch(1, 1))
    assert (len(report.sent), report.error) == (200, None)


@pytest.mark.parametrize("seed", range(60))
async def test_garbage_is_a_bad_answer(seed: int) -> None:
    """Random bytes, and true answers with bytes changed, never raise and never count as an answer."""
    rng = Random(seed)

    def garbage(wire: bytes) -> bytes:
        if seed % 2:
            return wire[:2] + rng.randbytes(rng.randrange(60))
        answer = bytearray(rcode(dns.rcode.NOERROR, authoritative=False)(wire))
        for _ in range(3):
            answer[rng.randrange(12, len(answer))] = rng.randrange(256)
        return bytes(answer)

    codes = {"dns-bad-answer", "dns-not-authoritative", "dns-server-failed", "dns-timeout"}
    async with listening(answering(garbage)) as target:
        zones = Zones("c1", {"relevo": KEY}, timeout_s=0.3)
        report = await zones.converge(target, names(), Epoch(1, 1))
    assert report.error is not None
    assert report.error.code in codes
    assert report.sent == ()


async def test_an_answer_to_another_question_is_a_bad_one() -> None:
    """Ids that were not asked, and truncated answers over TCP."""
    plain = rcode(dns.rcode.NOERROR)

    def other(wire: bytes) -> bytes:
        return bytes([wire[0] ^ 0x40]) + plain(wire)[1:]

    def cut(wire: bytes) -> bytes:
        answer = bytearray(plain(wire))
        answer[2] |= 0x02
        return bytes(answer)

    for answer in (other, cut):
        assert (await error_of(answering(answer))).code == "dns-bad-answer"


async def test_an_update_is_believed_only_when_signed() -> None:
    """NOERROR without a signature is no success; an unsigned REFUSED is told as such."""

    def unsigned(code: dns.rcode.Rcode) -> Answerer:
        def answer(wire: bytes) -> bytes:
            message = dns.message.from_wire(wire, keyring=KEY)
            if message.opcode() != dns.opcode.UPDATE:
                return Primary()(wire)
            message.flags |= dns.flags.QR
            response = dns.message.Message(message.id)
            response.flags = dns.flags.QR | dns.opcode.to_flags(dns.opcode.UPDATE)
            response.set_rcode(code)
            return response.to_wire()

        return answer

    for code, expected in (
        (dns.rcode.NOERROR, "dns-bad-answer"),
        (dns.rcode.REFUSED, "dns-refused"),
        (dns.rcode.NXRRSET, "dns-server-failed"),
    ):
        async with listening(answering(unsigned(code))) as target:
            report = await Zones("c1", {"relevo": KEY}).converge(target, names(), Epoch(1, 1))
        assert report.error is not None
        assert (report.error.code, report.sent) == (expected, ())


async def test_a_refused_batch_is_written_without_the_names_at_fault() -> None:
    """Two names of 150 may not be written: 148 are, the two are held, in few messages."""
    bad = {"n007.coop.example", "n101.coop.example"}
    primary = Primary(lambda names: dns.rcode.REFUSED if bad & set(names) else dns.rcode.NOERROR)
    async with listening(answering(primary)) as target:
        report = await Zones("c1", {"relevo": KEY}).converge(target, names(150), Epoch(1, 1))
    assert (len(report.sent), report.error) == (148, None)
    assert {name: why.code for name, why in report.holds} == dict.fromkeys(bad, "dns-name-refused")
    assert len(primary.updates) < 32


async def test_a_server_that_refuses_every_update_is_asked_few_times() -> None:
    """1,000 names and no right to write: one error after a handful of messages."""
    primary = Primary(lambda names: dns.rcode.REFUSED)
    exporter = Exporter(CONTROLLER)
    async with listening(answering(primary)) as target:
        zones = Zones("c1", {"relevo": KEY}, exporter=exporter)
        report = await zones.converge(target, names(500), Epoch(1, 1))
    assert report.error is not None
    assert (report.error.code, report.sent, report.holds) == ("dns-refused", (), ())
    assert len(primary.updates) < 32
    assert (
        b'relevo_dns_updates_total{outcome="failed",zone="coop.example"} 1.0' in exporter.render()
    )


async def test_a_failure_in_the_middle_reports_what_was_written() -> None:
    """The first hundred names went in before SERVFAIL: they are in the report, the others in no list."""
    primary = Primary(
        lambda names: dns.rcode.SERVFAIL if "n150.coop.example" in names else dns.rcode.NOERROR
    )
    async with listening(answering(primary)) as target:
        report = await Zones("c1", {"relevo": KEY}).converge(target, names(200), Epoch(1, 1))
    assert report.error is not None
    assert report.error.code == "dns-server-failed"
    assert len(report.sent) == 100


async def test_large_sets_are_cut_into_messages_that_fit() -> None:
    """100 names with 60 addresses each are 200 kB: more messages, no failure."""
    many = RecordSet(
        a=tuple(f"198.51.100.{n}" for n in range(30)),
        aaaa=tuple(f"2001:db8::{n:x}" for n in range(1, 31)),
    )
    primary = Primary()
    async with listening(answering(primary)) as target:
        intent = ZoneIntent(names=dict.fromkeys(names(100).names, many))
        report = await Zones("c1", {"relevo": KEY}).converge(target, intent, Epoch(1, 1))
    assert (len(report.sent), report.error) == (100, None)
    assert len(primary.updates) > 1


async def test_a_key_that_is_not_configured_is_an_error() -> None:
    """Without a word on the network."""
    report = await Zones("c1", {}).converge(zone(1), names(), Epoch(1, 1))
    assert report.error == Why("dns-no-key", {"zone": "coop.example", "key": "relevo"})


@pytest.mark.parametrize("text", ["not base64!", "abc", "===="])
def test_a_bad_secret_is_named_but_not_shown(tmp_path: Path, text: str) -> None:
    """The message names key and file, never what the file holds."""
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(BadConfig) as caught:
        read_keys({"relevo": TsigKey(secret=path)})
    assert str(path) in str(caught.value)
    assert text not in str(caught.value)


def test_a_good_secret_is_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(base64.b64encode(KEY.secret) + b"\n")
    path.chmod(0o600)
    keys = read_keys({"relevo": TsigKey(secret=path)})
    assert keys == {"relevo": KEY}
