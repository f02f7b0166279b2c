"""The ladder: from which level what finding leads where, and the reason for each row."""

from dataclasses import dataclass
from enum import Enum

from fleet.caps import Level


class Finding(Enum):
    """What a round found of a site, the most pressing first."""

    RELEASED = "released"  # a person's word
    ARMED = "armed"  # what was only recorded may be held from now on
    HACKED = "hacked"  # does what no web site does
    DANGER = "danger"  # the host is about to stand still, in spite of a cap
    CROWDED = "crowded"  # more sites are held than may be: some have left this host
    PARTLY = "partly"  # its victims are better, and not well
    UNBITTEN = "unbitten"  # it goes on as before: the step did not hold it
    UNHELPFUL = "unhelpful"  # it was held, and nobody is better
    PARTED = "parted"  # what it was held for last helped nobody, the rest did
    LOOSEN = "loosen"  # the term of a tight cap is over
    OVER = "over"  # the term is over
    MANY = "many"  # the suspect again, after so many caps
    URGENT = "urgent"  # the suspect, and no time to lose
    AGAIN = "again"  # the suspect again, soon after soft steps
    PERSISTS = "persists"  # the suspect still, after its step was judged
    GENTLY = "gently"  # the suspect still, by no fault of its own, and too few soft steps yet
    SUSPECT = "suspect"
    BLUNT = "blunt"  # the suspect of what has no gentle step
    FOLLOWED = "followed"  # it was penalized elsewhere (rule R15)
    SIGN = "sign"  # something odd, once


@dataclass(frozen=True, slots=True)
class Row:
    to: Level
    code: str  # of the reason that is told
    reason: str  # why this row


B, W, S, C, I, X = Level  # noqa: E741 - a table is read in columns
F = Finding

_ROWS: tuple[tuple[tuple[Level, ...], Finding, Row], ...] = (
    ((B,), F.SIGN, Row(W, "isolation-sign", "one sign has an innocent reason somewhere: look")),
    ((B,), F.FOLLOWED, Row(W, "isolation-followed", "another host's word is no proof here: look")),
    ((B, W), F.SUSPECT, Row(S, "isolation-suspect", "gently first: it goes last, and only then")),
    ((B, W), F.BLUNT, Row(C, "isolation-blunt", "weights are the CPU's only: half, and not long")),
    ((B, W), F.URGENT, Row(C, "isolation-urgent", "a gentle step would come too late")),
    ((B, W), F.AGAIN, Row(C, "isolation-again", "gentle steps ended, and it came back")),
    ((B, W), F.MANY, Row(I, "isolation-many", "caps end, and it comes back every time")),
    ((S,), F.PERSISTS, Row(C, "isolation-persists", "it goes last, and still they wait for it")),
    ((S,), F.GENTLY, Row(S, "isolation-gently", "a crowd takes a minute to be turned away: wait")),
    ((S,), F.URGENT, Row(C, "isolation-urgent", "it goes last, and that is not enough")),
    ((S,), F.PARTLY, Row(C, "isolation-partly", "it is the right one: more of the same")),
    ((S,), F.UNBITTEN, Row(C, "isolation-unbitten", "what does not hold proves nothing: hold")),
    ((S, C), F.UNHELPFUL, Row(W, "isolation-unhelpful", "it was somebody else: undo, try them")),
    ((C,), F.PARTLY, Row(C, "isolation-partly", "it is the right one: half of the half")),
    ((C,), F.UNBITTEN, Row(C, "isolation-unbitten", "what does not hold proves nothing: hold")),
    ((C,), F.PERSISTS, Row(C, "isolation-persists", "half of its plan is still too much")),
    ((C,), F.URGENT, Row(C, "isolation-urgent", "half of its plan is still too much")),
    ((S, C, I), F.ARMED, Row(W, "isolation-armed", "what held nothing proved nothing: begin anew")),
    ((B, W, S, C), F.HACKED, Row(I, "isolation-hacked", "each minute harms others outside")),
    ((C, I), F.DANGER, Row(X, "isolation-danger", "one site ends, or all of them stand still")),
    ((S, C, I, X), F.CROWDED, Row(W, "isolation-crowded", "past the radius a person decides")),
    ((C,), F.PARTED, Row(C, "isolation-parted", "what helped nobody is undone, and only that")),
    ((C,), F.LOOSEN, Row(C, "isolation-loosened", "step by step: all at once is a second wave")),
    ((S, C), F.OVER, Row(W, "isolation-over", "its term is over; for a day it is looked at")),
    ((I,), F.OVER, Row(W, "isolation-isolated-long", "nothing lasts for ever: a person looks")),
    ((X,), F.OVER, Row(I, "isolation-after-stop", "it starts again where it can't harm")),
    ((W,), F.OVER, Row(B, "isolation-forgotten", "nothing more was seen")),
    ((W, S, C, I, X), F.RELEASED, Row(B, "isolation-released", "people win")),
)

TABLE: dict[tuple[Level, Finding], Row] = {
    (level, finding): row for levels, finding, row in _ROWS for level in levels
}
