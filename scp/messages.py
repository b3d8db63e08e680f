"""Puts the fragments of DIMSE messages in order (PS3.7 §6.3.1, PS3.8 Annex E).

Pure. A message is a command, then a data set if the command says so, all on one presentation
context; no fragment of another message may come in between.
"""

from enum import Enum, auto
from typing import Final

from scp.dimse import MAX_COMMAND_LENGTH, Command, decode_command
from scp.pdus import Fragment, ProtocolError


class Step(Enum):
    """What a fragment was to the message being received."""

    COMMAND_PART = auto()
    COMMAND = auto()
    """The last piece of a command: `Assembly.command` is there."""
    DATA_PART = auto()
    DATA = auto()
    """The last piece of the message's data set."""


_DATA: Final = Step.DATA
_DATA_PART: Final = Step.DATA_PART


class Assembly:
    """The message being received.

    Attributes
    ----------
    command
        Command of the present message, or of the last one after its end.
    encoded_command
        The same as it was received.
    """

    def __init__(self) -> None:
        self.command: Command | None = None
        self.encoded_command = b""
        self.context_id = 0
        self._parts = bytearray()
        self._in_data_set = False

    @property
    def is_idle(self) -> bool:
        """Whether no message has begun that is not complete."""
        return not self._in_data_set and not self._parts

    @property
    def awaits_data_set(self) -> bool:
        """Whether a command has announced a data set that is not complete."""
        return self._in_data_set

    def take(self, fragment: Fragment) -> Step:
        """Return what `fragment` is.

        Raises
        ------
        ProtocolError
            When it may not come now, or the command is too long or is none.
        """
        context_id, is_command, is_last, _ = fragment
        if context_id != self.context_id and not self.is_idle:
            msg = f"context {context_id} inside a message on context {self.context_id}"
            raise ProtocolError(msg)
        if is_command is self._in_data_set:
            found = "a command" if is_command else "a data set"
            msg = f"{found} fragment where the message cannot have one"
            raise ProtocolError(msg)
        self.context_id = context_id
        if self._in_data_set:
            self._in_data_set = not is_last
            return _DATA if is_last else _DATA_PART
        return self._take_command(fragment)

    def _take_command(self, fragment: Fragment) -> Step:
        self._parts += fragment.data
        if len(self._parts) > MAX_COMMAND_LENGTH:
            msg = f"command of more than {MAX_COMMAND_LENGTH} bytes"
            raise ProtocolError(msg)
        if not fragment.is_last:
            return Step.COMMAND_PART
        self.encoded_command = bytes(self._parts)
        self._parts.clear()
        self.command = decode_command(self.encoded_command)
        self._in_data_set = self.command.has_data_set
        return Step.COMMAND
