"""haproxy.cfg as text: the golden file, and everything read back that was written."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.config import Edge
from agent.edge.plan import Served, plan
from agent.edge.render import digest_of, read_hosts, read_map, read_proof, render, render_map
from fleet.messages import Routes, Target
from fleet.model import HostId

GOLDEN = Path(__file__).with_name("edge.golden.cfg")
EDGE = Edge(bind_tls=(":443", ":::443"), certificates=Path("/etc/haproxy/relevo/certs"))
HOSTS = {
    HostId("web-2"): Target(address="2001:db8::2", port=8080, check="/up?quick=1"),
    HostId("web-1"): Target(address="192.0.2.1", port=80),
}


def test_the_configuration_is_the_golden_one() -> None:
    """A change of haproxy.cfg is seen in review, as the file that HAProxy reads."""
    assert render(EDGE, HOSTS, "a-proof-token") == GOLDEN.read_text()


def test_the_digest_names_the_content() -> None:
    """Equal input has an equal digest in whatever order; any other input has another."""
    text = render(EDGE, HOSTS, "")
    assert digest_of(text) == digest_of(render(EDGE, dict(reversed(HOSTS.items())), ""))
    assert len(digest_of(text)) == 16
    assert digest_of(text) != digest_of(render(EDGE, HOSTS, "a-proof-token"))
    assert digest_of("description: someone else's") == ""


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True).map(HostId)
targets = st.builds(
    Target,
    address=st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str),
    port=st.integers(1, 65535),
    check=st.from_regex(r"/[!-~]{0,20}", fullmatch=True),
)


@given(st.dictionaries(names, targets, min_size=2, max_size=6))
def test_the_hosts_of_a_configuration_are_read_back(hosts: dict[HostId, Target]) -> None:
    """After a restart of the agent the file alone tells which hosts HAProxy has."""
    wanted = plan(Routes(hosts=hosts, proof="-a-proof-token"), Served(hosts={}, domains={}))
    text = render(EDGE, wanted.hosts, wanted.proof)
    assert read_hosts(text) == wanted.hosts
    assert len(wanted.hosts) + len(wanted.refused) == len(hosts)
    assert read_proof(text) == "-a-proof-token"


@given(st.dictionaries(st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True), names, min_size=2))
def test_a_map_is_read_back(domains: dict[str, str]) -> None:
    """What a map file says is what was written."""
    assert read_map(render_map(domains)) == domains
