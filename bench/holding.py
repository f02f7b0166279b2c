"""Holds an edge's listening sockets and runs HAProxy on them, as a systemd socket unit does.

`holding.py ADDRESS PORT ADDRESS PORT -- COMMAND…`: the sockets are descriptors 3 and 4 of the command
(`bind fd@3`), which is started again whenever it ends. SIGUSR1 goes to the command, SIGTERM to both.
"""

import os
import signal
import socket
import subprocess
import sys

FIRST = 3
BACKLOG = 1024


def main() -> None:
    doors, command = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
    held = hold([(doors[n], int(doors[n + 1])) for n in range(0, len(doors), 2)])
    running: list[subprocess.Popen[bytes]] = []
    ending = False

    def pass_on(number: int, _: object) -> None:
        nonlocal ending
        ending = ending or number == signal.SIGTERM
        running[-1].send_signal(number)

    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, pass_on)
    while not ending:
        running[:] = [subprocess.Popen(command, pass_fds=held)]
        running[-1].wait()


def hold(doors: list[tuple[str, int]]) -> list[int]:
    """Listening sockets as descriptors 3, 4, …; they stay open across exec."""
    opened = []
    for address, port in doors:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        door = socket.socket(family, socket.SOCK_STREAM)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        door.bind((address, port))
        door.listen(BACKLOG)
        opened.append(door.detach())
    # First out of the way of the numbers they are to have.
    away = [os.dup2(fd, FIRST + 100 + n) for n, fd in enumerate(opened)]
    for fd in opened:
        os.close(fd)
    return [os.dup2(fd, FIRST + n, inheritable=True) for n, fd in enumerate(away)]


if __name__ == "__main__":
    main()
