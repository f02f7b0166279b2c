"""The RFC 2136 provider: reads what the primary says, writes what differs, asks every server afterwards.

Each write requires exactly what was read (prerequisites), so two writers can't mix; what may be written
at all is `failover.ownership`'s to decide. Nothing here raises for what a server does: reports say it.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.tsig

from controller import dnsmessages
from controller.dnsmessages import Write
from controller.dnswire import Line, NoAnswer, ask, line, not_authoritative, refusal
from controller.nameservers import ServerView, ZoneReport
from failover.ownership import EMPTY, Mark, Seen, Step, step
from fleet.model import Domain, Epoch, NameServer, RecordSet, Why, Zone, ZoneIntent
from metrics.exporter import Exporter

CONNECTIONS = 16  # at once, over all zones: a co-op's few servers see no flood
NAMES_PER_UPDATE = 100
# A server's policy may allow some names only; when it refused this many and accepted none, it means all of them.
REFUSALS = 8
RACED = frozenset({dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN})


class Zones:
    """The zones that this cluster writes into, each by the TSIG key that it names.

    `timeout_s` bounds connecting and each exchange of up to 100 questions, `patience_s` a whole call.
    """

    def __init__(
        self,
        cluster: str,
        keys: Mapping[str, dns.tsig.Key],
        *,
        exporter: Exporter | None = None,
        timeout_s: float = 3.0,
        patience_s: float = 30.0,
    ) -> None:
        self._cluster, self._keys, self._exporter = cluster, keys, exporter
        self._timeout_s, self._patience_s = timeout_s, patience_s
        self._connections = asyncio.Semaphore(CONNECTIONS)

    async def converge(self, zone: Zone, intent: ZoneIntent, epoch: Epoch) -> ZoneReport:
        """Bring the primary to `intent`, decided at `epoch`; names already right cost no write."""
        work = _Work(zone, intent, Mark(self._cluster, epoch))
        try:
            async with asyncio.timeout(self._patience_s), self._connections:
                await self._converge(work)
        except NoAnswer as failure:
            work.error = failure.why
        except TimeoutError:
            work.error = self._out_of_patience(zone, zone.primary)
        if self._exporter:
            for outcome, times in work.outcomes().items():
                self._exporter.count(
                    "relevo_dns_updates_total", times, zone=zone.name, outcome=outcome
                )
        return work.report()

    async def verify(
        self, zone: Zone, intent: ZoneIntent, names: Iterable[Domain]
    ) -> dict[str, ServerView]:
        """Ask each authoritative server once for `names`; keyed by `str` of the server."""
        wanted = {name: intent.names.get(name, EMPTY) for name in sorted(set(names))}
        async with asyncio.TaskGroup() as group:
            tasks = {
                str(server): group.create_task(self._view(zone, server, wanted))
                for server in zone.servers
            }
        return {server: task.result() for server, task in tasks.items()}

    async def _converge(self, work: "_Work") -> None:
        zone = work.zone
        if (key := self._keys.get(zone.key)) is None:
            raise NoAnswer(Why("dns-no-key", {"zone": zone.name, "key": zone.key}))
        writes = work.judge(await self._look(zone, sorted(work.wanted)))
        if not writes:
            return
        async with line(zone.primary, zone.name, timeout_s=self._timeout_s) as primary:
            await _send(work, writes, key, primary)
        if work.raced:
            # Whoever was faster may have written what we want; else the next round begins anew.
            for write in work.judge(await self._look(zone, work.raced)):
                work.hold(write.name, Why("dns-raced", {"name": write.name}))

    async def _look(self, zone: Zone, names: Sequence[Domain]) -> dict[Domain, Seen | Why]:
        """What the primary says of each name; a Why where the name can't be ours to write."""
        looks: dict[Domain, Seen | Why] = {}
        questions: dict[Domain, list[dns.message.Message]] = {}
        for name in names:
            try:
                questions[name] = dnsmessages.look_questions(name)
            except dns.name.NameTooLong:
                looks[name] = Why("dns-name-too-long", {"name": name})
        for name, answers in (await self._ask(zone, zone.primary, questions)).items():
            if any(dnsmessages.is_referral(answer) for answer in answers):
                looks[name] = Why("dns-delegated", {"name": name, "zone": zone.name})
            elif not all(dnsmessages.is_authoritative(answer) for answer in answers):
                raise not_authoritative(zone.primary, zone.name)
            else:
                looks[name] = dnsmessages.seen(answers)
        return looks

    async def _view(
        self, zone: Zone, server: NameServer, wanted: Mapping[Domain, RecordSet]
    ) -> ServerView:
        questions = {name: dnsmessages.addresses_questions(name) for name in wanted}
        try:
            async with asyncio.timeout(self._patience_s), self._connections:
                answers = await self._ask(zone, server, questions)
        except NoAnswer as failure:
            return ServerView(differing=tuple(wanted), error=failure.why)
        except TimeoutError:
            return ServerView(differing=tuple(wanted), error=self._out_of_patience(zone, server))
        return _compare(zone, server, wanted, answers)

    async def _ask(
        self,
        zone: Zone,
        server: NameServer,
        questions: Mapping[Domain, Sequence[dns.message.Message]],
    ) -> dict[Domain, list[dns.message.Message]]:
        flat = [question for each in questions.values() for question in each]
        answers = iter(await ask(server, zone.name, flat, timeout_s=self._timeout_s))
        taken = {name: [next(answers) for _ in each] for name, each in questions.items()}
        for answer in (answer for each in taken.values() for answer in each):
            if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                raise refusal(server, zone.name, answer.rcode())
        return taken

    def _out_of_patience(self, zone: Zone, server: NameServer) -> Why:
        seconds = self._patience_s
        return Why("dns-timeout", {"server": str(server), "zone": zone.name, "seconds": seconds})


class _Work:
    """One round on one zone: what is wanted, and what became of it so far."""

    def __init__(self, zone: Zone, intent: ZoneIntent, mark: Mark) -> None:
        self.zone, self.mark = zone, mark
        self.wanted: dict[Domain, RecordSet | None] = {
            **dict.fromkeys(intent.removed),
            **intent.names,
        }
        self.sent: list[Domain] = []
        self.raced: list[Domain] = []
        self.refused: list[Domain] = []
        self.error: Why | None = None
        self._right: set[Domain] = set()
        self._holds: dict[Domain, Why] = {}

    def judge(self, looks: Mapping[Domain, Seen | Why]) -> list[Write]:
        """Sort the names into those that are right, those that are held and those to write (returned)."""
        writes = []
        for name, look in sorted(looks.items()):
            want = self.wanted[name]
            answer: Step | Why = look if isinstance(look, Why) else self._step(name, look, want)
            if isinstance(answer, Why):
                self.hold(name, answer)
            elif answer is Step.NOTHING:
                self._right.add(name)
            elif isinstance(look, Seen):
                writes.append(Write(name=name, seen=look, step=answer, want=want))
        return writes

    def _step(self, name: Domain, seen: Seen, want: RecordSet | None) -> Step | Why:
        return step(name, seen, want, cluster=self.mark.cluster, epoch=self.mark.epoch)

    def hold(self, name: Domain, why: Why) -> None:
        self._holds[name] = why

    def outcomes(self) -> dict[str, int]:
        """Names by what became of them, those that cost a write or should have."""
        every = {
            "sent": len(self.sent),
            "held": len(self._holds),
            "failed": 1 if self.error else 0,
        }
        return {outcome: times for outcome, times in every.items() if times}

    def report(self) -> ZoneReport:
        gone = {name for name, want in self.wanted.items() if want is None}
        return ZoneReport(
            sent=tuple(sorted(self.sent)),
            unchanged=len(self._right),
            removed=tuple(sorted(gone & (self._right | set(self.sent)))),
            holds=tuple(sorted(self._holds.items(), key=lambda hold: hold[0])),
            error=self.error,
        )


async def _send(work: _Work, writes: list[Write], key: dns.tsig.Key, primary: Line) -> None:
    """Write batch by batch; a batch that is turned down is halved until the names at fault are alone."""
    zone = work.zone
    pending = [writes[i : i + NAMES_PER_UPDATE] for i in range(0, len(writes), NAMES_PER_UPDATE)]
    pending.reverse()
    while pending:
        batch = pending.pop()
        rcode = await _update(work, batch, key, primary)
        if rcode == dns.rcode.NOERROR:
            work.sent += [write.name for write in batch]
        elif rcode is not None and rcode not in RACED and rcode != dns.rcode.REFUSED:
            raise refusal(zone.primary, zone.name, rcode)
        elif len(batch) > 1:
            middle = len(batch) // 2
            pending += [batch[middle:], batch[:middle]]
        elif rcode in RACED:
            work.raced.append(batch[0].name)
        else:
            work.refused.append(batch[0].name)
            if len(work.refused) >= REFUSALS and not work.sent:
                break
    if work.refused and not work.sent:
        raise refusal(zone.primary, zone.name, dns.rcode.REFUSED)
    for name in work.refused:
        work.hold(name, Why("dns-name-refused", {"name": name, "server": str(zone.primary)}))


async def _update(
    work: _Work, batch: Sequence[Write], key: dns.tsig.Key, primary: Line
) -> dns.rcode.Rcode | None:
    """The primary's verdict on one message; None: the batch does not fit into one (64 kB)."""
    message = dnsmessages.update(work.zone, batch, work.mark, key)
    try:
        [answer] = await primary.exchange([message])
    except dns.exception.TooBig:
        assert len(batch) > 1, f"{batch[0].name}: more addresses than a message holds"
        return None
    return answer.rcode()


def _compare(
    zone: Zone,
    server: NameServer,
    wanted: Mapping[Domain, RecordSet],
    answers: Mapping[Domain, Sequence[dns.message.Message]],
) -> ServerView:
    differing, error = [], None
    for name, mine in answers.items():
        if not all(dnsmessages.is_authoritative(answer) for answer in mine):
            error = not_authoritative(server, zone.name).why
            differing.append(name)
        elif dnsmessages.seen(mine) != Seen(records=wanted[name]):
            differing.append(name)
    return ServerView(differing=tuple(differing), error=error)
