"""The DNS provider against a second implementation: BIND 9, whose answers differ in form, not in meaning."""

from collections.abc import Iterator

import dns.tsig
import pytest

from controller.dns import Zones
from controller.nameservers import ZoneReport
from deploy.demo import knot
from deploy.demo.packages import Tools, bring
from fleet.model import Domain, Epoch, NameServer, RecordSet, Zone, ZoneIntent, ZoneName
from tests.integration.knots import KEY, ZONE, running
from tests.ports import free_port

pytestmark = pytest.mark.integration

TSIG = dns.tsig.Key(KEY.name, KEY.secret, KEY.algorithm)
HERE = RecordSet(a=("192.0.2.1",), aaaa=("2001:db8::1",))
THERE = RecordSet(a=("192.0.2.2",))
# `other.` may write one name only: its refusals come for some names of a batch.
CONFIG = """
options {{ directory "{folder}"; pid-file none; session-keyfile none; recursion no; dnssec-validation no;
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 port {port} {{ ::1; }}; }};
controls {{ }};
key "{key}" {{ algorithm {algorithm}; secret "{secret}"; }};
key "other" {{ algorithm {algorithm}; secret "{secret}"; }};
zone "{zone}" {{ type primary; file "zone"; notify no;
  update-policy {{ grant {key} zonesub ANY; grant other subdomain ok.{zone}. ANY;
    grant other subdomain _relevo.ok.{zone}. ANY; }}; }};
"""


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zone]:
    """A zone on a running named."""
    tools = Tools(bring(("bind9",)))
    folder = tmp_path_factory.mktemp("bind")
    server = knot.Server(directory=folder, port=free_port())
    (folder / "zone").write_text(knot.empty_zone(ZONE, [server]))
    config = server.directory / "named.conf"
    config.write_text(
        CONFIG.format(
            folder=folder,
            port=server.port,
            zone=ZONE,
            key=KEY.name,
            algorithm=KEY.algorithm,
            secret=KEY.secret,
        )
    )
    with running(tools, server, ("named", "-g", "-n", "1", "-c", str(config))):
        yield Zone(
            name=ZoneName(ZONE),
            primary=NameServer(address="::1", port=server.port),
            key=KEY.name,
        )


def name(label: str) -> Domain:
    return Domain(f"{label}.{ZONE}")


async def test_bind_takes_creates_replaces_and_removals(zone: Zone) -> None:
    """The same steps as with Knot; a stale writer and a foreign record are held."""
    zones = Zones("c1", {KEY.name: TSIG})
    www = name("www")
    here, there = ZoneIntent(names={www: HERE}), ZoneIntent(names={www: THERE})
    assert await zones.converge(zone, here, Epoch(1, 1)) == ZoneReport(sent=(www,))
    assert await zones.converge(zone, there, Epoch(1, 3)) == ZoneReport(sent=(www,))
    stale = await zones.converge(zone, here, Epoch(1, 2))
    assert [(held, why.code) for held, why in stale.holds] == [(www, "dns-newer-writer")]
    [view] = (await zones.verify(zone, there, [www])).values()
    assert view.converged
    gone = ZoneIntent(removed=(www,))
    assert await zones.converge(zone, gone, Epoch(1, 4)) == ZoneReport(sent=(www,), removed=(www,))
    [view] = (await zones.verify(zone, gone, [www])).values()
    assert view.converged


@pytest.mark.parametrize(
    ("key", "code", "rcode"),
    [
        (dns.tsig.Key("relevo", b"wrong" * 8), "dns-bad-key", "BADSIG"),
        (dns.tsig.Key("stranger", TSIG.secret), "dns-bad-key", "BADKEY"),
    ],
)
async def test_bind_s_refusals_are_told_apart(
    zone: Zone, key: dns.tsig.Key, code: str, rcode: str
) -> None:
    """A wrong secret and an unknown key have their own rcode in the reason."""
    intent = ZoneIntent(names={name("never"): HERE})
    report = await Zones("c1", {KEY.name: key}).converge(zone, intent, Epoch(1, 1))
    assert report.error is not None
    assert (report.error.code, report.error.values["rcode"]) == (code, rcode)


async def test_a_name_that_the_key_may_not_write_does_not_stop_the_others(zone: Zone) -> None:
    """BIND's update-policy grants this key one name: it is written, the others are held by name."""
    key = dns.tsig.Key("other", TSIG.secret)
    intent = ZoneIntent(names={name(label): HERE for label in ("no1", "ok", "no2")})
    report = await Zones("c1", {KEY.name: key}).converge(zone, intent, Epoch(1, 1))
    assert (report.sent, report.error) == ((name("ok"),), None)
    assert {held: why.code for held, why in report.holds} == {
        name("no1"): "dns-name-refused",
        name("no2"): "dns-name-refused",
    }


async def test_bind_takes_a_thousand_names(zone: Zone) -> None:
    """Created and verified, many questions in flight on one connection."""
    zones = Zones("c1", {KEY.name: TSIG})
    intent = ZoneIntent(names={name(f"n{number:04}"): HERE for number in range(1000)})
    report = await zones.converge(zone, intent, Epoch(1, 1))
    assert (len(report.sent), report.holds, report.error) == (1000, (), None)
    [view] = (await zones.verify(zone, intent, intent.names)).values()
    assert view.converged
