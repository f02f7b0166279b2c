"""How far systemd confines each daemon, by systemd's own score (0 is tightest), and what is left and why."""

import subprocess
from pathlib import Path

from bench.measure import row

UNITS = Path(__file__).parents[1] / "deploy" / "systemd"
# What each daemon needs that costs it points.
LEFT = {
    "relevo-agent.service": (
        "runs as root: systemd lets only root restart services and cap slices over D-Bus",
        "two capabilities: to shut isolated users in (nft), to read logs that only their owners may",
        "reaches the network: its links to the controllers, and probes of its neighbours",
        "sees all processes: a host's load is theirs",
    ),
    "relevo-controller.service": (
        "reaches the network: agents, DNS servers, and the sites it proves",
        "runs as a user of its own, in a user namespace, without capabilities",
    ),
}


def main() -> None:
    for name, reasons in LEFT.items():
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / name)],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        verdict = done.stdout.strip().splitlines()[-1]
        score = float(verdict.split(":")[1].split()[0])
        row(f"{name}: exposure", f"{score:.1f} of 10", "under 2.5 ('OK')", reached=score < 2.5)
        for reason in reasons:
            print(f"          - {reason}")
