"""SOP Class Extended Negotiation of queries and retrieves: only what is there is granted."""

import pytest
from pydicom.uid import UID

from archive.configuration.descriptors import NetworkAE
from scp.query import accepted_negotiation, terms_of
from scp.retrieve_exchange import accepted_retrieve_negotiation

FIND, MOVE, STORE = (
    UID(uid)
    for uid in (
        "1.2.840.10008.5.1.4.1.2.2.1",
        "1.2.840.10008.5.1.4.1.2.2.2",
        "1.2.840.10008.5.1.4.1.1.7",
    )
)


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        # relational, combined date-time, fuzzy names, time zone, multi-frame (PS3.4 §C.5.1.1.1)
        (b"\1", b"\1"),
        (b"\0\1", b"\0\1"),
        (b"\1\1\1\1\1", b"\1\1\0\0\0"),
        (b"\2\1\1", b"\0\1\0"),
        (b"\0\0\0\1\0\1\1", b"\0\0\0\0\0\0\0"),
    ],
)
def test_queries(asked: bytes, granted: bytes) -> None:
    assert accepted_negotiation({FIND: asked}) == {FIND: granted}


def test_other_classes_are_left_to_others() -> None:
    assert accepted_negotiation({MOVE: b"\1", STORE: b"\1", FIND: b""}) == {}


@pytest.mark.parametrize(("asked", "granted"), [(b"\1", b"\1"), (b"\0", b"\0"), (b"\1\1", b"\1")])
def test_retrieves(asked: bytes, granted: bytes) -> None:
    assert accepted_retrieve_negotiation({MOVE: asked, FIND: b"\1"}) == {MOVE: granted}


@pytest.mark.parametrize(
    ("extended", "lenient", "relational", "combined"),
    [
        (b"", False, False, False),
        (b"\1", False, True, False),
        (b"\0\1", False, False, True),
        (b"", True, True, False),
    ],
)
def test_terms(extended: bytes, *, lenient: bool, relational: bool, combined: bool) -> None:
    ae = NetworkAE(
        title="ARC",
        device_name="arc",
        connections=(),
        relational_query_negotiation_lenient=lenient,
    )
    terms = terms_of(extended, ae)
    assert (terms.relational, terms.combined) == (relational, combined)
