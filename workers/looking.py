"""How the caretakers of the dispatcher look again and again, and what they do now and then."""

import logging
import threading
from collections.abc import Callable

from archive.clock import Clock
from archive.errors import DicomqError
from archive.telemetry import LEDGER_UNAVAILABLE, log_event


def look_again_and_again(
    stop: threading.Event, every_s: float, look: Callable[[], object], logger: logging.Logger
) -> None:
    """Call `look` every `every_s` seconds until `stop` is set; it is never called at once.

    A failure is logged by `logger` when it begins, and the next call tries again.
    """
    succeeded = True
    while not stop.wait(every_s):
        try:
            look()
            succeeded = True
        except DicomqError as error:
            if succeeded:
                log_event(logger, LEDGER_UNAVAILABLE, level=logging.WARNING, message=str(error))
            succeeded = False


class NowAndThen:
    """Does something when it was last done `every_s` seconds ago, or never.

    What fails is done again at the next call.
    """

    def __init__(self, clock: Clock, every_s: float, action: Callable[[], object]) -> None:
        self._clock = clock
        self._every_s = every_s
        self._action = action
        self._next = clock.monotonic()

    def __call__(self) -> None:
        """Do it if it is time."""
        if self._clock.monotonic() >= self._next:
            self._action()
            self._next = self._clock.monotonic() + self._every_s
