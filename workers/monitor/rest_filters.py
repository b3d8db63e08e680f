"""Conditions on what the archive holds, for orders by query: which studies, series, instances."""

from collections.abc import Iterator

from archive.configuration.descriptors import NetworkAE
from archive.errors import InvalidValueError
from archive.ledger import query as index
from archive.model.query_key import Key
from workers.monitor.handler import TooManyError
from workers.monitor.parameters import flag_of
from workers.monitor.qido import UNIQUE, conditions, index_query, is_unique, level_of, matches
from workers.monitor.rest import Call, Parameter
from workers.ordering import Entity

CONDITIONS = tuple(
    Parameter(name, "As in QIDO-RS, like any other attribute", is_condition=True)
    for name in (
        *("PatientName", "PatientID", "StudyDate", "ModalitiesInStudy", "AccessionNumber"),
        *("StudyInstanceUID", "StudyDescription", "Modality", "SeriesInstanceUID"),
        *("SeriesDescription", "SOPClassUID", "SOPInstanceUID"),
    )
)
FUZZY = Parameter("fuzzymatching", "Not done", {"type": "string", "enum": ["", "true", "false"]})


def path_keys(call: Call) -> tuple[Key, ...]:
    """Return the conditions that the path sets."""
    names = ("StudyInstanceUID", "SeriesInstanceUID")
    given = {name: [call.path[name]] for name in names if name in call.path}
    return conditions(given)


def entities_of(word: str, call: Call, ae: NetworkAE) -> Iterator[Entity]:
    """Return what the path and the conditions of a call mean.

    Parameters
    ----------
    word
        study, series or instance.

    Raises
    ------
    InvalidValueError
        When a condition cannot be kept.
    TooManyError
        When that is more than dcmQueryMaxNumberOfResults, and no UID says which.
    """
    if flag_of(call.queries, "fuzzymatching"):
        msg = "fuzzymatching is not done; write wildcards"
        raise InvalidValueError(msg)
    level = level_of(word)
    keys = (*path_keys(call), *conditions(call.conditions))
    query = index_query(keys, level)
    most = ae.query_max_number_of_results
    if most > 0 and not is_unique(keys, level):
        found = index.count(call.services.ledger, query, most)
        if found > most:
            msg = (
                f"more than {most} matches (dcmQueryMaxNumberOfResults); nothing was ordered:"
                f" narrow the conditions, or name {UNIQUE[0].column}"
            )
            raise TooManyError(msg)
    return matches(call.services.ledger, query)
