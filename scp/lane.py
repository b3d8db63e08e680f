"""A thread that receives for many associations at once, as long as all goes well.

A thread for each association costs more in waking up and in waiting for each other than objects
of known series take to be stored. Once the series of an object is known, a lane therefore watches
its association's socket. It takes what is there, never waits for a peer, and stores what came
together in one transaction, while it goes on with others. Whatever else comes (another
message, an object that is long or takes the long way, a broken or silent peer) is handed back to
the thread of the association, which does it as if there was no lane.
"""

import os
import select
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Protocol

from archive.clock import SYSTEM_CLOCK, Clock
from archive.storage.syncs import Syncs
from scp.intake import Intake, ObjectReceiver, Progress

MOST_TOGETHER: Final = 32
"""Most objects of one transaction."""

SILENCE_S: Final = 1.0
"""How long a peer may be silent inside a message before its own thread waits for it."""

_END_S: Final = 10.0
"""How long transactions may take to end when the process does."""


class Stage(Enum):
    """What objects that are being stored wait for."""

    FILES = auto()
    """Their files are being made durable."""
    LEDGER = auto()
    """Their rows are being committed."""
    ENDED = auto()
    """Nothing: they cannot be stored together."""


class Storing(Protocol):
    """Objects on their way into the ledger."""

    def add(self, receiver: ObjectReceiver) -> bool:
        """Store a further prepared object with the others; tell whether that is possible."""
        ...

    def go_on(self) -> Stage:
        """Commit as soon as the files are durable; return what is waited for now."""
        ...

    def give_up(self) -> None:
        """Leave objects that are not being committed yet to the threads of their associations."""
        ...

    def fileno(self) -> int:
        """Return what becomes readable at `Stage.LEDGER` when there is something for `is_done`."""
        ...

    def is_done(self) -> bool:
        """Take what has come; tell whether the receivers now are finished, or never will be."""
        ...


BeginStoring = Callable[[ObjectReceiver], Storing | None]
"""Begins to store a prepared object; None when that is not possible. Raises nothing."""


@dataclass(eq=False)
class Seat:
    """An association in a lane.

    Attributes
    ----------
    descriptor
        Of its socket.
    is_wanted
        Tells whether the association's thread has something to do.
    returned
        Called when the lane is done with it for now.
    """

    intake: Intake
    descriptor: int
    is_wanted: Callable[[], bool]
    returned: Callable[[], None]
    serving: threading.Lock = field(default_factory=threading.Lock)
    is_busy: bool = False
    is_parked: bool = False
    heard_at: float = 0.0


@dataclass(eq=False, slots=True)
class _Group:
    """Objects of one transaction, and where they came from.

    Attributes
    ----------
    is_open
        Whether it takes further ones.
    descriptor
        What tells that it is committed; None before the commit.
    """

    storing: Storing
    seats: list[Seat]
    is_open: bool = True
    descriptor: int | None = None


class Lane:
    """Receives and stores for the associations whose objects go to one storage."""

    def __init__(self, begin: BeginStoring, clock: Clock = SYSTEM_CLOCK) -> None:
        self._begin_storing = begin
        self._clock = clock
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._bell, select.EPOLLIN)
        self._lock = threading.Lock()
        self._seats: dict[int, Seat] = {}
        self._midway: dict[Seat, None] = {}
        self._complete: list[Seat] = []
        self._syncs = Syncs()
        self._group: _Group | None = None
        if self._syncs.descriptor is not None:
            self._epoll.register(self._syncs.descriptor, select.EPOLLIN)
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def enter(self, seat: Seat) -> bool:
        """Let the lane receive for an association from now on; tell whether it does."""
        with self._lock:
            if self._is_closed:
                return False
            self._seats[seat.descriptor] = seat
            self._epoll.register(seat.descriptor, select.EPOLLIN)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lane", daemon=True)
                self._thread.start()
        return True

    def leave(self, seat: Seat) -> None:
        """Take an association out; returns when the lane is not at work for it any more."""
        self._remove(seat)
        with seat.serving:
            pass

    def close(self) -> None:
        """End the thread; associations that are still there are handed back."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
        os.eventfd_write(self._bell, 1)
        if thread is not None:
            thread.join(_END_S)

    def _run(self) -> None:
        try:
            while not self._is_closed or self._group is not None:
                self._pass()
        finally:
            with self._lock:
                self._is_closed = True
            if self._group is not None:
                self._group.storing.give_up()
            for seat in list(self._seats.values()):
                self._hand_back(seat)

    def _pass(self) -> None:
        """Take what is there and send it to the ledger; nobody waits for what is not there."""
        ready = self._epoll.poll(SILENCE_S if self._midway else None)
        while ready:
            for descriptor, _ in ready:
                self._attend(descriptor)
            ready = [] if self._is_full else self._epoll.poll(0)
        self._close_group()
        if self._midway:
            self._look_for_silence()

    @property
    def _is_full(self) -> bool:
        """Whether nothing more can come for the transaction that is open."""
        group = self._group
        return (
            group is not None
            and group.is_open
            and len(group.seats) >= min(MOST_TOGETHER, len(self._seats))
        )

    def _attend(self, descriptor: int) -> None:
        group = self._group
        if group is not None and descriptor == group.descriptor:
            self._progress(group, descriptor)
        elif descriptor == self._syncs.descriptor:
            self._syncs.progress()
            if group is not None and not group.is_open:
                self._follow(group)
        elif descriptor == self._bell:
            os.eventfd_read(self._bell)
        else:
            self._serve(descriptor)

    def _serve(self, descriptor: int) -> None:
        """Go on with the association whose socket can be read."""
        with self._lock:
            seat = self._seats.get(descriptor)
            if seat is None:
                return
            if seat.is_busy:  # its peer has gone or does not wait for the answer: later
                self._epoll.unregister(descriptor)
                seat.is_parked = True
                return
            seat.serving.acquire()
            seat.is_busy = True
        self._advance(seat)

    def _advance(self, seat: Seat) -> None:
        match seat.intake.advance():
            case Progress.COMPLETE:
                self._midway.pop(seat, None)
                self._completed(seat)
            case Progress.ELSEWHERE:
                self._hand_back(seat)
            case Progress.WAITS:
                if seat.intake.is_midway:
                    seat.heard_at = self._clock.monotonic()
                    self._midway[seat] = None
                self._rest(seat)

    def _completed(self, seat: Seat) -> None:
        receiver = _receiver(seat)
        if receiver.is_finished:
            self._answer([seat])
            return
        if len(self._seats) > 1:
            receiver.begin_sync(self._syncs)
        self._complete.append(seat)
        self._store()

    def _store(self) -> None:
        """Send what is complete to the ledger, unless a transaction is being ended.

        PostgreSQL works on the first object while the next ones are taken in. What comes while a
        transaction is being ended goes into the next one together.
        """
        while self._complete:
            seat = self._complete[0]
            if self._group is None:
                del self._complete[0]
                self._begin_group(seat)
            elif self._group.is_open and self._adds(self._group, seat):
                del self._complete[0]
            else:
                self._close_group()
                if self._group is not None:
                    return

    def _begin_group(self, seat: Seat) -> None:
        storing = self._begin_storing(_receiver(seat))
        if storing is None:
            self._hand_back(seat)
        else:
            self._group = _Group(storing, [seat])

    def _adds(self, group: _Group, seat: Seat) -> bool:
        if len(group.seats) >= MOST_TOGETHER or not group.storing.add(_receiver(seat)):
            return False
        group.seats.append(seat)
        return True

    def _close_group(self) -> None:
        """Commit the transaction that is open as soon as its files are durable."""
        group = self._group
        if group is not None and group.is_open:
            group.is_open = False
            self._follow(group)

    def _follow(self, group: _Group) -> None:
        """Go on with the transaction that is being ended."""
        stage = group.storing.go_on()
        if stage is Stage.ENDED:
            self._end_group(group)
        elif stage is Stage.LEDGER and group.descriptor is None:
            group.descriptor = group.storing.fileno()
            self._epoll.register(group.descriptor, select.EPOLLIN)

    def _progress(self, group: _Group, descriptor: int) -> None:
        """Look whether the transaction has ended."""
        self._epoll.unregister(descriptor)  # it may be closed, or used elsewhere afterwards
        if group.storing.is_done():
            self._end_group(group)
        else:
            self._epoll.register(descriptor, select.EPOLLIN)

    def _end_group(self, group: _Group) -> None:
        self._group = None
        self._answer(group.seats)
        self._store()

    def _answer(self, seats: Sequence[Seat]) -> None:
        receivers = list(map(_receiver, seats))
        answered = [
            receiver.is_finished and seat.intake.respond()
            for seat, receiver in zip(seats, receivers, strict=True)
        ]
        for receiver in receivers:
            receiver.tidy()
        for seat, is_answered in zip(seats, answered, strict=True):
            if not is_answered:
                self._hand_back(seat)
            elif seat.intake.has_more:
                self._advance(seat)
            else:
                self._rest(seat)

    def _rest(self, seat: Seat) -> None:
        """Wait for the peer again, unless the association's thread wants to do something."""
        if seat.is_wanted():
            self._hand_back(seat)
            return
        seat.is_busy = False
        with self._lock:
            if seat.is_parked and self._seats.get(seat.descriptor) is seat:
                self._epoll.register(seat.descriptor, select.EPOLLIN)
            seat.is_parked = False
        seat.serving.release()

    def _look_for_silence(self) -> None:
        """Hand back the associations whose peers have stopped inside a message."""
        limit = self._clock.monotonic() - SILENCE_S
        for seat in list(self._midway):
            if seat.heard_at > limit:
                continue
            del self._midway[seat]
            if self._seats.get(seat.descriptor) is seat:
                self._hand_back(seat)

    def _hand_back(self, seat: Seat) -> None:
        """Leave an association to its own thread."""
        self._midway.pop(seat, None)
        self._remove(seat)
        if seat.is_busy:
            seat.is_busy = False
            seat.serving.release()
        seat.returned()

    def _remove(self, seat: Seat) -> None:
        with self._lock:
            if self._seats.get(seat.descriptor) is not seat:
                return
            del self._seats[seat.descriptor]
            if not seat.is_parked:
                self._epoll.unregister(seat.descriptor)


def _receiver(seat: Seat) -> ObjectReceiver:
    """Return the receiver of an object that is complete."""
    receiver = seat.intake.receiver
    assert receiver is not None  # noqa: S101 - it is only forgotten with the answer
    return receiver
