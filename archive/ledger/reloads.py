"""Asking all processes of all hosts to read the configuration now, through the ledger.

Processes notice changes by themselves; this is for those who do not want to wait, and for what
lies outside the directory, such as an address that a name now stands for.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from archive.errors import LedgerError
from archive.ledger.connection import Ledger, Transaction
from archive.ledger.queries import load_queries

RELOAD_CHANNEL = "dicomq_reload"
_AGAIN_S = 5.0
_LOOK_S = 1.0
_log = logging.getLogger(__name__)


def ask_for_reload(tx: Transaction) -> None:
    """Have all processes read the configuration once this transaction is committed."""
    tx.execute(load_queries("reloads")["ask_for_reload"])


@contextmanager
def following_reloads(ledger: Ledger, reload: Callable[[], None]) -> Iterator[None]:
    """Call `reload` in a thread whenever somebody asks for it, as long as the block runs.

    Parameters
    ----------
    reload
        Has the configuration of this process read; has to return soon.
    """
    stop = threading.Event()
    arguments = (ledger, reload, stop)
    thread = threading.Thread(target=_follow, args=arguments, name="reloads", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()


def _follow(ledger: Ledger, reload: Callable[[], None], stop: threading.Event) -> None:
    """Listen until stopped; PostgreSQL being away is nothing that anybody waits for here."""
    while not stop.is_set():
        try:
            with ledger.listen(RELOAD_CHANNEL) as listener:
                while not stop.is_set():
                    if listener.wait(_LOOK_S):
                        _log.info("the configuration is read again: somebody asked for it")
                        reload()
        except LedgerError:
            stop.wait(_AGAIN_S)
