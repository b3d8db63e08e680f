"""The console of ``make run``, as supervisor talks to it."""

import subprocess
import sys

LINES = (
    "2026-11-22 INFO stored patient=M\u00fcller^J\u00f6rg",
    "WARNING not a UID (PS3.5 \u00a79.1)",
    "\u5c71\u7530 \U0001f600",
    "plain",
)


def log_event(process: str, text: str) -> bytes:
    """Return an event as supervisor 4 writes it: the length in characters, the text in UTF-8."""
    payload = f"processname:{process} groupname:dicomq pid:7 channel:stdout\n{text}"
    header = "ver:3.0 server:s serial:1 pool:c poolserial:1 eventname:PROCESS_LOG_STDOUT"
    return f"{header} len:{len(payload)}\n{payload}".encode()


def test_lines_with_any_letters_are_printed() -> None:
    events = [log_event("scp-0", f"{line}\n") for line in LINES]
    events += [log_event("export", "one \u00a7 line in "), log_event("export", "two pieces\n")]
    done = subprocess.run(
        [sys.executable, "-m", "deploy.console"],
        input=b"".join(events),
        capture_output=True,
        check=True,
    )
    assert done.stderr.decode().splitlines() == [
        *(f"scp-0      | {line}" for line in LINES),
        "export     | one \u00a7 line in two pieces",
    ]
    assert done.stdout.count(b"RESULT 2\nOK") == len(events)
