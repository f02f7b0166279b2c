"""`python -m tests.skew.record 0.2`: keep what this release says on the wire, for the releases after it.

Run once for each release, before its tag. Until then a record may be made again.
"""

import sys
from pathlib import Path

import msgspec

from fleet.messages import (
    Ack,
    AgentState,
    Applied,
    Beat,
    Check,
    Disk,
    EdgeReport,
    FromAgent,
    FromController,
    Load,
    Orders,
    Pressure,
    Recall,
    Recalled,
    RestartState,
    Routes,
    Service,
    Target,
)
from fleet.model import Domain, Epoch, Health, HostId, Role, SiteId

FOLDER = Path(__file__).parent
H1, H2 = HostId("mx1-web-01"), HostId("us1-web-01")
GARDEN, ORCHARD = SiteId("garden"), SiteId("orchard")
EPOCH, CLUSTER = Epoch(1, 41), "8d7b5f0c"

PLAIN = Load(
    cpu_ratio=0.25,
    load_1min=1.5,
    memory_total_bytes=16 << 30,
    memory_available_bytes=8 << 30,
    swap_used_bytes=0,
    receive_bytes_per_s=125_000.0,
    transmit_bytes_per_s=1_250_000.0,
)
DISK = Disk(read_bytes_per_s=1e6, write_bytes_per_s=2e6, busy_ratio=0.5)
LOAD = msgspec.structs.replace(
    PLAIN, disks={"sda": DISK}, pressure=Pressure(cpu=0.1, memory=0.0, io=0.3)
)
BEAT = Beat(
    host=H1,
    sequence=1,
    boot_id="0d0f3c9e-1",
    uptime_s=90.0,
    kernel="6.1",
    version="0.1.0",
    load=PLAIN,
)
CHECKS = {
    H2: Check(health=Health.DOWN, since_s=2.5, detail="L4TOUT"),
    H1: Check(health=Health.UP, since_s=90.0),
}


def agent() -> tuple[FromAgent, ...]:
    """Each message of an agent's as it is least and as it is most, each state once."""
    service = Service(check=Check(health=Health.UP, since_s=60.0))
    edge = EdgeReport(
        haproxy_up=True, routes=EPOCH, domains=2, sessions=7, strays=("map: x",), error="no"
    )
    full = msgspec.structs.replace(
        BEAT,
        cluster=CLUSTER,
        sequence=2,
        load=LOAD,
        service=service,
        package_run=True,
        checks=CHECKS,
        doubts_itself=True,
        orders=EPOCH,
        newest=EPOCH,
        commit="c0ffee",
        edge=edge,
        metrics_port=7411,
    )
    states = (
        msgspec.structs.replace(full, sequence=3 + n, state=state)
        for n, state in enumerate(AgentState)
    )
    restarts = (
        msgspec.structs.replace(
            full, sequence=10 + n, service=msgspec.structs.replace(service, restart=restart)
        )
        for n, restart in enumerate(RestartState)
    )
    routed: dict[HostId, tuple[Domain, ...]] = {H2: (Domain("garden.example.org"),)}
    return (
        *(BEAT, full, *states, *restarts),
        *(Applied(epoch=EPOCH), Applied(epoch=EPOCH, refused=("no such site",))),
        Recalled(cluster=CLUSTER, epoch=EPOCH),
        Recalled(cluster=CLUSTER, epoch=EPOCH, sites=(GARDEN,), domains=routed),
    )


def controller() -> tuple[FromController, ...]:
    """Each message of a controller's as it is least and as it is most."""
    target = Target(address="198.51.100.11", port=80)
    routes = Routes(
        hosts={H1: Target(address="2001:db8::11", port=8080, check="/alive"), H2: target},
        domains={Domain("garden.example.org"): H2},
        removed_domains=(Domain("old.example.org"),),
        removed_hosts=(HostId("mx1-web-09"),),
        proof="a-secret",
    )
    orders = Orders(epoch=EPOCH, cluster=CLUSTER, host=H1)
    full = msgspec.structs.replace(
        orders,
        commit="c0ffee",
        roles=tuple(Role),
        sites=(GARDEN,),
        removed_sites=(ORCHARD,),
        addressed=True,
        probes={H2: target},
        routes=routes,
    )
    return (Ack(sequence=1), Ack(sequence=2, change_credential=True), orders, full, Recall())


def schema() -> dict[str, object]:
    """The shapes of all messages, without the words about them."""
    shape = _bare(msgspec.json.schema(FromAgent | FromController))
    assert isinstance(shape, dict)
    return shape


def _bare(shape: object) -> object:
    """A field may be called what a word about shapes is called: only texts and defaults go."""
    if isinstance(shape, list):
        return [_bare(one) for one in shape]
    if not isinstance(shape, dict):
        return shape
    return {
        name: _bare(one)
        for name, one in shape.items()
        if name != "default" and not (name in {"description", "title"} and isinstance(one, str))
    }


def record(release: str) -> None:
    folder = FOLDER / release
    folder.mkdir(exist_ok=True)
    for name, said in (("agent", agent()), ("controller", controller())):
        lines = (msgspec.json.encode(message) + b"\n" for message in said)
        (folder / f"{name}.jsonl").write_bytes(b"".join(lines))
    shape = msgspec.json.format(msgspec.json.encode(schema(), order="deterministic"), indent=1)
    (folder / "schema.json").write_bytes(shape + b"\n")


if __name__ == "__main__":
    record(sys.argv[1])
