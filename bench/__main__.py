"""`python -m bench`: all benchmarks, or those named; `--list` says what each measures."""

import argparse
import importlib
import sys

BENCHES = {
    "edgelimits": "limits at an edge, off and on: latency, CPU, memory, a flooded site's neighbour",
    "units": "how far systemd confines the daemons",
    "store": "store calls beside raw gRPC stubs",
    "rest": "an agent at rest: CPU and memory",
    "masters": "200 sites' own php-fpm masters beside one that they share: memory",
    "usage": "all that an agent does for 1,000 sites: CPU, memory, the event loop held",
    "caps": "1,000 slices capped at boot over D-Bus, beside bare calls, in a virtual machine",
    "drift": "a cap that somebody took away: how soon it is held again, in a virtual machine",
    "neighbours": "what neighbours feel of each hog, with relevo and without, in a virtual machine",
    "beats": "300 agents on one controller: CPU, memory, the latest beat",
    "api": "reads of the API while 300 agents beat: how many a second, how long they take",
    "apply": "coop.yaml validated and applied; a fresh controller ready on it",
    "dashboard": "the dashboard with 1,050 sites in Chromium: first paint, bytes",
    "move500": "the failover of a host with 500 sites",
    "restarts": "agent, HAProxy and controller restarted under load",
    "isolation": "modelled hogs: the right site, how soon, nobody on a quiet day; what a round costs",
    "failover": "a host killed, cut off, shut down: phases over many runs",
    "etcd": "1,050 and 10,500 sites applied to etcd; a fresh controller on them",
    "controllers": "three controllers on etcd: the leader killed, frozen, with a host",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHES, []], help="all, if none is named")
    parser.add_argument("--list", action="store_true", help="what there is")
    parser.add_argument("--runs", type=int, help="how often, where a benchmark repeats something")
    arguments = parser.parse_args()
    if arguments.list:
        for name, what in BENCHES.items():
            print(f"  {name:10} {what}")
        return 0
    for name in arguments.names or BENCHES:
        print(f"\n== {name}: {BENCHES[name]}")
        bench = importlib.import_module(f"bench.{name}")
        runs = getattr(bench, "RUNS", None)  # those that repeat something say how often
        bench.main(arguments.runs or runs) if runs else bench.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
