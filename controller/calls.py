"""What a host calls people for, by its own reasons: the headline and the answers of each, the most pressing first."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fleet.model import NAMED, Why

REASON = '--reason "…"'
LOOK = "relevo host show {host}"
EXPLAIN = "relevo site explain {site}"
SQUEEZE = f"relevo site quarantine {{site}} --level cap --for 1h {REASON}"


@dataclass(frozen=True, slots=True)
class Call:
    """`said`: the headline's code in the catalogue; `answers`: what a person may type.

    `of_site`: it is about the site that it names, and of another one it is another call.
    """

    said: str
    answers: tuple[str, ...]
    of_site: bool = True


# By what `agent.isolate` asks with; the order is that of a host's calls.
CALLS: Mapping[str, Call] = {
    "isolation-stopped-again": Call("call-stopped-again", (EXPLAIN,)),
    "isolation-in-shadow": Call(
        "call-in-shadow", (EXPLAIN, f"relevo caps arm --site {{site}} {REASON}", SQUEEZE)
    ),
    "isolation-released-suspect": Call(
        "call-released-suspect", (EXPLAIN, f"relevo site release {{site}} --remove {REASON}")
    ),
    "isolation-held-suspect": Call("call-held-suspect", (EXPLAIN, LOOK)),
    "isolation-nothing-helps": Call(
        "call-nothing-helps", (LOOK, "relevo caps verify {host}", EXPLAIN), of_site=False
    ),
    "isolation-too-many": Call(
        "call-too-many", ("relevo caps report", LOOK, EXPLAIN, SQUEEZE), of_site=False
    ),
    "isolation-no-culprit": Call(
        "call-no-culprit", (LOOK, "relevo caps verify {host}"), of_site=False
    ),
    "isolation-queues": Call("call-queues", (LOOK,), of_site=False),
    "isolation-pendulum": Call("call-pendulum", (EXPLAIN, SQUEEZE)),
    "isolation-look-again": Call(
        "call-look-again", (EXPLAIN, f"relevo site quarantine {{site}} --for 1d {REASON}")
    ),
}
UNKNOWN = Call("call-unknown", (LOOK,), of_site=False)  # of an agent of a later release
ORDER = tuple(CALLS)


def headline(host: str, why: Why) -> Why:
    """What is said first of `why`, which `host` told."""
    call = CALLS.get(why.code, UNKNOWN)
    values = {
        "host": host,
        "site": why.values.get("site", "?"),
        "sites": why.values.get("sites", "?"),
        "times": why.values.get("times", "?"),
    }
    return Why(call.said, values)


def ranked(whys: Iterable[Why]) -> tuple[Why, ...]:
    """The most pressing first; what nobody knows last."""
    return tuple(sorted(whys, key=lambda why: (_rank(why.code), why.code)))


def grouped(whys: Iterable[Why]) -> list[tuple[Why, ...]]:
    """Those of one kind together, the most pressing kind first."""
    found: dict[str, tuple[Why, ...]] = {}
    for why in ranked(whys):
        found[why.code] = (*found.get(why.code, ()), why)
    return list(found.values())


def stage(whys: Iterable[Why]) -> str:
    """What makes it news: another kind, or another site of those that are about one. Numbers are none."""
    return " ".join(sorted({_named(why) for why in whys}))


def answers(host: str, whys: Iterable[Why]) -> Iterator[str]:
    """What can be typed. A site whose name is none, as a host may make up (rule R15), is nobody's to paste."""
    for why in ranked(whys):
        site = site_of(why) or "SITE"
        for line in CALLS.get(why.code, UNKNOWN).answers:
            yield line.format(host=host, site=site)


def site_of(why: Why) -> str:
    """The site that a call is about or names; "": none."""
    site = str(why.values.get("site", ""))
    return site if NAMED.match(site) else ""


def _rank(code: str) -> int:
    return ORDER.index(code) if code in CALLS else len(ORDER)


def _named(why: Why) -> str:
    of_site = CALLS.get(why.code, UNKNOWN).of_site
    return f"{why.code}:{site_of(why)}" if of_site else why.code
