"""What is worth telling of all that stands now: pure looks at plain values.

A matter has a key that lasts and a stage that changes: telling is due when the stage is not the one told last.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from controller import calls
from controller.notify.fills import DISKS, Fill
from failover.judge import MOVING, Kind, Verdict
from fleet.caps import OWNER, Level
from fleet.model import Hold, HostId, Incident, IncidentId, SiteId, Why
from fleet.penalized import Penalized

What = Literal[
    "holds",
    "incidents",
    "orders",
    "hosts",
    "penalties",
    "help",
    "disks",
    "brake",
    "store",
    "controllers",
]
DAY_S = 86_400.0
VERDICT_S = 10.0  # a verdict with nothing to decide lasts this long before it is told
TROUBLE_S = (
    60.0  # so does trouble of a controller: etcd elects in one second, a leader follows in six
)
HELP_S = 60.0  # what a host said longer ago is no cry for help any more, nor the end of one
OVER = "over"
MOST = 1500  # matters that are looked at; each has its place in what is kept of those told
ORDERED = frozenset({"drain", "move", "bring-home"})  # verdicts that people gave
ENDING: tuple[What, ...] = (
    "holds", "hosts", "penalties", "help", "disks", "brake", "store", "controllers"
)  # whose end is told  # fmt: skip
ANSWERED = frozenset({"refused", "paused"})  # reasons that a person gave for holding


class Severity(Enum):
    """`act`: a person is wanted. `bad`: something is broken, relevo is on it. `info`: good to know."""

    ACT = "act"
    BAD = "bad"
    INFO = "info"

    @property
    def rank(self) -> int:
        return tuple(Severity).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matter:
    """One thing worth telling. `subject`: the host, name or controller that it is about; `story`: what it belongs to.

    `own`: it is about this very controller, which tells it whether it leads or not. `lasts`: people are reminded.
    `calls`: all that a host calls people for, the most pressing first.
    """

    key: str
    what: What
    stage: str
    severity: Severity
    subject: str
    story: str
    own: bool = False
    lasts: bool = False
    hold: Hold | None = None
    incident: Incident | None = None
    why: Why | None = None
    detail: str = ""
    calls: tuple[Why, ...] = ()
    testimony: tuple[Why, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plea:
    """What a host calls people for, as it said at `at` (loop clock)."""

    at: float
    whys: tuple[Why, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that is looked at. `wall` is Unix s and `now` the instant of the verdicts' clock, read together."""

    wall: float
    now: float
    holds: Mapping[str, Hold] = field(default_factory=dict)
    incidents: Mapping[IncidentId, Incident] = field(default_factory=dict)
    verdicts: Mapping[HostId, Verdict] = field(default_factory=dict)
    spent: int = 0
    allowed: int = 1
    rewound: Why | None = None
    fleet_broken: str = ""
    penalties: Mapping[SiteId, Penalized] = field(default_factory=dict)
    help: Mapping[HostId, Plea] = field(default_factory=dict)
    disks: Mapping[SiteId, Fill] = field(default_factory=dict)
    testimony: Callable[[HostId], tuple[Why, ...]] = lambda host: ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What one controller knows of itself; each is an error's text, or how long (s) it has lasted."""

    controller: str
    store_error: str = ""
    store_away_s: float = 0.0
    leaderless_s: float = 0.0
    snapshot_error: str = ""


def standing(scene: Scene) -> tuple[Matter, ...]:
    """Everything that stands, what wants a person first; the leader tells it."""
    open_now = {i.subject: i for i in scene.incidents.values() if i.closed_at is None}
    found = [
        *_whole(scene),
        *(_hold(hold, open_now.get(hold.subject), scene) for hold in scene.holds.values()),
        *_incidents(scene),
        *_hosts(scene, open_now.keys() | {hold.subject for hold in scene.holds.values()}),
        *_penalties(scene),
        *_help(scene),
        *_disks(scene),
    ]
    return tuple(sorted(found, key=lambda matter: (matter.severity.rank, matter.key))[:MOST])


def _whole(scene: Scene) -> Iterator[Matter]:
    if scene.rewound is not None:
        yield Matter(
            key="store/rewound",
            what="store",
            stage="rewound",
            severity=Severity.ACT,
            subject="store",
            story="store",
            lasts=True,
            why=scene.rewound,
        )
    if scene.fleet_broken:
        yield Matter(
            key="store/fleet",
            what="store",
            stage="broken",
            severity=Severity.ACT,
            subject="fleet",
            story="store",
            lasts=True,
            detail=scene.fleet_broken,
        )
    if scene.verdicts and scene.spent >= scene.allowed:
        yield Matter(
            key="brake/all",
            what="brake",
            stage="on",
            severity=Severity.ACT,
            subject="failover",
            story="brake",
            lasts=True,
            why=Why("brake", {"spent": scene.spent, "allowed": scene.allowed}),
        )


def _hold(hold: Hold, incident: Incident | None, scene: Scene) -> Matter:
    """Its stage is what it is held for: a site more or less is no news, another reason is."""
    codes = sorted({item.why.code for item in hold.sites} or {hold.why.code})
    answered = set(codes) <= ANSWERED
    testimony = incident.testimony if incident else scene.testimony(HostId(hold.subject))
    return Matter(
        key=f"holds/{hold.id}",
        what="holds",
        stage=" ".join(codes),
        severity=Severity.INFO if answered else Severity.ACT,
        subject=hold.subject,
        story=incident.id if incident else f"hold-{hold.id}",
        lasts=not answered,
        hold=hold,
        incident=incident,
        why=hold.why,
        testimony=testimony,
    )


def _incidents(scene: Scene) -> Iterator[Matter]:
    for incident in scene.incidents.values():
        if incident.closed_at is not None and scene.wall - incident.closed_at > DAY_S:
            continue
        stage, severity = _stage(incident)
        ordered = incident.verdict in ORDERED
        yield Matter(
            key=f"incidents/{incident.id}",
            what="orders" if ordered else "incidents",
            stage=stage,
            severity=Severity.INFO if ordered else severity,
            subject=incident.subject,
            story=incident.id,
            incident=incident,
            testimony=incident.testimony,
        )


def _stage(incident: Incident) -> tuple[str, Severity]:
    if incident.closed_at is not None:
        return "closed", Severity.INFO
    if incident.observed:
        return "observed", Severity.ACT
    if not incident.moved:
        # Of sites the hold speaks; an edge that left the DNS has none.
        return ("held", Severity.BAD) if incident.held else ("opened", Severity.BAD)
    if incident.complete:
        return "complete", Severity.INFO
    return "moved", Severity.BAD


def _hosts(scene: Scene, told: Iterable[str]) -> Iterator[Matter]:
    """Verdicts of which no incident and no hold tells: nothing is served there, or nothing is moved for it."""
    elsewhere = frozenset(told)
    for host, verdict in scene.verdicts.items():
        lost = verdict.kind in MOVING or verdict.kind is Kind.AGENT_LOST
        if host in elsewhere or not lost or scene.now - verdict.since < VERDICT_S:
            continue
        yield Matter(
            key=f"hosts/{host}",
            what="hosts",
            stage=verdict.kind.value,
            severity=Severity.ACT if verdict.kind is Kind.AGENT_LOST else Severity.BAD,
            subject=host,
            story=f"host-{host}",
            why=verdict.why,
            testimony=scene.testimony(host),
        )


def _penalties(scene: Scene) -> Iterator[Matter]:
    """What relevo did to a site that its visitors notice, or that a person must look at before it ends.

    What a person ordered needs no call.
    """
    for site, kept in scene.penalties.items():
        found = [
            penalty
            for penalty in kept.standing(scene.wall)
            if penalty.enforced and penalty.level >= Level.ISOLATE and penalty.owner == OWNER
        ]
        if found:
            yield Matter(
                key=f"penalties/{site}",
                what="penalties",
                stage=Level(found[0].level).name.lower(),
                severity=Severity.ACT,
                subject=site,
                story=f"penalty-{site}",
                lasts=True,
                why=found[0].why,
                detail=kept.host,
                testimony=_proof(kept),
            )


def _proof(kept: Penalized) -> tuple[Why, ...]:
    """What a penalty stands on, in a few lines."""
    if (evidence := kept.evidence) is None:
        return ()
    processes = [
        Why(
            "proof-process",
            {
                "pid": process.pid,
                "user": process.user,
                "command": process.command,
                "cores": round(process.cpu_cores, 2),
            },
        )
        for process in evidence.processes[:3]
    ]
    urls = sorted(evidence.urls.items(), key=lambda item: -item[1])
    asked = [Why("proof-asked", {"times": count, "path": path}) for path, count in urls[:3]]
    return (*processes, *asked)


def _help(scene: Scene) -> Iterator[Matter]:
    for host, plea in scene.help.items():
        if plea.whys and scene.now - plea.at < HELP_S:
            yield Matter(
                key=f"help/{host}",
                what="help",
                stage=calls.stage(plea.whys),
                severity=Severity.ACT,
                subject=host,
                story=f"help-{host}",
                lasts=True,
                calls=calls.ranked(plea.whys),
            )


def _disks(scene: Scene) -> Iterator[Matter]:
    """Before a site can't write any more there is time to talk; past its plan it has a week."""
    for site, fill in scene.disks.items():
        full = fill.ratio >= 1
        kept: dict[str, str | int | float] = {
            "kept": f"{fill.used_bytes / (1 << 30):.1f} GiB",
            "files": fill.used_inodes,
        }
        yield Matter(
            key=f"{DISKS}{site}",
            what="disks",
            stage="full" if full else "near",
            severity=Severity.ACT if full else Severity.INFO,
            subject=site,
            story=f"disk-{site}",
            lasts=full,
            why=Why("disk-full", kept) if full else Why("disk-near", kept),
            detail=fill.host,
        )


def unsure(scene: Scene) -> frozenset[str]:
    """Keys of which nobody can say that they are over: only `up` ends a host's trouble, and its own word its plea."""
    lost = {host for host, verdict in scene.verdicts.items() if verdict.kind is not Kind.UP}
    silent = {host for host, plea in scene.help.items() if scene.now - plea.at >= HELP_S}
    return frozenset(
        (*(f"hosts/{host}" for host in lost), *(f"help/{host}" for host in lost | silent))
    )


def own(trouble: Trouble) -> tuple[Matter, ...]:
    """What a controller tells of itself: who else could, if nobody leads?"""
    found = []
    for stage, detail, lasts_s in (
        ("store", trouble.store_error, trouble.store_away_s),
        ("leaderless", " ", 0.0 if trouble.store_error else trouble.leaderless_s),
        ("snapshots", trouble.snapshot_error, TROUBLE_S),
    ):
        if detail and lasts_s >= TROUBLE_S:
            found.append(
                Matter(
                    key=f"controllers/{stage}",
                    what="controllers",
                    stage=stage,
                    severity=Severity.ACT,
                    subject=trouble.controller,
                    story=f"{stage}-{trouble.controller}",
                    own=True,
                    lasts=True,
                    detail=detail.strip(),
                )
            )
    return tuple(found)


def over(key: str, story: str) -> Matter:
    """The end of a matter that was told and stands no more."""
    what, _, id = key.partition("/")
    subject = id.removeprefix("move-").removeprefix("edge-")
    kind: What = next(w for w in ENDING if w == what)
    return Matter(
        key=key,
        what=kind,
        stage=OVER,
        severity=Severity.INFO,
        subject=subject,
        story=story,
        own=what == "controllers",
    )
