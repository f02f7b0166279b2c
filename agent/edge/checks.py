"""HAProxy's servers as checks of hosts, with what a single look at them can't know: since when, and across a reload."""

from collections.abc import Mapping

from agent.edge.view import ServerView
from fleet.messages import Check
from fleet.model import Health, HostId

CARRIED_S = 2.0  # each host has been checked again long before that


class Checks:
    """The last look at all hosts. `now` is the event loop's time."""

    def __init__(self) -> None:
        self._last: dict[HostId, Check] = {}
        self._seen_at = 0.0
        self._carried_until = float("-inf")

    def reloaded(self, now: float) -> None:
        """A new worker took over what the old one knew: what was seen last stands until it has checked itself."""
        self._carried_until = now + CARRIED_S

    def see(self, servers: Mapping[HostId, ServerView], now: float) -> dict[HostId, Check]:
        self._last = {host: self._check(host, view, now) for host, view in servers.items()}
        self._seen_at = now
        return dict(self._last)

    def _check(self, host: HostId, view: ServerView, now: float) -> Check:
        was = self._last.get(host)
        older_s = now - self._seen_at
        if was and view.initial and now < self._carried_until:
            return Check(health=was.health, since_s=was.since_s + older_s, detail=was.detail)
        since_s = view.since_s
        if view.health is Health.UNKNOWN:  # HAProxy counts from its last UP or DOWN
            since_s = was.since_s + older_s if was and was.health is Health.UNKNOWN else 0.0
        return Check(health=view.health, since_s=since_s, detail=view.detail)
