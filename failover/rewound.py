"""Was the store rewound (rule R2)? A restored copy counts its revisions again, so a revision alone can't tell.

Each commit that orders are made from has a random name, written with it; orders carry the name of the newest one.
A name that the store does not know was given in a future that a restore has undone.
"""

from collections.abc import Mapping

from fleet.model import Epoch

KEPT = 1000  # names remembered; an agent that was away for longer is believed


def undone(claim: Epoch, commit: str, known: Mapping[str, int], ours: Epoch) -> bool:
    """Whether an agent holds orders from a future that this store does not have.

    `claim` and `commit`: the epoch and commit name of the newest orders it has accepted. `known`: each remembered
    name and the revision that wrote it. `ours`: the store's present epoch.
    """
    if not commit or claim.generation < ours.generation:
        return False
    if claim > ours:
        return True
    if commit in known:
        return False
    return len(known) < KEPT or claim.revision >= min(known.values())


def forgotten(known: Mapping[str, int]) -> tuple[str, ...]:
    """The names to forget, oldest first, so that KEPT stay."""
    oldest_first = sorted(known, key=lambda name: known[name])
    return tuple(oldest_first[: max(0, len(known) - KEPT)])
