"""The files that a new controller starts with, as text with comments for those who will edit them."""

import json
from ipaddress import ip_address
from pathlib import Path


def url_of(address: str, port: int) -> str:
    """Where agents and people reach a controller at `address`, a name or an IP literal."""
    return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"


def listen_on(address: str) -> str:
    """What a controller that is reached at `address` listens on: that, or everything where it is a name."""
    try:
        return str(ip_address(address))
    except ValueError:
        return "0.0.0.0"  # noqa: S104 - with TLS and tokens; a name may lead to any of its addresses


def controller_toml(
    id: str, address: str, port: int, directory: Path, state: Path, *, listen: str = ""
) -> str:
    """`listen`: on which address, where that is not the one that others reach it at."""

    def path(name: str) -> str:
        return json.dumps(str(directory / name))

    return f"""\
# This controller. Written by `relevo init`; yours from now on. After a change: systemctl restart relevo-controller
id = {json.dumps(id)}
controllers = [{json.dumps(id)}]
admins = {path("admins.toml")}  # the first admin, and the way back in should the store be lost
state = {json.dumps(str(state))}

[urls]                          # where agents and people reach each controller
{id} = {json.dumps(url_of(address, port))}

[listen]                        # API, agents' links and metrics
address = {json.dumps(listen or listen_on(address))}
port = {port}
certificate = {path("controller.crt")}
key = {path("controller.key")}
ca = {path("ca.pem")}

# DNS zones that relevo keeps, by a TSIG key that the name server knows; the fleet file names the key.
# [dns_keys.relevo]
# secret = {path("relevo.tsig")}  # the base64 text, mode 0600
# algorithm = "hmac-sha256"
"""


def admins_toml(name: str, digest: str) -> str:
    return f"""\
# Admins beside those of `relevo token list`: name = SHA-256 of a token. Read when the controller starts.
{json.dumps(name)} = {json.dumps(digest)}
"""


FLEET_YAML = """\
# The fleet: what there is, and where it belongs. Nothing acts on it by itself: relevo observes until you arm it.
# `relevo fleet diff FILE` says what would change, `relevo fleet apply FILE` makes it so.
# On a host that serves already, `relevo discover` writes most of this. Take the `#` off the lines below that are no
# sentences and make them yours, or paste what it printed.
version: 1

#locations:
#  mx1: {country: MX, name: Ciudad de México}
#  us1: {country: US, name: Portland}

# `tag` is the name that members see. Roles: web (when left out), edge, database, mail.
#hosts:
#  mx1-web-01: {tag: clara, location: mx1, addresses: [192.0.2.11, "2001:db8:1::11"]}
#  us1-web-01: {tag: sauce, location: us1, addresses: [198.51.100.11]}

# What a plan allows one site.
#plans:
#  solidarity:
#    name: Solidarity
#    price: {amount: 2500, currency: USD, per: year}
#    caps: {cpu_weight: 50, cpu_percent: 100, cpu_base_percent: 25, cpu_bank_s: 1800,
#           memory_max_bytes: 512 MiB, memory_low_bytes: 48 MiB, tasks: 80,
#           read_bytes_per_s: 10 MB, write_bytes_per_s: 5 MB, read_iops: 1000, write_iops: 500,
#           php_workers: 8, in_flight: 10, queue: 50, queue_wait_s: 10, requests_per_s: 10,
#           requests_burst: 60, client_requests_per_min: 300, egress_bits_per_s: 50000000,
#           egress_bytes_per_month: 200 GB, disk_bytes: 5 GB, inodes: 100000,
#           database_connections: 8, statement_s: 30, database_cpu_percent: [150, 100, 50, 30],
#           mails_per_hour: 100, background_tasks: 20, background_cpu_s_per_day: 1800}

#members:
#  huerto: {name: Huerto Comunitario, language: es, email: web@huerto.example.org}

# `mode`: automatic (it may run anywhere), gated (when left out: its data must be fresh, its old host fenced), manual.
# `route: direct`: DNS leads to the host itself; when left out, to the edges.
#sites:
#  huerto: {member: huerto, plan: solidarity, domains: [huerto.example.org], home: mx1-web-01, standbys: [us1-web-01], route: direct}
"""  # noqa: E501 - one line for each item
