"""Prints what the supervised processes write, each line behind the name of its process.

Run by supervisor as an event listener: events come in on standard input, acknowledgements go out
on standard output, so the lines are printed on standard error. Supervisor writes events in UTF-8
and counts characters, not bytes.
"""

import io
import sys
from typing import BinaryIO, TextIO

_QUIET_STATES = frozenset({"STARTING", "RUNNING", "STOPPING", "STOPPED", "UNKNOWN"})


def main(stdin: TextIO, stdout: BinaryIO, stderr: BinaryIO) -> None:
    """Answer events until supervisor closes standard input."""
    partial: dict[str, str] = {}
    while True:
        stdout.write(b"READY\n")
        stdout.flush()
        header = _tokens(stdin.readline())
        if not header:
            return
        head, _, payload = stdin.read(int(header["len"])).partition("\n")
        event = _tokens(head)
        name = event["processname"]
        if header["eventname"].startswith("PROCESS_LOG"):
            partial[name] = _print_lines(stderr, name, partial.get(name, "") + payload)
        else:
            _print_state(stderr, name, header["eventname"].removeprefix("PROCESS_STATE_"), event)
        stdout.write(b"RESULT 2\nOK")
        stdout.flush()


def _tokens(line: str) -> dict[str, str]:
    pairs = (token.partition(":") for token in line.split())
    return {name: value for name, _, value in pairs}


def _print_lines(stderr: BinaryIO, name: str, text: str) -> str:
    """Print the complete lines of `text` and return the rest."""
    *lines, rest = text.split("\n")
    stderr.writelines(f"{name:<11}| {line}\n".encode() for line in lines)
    stderr.flush()
    return rest


def _print_state(stderr: BinaryIO, name: str, state: str, event: dict[str, str]) -> None:
    if state in _QUIET_STATES or (state == "EXITED" and event.get("expected") == "1"):
        return
    stderr.write(f"{name:<11}| process {state.lower()}, it is started again\n".encode())
    stderr.flush()


if __name__ == "__main__":
    events = io.TextIOWrapper(sys.stdin.buffer, "utf-8", errors="replace", newline="\n")
    main(events, sys.stdout.buffer, sys.stderr.buffer)
