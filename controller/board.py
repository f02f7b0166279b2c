"""What the leader sees and means to do, as people may look at it; replaced whole once a round."""

from collections.abc import Mapping, Sequence

from controller.incidents import Times
from failover.evidence import Reach, Seen
from failover.guards import Guarded
from failover.judge import Verdict
from fleet.model import ControllerId, Hold, HostId, Why


def _reached(controller: ControllerId, reach: Reach, *, here: bool) -> Why:
    """Of another controller only what its word allows is known."""
    said: dict[str, str | int | float] = {"controller": controller}
    if not reach.trusted:
        said["doubt"] = "yes"
    if reach.age_s is None:
        return Why("heard-never", said) if here else Why("heard-not", said)
    if not here and not reach.age_s:
        return Why("heard-well", said)
    said["age_s"] = round(reach.age_s, 2)
    return Why("heard-last", said) if here else Why("heard-nothing-for", said)


class Board:
    """The last round's evidence, verdicts and plan; before the first one, nothing."""

    def __init__(self, id: ControllerId) -> None:
        self._id = id
        self.seen = Seen(controllers=frozenset({id}), hosts={})
        self.verdicts: Mapping[HostId, Verdict] = {}
        self.plan: Sequence[Guarded] = ()
        self.rewound: Why | None = None
        self.times: Times | None = None
        self.store_error = ""  # why the last commit was not taken; empty: it was
        self.snapshot_error = ""  # why the last copy of the store failed; empty: it did not
        self.dns_holds: dict[str, Hold] = {}

    def update(
        self,
        *,
        seen: Seen,
        verdicts: Mapping[HostId, Verdict],
        plan: Sequence[Guarded],
        rewound: Why | None,
        times: Times,
    ) -> None:
        self.seen, self.verdicts, self.plan = seen, verdicts, plan
        self.rewound, self.times = rewound, times

    def testimony(self, host: HostId) -> tuple[Why, ...]:
        """The evidence on a host as an incident keeps it: each witness' word, and how old it is."""
        evidence = self.seen.hosts.get(host)
        if evidence is None:
            return ()
        words = [_reached(id, reach, here=id == self._id) for id, reach in evidence.reach.items()]
        for witness, opinion in evidence.opinions.items():
            said = {
                "witness": opinion.kind.value,
                "id": witness,
                "health": opinion.health.value,
                "since_s": round(opinion.since_s, 2),
            }
            words.append(Why("said-by", said))
        if evidence.report:
            words.append(Why("said-itself", {"agent_state": evidence.report.state.value}))
        return tuple(words)

    def holds(self, wall: float) -> dict[str, Hold]:
        """Everything that waits for a human or for its reason to go away, by id."""
        found = dict(self.dns_holds)
        for guarded in self.plan:
            cause = guarded.proposal.cause
            if guarded.held:
                id = f"move-{cause.host}"
                found[id] = Hold(
                    id=id,
                    kind="brake" if guarded.held[-1].why.code == "brake" else "move",
                    subject=cause.host,
                    why=guarded.held[-1].why,
                    since=wall,
                    sites=guarded.held,
                )
            if isinstance(guarded.withdraw, Why):
                id = f"edge-{cause.host}"
                found[id] = Hold(
                    id=id, kind="dns", subject=cause.host, why=guarded.withdraw, since=wall
                )
        return found
