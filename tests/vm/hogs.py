"""The corpus of noisy sites: what each does to its host, and how to begin and end it.

Work inside the site is a job of its user in its slice, as one of cron or of ssh would be; a crowd outside it is
visitors of their own slice, who cost the host nothing to speak of beside what they ask for.
"""

import shlex
from dataclasses import dataclass

from fleet.caps import Level, Resource
from tests.vm.hosting import WORLD, Tenancy
from tests.vm.machine import Machine

# Short enough to have all of the corpus in some minutes, long enough for windows of some seconds.
UNIT = "hog"
FILE_MIB = 96
THRASH_MIB = 1000  # with what the sites need it is more than the machine has

SPIN = "for i in 1 2 3 4; do php -n -r 'while (true);' & done; wait"
# Grows by 4 MiB each 50 ms, touched; begins again when it was ended.
LEAK = (
    "while :; do php -n -d memory_limit=-1 -r "
    "'for ($all = []; ; usleep(50000)) $all[] = str_repeat(\"x\", 4 << 20);'; sleep 0.2; done"
)
# One byte of each page, again and again: more pages than its cap has room for.
THRASH = (
    "python3 -c 'size = @THRASH << 20; all = bytearray(size); turn = bytes(range(256))\n"
    "while True:\n for page in turn: all[::4096] = bytes([page]) * (size >> 12)'"
)
FORK_BOMB = "bomb() { bomb | bomb & }; while :; do bomb; sleep 1; done"
READ_IO = "dd if=/dev/zero of=read.bin bs=1M count=@SIZE status=none oflag=direct; " + (
    "while :; do dd if=read.bin of=/dev/null bs=256k iflag=direct status=none & "
    "dd if=read.bin of=/dev/null bs=256k iflag=direct status=none; done"
)
WRITE_IO = (
    "while :; do for to in a b; do "
    "dd if=/dev/zero of=write.$to bs=256k count=128 oflag=direct status=none & done; wait; done"
)
# Spends a processor from a place where no program belongs, and calls its pool.
MINER = (
    "mkdir -p /tmp/.cache && cp /usr/bin/gzip /tmp/.cache/kworker; "
    "(while :; do python3 -c 'import socket; socket.create_connection((\"@WORLD.66\", 3333), 5)'; sleep 5; done) & "
    "for i in 1 2; do /tmp/.cache/kworker < /dev/zero > /dev/null & done; wait"
)
MAIL_FLOOD = """\
python3 -c '
import itertools, socket, time
held = []
for number in itertools.cycle(range(1, 255)):
    call = socket.socket(); call.setblocking(False)
    call.connect_ex(("@WORLD.%d" % number, 25))
    held.append(call)
    if len(held) > 60: held.pop(0).close()
    time.sleep(0.02)
'"""
BACKUP = (
    "dd if=/dev/urandom of=uploads.bin bs=1M count=32 status=none; "
    "for part in 1 2 3; do (while :; do "
    "tar --create uploads.bin | gzip > backup.$part; sync backup.$part; done) & done; wait"
)
FLOOD = (
    "ab -q -r -s 120 -t 600 -n 1000000 -c @CLIENTS -H 'Host: @DOMAIN' 'http://127.0.0.1:8080/@PAGE'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hog:
    """`resource`: what it takes from its neighbours; None: nothing but its own plan's."""

    name: str
    resource: Resource | None
    level: Level = (
        Level.SOFT
    )  # what it is penalized with at least; BASELINE: its quota may be all it takes
    in_shadow: bool = False  # where caps hold it can't even begin
    inside: str = ""  # a script that the site's user runs
    crowd: str = ""  # a command of visitors

    @property
    def file(self) -> str:
        """Its name as one of a file."""
        return self.name.lower().replace(" ", "_").replace("/", "")

    async def begin(self, vm: Machine, site: Tenancy) -> None:
        if self.inside:
            await vm.push(f"/run/{UNIT}.sh", _filled(self.inside, site).encode())
            await vm.do(site.inside(f"/bin/bash /run/{UNIT}.sh", unit=UNIT))
        if self.crowd:
            command = shlex.quote(_filled(self.crowd, site))
            start = f"systemd-run --quiet --collect --unit={UNIT}-crowd --slice=visitors.slice"
            await vm.do(f"{start} -- /bin/sh -c {command}")

    async def end(self, vm: Machine, site: Tenancy) -> None:
        """Whatever became of it: nothing of it runs, and what it wrote is gone."""
        await vm.run(f"systemctl kill -s KILL {UNIT} {UNIT}-crowd")
        await vm.run(f"systemctl stop {UNIT} {UNIT}-crowd")
        await vm.run(
            f"cd {site.home} && rm -f read.bin write.? uploads.bin backup.?; rm -rf /tmp/.cache"
        )


def crowd(clients: int, page: str) -> str:
    return FLOOD.replace("@CLIENTS", f"{clients}").replace("@PAGE", page)


def _filled(script: str, site: Tenancy) -> str:
    values = {
        "@SIZE": f"{FILE_MIB}",
        "@THRASH": f"{THRASH_MIB}",
        "@WORLD": WORLD,
        "@DOMAIN": site.domain,
    }
    for name, value in values.items():
        script = script.replace(name, value)
    return script


CORPUS = (
    Hog(name="cpu spin", resource=Resource.CPU, inside=SPIN),
    Hog(name="memory leak", resource=Resource.MEMORY, inside=LEAK),
    Hog(name="thrash", resource=Resource.MEMORY, inside=THRASH),
    Hog(name="fork bomb", resource=Resource.TASKS, inside=FORK_BOMB),
    Hog(name="read I/O", resource=Resource.IO, inside=READ_IO),
    Hog(name="write I/O", resource=Resource.IO, inside=WRITE_IO),
    Hog(
        name="HTTP flood", resource=Resource.CPU, level=Level.BASELINE, crowd=crowd(40, "heavy.php")
    ),
    Hog(name="slow PHP", resource=Resource.WEB, level=Level.BASELINE, crowd=crowd(24, "slow.php")),
    Hog(
        name="mail flood",
        resource=Resource.EGRESS,
        level=Level.WATCH,
        in_shadow=True,
        inside=MAIL_FLOOD,
    ),
    Hog(name="miner", resource=Resource.CPU, level=Level.WATCH, inside=MINER),
    Hog(name="backup job", resource=Resource.CPU, inside=BACKUP),
    Hog(name="crawler", resource=Resource.CPU, crowd=crowd(6, "?page=")),
)
# Where caps hold the firewall refuses it, and counts: nothing goes out, and its site is looked at.
REFUSED_MAIL = Hog(
    name="refused mail", resource=Resource.EGRESS, level=Level.WATCH, inside=MAIL_FLOOD
)
