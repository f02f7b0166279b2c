"""A site's PHP moved into a unit of its own and back under a real systemd, while visitors come."""

import json
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import pytest

from tests.vm.capped import Capped, capped
from tests.vm.hosting import SERVER, SITES, Tenancy, unpack
from tests.vm.machine import Machine, Saved

pytestmark = pytest.mark.vm

GARDEN, ORCHARD = SITES[:2]
FPM = "php8.2-fpm.service"
SOME = 4  # visits of a site, at least
MOVE_S = 240.0  # an emulated processor starts Python, and php-fpm, in some seconds each
POOL = """\
[{name}]
user = {name}
group = {name}
listen = /run/php/{name}.sock
listen.owner = www-data
listen.group = www-data
pm = dynamic
pm.max_children = 4
pm.start_servers = 1
pm.min_spare_servers = 1
pm.max_spare_servers = 2
"""
APACHE = """\
Listen 8082
<VirtualHost *:8082>
    ServerName {domain}
    DocumentRoot {home}/public
    DirectoryIndex index.php
    ProxyTimeout 120
    <Directory {home}/public>
        Require all granted
    </Directory>
    <FilesMatch "\\.php$">
        SetHandler "proxy:unix:/run/php/{name}.sock|fcgi://localhost"
    </FilesMatch>
</VirtualHost>
"""
IN_FRONT = """\
server {{
    listen 8080;
    server_name {domain};
    location / {{ proxy_pass http://127.0.0.1:8082; proxy_set_header Host $host; }}
}}
"""


async def share(vm: Machine, *sites: Tenancy) -> None:
    """As most hosts are on their first day: these sites are pools of Debian's one php-fpm."""
    for site in sites:
        units = f"relevo-php@{site.name}.socket relevo-php@{site.name}.service"
        await vm.do(f"systemctl disable {units}; systemctl stop {units}")
        drop_ins = f"/etc/systemd/system/relevo-php@{site.name}.*.d"
        await vm.do(f"rm -r /etc/relevo/php/{site.name}.conf {drop_ins}")
    folder = "/etc/php/8.2/fpm/pool.d"
    await unpack(vm, {f"{folder}/{s.name}.conf": POOL.format(name=s.name) for s in sites})
    main = "/etc/php/8.2/fpm/php-fpm.conf"
    await vm.do(f"sed -i 's/^;process_control_timeout.*/process_control_timeout = 30/' {main}")
    await vm.do(f"rm -f {folder}/www.conf; systemctl daemon-reload; systemctl enable --now {FPM}")
    for site in sites:
        await vm.until(f"visitors --once {site.domain}")


async def behind_apache(vm: Machine, site: Tenancy) -> None:
    """As many hosts have it: nginx in front, Apache behind it, PHP by proxy_fcgi."""
    names = {"name": site.name, "domain": site.domain, "home": site.home}
    all_of_them = "/etc/nginx/conf.d/sites.conf"
    servers = (await vm.pull(all_of_them)).decode()
    direct = SERVER.format(**names)
    assert direct in servers
    files = {
        all_of_them: servers.replace(direct, IN_FRONT.format(**names)),
        "/etc/apache2/ports.conf": "",
        "/etc/apache2/sites-available/000-default.conf": APACHE.format(**names),
    }
    await unpack(vm, files)
    await vm.do("a2enmod -q proxy_fcgi && systemctl enable --now apache2 && nginx -s reload")
    await vm.until(f"visitors --once {site.domain}")


async def layout(vm: Machine) -> Mapping[str, Mapping[str, str]]:
    """What `relevo layout` says, by site."""
    rows = json.loads(await vm.do("relevo layout --json", timeout_s=MOVE_S))
    return {row["site"]: row for row in rows}


@asynccontextmanager
async def visited(vm: Machine, *sites: Tenancy) -> AsyncGenerator[None, None]:
    """Meanwhile visitors come; every one of them is answered."""
    await vm.do("rm -f /run/visits")
    domains = " ".join(site.domain for site in sites)
    await vm.do(f"systemd-run --quiet --unit=visits visitors {domains} --every 0.25")
    yield
    some = " && ".join(f"test $(grep -c {site.domain} /run/visits) -ge {SOME}" for site in sites)
    await vm.until(some)
    await vm.do("systemctl stop visits")
    lines = (await vm.do("cat /run/visits")).splitlines()
    found = Counter((line.split()[1], line.split()[3]) for line in lines)
    assert {status for _, status in found} == {"200"}, found


async def where(vm: Machine, site: Tenancy) -> str:
    """The cgroups of the site's own workers."""
    pids = f"pgrep --full 'php-fpm: pool {site.name}$'"
    return await vm.do(f"for p in $({pids}); do cat /proc/$p/cgroup; done | sort -u")


@asynccontextmanager
async def shared(saved: Saved) -> AsyncGenerator[Capped, None]:
    async with capped(saved) as host:
        await share(host.vm, GARDEN, ORCHARD)
        yield host


async def test_a_site_gets_a_unit_of_its_own_and_goes_back_while_it_is_visited(
    shadowed: Saved,
) -> None:
    """Pool, slice, a restart of the unit and of the shared one, a reboot, pool: no visitor is turned away."""
    async with shared(shadowed) as host:
        vm = host.vm
        told = await layout(vm)
        assert {told[s.name]["attachment"] for s in (GARDEN, ORCHARD)} == {"pool"}, told
        assert {told[s.name]["attachment"] for s in SITES[2:]} == {"slice"}, told
        async with visited(vm, GARDEN, ORCHARD):
            await vm.do("relevo layout convert garden --yes", timeout_s=MOVE_S)
            await vm.do("systemctl restart relevo-php@garden")
        old = await vm.do(f"systemctl show --value -p MainPID {GARDEN.unit}")
        async with visited(vm, GARDEN):  # as an upgrade of PHP does, which cuts off who shares it
            await vm.do(f"systemctl restart {FPM}")
            await vm.until(f'[ "$(systemctl show --value -p MainPID {GARDEN.unit})" != {old} ]')
        assert GARDEN.slice in await where(vm, GARDEN)
        told = await layout(vm)
        assert told["garden"]["slice"] == GARDEN.slice and told["orchard"]["attachment"] == "pool"
        boots = vm.boots
        await vm.do("systemctl --no-block reboot")
        await vm.booted(after=boots)
        for site in (GARDEN, ORCHARD):
            await vm.until(f"visitors --once {site.domain}", timeout_s=MOVE_S)
        assert GARDEN.slice in await where(vm, GARDEN)
        async with visited(vm, GARDEN, ORCHARD):
            await vm.do("relevo layout undo garden --yes", timeout_s=MOVE_S)
        assert FPM in await where(vm, GARDEN)
        assert (await layout(vm))["garden"]["attachment"] == "pool"


async def test_a_site_whose_name_is_guarded_answers_again_when_its_socket_is_opened_anew(
    shadowed: Saved,
) -> None:
    """As at the end of a penalty that stopped it, twice; where the shared one is impatient and keeps the old pool."""
    name, units = "/run/php/garden.sock", "relevo-php@garden.socket relevo-php@garden.service"
    async with shared(shadowed) as host:
        vm = host.vm
        main = "/etc/php/8.2/fpm/php-fpm.conf"
        await vm.do(f"sed -i 's/^process_control_timeout.*/process_control_timeout = 0/' {main}")
        await vm.do(f"systemctl restart {FPM}")
        async with visited(vm, GARDEN, ORCHARD):
            await vm.do("relevo layout convert garden --yes", timeout_s=MOVE_S)
        await vm.do(f"mountpoint {name}")
        for _ in range(2):
            await vm.do(f"systemctl stop {units} && ! visitors --once {GARDEN.domain}")
            await vm.do(f"systemctl start {units}")
            await vm.until(f"visitors --once {GARDEN.domain}")
        await vm.do(f"systemctl restart {FPM}")
        async with visited(vm, GARDEN, ORCHARD):
            await vm.do("relevo layout convert garden --yes", timeout_s=MOVE_S)
        await vm.do(f"! mountpoint --quiet {name} && test -L {name}")
        assert GARDEN.slice in await where(vm, GARDEN)


async def test_a_site_behind_apache_is_moved_and_moved_back_while_it_is_visited(
    shadowed: Saved,
) -> None:
    """With proxy_fcgi nobody is turned away either, nor at the site that stays in the pool."""
    async with shared(shadowed) as host:
        vm = host.vm
        await behind_apache(vm, GARDEN)
        assert (await layout(vm))["garden"]["attachment"] == "pool"
        async with visited(vm, GARDEN, ORCHARD):
            await vm.do("relevo layout convert garden --yes", timeout_s=MOVE_S)
        assert GARDEN.slice in await where(vm, GARDEN)
        async with visited(vm, GARDEN, ORCHARD):
            await vm.do("relevo layout undo garden --yes", timeout_s=MOVE_S)
        assert FPM in await where(vm, GARDEN)


async def test_a_login_shares_the_slice_and_its_end_leaves_the_site_alone(shadowed: Saved) -> None:
    """logind opens a session in the site's slice, so one cap holds both; when it is over, PHP goes on."""
    async with capped(shadowed) as host:
        vm = host.vm
        main = f"systemctl show --value -p MainPID {GARDEN.unit}"
        before = await vm.do(main)
        inside = await vm.do("su --login garden -c 'cat /proc/self/cgroup'")
        assert f"/user.slice/{GARDEN.slice}/session-" in inside
        # Some seconds after the last session logind ends the user's own manager, and what else is the user's.
        await vm.until(f"! systemctl is-active --quiet user@{GARDEN.uid}", timeout_s=MOVE_S)
        assert await vm.do(main) == before
        await vm.do(f"visitors --once {GARDEN.domain}")
        assert GARDEN.slice in await where(vm, GARDEN)
