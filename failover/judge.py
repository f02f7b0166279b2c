"""Evidence to verdicts. Rules: doubt keeps what is; no host is dead by one observer's word (R4); an observer
that doubts itself counts as 'don't know' (R5); what was never heard of is never dead.

Stateless but for `since`: a verdict follows from what is seen now, so a lost event costs nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from failover.evidence import Evidence, Opinion, Reach, Seen, Witness
from failover.policy import Policy
from fleet.messages import AgentState, RestartState
from fleet.model import Health, HostId, Why


class Kind(Enum):
    UP = "up"
    SUSPECT = "suspect"
    DEAD = "dead"
    AGENT_LOST = "agent-lost"
    SERVICE_DOWN = "service-down"
    LEAVING = "leaving"
    RESTARTING = "restarting"
    UNKNOWN = "unknown"


# The verdicts that empty a host; every other one moves nothing.
MOVING = frozenset({Kind.DEAD, Kind.SERVICE_DOWN, Kind.LEAVING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the evidence means. `since`, `symptom_at`, `recovered_at` are instants of the judge's clock.

    `symptom_at` and `symptom`: when the first sign of the present trouble was, and which; None while up.
    `fallen`: a verdict that empties a host fell, and it has not been up since. `recovered_at`: when it last was again.
    """

    kind: Kind
    since: float
    why: Why
    symptom_at: float | None = None
    symptom: Why | None = None
    fallen: bool = False
    recovered_at: float | None = None


class _Heard(Enum):
    YES = "yes"
    NO = "no"
    UNSURE = "unsure"


def judge(
    before: Mapping[HostId, Verdict], seen: Seen, policy: Policy, now: float
) -> dict[HostId, Verdict]:
    """A verdict for every host of `seen`. `before`: the last verdicts, for how long each has stood."""
    return {
        host: _timed(before.get(host), *finding(host, seen, policy), now, evidence)
        for host, evidence in seen.hosts.items()
    }


def _timed(before: Verdict | None, kind: Kind, why: Why, now: float, evidence: Evidence) -> Verdict:
    """The verdict with its memory: how long it stands, how the trouble began, and what it recovered from.

    Only `up` ends trouble: a host that was dead and is now unknown has not come back.
    """
    fallen = kind in MOVING or (before is not None and before.fallen and kind is not Kind.UP)
    recovered_at = before.recovered_at if before else None
    if before and before.fallen and kind is Kind.UP:
        recovered_at = now
    symptom_at, symptom = None, None
    if kind is not Kind.UP:
        known = before if before and before.symptom_at is not None else None
        symptom_at = known.symptom_at if known else now - (_silence_s(evidence) or 0.0)
        symptom = known.symptom if known else why
    return Verdict(
        kind=kind,
        since=before.since if before and before.kind is kind else now,
        why=why,
        symptom_at=symptom_at,
        symptom=symptom,
        fallen=fallen,
        recovered_at=recovered_at,
    )


def finding(host: HostId, seen: Seen, policy: Policy) -> tuple[Kind, Why]:
    """What the evidence on one host means now, and why."""
    evidence = seen.hosts[host]
    words = [_heard(evidence.reach.get(id), policy) for id in seen.controllers]
    silence_s = _silence_s(evidence)
    if any(word is _Heard.YES for word in words) and silence_s is not None:
        return _heard_of(host, seen, silence_s, policy)
    lost, needed = words.count(_Heard.NO), len(seen.controllers) // 2 + 1
    if lost >= needed:
        return _unreachable(host, seen, silence_s, policy)
    if lost or silence_s is not None:
        why = Why("observers-doubt", {"unreachable": lost, "needed": needed})
        return Kind.UNKNOWN, why
    return Kind.UNKNOWN, Why("not-heard-yet")


def _heard(reach: Reach | None, policy: Policy) -> _Heard:
    """One controller's word. A fresh beat proves life whatever its hearer thinks of itself."""
    if reach is None:
        return _Heard.UNSURE
    if reach.age_s is not None and reach.age_s < policy.unreachable_s:
        return _Heard.YES
    if not reach.trusted or (reach.age_s is None and reach.watched_s < policy.first_beat_s):
        return _Heard.UNSURE
    return _Heard.NO


def _silence_s(evidence: Evidence) -> float | None:
    """Since any controller last heard from the host; None: nobody has."""
    return min((r.age_s for r in evidence.reach.values() if r.age_s is not None), default=None)


def _heard_of(host: HostId, seen: Seen, silence_s: float, policy: Policy) -> tuple[Kind, Why]:
    """The agent lives: what it says of itself, and whether others get answers."""
    evidence = seen.hosts[host]
    report = evidence.report
    if report and report.state is AgentState.LEAVING:
        return Kind.LEAVING, Why("announced-shutdown")
    if report and report.state is AgentState.RESTARTING:
        return Kind.RESTARTING, Why("agent-restarting")
    if silence_s >= policy.suspect_s:
        return Kind.SUSPECT, Why("silent", {"silence_s": round(silence_s, 2)})
    answers, down, asked = _answers(host, seen)
    if report and report.service and report.service.check.health is Health.DOWN:
        return _service_failing(evidence, answers, down, asked, policy)
    if asked and down == asked:
        return Kind.SUSPECT, Why("witnesses-cannot-reach", {"witnesses": asked})
    return Kind.UP, Why("answers", {"witnesses": answers})


def _service_failing(
    evidence: Evidence, answers: int, down: int, asked: int, policy: Policy
) -> tuple[Kind, Why]:
    """Dead service under a living agent: time, one local restart and other witnesses must agree first."""
    report = evidence.report
    assert report and report.service
    service, for_s = report.service, report.service.check.since_s
    values: dict[str, str | int | float] = {"for_s": round(for_s, 1), "witnesses": down}
    if answers:
        return Kind.SUSPECT, Why("service-check-disputed", {"witnesses": answers})
    if report.package_run:
        return Kind.SUSPECT, Why("service-down-in-package-run", values)
    if service.restart is RestartState.UNAVAILABLE:
        return Kind.SUSPECT, Why("service-down-no-restart", values)
    if for_s < policy.service_down_s or service.restart is not RestartState.FAILED:
        values["of_s"] = policy.service_down_s
        return Kind.SUSPECT, Why("service-failing", values)
    if not asked and not policy.accept_single_witness:
        return Kind.UNKNOWN, Why("no-other-witness", values)
    return Kind.SERVICE_DOWN, Why("service-down", values)


def _unreachable(
    host: HostId, seen: Seen, silence_s: float | None, policy: Policy
) -> tuple[Kind, Why]:
    """A majority of all controllers has lost it: dead only if nobody else gets answers and somebody asked."""
    evidence = seen.hosts[host]
    state = evidence.report.state if evidence.report else None
    silent = round(silence_s, 2) if silence_s is not None else -1
    answers, down, asked = _answers(host, seen)
    values: dict[str, str | int | float] = {"silence_s": silent, "witnesses": down}
    if state is AgentState.LEAVING and silence_s is not None and silence_s < policy.leaving_s:
        return Kind.LEAVING, Why("announced-shutdown")
    if answers:
        if (
            state is AgentState.RESTARTING
            and silence_s is not None
            and silence_s < policy.restart_grace_s
        ):
            return Kind.RESTARTING, Why("agent-restarting")
        return Kind.AGENT_LOST, Why("agent-silent-host-answers", values | {"witnesses": answers})
    if not evidence.known:
        return Kind.UNKNOWN, Why("never-reported")
    if not asked and not policy.accept_single_witness:
        return Kind.UNKNOWN, Why("no-other-witness", values)
    return Kind.DEAD, Why("silent-and-no-answers", values)


def _answers(host: HostId, seen: Seen) -> tuple[int, int, int]:
    """(witnesses that count as getting answers, as getting none, with a word at all).

    With edges, one live edge that gets answers is enough to keep a host; without, a controller's own probe is,
    and neighbours decide by majority: one of them may lie (rule R15). At a tie doubt keeps the host, unless a
    controller asked itself and got no answer.
    """
    opinions = {id: o for id, o in seen.hosts[host].opinions.items() if id != host}
    if seen.has_edges:
        edges = [
            o for id, o in opinions.items() if o.kind is Witness.EDGE and id in seen.live_edges
        ]
        return _count(edges)
    probes = _count([o for o in opinions.values() if o.kind is Witness.CONTROLLER])
    near = _count([o for o in opinions.values() if o.kind is Witness.NEIGHBOUR])
    refuted = probes[1] > 0 and not probes[0]
    believed = 2 * near[0] > near[2] if refuted else 2 * near[0] >= near[2]
    answers = probes[0] + (near[0] if believed else 0)
    return answers, probes[1] + near[1], probes[2] + near[2]


def _count(opinions: list[Opinion]) -> tuple[int, int, int]:
    up = sum(o.health is Health.UP for o in opinions)
    down = sum(o.health is Health.DOWN for o in opinions)
    return up, down, up + down
