"""Waits for answers of leading archives on behalf of one delivery."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from archive.clock import Clock
from archive.ledger import leading
from archive.ledger.connection import Ledger
from archive.ledger.leading import LEADING_CHANNEL, Freshness, LeadingStudy
from archive.model.coercion import AnswerKind, LeadingAnswer, Step

_LOOK_S = 2.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a delivery waits.

    Attributes
    ----------
    wait_s
        For the answer to one study.
    cancelled
        Whether the delivery has to stop.
    """

    wait_s: float
    cancelled: Callable[[], bool] = lambda: False


class LeadingAnswers:
    """Answers for one delivery, each the same throughout it; may be shared by threads.

    Parameters
    ----------
    asker
        Which AE asks, for whom: the study and the leading archive are filled in.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        *,
        asker: LeadingStudy,
        freshness: Freshness,
        patience: Patience,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._asker = asker
        self._freshness = freshness
        self._patience = patience
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, str], LeadingAnswer] = {}

    def ask(self, step: Step, study: str) -> LeadingAnswer:
        """Return the answer of a step's leading archive; a task asks it if need be."""
        key = (step.argument, study)
        with self._lock:
            if key not in self._answers:
                self._answers[key] = self._awaited(*key)
            return self._answers[key]

    def _awaited(self, leading_aet: str, study: str) -> LeadingAnswer:
        found = self._known(leading_aet, study)
        if found is not None:
            return found
        wanted = LeadingStudy(leading_aet, study, self._asker.local_aet, self._asker.device_name)
        end = self._clock.monotonic() + self._patience.wait_s
        with self._ledger.listen(LEADING_CHANNEL) as listener:
            with self._ledger.transaction() as tx:
                leading.demand(tx, wanted, actor=f"objects sent by {wanted.local_aet}")
            while (left_s := end - self._clock.monotonic()) > 0:
                listener.wait(min(left_s, _LOOK_S))
                found = self._known(leading_aet, study)
                if found is not None:
                    return found
                if self._patience.cancelled():
                    break
        message = f"no answer within {self._patience.wait_s:g} s (DICOMQ_LEADING_WAIT_S)"
        return LeadingAnswer(AnswerKind.FAILED, message=message)

    def _known(self, leading_aet: str, study: str) -> LeadingAnswer | None:
        with self._ledger.statement() as tx:
            return leading.answer(tx, leading_aet, study, self._freshness)
