"""Rule R2 on revisions that were counted twice: what a restored store can and can't know."""

from hypothesis import given
from hypothesis import strategies as st

from failover.rewound import KEPT, forgotten, undone
from fleet.model import Epoch


class History:
    """A store's revisions, and the names of the commits that orders are made from."""

    def __init__(self, revision: int = 1, known: dict[str, int] | None = None) -> None:
        self.revision, self.known, self.newest = revision, dict(known or {}), ""

    def commit(self, name: str) -> None:
        self.revision += 1
        self.known[name], self.newest = self.revision, name
        for old in forgotten(self.known):
            del self.known[old]

    @property
    def claim(self) -> tuple[Epoch, str]:
        """What an agent holds that was given orders now."""
        return Epoch(1, self.revision), self.newest

    def undoes(self, claim: tuple[Epoch, str]) -> bool:
        return undone(*claim, self.known, Epoch(1, self.revision))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_r2_what_a_store_ordered_it_never_disowns(between: list[int]) -> None:
    """However much else is written between commits, every claim that was given out stays credible."""
    store, claims = History(), []
    for n, others in enumerate(between):
        store.commit(f"c{n}")
        for _ in range(others + 1):
            claims.append(store.claim)
            store.revision += 1
        assert not any(store.undoes(claim) for claim in claims)


@given(st.integers(0, 5), st.integers(1, 5), st.integers(0, 5), st.integers(0, 20))
def test_r2_a_restored_copy_is_noticed_however_much_it_wrote_since(
    before: int, lost: int, committed: int, since: int
) -> None:
    """Orders given after the copy was made are disowned, also once the copy's revision has passed theirs."""
    store = History()
    for n in range(before):
        store.commit(f"c{n}")
    restored = History(store.revision, store.known)
    for n in range(lost):
        store.commit(f"lost{n}")
    for n in range(committed):
        restored.commit(f"new{n}")
    restored.revision += since
    assert restored.undoes(store.claim)


def test_r2_a_commit_too_old_to_be_remembered_convicts_nobody() -> None:
    """An agent that was away for a thousand commits is not taken for the future."""
    store = History()
    store.commit("first")
    claim = store.claim
    for n in range(KEPT + 1):
        store.commit(f"c{n}")
    assert len(store.known) == KEPT
    assert not store.undoes(claim)


def test_r2_an_agent_without_orders_claims_nothing() -> None:
    """A host that joins, or whose cache was lost, says nothing about the store."""
    assert not History().undoes((Epoch(), ""))


def test_r2_a_later_generation_is_a_future_that_this_store_does_not_have() -> None:
    """Whatever its revision: a store that is recovered begins a generation, and a copy of before does not have it."""
    known = {"kept": 7}
    assert undone(Epoch(2, 5), "lost", known, Epoch(1, 40))
    assert undone(Epoch(2, 50), "lost", known, Epoch(1, 40))
    assert not undone(Epoch(1, 5), "lost", known, Epoch(2, 40))
