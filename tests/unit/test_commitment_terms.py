"""The value of dcmStgCmtPolicy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.errors import InvalidValueError
from archive.model.commitment_terms import CommitmentTerms


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("COMMITTED_BY:EXP", CommitmentTerms(("EXP",))),
        ("committed_by: EXP1 , EXP2,EXP1", CommitmentTerms(("EXP1", "EXP2"))),
        ("SAME_ASSOCIATION:PT5S", CommitmentTerms((), 5.0)),
        ("COMMITTED_BY:E;SAME_ASSOCIATION:PT1M;", CommitmentTerms(("E",), 60.0)),
        (" SAME_ASSOCIATION : PT2S ; COMMITTED_BY : E ", CommitmentTerms(("E",), 2.0)),
    ],
)
def test_terms_as_written(text: str, terms: CommitmentTerms) -> None:
    assert CommitmentTerms.parse(text) == terms


@pytest.mark.parametrize(
    "text",
    [
        *("", ";", "COMMITTED_BY", "COMMITTED_BY:", "SAME_ASSOCIATION:", "OBJECT_CHECKSUM"),
        *("SAME_ASSOCIATION:5", "SAME_ASSOCIATION:-PT5S", "COMMITTED_BY:,"),
        *("COMMITTED_BY:A;COMMITTED_BY:B", "COMMITTED_BY:A;SOONER:PT1S"),
    ],
)
def test_other_values_are_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        CommitmentTerms.parse(text)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        terms = CommitmentTerms.parse(text)
    except InvalidValueError:
        return
    assert terms.same_association_s >= 0
    assert all(terms.committed_by)
