"""Who is let in: pure tables of tokens, roles and credentials, as the mirror and the controller's files have them."""

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.credential import Credentials, make, put_in_force, write_secret
from controller.admission import Admission, Caller, NotAdmitted, NotKnownYet
from controller.mirror import Mirror
from fleet.access import (
    ACCESS_ROLES,
    REVOKED,
    AccessRole,
    ApiToken,
    HostCredential,
    Joining,
    JoinToken,
    digest,
    may,
    read_joining,
)
from fleet.model import Fleet, Host, HostId, LocationId, MemberId

NOW = 1_000_000.0
H1, H2 = HostId("h1"), HostId("h2")


def declared(*ids: HostId) -> Fleet:
    return Fleet(
        hosts={
            id: Host(id=id, tag=id, location=LocationId("l"), addresses=("10.0.0.1",)) for id in ids
        }
    )


def api_token(name: str, role: AccessRole, *, until: float = NOW + 1) -> ApiToken:
    member = MemberId("huerto") if role == "member" else None
    return ApiToken(
        name=name,
        digest=digest(f"secret-{name}"),
        role=role,
        member=member,
        by="ana",
        since=0,
        until=until,
    )


def credential(host: HostId, secret: str) -> HostCredential:
    known = REVOKED if secret == REVOKED else digest(secret)
    return HostCredential(host=host, digest=known, by="ana", since=0)


def join_token(secret: str, *, until: float = NOW + 1) -> JoinToken:
    return JoinToken(host=H1, digest=digest(secret), by="ana", since=0, until=until)


def mirror(*, ready: bool = True) -> Mirror:
    """With one of everything."""
    made = Mirror()
    made.ready = ready
    if ready:
        made.fleet = declared(H1, H2)
        made.api_tokens = {role: api_token(role, role) for role in ACCESS_ROLES} | {
            "old": api_token("old", "admin", until=NOW)
        }
        made.credentials = {H1: credential(H1, "of-h1")}
        made.joins = {H1: join_token("joins")}
    return made


def admission(of: Mirror, *, agents: dict[HostId, str] | None = None) -> Admission:
    return Admission(
        of,
        admins={"root": digest("of-the-file")},
        agents={host: digest(secret) for host, secret in (agents or {}).items()},
    )


# --- roles


def test_each_role_may_what_those_below_it_may() -> None:
    """member < viewer < operator < admin, in every pair."""
    allowed = {(has, needs) for has, needs in product(ACCESS_ROLES, repeat=2) if may(has, needs)}
    assert allowed == {
        ("member", "member"),
        ("viewer", "member"),
        ("viewer", "viewer"),
        ("operator", "member"),
        ("operator", "viewer"),
        ("operator", "operator"),
        ("admin", "member"),
        ("admin", "viewer"),
        ("admin", "operator"),
        ("admin", "admin"),
    }


# --- people


def test_a_token_tells_who_asks_with_which_role() -> None:
    """Of the store, and of the controller's file."""
    admits = admission(mirror())
    assert admits.caller("of-the-file", NOW) == Caller(name="root", role="admin")
    for role in ACCESS_ROLES:
        member = MemberId("huerto") if role == "member" else None
        known = Caller(name=role, role=role, member=member)
        assert admits.caller(f"secret-{role}", NOW) == known


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "no-token"),
        ("secret-old", "ended"),
        ("of-h1", "host-credential"),
        ("of-h2", "host-credential"),
        ("joins", "join-token"),
        ("secret-viewe", "wrong-token"),
        ("\udcff", "wrong-token"),
    ],
)
def test_what_is_no_token_of_a_person_is_refused_by_its_reason(token: str, reason: str) -> None:
    """None, an ended one, a host's, a join token, a wrong one, one that is no text."""
    with pytest.raises(NotAdmitted) as refused:
        admission(mirror(), agents={H2: "of-h2"}).caller(token, NOW)
    assert refused.value.reason == reason


def test_before_the_store_was_read_nobody_is_called_a_stranger() -> None:
    """The file's admin is let in; of the others nothing can be said yet."""
    admits = admission(mirror(ready=False))
    assert admits.caller("of-the-file", NOW).name == "root"
    with pytest.raises(NotKnownYet):
        admits.caller("secret-viewer", NOW)
    with pytest.raises(NotKnownYet):
        admits.join("joins", NOW)


def test_a_change_of_the_mirror_counts_at_once() -> None:
    """A token is good from the moment that the mirror has it until the moment that it has not."""
    known = mirror()
    admits = admission(known)
    admits.caller("secret-viewer", NOW)
    known.api_tokens = {"new": api_token("new", "viewer")}
    assert admits.caller("secret-new", NOW).name == "new"
    with pytest.raises(NotAdmitted):
        admits.caller("secret-viewer", NOW)


# --- hosts


def test_a_host_logs_in_by_the_stores_word_before_the_files() -> None:
    """The file's credential is good until the store has one, also a revocation; a stored one needs a declared host."""
    known = mirror()
    hosts = admission(known, agents={H1: "file-1", H2: "file-2"}).hosts
    assert dict(hosts) == {H1: digest("of-h1"), H2: digest("file-2")}
    known.credentials = {H1: credential(H1, REVOKED)}
    assert dict(hosts) == {H2: digest("file-2")}
    known.credentials = {}
    assert dict(hosts) == {H1: digest("file-1"), H2: digest("file-2")}
    stored = admission(known).hosts
    known.credentials = {H1: credential(H1, "of-h1")}
    assert dict(stored) == {H1: digest("of-h1")}
    known.fleet = declared(H2)
    assert dict(stored) == {} and H1 not in stored and len(stored) == 0


HOSTS = [HostId(f"h{n}") for n in range(5)]
secrets = st.sampled_from(["a", "b", "c", "d", "e", "f"])


@given(
    stored=st.dictionaries(st.sampled_from(HOSTS), secrets | st.just(REVOKED)),
    filed=st.dictionaries(st.sampled_from(HOSTS), secrets),
    there=st.sets(st.sampled_from(HOSTS)),
)
def test_a_revoked_host_is_never_let_in_and_no_host_by_another_ones_secret(
    stored: dict[HostId, str], filed: dict[HostId, str], there: set[HostId]
) -> None:
    """Whatever the store, the file and the fleet say."""
    known = mirror()
    known.fleet = declared(*there)
    known.credentials = {host: credential(host, secret) for host, secret in stored.items()}
    hosts = admission(known, agents=filed).hosts
    for host in HOSTS:
        opens = hosts.get(host)
        assert opens != REVOKED
        assert opens in {None, digest(stored.get(host) or filed.get(host, ""))}
        if stored.get(host) == REVOKED:
            assert opens is None
    assert set(hosts) == {host for host in HOSTS if hosts.get(host)} and len(hosts) == len(
        list(hosts)
    )


# --- joining


def test_a_join_token_is_known_until_it_expires() -> None:
    """A used one too, so that a lost answer can be repeated; what is none is refused."""
    known = mirror()
    admits = admission(known)
    assert admits.join("joins", NOW).host == H1
    with pytest.raises(NotAdmitted, match="expired"):
        admits.join("joins", NOW + 2)
    for wrong in ("", "of-h1", "secret-admin", "of-the-file"):
        with pytest.raises(NotAdmitted):
            admits.join(wrong, NOW)


@pytest.mark.parametrize("fingerprint", ["", "a1" * 32])
def test_a_join_tokens_text_is_read_whole_or_not_at_all(fingerprint: str) -> None:
    """What was cut off while it was copied, anywhere, is noticed before anything is sent."""
    joining = Joining("A-_9" + "x" * 39, fingerprint)
    text = str(joining)
    assert read_joining(f"  {text}\n") == joining
    assert all(read_joining(text[:end]) is None for end in range(len(text)))
    assert read_joining(text + "0") is None


# --- a host's own files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    write_secret(path, "first")
    return path


def test_an_agent_that_ends_at_any_step_of_a_change_can_still_log_in(file: Path) -> None:
    """After each write, whichever of the two credentials the controller knows is among those that are tried."""
    assert Credentials(file).candidates() == ("first",)
    made = make(file)
    assert make(file) == made  # begun again, it is the same
    assert Credentials(file).candidates() == ("first", made)
    write_secret(file.with_name("token.previous"), "first")  # as far as a crash in the middle
    assert set(Credentials(file).candidates()) == {"first", made}
    put_in_force(file)
    assert Credentials(file).candidates() == (made, "first")
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_credential_that_was_taken_is_tried_first(file: Path) -> None:
    """Of several, so that a link is not refused first each time."""
    made = make(file)
    credentials = Credentials(file)
    credentials.took(made)
    assert credentials.candidates() == (made, "first")
    credentials.settle(made)
    assert credentials.candidates() == (made, "first")
    assert file.read_text() == f"{made}\n"
