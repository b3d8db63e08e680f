"""DIMSE statuses: what they mean and whether another attempt can help."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.model.status import DimseStatus, Service, StatusClass, classify
from archive.model.task import Failure

CASES = [
    (Service.C_STORE, 0x0000, StatusClass.SUCCESS, None),
    (Service.C_STORE, 0x0001, StatusClass.WARNING, None),
    (Service.C_STORE, 0xB000, StatusClass.WARNING, None),
    (Service.C_STORE, 0xB006, StatusClass.WARNING, None),
    (Service.C_STORE, 0xB007, StatusClass.WARNING, None),
    (Service.C_STORE, 0xB123, StatusClass.WARNING, None),
    (Service.C_STORE, 0xA700, StatusClass.FAILURE, Failure.TRANSIENT),
    (Service.C_STORE, 0xA7FF, StatusClass.FAILURE, Failure.TRANSIENT),
    (Service.C_STORE, 0x0110, StatusClass.FAILURE, Failure.TRANSIENT),
    (Service.C_STORE, 0x0213, StatusClass.FAILURE, Failure.TRANSIENT),
    (Service.C_STORE, 0xA900, StatusClass.FAILURE, Failure.PERMANENT),
    (Service.C_STORE, 0xC000, StatusClass.FAILURE, Failure.PERMANENT),
    (Service.C_STORE, 0xCFFF, StatusClass.FAILURE, Failure.PERMANENT),
    (Service.C_STORE, 0x0117, StatusClass.FAILURE, Failure.PERMANENT),
    (Service.C_STORE, 0x0122, StatusClass.FAILURE, Failure.PERMANENT),
    (Service.C_STORE, 0x0124, StatusClass.FAILURE, Failure.PERMANENT),
    (Service.C_STORE, 0x0211, StatusClass.FAILURE, Failure.PERMANENT),
    (Service.C_STORE, 0x0212, StatusClass.FAILURE, Failure.PERMANENT),
    (Service.C_STORE, 0xF000, StatusClass.FAILURE, Failure.TRANSIENT),
    (Service.C_STORE, 0xFE00, StatusClass.CANCEL, None),
    (Service.C_MOVE, 0xFF00, StatusClass.PENDING, None),
    (Service.C_MOVE, 0xA801, StatusClass.FAILURE, Failure.PERMANENT),
    (Service.C_MOVE, 0xA702, StatusClass.FAILURE, Failure.TRANSIENT),
    (Service.C_MOVE, 0xC001, StatusClass.FAILURE, Failure.TRANSIENT),
    (Service.N_CREATE, 0x0107, StatusClass.WARNING, None),
    (Service.N_CREATE, 0x0111, StatusClass.FAILURE, Failure.PERMANENT),
    (Service.N_CREATE, 0x0110, StatusClass.FAILURE, Failure.TRANSIENT),
    (Service.N_CREATE, 0xC000, StatusClass.FAILURE, Failure.TRANSIENT),
]


@pytest.mark.parametrize(("service", "code", "status_class", "failure"), CASES)
def test_classification(
    service: Service, code: int, status_class: StatusClass, failure: Failure | None
) -> None:
    status = classify(service, code)
    assert (status.status_class, status.failure) == (status_class, failure)


@given(st.sampled_from(Service), st.integers(0, 0xFFFF))
def test_every_code_has_words_and_only_failures_have_a_failure_class(
    service: Service, code: int
) -> None:
    status = classify(service, code)
    assert status.code == code
    assert status.meaning
    assert (status.failure is not None) == (status.status_class is StatusClass.FAILURE)


def test_words_for_an_administrator() -> None:
    status = DimseStatus(0xA700, StatusClass.FAILURE, "refused: out of resources")
    assert status.describe() == "A700 refused: out of resources"
    assert status.describe("disk full") == 'A700 refused: out of resources: "disk full"'
