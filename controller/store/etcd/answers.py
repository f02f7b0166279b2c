"""What an error of etcd means to its caller: whether the write may have happened, and what helps.

Codes alone are too coarse (a full disk and too many requests share one), so the text decides first. It is part
of etcd's interface: its own client compares it too. What nobody foresaw counts as doubt.

Source: etcd api/v3rpc/rpctypes/error.go; gRPC status codes.
"""

from enum import Enum, auto

from grpc import StatusCode

from controller.store.protocol import Compacted, Denied, LeaseLost, NoSpace, StoreError


class Next(Enum):
    """What a caller does about an answer that is no finding."""

    ELSEWHERE = auto()  # nothing was written: another member may do better
    LOGIN = auto()  # nothing was written: our token is no longer known
    DOUBT = auto()  # written or not: only a read may be asked again


SAYINGS: dict[str, type[StoreError] | Next] = {
    "mvcc: database space exceeded": NoSpace,
    "mvcc: required revision has been compacted": Compacted,
    "requested lease not found": LeaseLost,
    "invalid auth token": Next.LOGIN,
    "revision of auth store is old": Next.LOGIN,
    "user name is empty": Next.LOGIN,
    "no leader": Next.ELSEWHERE,
    "not leader": Next.ELSEWHERE,
    "too many requests": Next.ELSEWHERE,
    "unhealthy cluster": Next.ELSEWHERE,
    "rpc not supported for learner": Next.ELSEWHERE,
}
# The request was looked at and refused: asking again, or elsewhere, gives the same.
REFUSALS = frozenset(
    {
        StatusCode.INVALID_ARGUMENT,
        StatusCode.NOT_FOUND,
        StatusCode.ALREADY_EXISTS,
        StatusCode.PERMISSION_DENIED,
        StatusCode.FAILED_PRECONDITION,
        StatusCode.OUT_OF_RANGE,
        StatusCode.UNIMPLEMENTED,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.DATA_LOSS,
    }
)
PREFIX = "etcdserver: "
NOT_SENT = "failed to connect to all addresses"  # gRPC's words for a connection that never was


def judge(code: StatusCode, details: str) -> StoreError | Next:
    """The finding to raise (a Compacted without its revision, which etcd leaves out), or what to do next."""
    known = SAYINGS.get(details.removeprefix(PREFIX))
    if isinstance(known, Next):
        return known
    if known is Compacted:
        return Compacted(0)
    if known is not None:
        return known(details)
    if code is StatusCode.UNAUTHENTICATED:
        return Next.LOGIN
    if code in REFUSALS:
        return Denied(details)
    if code is StatusCode.UNAVAILABLE and NOT_SENT in details:
        return Next.ELSEWHERE
    return Next.DOUBT


def judge_reason(reason: str) -> StoreError | Next:
    """The same for the reason that a watch was cancelled with: an error written out, or etcd's words alone."""
    for saying, meaning in SAYINGS.items():
        if saying in reason and isinstance(meaning, Next):
            return meaning
    if "permission denied" in reason:
        return Denied(reason)
    return Next.ELSEWHERE
