"""Who owns a name in a zone, and what may be done to it: only what carries our mark, never over a newer one."""

from dataclasses import dataclass
from enum import Enum

from fleet.model import Domain, Epoch, RecordSet, Why

MARK_LABEL = "_relevo"
EMPTY = RecordSet()


@dataclass(frozen=True, slots=True)
class Mark:
    """The ownership TXT at `_relevo.<name>`: which cluster wrote the name, deciding at which epoch."""

    cluster: str
    epoch: Epoch

    def __str__(self) -> str:
        return f"relevo cluster={self.cluster} epoch={self.epoch}"

    @classmethod
    def parse(cls, text: str) -> "Mark":
        """Read what `str` wrote. Raises ValueError."""
        word, cluster, epoch = text.split(" ")
        if word != "relevo" or not cluster.startswith("cluster=") or not epoch.startswith("epoch="):
            raise ValueError(text)
        return cls(cluster.removeprefix("cluster="), Epoch.parse(epoch.removeprefix("epoch=")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the primary says of one name. `marks`: the texts at `_relevo.<name>`, each as one string."""

    records: RecordSet = EMPTY
    alias: str | None = None
    marks: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return self.records == EMPTY and self.alias is None


class Step(Enum):
    """What to do with a name; each but NOTHING is one update that requires what was seen."""

    NOTHING = "nothing"
    CREATE = "create"
    ADOPT = "adopt"  # the content is right already: only our mark is added
    REPLACE = "replace"
    REMOVE = "remove"


def step(
    name: Domain, seen: Seen, want: RecordSet | None, *, cluster: str, epoch: Epoch
) -> Step | Why:
    """The step from `seen` to `want` (None: told to be removed) for a writer that decided at `epoch`.

    A Why is a hold: the name is left as it is until a human, or the reason's end, frees it.
    """
    assert want is None or want.a or want.aaaa, f"{name}: a name is never emptied"
    try:
        mark = _mark(seen)
    except ValueError:
        return Why("dns-bad-mark", {"name": name, "text": " | ".join(seen.marks)[:200]})
    if mark is None:
        return _unmarked(name, seen, want)
    if mark.cluster != cluster:
        return Why("dns-other-cluster", {"name": name, "cluster": mark.cluster, "ours": cluster})
    if seen.alias is not None:
        return Why("dns-cname", {"name": name, "alias": seen.alias})
    if seen.records == want:
        return Step.NOTHING
    if mark.epoch >= epoch:
        return Why("dns-newer-writer", {"name": name, "epoch": str(mark.epoch), "ours": str(epoch)})
    return Step.REMOVE if want is None else Step.REPLACE


def _mark(seen: Seen) -> Mark | None:
    if len(seen.marks) > 1:
        raise ValueError(seen.marks)
    return Mark.parse(seen.marks[0]) if seen.marks else None


def _unmarked(name: Domain, seen: Seen, want: RecordSet | None) -> Step | Why:
    if seen.empty:
        return Step.NOTHING if want is None else Step.CREATE
    if seen.alias is not None:
        return Why("dns-cname", {"name": name, "alias": seen.alias})
    if seen.records == want:
        return Step.ADOPT
    has = (*seen.records.a, *seen.records.aaaa)
    return Why("dns-not-ours", {"name": name, "addresses": ", ".join(has)[:200]})
