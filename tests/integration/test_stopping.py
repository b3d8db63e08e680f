"""A signal ends a process, whatever its main thread is doing."""

import signal
import subprocess
import sys

import pytest

ASKED = """
import os, signal, sys, threading
from archive.stopping import set_when_asked
stop, goes_on = threading.Event(), threading.Event()
set_when_asked(stop)
threading.Thread(target=goes_on.wait, daemon=True).start()
number = int(sys.argv[1])
# Another thread takes it: nothing wakes the main thread up, so that a handler of it never runs.
signal.pthread_sigmask(signal.SIG_BLOCK, {number})
os.kill(os.getpid(), number)
print(stop.wait(20), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_event_is_set_while_the_main_thread_waits(number: signal.Signals) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKED, str(int(number))],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)
