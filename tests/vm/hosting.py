"""A hosting server of eight sites on a virtual machine: each a Unix user with a php-fpm of its own, nginx before them.

Outside it is a world of its own (a network namespace) that answers whatever address a site calls.
"""

import io
import tarfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.vm.machine import Data, Machine

MEMORY_MIB = 1280
# Slow enough that an emulated processor can wear it out: a disk of the last century beside a processor of it.
DISK = Data(size_bytes=1 << 30, bytes_per_s=24 << 20, ops_per_s=600)
SWAP_MIB = 512
NAMES = ("garden", "orchard", "school", "clinic", "radio", "library", "coop", "choir")
FIRST_UID = 2001
WORLD = "198.51.100"  # all of it answers, on these ports:
WORLD_PORTS = (25, 53, 80, 3333)
CGROUPS = "/sys/fs/cgroup/user.slice"


@dataclass(frozen=True, slots=True)
class Tenancy:
    """One of the sites: its user has its name."""

    name: str
    uid: int

    @property
    def slice(self) -> str:
        return f"user-{self.uid}.slice"

    @property
    def cgroup(self) -> str:
        return f"{CGROUPS}/{self.slice}"

    @property
    def domain(self) -> str:
        return f"{self.name}.example.org"

    @property
    def home(self) -> str:
        return f"/srv/sites/{self.name}"

    @property
    def unit(self) -> str:
        return f"relevo-php@{self.name}.service"

    def inside(self, command: str, *, unit: str) -> str:
        """A command that starts `command` as a job of the site: its user, its slice. It ends with `systemctl stop`."""
        return (
            f"systemd-run --quiet --collect --unit={unit} --slice={self.slice} --uid={self.name} "
            f"--working-directory={self.home} -p OOMPolicy=continue -p TimeoutStopSec=5 -- {command}"
        )


SITES = tuple(Tenancy(name, FIRST_UID + number) for number, name in enumerate(NAMES))

# A site's own PHP as the templates' comments say, by hand.
UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
SERVICE, SOCKET, POOL = (
    (UNITS / name).read_text()
    for name in ("relevo-php@.service", "relevo-php@.socket", "relevo-php-pool.conf")
)
IN_SLICE = """\
[Service]
Slice={slice}
Environment=FPM_SOCKETS=/run/relevo-php/given/run/php/{name}.sock=3
"""
KNOWN_AS = "[Socket]\nSymlinks=/run/php/{name}.sock\n"
SERVER = """\
server {{
    listen 8080;
    server_name {domain};
    root {home}/public;
    access_log /var/log/nginx/{name}.access.log;
    location / {{
        include fastcgi_params;
        fastcgi_index index.php;
        fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
        fastcgi_pass unix:/run/php/{name}.sock;
        fastcgi_read_timeout 120s;
    }}
}}
"""
NAMES_HASH = "server_names_hash_bucket_size 128;\n"
# A page of a site: some milliseconds of an emulated processor, and a line on the disk.
PAGE = """\
<?php for ($i = 0, $x = ''; $i < 40; $i++) $x = md5($x . $i);
$book = fopen(__DIR__ . '/../visits', 'a'); fwrite($book, "$x\n"); fsync($book); ?>
<h1><?= $_SERVER['HTTP_HOST'] ?></h1>
"""
HEAVY = "<?php for ($i = 0, $x = ''; $i < 20000; $i++) $x = md5($x . $i); echo $x;\n"
SLOW = "<?php sleep(4); echo 'late';\n"
WORLD_UNIT = """\
[Unit]
Description=The world outside
Before=network.target

[Service]
Type=notify
ExecStartPre=-/usr/sbin/ip netns add world
ExecStartPre=/usr/sbin/ip link add world type veth peer name home netns world
ExecStartPre=/usr/sbin/ip address add 192.0.2.1/30 dev world
ExecStartPre=/usr/sbin/ip link set world up
ExecStartPre=/usr/sbin/ip route add {world}.0/24 via 192.0.2.2 onlink dev world
ExecStartPre=/usr/sbin/ip -n world address add 192.0.2.2/30 dev home
ExecStartPre=/usr/sbin/ip -n world link set home up
ExecStartPre=/usr/sbin/ip -n world link set lo up
ExecStartPre=/usr/sbin/ip -n world route replace local {world}.0/24 dev lo
ExecStart=/usr/sbin/ip netns exec world /usr/bin/python3 /usr/local/sbin/world.py {ports}
ExecStopPost=-/usr/sbin/ip link del world

[Install]
WantedBy=multi-user.target
"""
WORLD_PROGRAM = """\
import collections, os, selectors, socket, sys
held = collections.deque(maxlen=400)  # a mail server waits for what its caller says
waiting = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    door = socket.create_server(("0.0.0.0", port), backlog=512)
    waiting.register(door, selectors.EVENT_READ)
told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
told.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1))
while True:
    for ready, _ in waiting.select():
        caller, _ = ready.fileobj.accept()
        held.append(caller)
        caller.send(b"220 the world\\r\\n")
"""
VISITORS = Path(__file__).with_name("visitors.py").read_text()


def files() -> dict[str, str]:
    """What makes a bare Debian the host, by path."""
    made = {
        "/etc/systemd/system/relevo-php@.service": SERVICE,
        "/etc/systemd/system/relevo-php@.socket": SOCKET,
        "/etc/systemd/system/world.service": WORLD_UNIT.format(
            world=WORLD, ports=" ".join(map(str, WORLD_PORTS))
        ),
        "/usr/local/sbin/world.py": WORLD_PROGRAM,
        "/usr/local/bin/visitors": VISITORS,
        "/etc/nginx/conf.d/sites.conf": NAMES_HASH
        + "".join(
            SERVER.format(name=site.name, domain=site.domain, home=site.home) for site in SITES
        ),
    }
    for site in SITES:
        of = {"name": site.name, "slice": site.slice}
        unit = f"/etc/systemd/system/relevo-php@{site.name}"
        made[f"{unit}.service.d/site.conf"] = IN_SLICE.format(**of)
        made[f"{unit}.socket.d/site.conf"] = KNOWN_AS.format(**of)
        pool = POOL.replace("SITE", site.name).replace("USER", site.name)
        made[f"/etc/relevo/php/{site.name}.conf"] = pool
        for page, content in (("index", PAGE), ("heavy", HEAVY), ("slow", SLOW)):
            made[f"{site.home}/public/{page}.php"] = content
    return made


async def unpack(vm: Machine, contents: Mapping[str, str]) -> None:
    """Write many files at once; their folders are made."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, content in contents.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size = len(content.encode())
            entry.mode = 0o755 if content.startswith("#!") else 0o644
            tar.addfile(entry, io.BytesIO(content.encode()))
    await vm.do("tar --extract --directory=/ --no-same-owner", stdin=packed.getvalue())


async def furnish(vm: Machine) -> None:
    """Make the machine the host: disk, swap, users, PHP, nginx, the world; everything runs at the end, and at boot."""
    disk = "mount /dev/vdb /srv"
    swap = f"fallocate -l {SWAP_MIB}M /swap && chmod 600 /swap && mkswap -q /swap && swapon /swap"
    table = "/dev/vdb /srv ext4 rw,noatime 0 2\\n/swap none swap sw 0 0\\n"
    await vm.do(f"{disk} && {swap} && printf '{table}' >> /etc/fstab")
    await unpack(vm, files())
    for site in SITES:
        user = f"useradd --uid {site.uid} --home-dir {site.home} --shell /bin/sh {site.name}"
        await vm.do(f"{user} && chown -R {site.name}: {site.home}")
    units = " ".join(site.unit for site in SITES)
    await vm.do(f"systemctl daemon-reload && systemctl enable --now world {units}", timeout_s=120)
    await vm.do("systemctl restart nginx")
    for site in SITES:
        await vm.until(f"visitors --once {site.domain}")


@asynccontextmanager
async def at_rest(vm: Machine) -> AsyncGenerator[None, None]:
    """Meanwhile nothing runs that uses the sites' disk, and it is not mounted; the body mounts it again."""
    units = " ".join(f"relevo-php@{site.name}.socket {site.unit}" for site in SITES)
    await vm.do(f"systemctl stop relevo-agent nginx {units}")
    await vm.until("umount /srv")
    yield
    await vm.do(f"systemctl start {units} nginx relevo-agent", timeout_s=120)


async def rehouse(vm: Machine, make: str, device: str, options: str = "noatime") -> None:
    """Move what sites keep from its disk to what `make` makes of that disk: a file system on `device`."""
    await vm.do("cp --archive /srv /root/srv")
    async with at_rest(vm):
        await vm.do(make, timeout_s=120)
        await vm.do(f"mount -o {options} {device} /srv")
        await vm.do("cp --archive /root/srv/. /srv && rm --recursive /root/srv")
