"""etcd's answers judged, its messages translated: what needs no server."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from controller.store import Compacted, Denied, LeaseLost, NoSpace, StoreError
from controller.store.etcd import Login, Tls
from controller.store.etcd import rpc_pb2 as rpc
from controller.store.etcd.answers import Next, judge, judge_reason
from controller.store.etcd.client import Client
from controller.store.etcd.member import Member, loses_data, tells_progress
from controller.store.etcd.wire import BATCH_EVENTS, Wire, span
from deploy.demo.certificates import Authority

ANSWERS = [
    (StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", NoSpace),
    (StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Next.ELSEWHERE),
    (StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max", Denied),
    (StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large", Denied),
    (StatusCode.INVALID_ARGUMENT, "etcdserver: user name is empty", Next.LOGIN),
    (StatusCode.INVALID_ARGUMENT, "etcdserver: revision of auth store is old", Next.LOGIN),
    (StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token", Next.LOGIN),
    (StatusCode.PERMISSION_DENIED, "etcdserver: permission denied", Denied),
    (StatusCode.NOT_FOUND, "etcdserver: requested lease not found", LeaseLost),
    (
        StatusCode.OUT_OF_RANGE,
        "etcdserver: mvcc: required revision has been compacted",
        Compacted,
    ),
    (
        StatusCode.OUT_OF_RANGE,
        "etcdserver: mvcc: required revision is a future revision",
        Denied,
    ),
    (StatusCode.DATA_LOSS, "etcdserver: corrupt cluster", Denied),
    (StatusCode.UNAVAILABLE, "etcdserver: no leader", Next.ELSEWHERE),
    (
        StatusCode.UNAVAILABLE,
        "failed to connect to all addresses; last error: refused",
        Next.ELSEWHERE,
    ),
    (StatusCode.UNAVAILABLE, "Socket closed", Next.DOUBT),
    (StatusCode.UNAVAILABLE, "etcdserver: request timed out", Next.DOUBT),
    (
        StatusCode.UNAVAILABLE,
        "etcdserver: request timed out, possibly due to previous leader failure",
        Next.DOUBT,
    ),
    (StatusCode.UNAVAILABLE, "etcdserver: leader changed", Next.DOUBT),
    (StatusCode.UNAVAILABLE, "etcdserver: server stopped", Next.DOUBT),
    (StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", Next.DOUBT),
    (StatusCode.INTERNAL, "RST_STREAM", Next.DOUBT),
    (StatusCode.UNKNOWN, "context deadline exceeded", Next.DOUBT),
    (StatusCode.CANCELLED, "", Next.DOUBT),
]


@pytest.mark.parametrize(("code", "details", "meaning"), ANSWERS)
def test_an_answer_says_whether_the_write_may_have_happened(
    code: StatusCode, details: str, meaning: type[StoreError] | Next
) -> None:
    """Refusals are findings, what never got there may be asked elsewhere, and all else is doubt."""
    found = judge(code, details)
    assert found is meaning if isinstance(meaning, Next) else type(found) is meaning


def test_no_code_without_known_words_is_taken_for_not_written() -> None:
    """Only etcd's own words, or gRPC's of no connection, allow a write to be sent a second time."""
    for code in StatusCode:
        assert judge(code, "words nobody foresaw") is not Next.ELSEWHERE


def test_a_cancelled_watch_says_why() -> None:
    """The reason comes as an error written out by some versions, as etcd's words alone by others."""
    reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    assert isinstance(judge_reason(reason), Denied)
    assert isinstance(judge_reason("etcdserver: permission denied"), Denied)
    assert judge_reason("etcdserver: invalid auth token") is Next.LOGIN
    assert judge_reason("etcdserver: no leader") is Next.ELSEWHERE
    assert judge_reason("") is Next.ELSEWHERE


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("3.4.23", False),
        ("3.4.25", True),
        ("3.5.7", False),
        ("3.5.16", True),
        ("3.6.0", True),
        ("3.10.1-rc.0", True),
        ("", False),
    ],
)
def test_progress_is_believed_from_the_versions_that_tell_it_in_order(
    version: str, told: bool
) -> None:
    """Before them the answer could overtake events, and a watch that resumed from it would miss these."""
    assert tells_progress(version) is told


@given(st.binary(max_size=4), st.binary(max_size=6))
def test_a_span_holds_the_keys_of_its_prefix_and_no_other(prefix: bytes, key: bytes) -> None:
    """Bytes of 0xff and the empty prefix included."""
    first, end = span(prefix)
    key = key or b"\0"  # etcd has no empty key
    inside = first <= key and (end == b"\0" or key < end)
    assert inside == key.startswith(prefix)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=12), st.integers(0, 5))
def test_batches_are_whole_revisions_in_order(sizes: list[int], after: int) -> None:
    """Each bounded unless one revision is larger; all that came after the position, each event once."""
    events = [
        rpc.Event(kv=rpc.KeyValue(key=b"%d" % i, mod_revision=revision))
        for revision, size in enumerate(sizes, 1)
        for i in range(size)
    ]
    batches = list(Wire(b"").batches(events, after=after, prev=False))
    told = [event.kv.mod_revision for _, batch in batches for event in batch]
    assert told == [e.kv.mod_revision for e in events if e.kv.mod_revision > after]
    for last, batch in batches:
        revisions = {event.kv.mod_revision for event in batch}
        assert last == max(revisions)
        assert len(batch) <= BATCH_EVENTS or len(revisions) == 1
    for (one, _), (_, other) in pairwise(batches):
        assert other[0].kv.mod_revision > one


def test_broken_certificate_files_are_refused_by_name(tmp_path: Path) -> None:
    """Each file that can't be used is named; given to gRPC unseen, a broken key would end the process."""
    authority = Authority(tmp_path)
    mine = authority.issue("c1", client=True)
    other = authority.issue("c2", client=True)
    assert Tls(authority.path, mine.certificate, mine.key).credentials()
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN PRIVATE KEY-----\nnot base64\n-----END PRIVATE KEY-----\n")
    empty = tmp_path / "empty.pem"
    empty.touch()
    for ca in (broken, empty, tmp_path / "absent.pem"):
        with pytest.raises(Denied, match=ca.name):
            Tls(ca).credentials()
    for key in (broken, empty, other.key, tmp_path / "absent.pem"):
        with pytest.raises(Denied, match=key.name):
            Tls(authority.path, mine.certificate, key).credentials()


def test_a_password_is_not_shown() -> None:
    """Neither in a log line nor in a traceback."""
    assert "secret" not in repr(Login("relevo", "secret"))


@pytest.mark.parametrize(
    ("version", "loses"),
    [
        ("3.4.23", False),
        ("3.5.0", True),
        ("3.5.1+git", True),
        ("3.5.5", True),
        ("3.5.6", False),
        ("3.5.16", False),
        ("3.6.0", False),
        ("", False),
    ],
)
def test_the_releases_that_can_lose_data_are_known(version: str, loses: bool) -> None:
    """3.5.0 to 3.5.5, and no other."""
    assert loses_data(version) is loses


class Answering:
    """A member of the cluster 7 that runs `version`."""

    url, foreign = "https://etcd1:2379", False

    def __init__(self) -> None:
        self.version = ""

    def ask(self, *_: object) -> "asyncio.Future[rpc.StatusResponse]":
        answer: asyncio.Future[rpc.StatusResponse] = asyncio.get_running_loop().create_future()
        header = rpc.ResponseHeader(cluster_id=7)
        answer.set_result(rpc.StatusResponse(header=header, version="3.5.4"))
        return answer

    def prove(self, version: str) -> None:
        self.version = version


async def test_a_member_that_can_lose_data_is_named_once() -> None:
    """Each connection is proven; the log has one line for the version, with what to take instead."""
    member = Answering()
    client = Client([cast(Member, member)], None)
    with capture_logs() as lines:
        for _ in range(3):
            await client.prove(cast(Member, member), 1.0)
    assert [(line["member"], line["version"]) for line in lines] == [(member.url, "3.5.4")]
    assert "3.5.6 or newer" in lines[0]["event"] and lines[0]["log_level"] == "warning"
