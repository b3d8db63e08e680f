"""Requests that a SOP class does not have: answered 0211 instead of an abort (PS3.7 §C.5.25).

Of pynetdicom is relied on: `Association._serve_request`, `_accepted_cx`.
"""

from typing import Any, Final

from pynetdicom.dimse_primitives import N_CREATE, N_DELETE, N_GET, N_SET

from archive.model.commitment import STORAGE_COMMITMENT_PUSH_MODEL
from archive.model.procedure_step import MODALITY_PERFORMED_PROCEDURE_STEP
from scp.receiving import StoreAssociation

UNRECOGNIZED_OPERATION: Final = 0x0211
_UNRECOGNIZED: Final = {
    STORAGE_COMMITMENT_PUSH_MODEL: (N_CREATE, N_SET, N_GET, N_DELETE),
    MODALITY_PERFORMED_PROCEDURE_STEP: (N_GET, N_DELETE),
}


def answer_unrecognized(assoc: StoreAssociation) -> None:
    """Have requests answered that pynetdicom would abort the association for."""
    serve_otherwise = assoc._serve_request  # noqa: SLF001

    def serve(message: Any, context_id: int) -> None:  # noqa: ANN401 - any DIMSE primitive
        context = assoc._accepted_cx.get(context_id)  # noqa: SLF001
        kinds = _UNRECOGNIZED.get(str(context.abstract_syntax)) if context else None
        if kinds is None or not isinstance(message, kinds) or not message.is_valid_request:
            serve_otherwise(message, context_id)
            return
        response = type(message)()
        response.MessageIDBeingRespondedTo = message.MessageID
        response.Status = UNRECOGNIZED_OPERATION
        assoc.dimse.send_msg(response, context_id)

    assoc._serve_request = serve  # type: ignore[method-assign,assignment]  # noqa: SLF001
