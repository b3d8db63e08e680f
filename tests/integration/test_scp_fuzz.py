"""Mutated PDUs: each answer is the exact one, and nobody else notices."""

import random

from scp.statuses import StoreStatus
from tests.fix_process import wait_until
from tests.fix_scp import Site
from tests.fuzz import Aborted, fuzz_decoding, fuzz_server

SEED = random.SystemRandom().randrange(1 << 30)


def test_decoding() -> None:
    """`make fuzz` does a million."""
    print(f"seed {SEED}")  # noqa: T201 - shown when it fails
    found = fuzz_decoding(SEED, 100_000)
    assert set(found) > {StoreStatus.SUCCESS, StoreStatus.CANNOT_UNDERSTAND, Aborted.VIOLATION}


def test_running_scp(scp: Site) -> None:
    print(f"seed {SEED}")  # noqa: T201 - the same
    before = scp.resident_bytes()
    found = fuzz_server(scp.port, SEED, 600)
    assert scp.processes[0].is_alive()
    assert scp.resident_bytes() - before < 64 << 20
    assert found[StoreStatus.SUCCESS] > 0
    wait_until(lambda: len(scp.files()) == scp.count("location"), what="only stored files to stay")
    assert "Traceback" not in scp.log()
