"""Who may write a name: only over our own, older mark; what is equal already is never in the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failover.ownership import EMPTY, Mark, Seen, Step, step
from fleet.model import Domain, Epoch, RecordSet, Why

NAME = Domain("www.coop.example")
HERE, THERE = RecordSet(a=("192.0.2.1",)), RecordSet(a=("192.0.2.2",), aaaa=("2001:db8::2",))
OURS = Epoch(2, 50)


def marked(epoch: Epoch, cluster: str = "c1") -> tuple[str, ...]:
    return (str(Mark(cluster, epoch)),)


OLDER, SAME, NEWER = marked(Epoch(1, 900)), marked(OURS), marked(Epoch(2, 51))
STRANGE = marked(Epoch(1, 1), "c2")

TABLE = [
    # seen                                              want   step or code
    (Seen(), HERE, Step.CREATE),
    (Seen(), None, Step.NOTHING),
    (Seen(records=HERE), HERE, Step.ADOPT),
    (Seen(records=THERE), HERE, "dns-not-ours"),
    (Seen(records=THERE), None, "dns-not-ours"),
    (Seen(alias="elsewhere.example."), HERE, "dns-cname"),
    (Seen(alias="elsewhere.example.", marks=OLDER), HERE, "dns-cname"),
    (Seen(records=HERE, marks=OLDER), HERE, Step.NOTHING),
    (Seen(records=HERE, marks=SAME), HERE, Step.NOTHING),
    (Seen(records=HERE, marks=NEWER), HERE, Step.NOTHING),
    (Seen(records=THERE, marks=OLDER), HERE, Step.REPLACE),
    (Seen(marks=OLDER), HERE, Step.REPLACE),
    (Seen(records=THERE, marks=SAME), HERE, "dns-newer-writer"),
    (Seen(records=THERE, marks=NEWER), HERE, "dns-newer-writer"),
    (Seen(records=HERE, marks=OLDER), None, Step.REMOVE),
    (Seen(marks=OLDER), None, Step.REMOVE),
    (Seen(records=HERE, marks=SAME), None, "dns-newer-writer"),
    (Seen(records=HERE, marks=STRANGE), HERE, "dns-other-cluster"),
    (Seen(records=THERE, marks=STRANGE), HERE, "dns-other-cluster"),
    (Seen(records=THERE, marks=STRANGE), None, "dns-other-cluster"),
    (Seen(records=HERE, marks=("v=spf1 -all",)), HERE, "dns-bad-mark"),
    (Seen(records=HERE, marks=(*OLDER, *NEWER)), HERE, "dns-bad-mark"),
]


@pytest.mark.parametrize(("seen", "want", "expected"), TABLE)
def test_every_state_of_a_name_has_one_answer(
    seen: Seen, want: RecordSet | None, expected: Step | str
) -> None:
    """The table above, for cluster c1 at epoch 2.50."""
    answer = step(NAME, seen, want, cluster="c1", epoch=OURS)
    assert (answer.code if isinstance(answer, Why) else answer) == expected


def test_a_name_is_never_emptied() -> None:
    """An intent without addresses is a bug of ours, stopped before anything is sent (rule R10)."""
    with pytest.raises(AssertionError, match="never emptied"):
        step(NAME, Seen(), EMPTY, cluster="c1", epoch=OURS)


EPOCHS = st.builds(Epoch, st.integers(0, 3), st.integers(0, 3))
SETS = st.sampled_from([EMPTY, HERE, THERE])
MARKS = st.one_of(
    st.just(()), st.builds(marked, EPOCHS, st.sampled_from(["c1", "c2"])), st.just(("x y z",))
)


@given(SETS, MARKS, st.sampled_from([HERE, THERE, None]), EPOCHS)
def test_content_changes_only_over_our_own_older_mark_or_nothing(
    has: RecordSet, marks: tuple[str, ...], want: RecordSet | None, epoch: Epoch
) -> None:
    """Stated without the table: what replaces or removes must have found our mark, below its own epoch."""
    answer = step(NAME, Seen(records=has, marks=marks), want, cluster="c1", epoch=epoch)
    if answer in (Step.REPLACE, Step.REMOVE):
        mark = Mark.parse(marks[0])
        assert mark.cluster == "c1"
        assert mark.epoch < epoch
    if answer is Step.CREATE:
        assert (has, marks) == (EMPTY, ())
    if answer is Step.ADOPT:
        assert (has, marks) == (want, ())


@given(EPOCHS)
def test_a_mark_reads_back(epoch: Epoch) -> None:
    assert Mark.parse(str(Mark("c1", epoch))) == Mark("c1", epoch)


@pytest.mark.parametrize(
    "text",
    ["", "relevo", "relevo cluster=c1", "relevo epoch=1.2 cluster=c1", "relevo cluster=c1 epoch=1"],
)
def test_what_is_no_mark_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Mark.parse(text)
