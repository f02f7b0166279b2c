"""The DNS messages that relevo speaks: three questions a name, and updates that require what was seen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.txtbase
import dns.rrset
import dns.tsig
import dns.update

from failover.dns import records
from failover.ownership import MARK_LABEL, Mark, Seen, Step
from fleet.model import Domain, RecordSet, Zone

# A message holds 65,535 bytes; beyond its first 16 kB owner names can't be compressed (RFC 1035 §4.1.4).
UPDATE_BYTES = 60_000
FIXED_BYTES = (
    32  # of a record without its owner name: type, class, TTL, length, the largest address
)
LOOKS = (dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.TXT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One name's step: from what was seen to what is wanted (None: nothing)."""

    name: Domain
    seen: Seen
    step: Step
    want: RecordSet | None


def mark_name(name: Domain) -> str:
    return f"{MARK_LABEL}.{name}"


def addresses_questions(name: Domain) -> list[dns.message.Message]:
    """A and AAAA; an alias shows in either answer."""
    owner = dns.name.from_text(name)
    # Flags 0: no recursion, each server speaks for itself.
    return [dns.message.make_query(owner, kind, flags=0) for kind in LOOKS[:2]]


def look_questions(name: Domain) -> list[dns.message.Message]:
    """A, AAAA and our mark. Raises dns.name.NameTooLong where the mark's name has no room."""
    mark = dns.name.from_text(mark_name(name))
    return [*addresses_questions(name), dns.message.make_query(mark, LOOKS[2], flags=0)]


def is_referral(answer: dns.message.Message) -> bool:
    """Whether the server says that the name belongs to a zone delegated away."""
    return not answer.flags & dns.flags.AA and any(
        rrset.rdtype == dns.rdatatype.NS for rrset in answer.authority
    )


def is_authoritative(answer: dns.message.Message) -> bool:
    return bool(answer.flags & dns.flags.AA)


def seen(answers: Sequence[dns.message.Message]) -> Seen:
    """What the answers to `look_questions`, or to `addresses_questions`, say."""
    addresses: list[str] = []
    marks: list[str] = []
    alias: str | None = None
    for answer in answers:
        question = answer.question[0]
        for rrset in answer.answer:
            if rrset.name != question.name:
                continue  # where an alias leads is not the name's own
            if rrset.rdtype == dns.rdatatype.CNAME and question.rdtype != dns.rdatatype.TXT:
                alias = rrset[0].to_text()
            elif question.rdtype == dns.rdatatype.TXT:
                marks += [_text(rdata) for rdata in rrset]
            elif rrset.rdtype == question.rdtype:
                addresses += [rdata.to_text() for rdata in rrset]
    return Seen(records=records(addresses), alias=alias, marks=tuple(sorted(marks)))


def _text(rdata: object) -> str:
    if isinstance(rdata, dns.rdtypes.txtbase.TXTBase):
        return b"".join(rdata.strings).decode(errors="replace")
    return str(rdata)  # an alias in the mark's place: no mark of ours


def update(
    zone: Zone, writes: Iterable[Write], mark: Mark, key: dns.tsig.Key
) -> dns.update.UpdateMessage:
    """One signed message: all of `writes`, or none if a name is not as it was seen."""
    message = dns.update.UpdateMessage(dns.name.from_text(zone.name), keyring=key)
    for write in writes:
        _require(message, write)
        _write(message, write, zone.ttl_s, mark)
    return message


def _require(message: dns.update.UpdateMessage, write: Write) -> None:
    name, mark, has = _owner(write.name), _owner(mark_name(write.name)), write.seen.records
    for kind, values in (("A", has.a), ("AAAA", has.aaaa)):
        if values:
            message.present(name, kind, *values)
        else:
            message.absent(name, kind)
    if write.seen.empty:
        message.absent(name, "CNAME")
    if write.seen.marks:
        message.present(mark, "TXT", *map(_quoted, write.seen.marks))
    else:
        message.absent(mark, "TXT")


def _write(message: dns.update.UpdateMessage, write: Write, ttl_s: int, mark: Mark) -> None:
    name, has, want = _owner(write.name), write.seen.records, write.want or RecordSet()
    for kind, old, new in (("A", has.a, want.a), ("AAAA", has.aaaa, want.aaaa)):
        if old != new:
            if old:
                message.delete(name, kind)
            if new:
                message.add(name, ttl_s, kind, *new)
    owner = _owner(mark_name(write.name))
    if write.seen.marks:
        message.delete(owner, "TXT")
    if write.step is not Step.REMOVE:
        message.add(owner, ttl_s, "TXT", _quoted(str(mark)))


def _owner(name: str) -> dns.name.Name:
    return dns.name.from_text(name)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
