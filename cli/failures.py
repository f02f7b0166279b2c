"""How a command can fail, each way with its exit code."""

from enum import IntEnum

import click


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_ALLOWED = 4
    NOT_FOUND = 5
    CONFLICT = 6
    CHANGES = 7
    NOT_HELD = 8
    NOT_KNOWN = 9


MEANING = {
    Exit.OK: "done",
    Exit.FAILED: "refused, or it failed: the message says why",
    Exit.USAGE: "the command was not understood",
    Exit.UNREACHABLE: "no controller could be reached",
    Exit.NOT_ALLOWED: "the token is missing or not accepted",
    Exit.NOT_FOUND: "there is no such host, site, incident or change",
    Exit.CONFLICT: "it changed meanwhile: look, then repeat",
    Exit.CHANGES: "fleet diff: the file would change something; caps verify: the kernel differs",
    Exit.NOT_HELD: "caps verify: not all that should be held can be, or is",
    Exit.NOT_KNOWN: "caps verify: what is held is not known, or its host's word is old",
}


class Failure(click.ClickException):
    """Ends the command with `code`; the message names the controller that was asked."""

    def __init__(self, message: str, code: Exit) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]  # click reads it of the instance
