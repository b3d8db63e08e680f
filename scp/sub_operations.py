"""Objects that another archive sends because this one asked it to: answered early, safe soon.

They are sub-operations of a C-MOVE that a worker of this archive has forwarded and waits for. The
other archive holds them, so one that a crash takes away is not lost: the worker counts what is in
the index, not what the other archive says it has delivered, and whoever asks again gets it. They
are therefore answered as soon as they are written, and made durable and indexed in groups
(`scp.gathering`), before anything else than a further object is taken from that association.
"""

import logging
from typing import Final

from archive import telemetry
from archive.clock import Clock
from archive.errors import DicomqError, LedgerError
from archive.ledger import forwards
from archive.ledger.connection import Ledger
from archive.ledger.known_series import Particulars
from archive.telemetry import log_event
from scp.known import Incoming

FRESH_S: Final = 1.0
"""How long it holds that a C-MOVE is under way, seconds."""

_MOST_REMEMBERED: Final = 256
_Key = tuple[str, str | None, int | None, str, str]
_log = logging.getLogger(__name__)


class OwnMoves:
    """The C-MOVEs of this archive that are under way; one for all associations."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._asked: dict[_Key, tuple[float, bool]] = {}

    def bring(self, own: Particulars) -> bool:
        """Tell whether an object is a sub-operation of one of them, beyond doubt."""
        reception, attributes = own.reception, own.attributes
        if reception.move_originator_aet is None or reception.move_originator_message_id is None:
            return False
        key = (
            reception.calling_aet,
            reception.move_originator_aet,
            reception.move_originator_message_id,
            attributes.study_instance_uid,
            attributes.series_instance_uid,
        )
        now = self._clock.monotonic()
        asked_at, answer = self._asked.get(key, (float("-inf"), False))
        if now - asked_at > FRESH_S:
            answer = self._ask(own)
            if len(self._asked) >= _MOST_REMEMBERED:
                self._asked.clear()
            self._asked[key] = now, answer
        return answer

    def _ask(self, own: Particulars) -> bool:
        try:
            with self._ledger.statement() as tx:
                return forwards.brings(tx, own.reception, own.attributes)
        except LedgerError:
            return False  # storing it fails as well, and says so


def given_up(incoming: Incoming, error: DicomqError) -> None:
    """Remove the file of an object that was answered with success and could not be made safe."""
    log_event(
        _log,
        telemetry.OBJECT_ABANDONED,
        level=logging.ERROR,
        calling_aet=incoming.session.calling_aet,
        sop=incoming.request.sop_instance_uid,
        message=(
            f"{error}; unless the index has it, the C-MOVE of this archive that it came for counts "
            f"it as failed; {incoming.session.calling_aet} still holds it: repeat the retrieve"
        ),
    )
    try:
        incoming.file.abort()
    except OSError as failure:
        _log.warning("a file could not be removed; the next sweep tries again: %s", failure)
