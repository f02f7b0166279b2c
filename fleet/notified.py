"""What people have been told already, for each receiver: the next leader neither repeats nor forgets."""

import msgspec

MATTERS_KEPT = 2000  # of one receiver: 250 kB at most, after a storm


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """The last word on one matter: its stage, when (Unix s), how many words lately, and the thread they are in."""

    stage: str
    at: float
    times: int = 1
    story: str = ""
    thread: str = ""


class Notified(msgspec.Struct, frozen=True, kw_only=True):
    """`since`: what was over before then is no news. `letters`: when the last ones were sent, oldest first."""

    since: float
    told: dict[str, Told] = {}
    letters: tuple[float, ...] = ()
