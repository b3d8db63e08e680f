"""Modality performed procedure steps (PS3.4 §F.7): stored, forwarded to nobody.

A completed step tells which objects belong together; with the trigger MPPS_RECEIVED they are
announced once all of them are here.
"""

import logging
from collections.abc import Callable
from typing import Final

from pydicom.dataset import Dataset

from archive import telemetry
from archive.configuration.announcements import announcements
from archive.errors import InvalidValueError
from archive.ledger import procedure_steps
from archive.ledger.connection import Ledger, Transaction
from archive.model.identifiers import check_uid
from archive.model.procedure_step import StepStatus, produced_instances, status_of, study_of
from archive.telemetry import log_event
from scp.commitment import NormalizedStatus, RefusedRequestError
from scp.session import Session

NO_LONGER_UPDATED: Final = "Performed Procedure Step Object may no longer be updated"
_log = logging.getLogger(__name__)


class ProcedureStepService:
    """Takes procedure steps; one for all associations of a process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def create(
        self, session: Session, sop_instance_uid: str, attributes: Callable[[], Dataset]
    ) -> None:
        """Take a new procedure step in (N-CREATE, PS3.4 §F.7.2.1).

        Raises
        ------
        RefusedRequestError
            0117 for an impossible SOP Instance UID, 0120 and 0106 for a missing or wrong status,
            0111 when the procedure step exists.
        """
        uid, dataset = _checked(sop_instance_uid, attributes)
        status = status_of(dataset)
        if not status:
            msg = "Performed Procedure Step Status (0040,0252) is missing"
            raise RefusedRequestError(NormalizedStatus.MISSING_ATTRIBUTE, msg)
        if status != StepStatus.IN_PROGRESS:
            msg = f"a new procedure step is IN PROGRESS, not {status!r}"
            raise RefusedRequestError(NormalizedStatus.INVALID_ATTRIBUTE_VALUE, msg)
        with self._ledger.transaction() as tx:
            is_new = procedure_steps.create(
                tx,
                uid,
                dataset,
                calling_aet=session.calling_aet,
                called_aet=session.ae.title,
                study_instance_uid=study_of(dataset),
            )
        if not is_new:
            msg = f"procedure step {uid} exists already"
            raise RefusedRequestError(NormalizedStatus.DUPLICATE_SOP_INSTANCE, msg)
        _log_change(session, uid, status)

    def change(
        self, session: Session, sop_instance_uid: str, modifications: Callable[[], Dataset]
    ) -> None:
        """Change a procedure step (N-SET, PS3.4 §F.7.2.2).

        Raises
        ------
        RefusedRequestError
            0112 when there is no such procedure step, 0110 when it is final, 0106 for a status
            that there is not.
        """
        uid, dataset = _checked(sop_instance_uid, modifications)
        status = _new_status(dataset)
        with self._ledger.transaction() as tx:
            known = procedure_steps.lock(tx, uid)
            if known is None:
                msg = f"there is no procedure step {uid}"
                raise RefusedRequestError(NormalizedStatus.NO_SUCH_SOP_INSTANCE, msg)
            if known is not StepStatus.IN_PROGRESS:
                msg = f"{NO_LONGER_UPDATED}: it is {known}"
                raise RefusedRequestError(NormalizedStatus.PROCESSING_FAILURE, msg)
            step = procedure_steps.change(
                tx, uid, dataset, status=status, study_instance_uid=study_of(dataset)
            )
            if status is StepStatus.COMPLETED:
                _announce(tx, session, step)
        _log_change(session, uid, status or known)


def _announce(tx: Transaction, session: Session, step: procedure_steps.ChangedStep) -> None:
    """Have the objects of a completed step announced, if the called AE does that."""
    announced = announcements(session.snapshot, session.ae)
    produced = produced_instances(step.dataset)
    if announced is not None and announced.procedure_steps and produced:
        procedure_steps.wait_for_objects(tx, step, announced, produced)


def _checked(sop_instance_uid: str, read: Callable[[], Dataset]) -> tuple[str, Dataset]:
    try:
        uid = check_uid(sop_instance_uid, "SOP Instance UID of the procedure step")
    except InvalidValueError as error:
        raise RefusedRequestError(NormalizedStatus.INVALID_SOP_INSTANCE, str(error)) from error
    try:
        return uid, read()
    except InvalidValueError as error:
        raise RefusedRequestError(NormalizedStatus.PROCESSING_FAILURE, str(error)) from error


def _new_status(dataset: Dataset) -> StepStatus | None:
    text = status_of(dataset)
    if not text:
        return None
    try:
        return StepStatus(text)
    except ValueError as error:
        msg = f"{text!r} is no Performed Procedure Step Status"
        raise RefusedRequestError(NormalizedStatus.INVALID_ATTRIBUTE_VALUE, msg) from error


def _log_change(session: Session, uid: str, status: str) -> None:
    log_event(
        _log,
        telemetry.PROCEDURE_STEP_CHANGED,
        calling_aet=session.calling_aet,
        mpps=uid,
        status=status,
    )
