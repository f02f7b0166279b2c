"""DNS on the wire: many questions in flight on one TCP connection, signed updates, failures as reasons.

Source: RFC 7766 §6.2.1 (pipelining), RFC 2136 (updates), RFC 8945 (TSIG).
"""

import asyncio
import base64
import binascii
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.tsig

from controller.config import TsigKey
from fleet.model import NameServer, Why, ZoneName
from runtime.config import BadConfig, secret

# Questions in flight: 100 are 5 kB, which any send buffer takes whole, so writing all before reading can't lock up.
WINDOW = 100


class NoAnswer(Exception):
    """A server gave no usable answer; `why` names server, zone and what it said instead."""

    def __init__(self, why: Why) -> None:
        super().__init__(f"{why.code} {why.values}")
        self.why = why


class Ended(NoAnswer):
    """The server ended the connection before it had answered."""


def read_keys(configured: Mapping[str, TsigKey]) -> dict[str, dns.tsig.Key]:
    """The TSIG keys with their secrets, by name. Raises BadConfig."""
    return {name: _read_key(name, key) for name, key in configured.items()}


def _read_key(name: str, key: TsigKey) -> dns.tsig.Key:
    text = secret(key.secret)
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadConfig(
            f"dns_keys.{name}: {key.secret} is not base64; put there the `secret` that keymgr or tsig-keygen printed"
        ) from error
    if not raw:
        raise BadConfig(f"dns_keys.{name}: {key.secret} holds an empty key")
    try:
        return dns.tsig.Key(dns.name.from_text(name), raw, key.algorithm)
    except dns.exception.DNSException as error:
        raise BadConfig(f"dns_keys.{name}: not a key name: {error}") from error


class Line:
    """A TCP connection to one name server, on behalf of one zone."""

    def __init__(
        self,
        server: NameServer,
        zone: ZoneName,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        timeout_s: float,
    ) -> None:
        self._server, self._zone = server, zone
        self._reader, self._writer, self._timeout_s = reader, writer, timeout_s

    async def exchange(self, questions: Sequence[dns.message.Message]) -> list[dns.message.Message]:
        """Ask at most WINDOW questions at once; the answers in their order. Raises NoAnswer."""
        assert len(questions) <= WINDOW
        first = secrets.randbelow(1 << 16)
        asked: dict[int, dns.message.Message] = {}
        frames = bytearray()
        for offset, question in enumerate(questions):
            question.id = (first + offset) % (1 << 16)
            asked[question.id] = question
            wire = question.to_wire()
            frames += len(wire).to_bytes(2) + wire
        ended = Ended(_why("dns-unreachable", self._server, self._zone, error="connection ended"))
        if self._writer.is_closing():
            raise ended
        try:
            async with asyncio.timeout(self._timeout_s):
                self._writer.write(frames)
                await self._writer.drain()
                answers = await self._answers(asked)
        except asyncio.IncompleteReadError as error:
            raise ended from error
        except OSError as error:  # includes TimeoutError
            raise _unreachable(self._server, self._zone, error, self._timeout_s) from error
        return [answers[question.id] for question in questions]

    async def _answers(
        self, asked: Mapping[int, dns.message.Message]
    ) -> dict[int, dns.message.Message]:
        answers: dict[int, dns.message.Message] = {}
        while len(answers) < len(asked):
            length = int.from_bytes(await self._reader.readexactly(2))
            wire = await self._reader.readexactly(length)
            id = int.from_bytes(wire[:2])
            question = asked.get(id)
            if question is None or id in answers:
                raise self._bad("answers a question that was not asked")
            answers[id] = self._parse(wire, question)
        return answers

    def _parse(self, wire: bytes, question: dns.message.Message) -> dns.message.Message:
        try:
            answer = dns.message.from_wire(wire, keyring=question.keyring, request_mac=question.mac)
        except dns.tsig.PeerBadTime as error:
            why = _why("dns-bad-time", self._server, self._zone, rcode="BADTIME")
            raise NoAnswer(why) from error
        except (dns.tsig.PeerBadKey, dns.tsig.PeerBadSignature) as error:
            rcode = "BADKEY" if isinstance(error, dns.tsig.PeerBadKey) else "BADSIG"
            why = _why(
                "dns-bad-key",
                self._server,
                self._zone,
                rcode=rcode,
                key=question.keyname.to_text(omit_final_dot=True) if question.keyname else "",
            )
            raise NoAnswer(why) from error
        except dns.exception.DNSException as error:
            raise self._unproven(wire, question, error) from error
        if answer.flags & dns.flags.TC or not question.is_response(answer):
            raise self._bad("is cut short or answers something else")
        return answer

    def _unproven(
        self, wire: bytes, question: dns.message.Message, error: dns.exception.DNSException
    ) -> NoAnswer:
        """An answer that does not parse or lacks its signature: only a refusal is taken from it."""
        if question.had_tsig:
            try:
                answer = dns.message.from_wire(wire, keyring=False)
            except dns.exception.DNSException:
                return self._bad(type(error).__name__)
            if question.is_response(answer) and answer.rcode() != dns.rcode.NOERROR:
                return refusal(self._server, self._zone, answer.rcode())
        return self._bad(f"{type(error).__name__}: {error}")

    def _bad(self, detail: str) -> NoAnswer:
        return NoAnswer(_why("dns-bad-answer", self._server, self._zone, detail=detail[:200]))


@asynccontextmanager
async def line(server: NameServer, zone: ZoneName, *, timeout_s: float) -> AsyncIterator[Line]:
    """A connection to `server`; connecting and each exchange take at most `timeout_s`. Raises NoAnswer."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(server.address, server.port)
    except OSError as error:  # includes TimeoutError
        raise _unreachable(server, zone, error, timeout_s) from error
    try:
        yield Line(server, zone, reader, writer, timeout_s)
    finally:
        writer.transport.abort()  # close() would wait for a peer that does not read


async def ask(
    server: NameServer,
    zone: ZoneName,
    questions: Sequence[dns.message.Message],
    *,
    timeout_s: float,
) -> list[dns.message.Message]:
    """The answers in the order of `questions`. Raises NoAnswer.

    A server that ends the connection after a number of answers is asked the rest on a new one.
    """
    answers: list[dns.message.Message] = []
    while len(answers) < len(questions):
        before = len(answers)
        try:
            async with line(server, zone, timeout_s=timeout_s) as connection:
                for start in range(before, len(questions), WINDOW):
                    answers += await connection.exchange(questions[start : start + WINDOW])
        except Ended:
            if len(answers) == before:
                raise
    return answers


def refusal(server: NameServer, zone: ZoneName, rcode: dns.rcode.Rcode) -> NoAnswer:
    """`rcode` as the reason why there is no answer."""
    codes = {
        dns.rcode.REFUSED: "dns-refused",
        dns.rcode.NOTAUTH: "dns-not-served",
        dns.rcode.NOTZONE: "dns-not-served",
    }
    code = codes.get(rcode, "dns-server-failed")
    return NoAnswer(_why(code, server, zone, rcode=dns.rcode.to_text(rcode)))


def not_authoritative(server: NameServer, zone: ZoneName) -> NoAnswer:
    """The server answers, but not as one that holds the zone."""
    return NoAnswer(_why("dns-not-authoritative", server, zone))


def _why(code: str, server: NameServer, zone: ZoneName, **values: str | float) -> Why:
    return Why(code, {"server": str(server), "zone": zone, **values})


def _unreachable(server: NameServer, zone: ZoneName, error: OSError, timeout_s: float) -> NoAnswer:
    if isinstance(error, TimeoutError):
        return NoAnswer(_why("dns-timeout", server, zone, seconds=timeout_s))
    return NoAnswer(_why("dns-unreachable", server, zone, error=error.strerror or str(error)))
