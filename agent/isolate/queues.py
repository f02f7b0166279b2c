"""Visitors who wait for PHP at many sites at once, while this host has room: a call for help, and nobody's fault.

What makes many sites slow without a scarcity that the kernel sees is a database, a network or a service elsewhere: no
site is accused by it. Source: caps.md D.1, row Web.
"""

from agent.isolate.climb import Climb
from agent.isolate.own import Own, is_throttled
from agent.isolate.state import State
from agent.signals import Signals, SiteSigns
from fleet.model import Why

LEAST = 3  # sites: of two, each may have its own trouble
PART = 0.1  # of the sites that have visitors: among five hundred there are always three with slow pages
WAIT_S = 1.0  # of one request for a worker
ASK_S = 120.0  # a database that restarts, or a lock that is held for long, is over by then: nobody is called for it


def waiting(signals: Signals, own: Own) -> int:
    """At how many sites visitors wait; 0 where these are too few to be more than their own trouble.

    Who is held, or throttled by its own quota, waits for that.
    """
    slow = sum(_is_slow(one) and not own.is_held(site) for site, one in signals.sites.items())
    if slow < LEAST:
        return 0  # nearly always
    told = (one for one in signals.sites.values() if one.queue is not None)
    return slow if slow >= PART * sum(map(_has_visitors, told)) else 0


def _has_visitors(signs: SiteSigns) -> bool:
    return bool(signs.queue or signs.requests_per_s or signs.busy)


def _is_slow(signs: SiteSigns) -> bool:
    """Whether a request waits for WAIT_S: a queue is as long as what comes while one waits in it (Little's law)."""
    if is_throttled(signs):
        return False
    return bool(signs.queue) and (signs.queue or 0) >= (signs.requests_per_s or 0.0) * WAIT_S


def queued_since(before: State, signals: Signals, own: Own, at: float) -> float | None:
    """Since when (ladder time) visitors have waited without a break; None: they do not, or something explains it.

    Where the kernel does not tell who waits for what, nothing is known to have room.
    """
    host = signals.host
    known = None not in (host.cpu_stall, host.memory_stall, host.io_stall)
    if not known or before.alarms or not waiting(signals, own):
        return None
    return at if before.queued is None else before.queued


def plead(climb: Climb, own: Own) -> None:
    """Ask for people once it has gone on for long."""
    since = climb.before.queued
    if since is None or climb.at - since < climb.term(ASK_S):
        return
    sites = waiting(climb.signals, own)
    climb.asks.append(Why("isolation-queues", {"sites": sites, "for_s": round(climb.at - since)}))
