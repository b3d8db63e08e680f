"""A C-FIND SCP of another archive whose matches a test gives."""

from collections.abc import Iterator, Sequence
from copy import deepcopy

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.events import Event
from typing_extensions import override

from tests.fix_peer import Peer

MODELS = ("1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.2.1")


class FindScp(Peer):
    """Answers every query with the same matches and a final status."""

    def __init__(self, matches: Sequence[Dataset], title: str = "QRSCP", status: int = 0) -> None:
        super().__init__(title)
        self.queries: list[Dataset] = []
        self._matches = matches
        self._status = status
        for model in MODELS:
            self._ae.add_supported_context(model)

    @override
    def _handlers(self) -> list[evt.EventHandlerType]:
        return [(evt.EVT_C_FIND, self._on_find)]

    def _on_find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        self.queries.append(event.identifier)
        for match in self._matches:
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, deepcopy(match)
        if self._status:
            yield self._status, None
