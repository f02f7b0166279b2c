"""nginx on a web host: every site answers with its own name and the host's tag, from one private directory."""

import os
from collections.abc import Iterable
from pathlib import Path

from deploy.demo.lab import Machine
from fleet.model import Site

CONFIGURATION = """\
daemon off;
{user}worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    server_tokens off;
    default_type text/plain;
    server_names_hash_bucket_size 128;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;

    server {{  # asked by its address: the health check
{listens}
        server_name "";
        return 200 "host={tag}\\n";
    }}
{servers}}}
"""
SERVER = """\
    server {{
{listens}
        server_name {names};
        return 200 "site={site} host={tag}\\n";
    }}
"""


def configuration(machine: Machine, sites: Iterable[Site], directory: Path) -> str:
    """The whole nginx.conf of `machine`: it can serve each of `sites`, whether or not it does now."""
    default = "\n".join(f"        listen {door} default_server;" for door in machine.doors)
    listens = "\n".join(f"        listen {door};" for door in machine.doors)
    servers = (
        SERVER.format(listens=listens, names=" ".join(s.domains), site=s.id, tag=machine.tag)
        for s in sites
    )
    # As root, nginx would give its workers to a user that may not read our private directory.
    user = "user root;\n" if os.geteuid() == 0 else ""
    return CONFIGURATION.format(
        user=user,
        directory=directory,
        listens=default,
        tag=machine.tag,
        servers="".join(servers),
    )
