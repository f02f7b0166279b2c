"""What the leader sees and means to do, as people may look at it; replaced whole once a round."""

from collections.abc import Mapping, Sequence

from controller.incidents import Times
from failover.evidence import Reach, Seen
from failover.guards import Guarded
from failover.judge import Verdict
from fleet.model import ControllerId, Hold, HostId, Why


def _reached(reach: Reach, *, here: bool) -> str:
    """Of another controller only what its word allows is known."""
    if reach.age_s is None:
        return "last beat never" if here else "does not hear it"
    if here:
        return f"last beat {reach.age_s:.2f} s ago"
    return f"no beat for {reach.age_s:.1f} s" if reach.age_s else "hears it"


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

    def evidence_text(self, host: HostId) -> dict[str, str]:
        """The evidence on a host as an incident keeps it: witness -> its word and how old it is."""
        evidence = self.seen.hosts.get(host)
        if evidence is None:
            return {}
        words = {}
        for id, reach in evidence.reach.items():
            trust = "" if reach.trusted else ", doubts itself"
            words[f"controller {id}"] = f"{_reached(reach, here=id == self._id)}{trust}"
        for witness, opinion in evidence.opinions.items():
            words[f"{opinion.kind.value} {witness}"] = (
                f"{opinion.health.value} for {opinion.since_s:.2f} s"
            )
        if evidence.report:
            words["its own report"] = evidence.report.state.value
        return words

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
