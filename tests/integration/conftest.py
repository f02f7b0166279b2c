"""The real programs that the integration tests start and end."""

import pytest

from deploy.demo.packages import TESTS, Tools, bring


@pytest.fixture(scope="session")
def tools() -> Tools:
    """HAProxy, Knot, nginx, D-Bus, Prometheus and Alertmanager, from Debian's packages, none of them installed."""
    return Tools(bring(TESTS))
