"""C-MOVE as requestor over TLS: responses in any records, and a C-CANCEL."""

import ssl
from collections.abc import Callable, Iterator

import pytest
from typing_extensions import override

from archive.model.retrieval import RetrieveIdentifier, RetrieveLevel, RetrieveResult
from tests.fix_move import STUDY_ROOT_MOVE, MoveTalk, Script, ScriptedArchive
from tests.fix_tls import Pki
from workers.moving import MoveAssociation, MoveRequest
from workers.route import Route, TimeLimits

FE00, FF00 = 0xFE00, 0xFF00
LIMITS = TimeLimits(5.0, 5.0, 10.0, 10.0, 20.0, 5.0)
Ask = Callable[[Script, Callable[[], bool]], list[RetrieveResult]]


class TlsArchive(ScriptedArchive):
    """An archive that obeys a script and is reached over TLS."""

    def __init__(self, pki: Pki, script: Script) -> None:
        super().__init__("QRSCP", {}, script)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(pki.peer.cert, pki.peer.key)

    @override
    def start(self) -> None:
        self._server = self._ae.start_server(
            (self.host, self.port),
            block=False,
            evt_handlers=self._handlers(),
            ssl_context=self._context,
        )


@pytest.fixture
def ask(pki: Pki) -> Iterator[Ask]:
    """Ask an archive that plays a script, and return its responses."""
    archives: list[TlsArchive] = []

    def start(script: Script, should_cancel: Callable[[], bool]) -> list[RetrieveResult]:
        archives.append(TlsArchive(pki, script))
        archives[-1].start()
        port = archives[-1].port
        route = Route("QRSCP", "DCM4CHEE", "QRSCP", "localhost", port, LIMITS, tls=pki.terms())
        request = MoveRequest(RetrieveIdentifier(RetrieveLevel.STUDY, ("1.2.3",)), "STORESCP", 7)
        with MoveAssociation(route, STUDY_ROOT_MOVE) as association:
            return list(association.move(request, should_cancel))

    yield start
    for archive in archives:
        archive.stop()
        assert not archive.errors


def test_many_responses(ask: Ask) -> None:
    def script(talk: MoveTalk) -> None:
        for number in range(300):
            talk.respond(FF00, (300 - number, number, 0, 0))
        talk.respond(0, (None, 300, 0, 0))

    results = ask(script, lambda: False)
    assert [each.counts.completed for each in results] == list(range(301))
    assert results[-1].status == 0


def test_cancel(ask: Ask) -> None:
    told: list[MoveTalk] = []

    def script(talk: MoveTalk) -> None:
        talk.respond(FF00, (9, 1, 0, 0))
        told.append(talk)
        talk.wait_for_cancel()
        talk.respond(FE00, (9, 1, 0, 0))

    results = ask(script, lambda: bool(told))
    assert [each.status for each in results] == [FF00, FE00]
