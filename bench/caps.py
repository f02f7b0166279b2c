"""1,000 slices capped at boot by the keeper, verified with the kernel, beside bare calls to systemd. In a VM.

An emulated processor is slow in unequal ways: Python more than systemd. The ratio on hardware is better than here.
"""

import asyncio
import json
import statistics
import tempfile
from pathlib import Path

from bench.measure import row
from deploy.deb.__main__ import build
from tests.vm.hosting import DISK, MEMORY_MIB
from tests.vm.image import CACHE, NotMade, debian
from tests.vm.machine import Machine, machine

RUNS = 2  # two thousand slices each
GOAL = 1.5
SLICES = 1000
PACKAGE_S, RUN_S = 300.0, 1800.0
PYTHON = "/usr/lib/relevo/bin/python3"


async def measure(vm: Machine, runs: int) -> dict[str, list[float]]:
    command = f"{PYTHON} /root/slices.py --slices {SLICES} --pairs {runs}"
    script = (Path(__file__).with_name("slices.py")).read_bytes()
    await vm.push("/root/slices.py", script)
    lines = (await vm.do(command, timeout_s=RUN_S)).splitlines()  # what it logs comes before
    told: dict[str, list[float]] = json.loads(lines[-1])
    return told


async def in_a_machine(package: bytes, runs: int) -> dict[str, list[float]]:
    async with machine(debian(), "h1", memory_mib=MEMORY_MIB, data=DISK) as vm:
        await vm.push("/root/relevo.deb", package)
        await vm.do("dpkg --install /root/relevo.deb", timeout_s=PACKAGE_S)
        return await measure(vm, runs)


def main(runs: int = RUNS) -> None:
    try:
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            package = build("0.1.0", Path(folder)).read_bytes()
        found = asyncio.run(in_a_machine(package, runs))
    except NotMade as error:
        print(f"  not measured: {error}")
        return
    ratios = [ours / bare for ours, bare in zip(found["kept_s"], found["bare_s"], strict=True)]
    bare, ours = (statistics.median(found[name]) for name in ("bare_s", "kept_s"))
    ratio = statistics.median(ratios)
    told = f"{ratio:.2f} x ({ours:.1f} s, bare {bare:.1f} s)"
    row(f"{SLICES} slices capped and verified", told, f"under {GOAL} x", reached=ratio < GOAL)


if __name__ == "__main__":
    main()
