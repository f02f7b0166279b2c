"""Runs inside a virtual machine: carries out the commands that tests send over a virtio-serial port.

One JSON object a line: {"id", "command", "stdin"} in, {"id", "code", "output"} out; what is said and told is base64.
Of the standard library alone, for it runs on a bare Debian.
"""

import json
import os
import subprocess
import threading
from base64 import b64decode, b64encode
from pathlib import Path

PORT = "/dev/virtio-ports/relevo.tests"
READ_BYTES = 1 << 20


class Port:
    """The serial port; several commands may answer at once."""

    def __init__(self) -> None:
        self._fd = os.open(PORT, os.O_RDWR)
        self._lock = threading.Lock()

    def say(self, message: dict[str, object]) -> None:
        rest = json.dumps(message).encode() + b"\n"
        with self._lock:
            while rest:
                rest = rest[os.write(self._fd, rest) :]

    def listen(self) -> None:
        """Until the other end is closed; each command runs in a thread of its own."""
        with os.fdopen(self._fd, "rb", READ_BYTES, closefd=False) as lines:
            for line in lines:
                threading.Thread(target=self._carry_out, args=(json.loads(line),)).start()

    def _carry_out(self, order: dict[str, str]) -> None:
        done = subprocess.run(
            ("/bin/bash", "-c", order["command"]),
            input=b64decode(order["stdin"]),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        output = b64encode(done.stdout).decode()
        self.say({"id": order["id"], "code": done.returncode, "output": output})


if __name__ == "__main__":
    os.chdir("/root")
    os.environ["HOME"] = "/root"
    port = Port()
    port.say({"boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip()})
    port.listen()
