"""How often anybody may ask: what is allowed, after how long, and who is forgotten."""

from hypothesis import given
from hypothesis import strategies as st

from controller.api.connections import Patience, Seen, overstays
from controller.api.pace import KEYS_MOST, Pace, Paces, network


def test_a_burst_is_allowed_and_then_the_pace() -> None:
    """Three at once, then one each half second; what was refused costs nothing."""
    paces = Paces(Pace(per_s=2, burst=3))
    assert [paces.take("ana", 10.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert [paces.take("ana", 10.0) for _ in range(5)] == [0.5] * 5
    assert paces.take("beto", 10.0) == 0.0
    assert paces.take("ana", 10.5) == 0.0
    assert paces.take("ana", 10.5) == 0.5
    assert [paces.take("ana", 99.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.integers(1, 9), st.integers(1, 9))
def test_no_span_of_time_sees_more_than_burst_and_pace(
    gaps: list[float], per_s: int, burst: int
) -> None:
    """Whatever the rhythm; and whoever waits as long as told is let in."""
    paces, now, let_in = Paces(Pace(per_s=per_s, burst=burst)), 0.0, []
    for gap in gaps:
        now += gap
        wait_s = paces.take("ana", now)
        if not wait_s:
            let_in.append(now)
        else:
            assert Paces(paces.pace, dict(paces._due)).take("ana", now + wait_s + 1e-9) == 0.0
    for first, began in enumerate(let_in):
        for last, ended in enumerate(let_in[first:], first):
            assert last - first + 1 <= burst + (ended - began) * per_s + 1e-6


def test_who_has_not_asked_for_longest_is_forgotten() -> None:
    """Addresses without end take no memory without end."""
    paces = Paces(Pace(per_s=1, burst=1))
    for n in range(KEYS_MOST + 100):
        paces.take(f"10.{n}", float(n))
    assert len(paces._due) == KEYS_MOST


def test_an_address_stands_for_its_network() -> None:
    """A /64 of IPv6 is one asker; an IPv4 address is itself, also where it is written as IPv6."""
    assert network("2001:db8::1") == network("2001:db8::ffff:2") != network("2001:db8:0:1::1")
    assert network("192.0.2.1") != network("192.0.2.2")
    assert network("::ffff:192.0.2.1") != network("::ffff:192.0.2.2")
    assert network("fe80::1%eth0") == network("fe80::2%eth1")
    assert network(None) == network("nonsense") == ""


def test_a_connection_is_cut_off_where_it_is_slow_and_only_there() -> None:
    """A head that does not come, or a reader who takes nothing; one who is being answered has time."""
    patience = Patience(head_s=10, unsent_s=60)
    assert overstays(Seen(began=0.0), patience, 10.1)
    assert not overstays(Seen(began=0.0), patience, 9.9)
    assert not overstays(Seen(began=None, asking=True), patience, 1e6)
    assert not overstays(Seen(began=0.0, asking=True), patience, 1e6)
    assert not overstays(Seen(began=None), patience, 1e6)
    assert overstays(Seen(began=None, asking=True, unsent_since=5.0), patience, 65.1)
    assert not overstays(Seen(began=None, asking=True, unsent_since=5.0), patience, 64.9)
