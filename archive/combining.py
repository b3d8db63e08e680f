"""Lets threads that want the same at the same time do it together, without a thread of its own.

Whoever comes while nobody is at work does it, at once and alone: combining delays nobody. Whoever
comes meanwhile waits; when the work is done, one of those who wait does it for all of them.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from archive.errors import DicomqError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Turn(Generic[Item, Answer]):
    """A caller that waits for its answer, or for the word to lead the callers in `led`."""

    __slots__ = ("answer", "error", "item", "led", "wake")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.wake = threading.Lock()
        self.wake.acquire()
        self.led: list[_Turn[Item, Answer]] = []
        self.answer: Answer | None = None
        self.error: DicomqError | None = None


class Combiner(Generic[Item, Answer]):
    """Does work for its callers, and for those who wait at the same time in one go.

    Parameters
    ----------
    together
        Does it for several callers; returns an answer for each, None for one who has to do it
        alone. A `DicomqError` sends all of them to do it alone.
    alone
        Does it for one caller.
    everybodys
        Errors of `together` that every caller gets, because it would be the same alone.
    prepare
        Called with the item of a caller that has to wait, before it does; its errors are that
        caller's alone.
    """

    def __init__(
        self,
        together: "Callable[[Sequence[Item]], Sequence[Answer | None]]",
        alone: Callable[[Item], Answer],
        *,
        everybodys: type[DicomqError],
        prepare: Callable[[Item], None] | None = None,
    ) -> None:
        self._together = together
        self._alone = alone
        self._everybodys = everybodys
        self._prepare = prepare
        self._lock = threading.Lock()
        self._busy = False
        self._waiting: list[_Turn[Item, Answer]] = []

    def do(self, item: Item) -> Answer:
        """Return the answer for `item`, once this thread or another has got it.

        Raises
        ------
        DicomqError
            What doing it alone or preparing it raises, or an error that is everybody's.
        """
        if self._prepare is not None:
            if self._begins():
                return self._do_alone(item)
            self._prepare(item)
        turn = self._enter(item)
        if turn is None:
            return self._do_alone(item)
        turn.wake.acquire()
        if len(turn.led) == 1:
            return self._do_alone(item)
        if turn.led:
            self._lead(turn.led)
        if turn.error is not None:
            raise type(turn.error)(str(turn.error)) from turn.error
        return self._alone(item) if turn.answer is None else turn.answer

    def _begins(self) -> bool:
        """Begin at once, if nobody is at work."""
        with self._lock:
            begins = not self._busy
            self._busy = True
            return begins

    def _enter(self, item: Item) -> "_Turn[Item, Answer] | None":
        """Begin at once (None), or queue up."""
        with self._lock:
            if not self._busy:
                self._busy = True
                return None
            turn: _Turn[Item, Answer] = _Turn(item)
            self._waiting.append(turn)
            return turn

    def _do_alone(self, item: Item) -> Answer:
        try:
            return self._alone(item)
        finally:
            self._pass_on()

    def _lead(self, turns: "list[_Turn[Item, Answer]]") -> None:
        """Do it for all; those who got neither answer nor error then do it alone."""
        try:
            answers = self._together([turn.item for turn in turns])
            for turn, answer in zip(turns, answers, strict=True):
                turn.answer = answer
        except self._everybodys as error:
            for turn in turns:
                turn.error = error
        except DicomqError:
            return  # one of them is at fault, and learns it alone
        finally:
            self._pass_on()
            for turn in turns[1:]:
                turn.wake.release()

    def _pass_on(self) -> None:
        """Let one of those who wait lead them all."""
        with self._lock:
            led, self._waiting = self._waiting, []
            self._busy = bool(led)
        if led:
            led[0].led = led
            led[0].wake.release()
