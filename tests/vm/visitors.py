#!/usr/bin/python3
"""Runs inside a virtual machine: visits its sites at a steady pace, and writes how long each visit took.

`visitors DOMAIN... --every S --into FILE`: until it is ended; one line a visit: instant (monotonic s), domain,
seconds, status (0: no answer). A visit that is late is counted from when it should have begun, as a visitor would.
`visitors --once DOMAIN`: one visit; its status is 0 when the site answered.
"""

import argparse
import asyncio
import time
from pathlib import Path
from typing import TextIO

PORT = 8080
PATIENCE_S = 20.0


async def visit(domain: str, path: str = "/") -> int:
    """The status; 0 when there was no answer in time."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {domain}\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
    except OSError:  # includes TimeoutError
        return 0
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


async def tell(domain: str, planned: float, into: TextIO) -> None:
    status = await visit(domain)
    now = time.monotonic()
    into.write(f"{now:.3f} {domain} {now - planned:.4f} {status}\n")


async def stroll(domains: list[str], every_s: float, into: TextIO) -> None:
    """One site after the other, a visit each `every_s`, whether or not the one before has ended."""
    async with asyncio.TaskGroup() as group:
        planned = time.monotonic()
        while True:
            for domain in domains:
                await asyncio.sleep(max(0.0, planned - time.monotonic()))
                group.create_task(tell(domain, planned, into))
                planned += every_s


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("domains", nargs="+")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--every", type=float, default=0.1)
    parser.add_argument("--into", type=Path, default=Path("/run/visits"))
    given = parser.parse_args()
    if given.once:
        return 0 if asyncio.run(visit(given.domains[0])) == 200 else 1
    with given.into.open("a", buffering=1) as into:
        asyncio.run(stroll(given.domains, given.every, into))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
