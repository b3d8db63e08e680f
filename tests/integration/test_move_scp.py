"""The C-MOVE SCP: what it refuses, what it relays, and that it always answers once."""

from typing import Any

import pytest
from pynetdicom.association import Association
from pynetdicom.events import Event

from tests.fix_move import PATIENT_ROOT_MOVE, STUDY_ROOT_MOVE, MoveSite
from tests.fix_peer import StoreScp
from tests.fix_process import free_port, wait_until
from tests.fix_system import ARCHIVE_AE, DEVICES

STORESCP = f"dicomAETitle=STORESCP,dicomDeviceName=storescp,{DEVICES}"
A702, A801, A900, B000, FE00, FF00 = 0xA702, 0xA801, 0xA900, 0xB000, 0xFE00, 0xFF00


@pytest.mark.parametrize(
    ("model", "keys", "words"),
    [
        (STUDY_ROOT_MOVE, {"StudyInstanceUID": "1.2"}, "Query/Retrieve Level is missing"),
        (STUDY_ROOT_MOVE, {"QueryRetrieveLevel": "PATIENT", "PatientID": "1"}, "not in this model"),
        (STUDY_ROOT_MOVE, {"QueryRetrieveLevel": "STUDY"}, "StudyInstanceUID is missing"),
        (
            STUDY_ROOT_MOVE,
            {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "1"},
            "StudyInstanceUID is missing",
        ),
        (PATIENT_ROOT_MOVE, {"QueryRetrieveLevel": "PATIENT", "PatientID": "*"}, "wildcard"),
    ],
)
def test_identifier_is_refused(
    moves: MoveSite, model: str, keys: dict[str, Any], words: str
) -> None:
    # the identifier is looked at before the destination, which nobody knows here either
    final = moves.client().move("NOWHERE", model, **keys)
    assert final.status == A900
    assert words in final.comment
    assert not moves.tasks()


def test_destination_has_to_be_accepted(moves: MoveSite) -> None:
    peer = moves.destination()
    study = moves.study()
    moves.site.modify(ARCHIVE_AE, dcmAcceptedMoveDestination="ELSEWHERE")
    moves.settle()
    final = moves.client().study(study)
    assert final.status == A801
    assert "dcmAcceptedMoveDestination" in final.comment
    assert not peer.received


def test_new_destination_is_known_at_once(moves: MoveSite) -> None:
    study = moves.study()
    assert moves.client().study(study, destination="NEWCOMER").status == A801
    peer = StoreScp("NEWCOMER")
    peer.start()
    moves.peers.append(peer)
    moves.place("NEWCOMER", peer.port)
    assert moves.client().study(study, destination="NEWCOMER").status == 0
    assert len(peer.received) == 1


def test_sub_operations_name_their_move(moves: MoveSite) -> None:
    seen: list[tuple[str, str, int, int]] = []

    def status(event: Event) -> int:
        request = event.request
        seen.append(
            (
                event.assoc.requestor.ae_title,
                str(request.MoveOriginatorApplicationEntityTitle).strip(),
                int(request.MoveOriginatorMessageID or 0),
                int(request.Priority or 0),
            )
        )
        return 0

    moves.destination(status=status)
    study = moves.study()
    moves.client("VIEWER").study(study, message_id=4711)
    assert seen == [("DCM4CHEE", "VIEWER", 4711, 2)]


def test_levels_and_lists(moves: MoveSite) -> None:
    peer = moves.destination()
    study = moves.study(series=3, instances=2)
    root = study.study_instance_uid
    two = moves.client().move(
        QueryRetrieveLevel="SERIES",
        StudyInstanceUID=root,
        SeriesInstanceUID=[f"{root}.1", f"{root}.3"],
    )
    assert two.counts == (None, 4, 0, 0)
    one = moves.client().move(
        QueryRetrieveLevel="IMAGE",
        StudyInstanceUID=root,
        SeriesInstanceUID=f"{root}.2",
        SOPInstanceUID=f"{root}.2.1",
    )
    assert one.counts == (None, 1, 0, 0)
    patient = moves.client().move(
        "STORESCP", PATIENT_ROOT_MOVE, QueryRetrieveLevel="PATIENT", PatientID="P1"
    )
    assert patient.counts == (None, 6, 0, 0)
    other = moves.client().move(
        QueryRetrieveLevel="STUDY", StudyInstanceUID=root, PatientID="ANOTHER"
    )
    assert (other.status, other.counts) == (0, (None, 0, 0, 0))
    assert len(peer.received) == 11


def test_pending_responses_from_the_start(moves: MoveSite) -> None:
    moves.set(dcmSendPendingCMoveInterval="PT1S")
    released: list[bool] = []
    peer = moves.destination(status=lambda _event: wait_until(lambda: released or None) and 0)
    study = moves.study(instances=3)
    client = moves.client()

    def after_two(_association: object, _response: object) -> None:
        if len(client.responses) == 2:
            released.append(True)

    final = client.study(study, on_response=after_two)
    assert (final.status, final.counts) == (0, (None, 3, 0, 0))
    first = client.responses[0]
    assert (first.status, first.counts) == (FF00, (3, 0, 0, 0))
    assert len(client.responses) >= 3
    assert len(peer.received) == 3


def test_failures_are_listed(moves: MoveSite) -> None:
    moves.destination(status=lambda event: 0xC000 if event.message_id % 2 else 0)
    study = moves.study(instances=4)
    final = moves.client().study(study)
    assert (final.status, final.counts) == (B000, (None, 2, 2, 0))
    assert len(final.failed_uids) == 2


def test_warnings_are_counted(moves: MoveSite) -> None:
    moves.destination(status=lambda _event: 0xB000)
    study = moves.study(instances=2)
    final = moves.client().study(study)
    assert (final.status, final.counts, final.failed_uids) == (B000, (None, 0, 0, 2), ())


def test_destination_down(moves: MoveSite) -> None:
    moves.place("STORESCP", free_port())
    study = moves.study(instances=2)
    final = moves.client().study(study)
    assert (final.status, final.counts) == (A702, (None, 0, 2, 0))
    assert final.failed_uids == tuple(sorted(study.files))
    assert "cannot connect to STORESCP" in final.comment


def test_cancel(moves: MoveSite) -> None:
    canceled: list[bool] = []
    peer = moves.destination(
        status=lambda e: wait_until(lambda: canceled) and 0 if e.message_id == 3 else 0
    )
    moves.set(dcmSendPendingCMoveInterval="PT1S")
    study = moves.study(instances=6)

    def on_response(association: object, response: object) -> None:
        if response.counts[1] == 2 and not canceled:  # type: ignore[attr-defined]
            association.send_c_cancel(1, 1)  # type: ignore[attr-defined]
            wait_until(
                lambda: any(task.cancel_requested for task in moves.tasks()), what="the cancel"
            )
            canceled.append(True)

    final = moves.client().study(study, on_response=on_response)
    assert final.status == FE00
    remaining, completed, failed, warning = final.counts
    assert (completed, failed, warning) == (3, 0, 0)
    assert remaining == 3
    assert len(peer.received) == 3
    assert [task.status for task in moves.wait_for_tasks()] == ["CANCELED"]


class Left(Exception):  # noqa: N818 - no error
    """A requestor has gone."""


def leave(association: Association) -> None:
    """Abort, and wait for no response."""
    association.abort()
    raise Left


def test_requestor_that_leaves_does_not_stop_the_delivery(moves: MoveSite) -> None:
    peer = moves.destination()
    study = moves.study(instances=5)
    requestor = moves.client()
    with pytest.raises(Left):
        requestor.study(study, started=leave)
    assert {each.sop_instance_uid for each in peer.wait_for(5)} == set(study.files)
    assert requestor.responses == []
    assert [task.status for task in moves.wait_for_tasks()] == ["COMPLETED"]


def test_missing_file_is_a_failed_sub_operation(moves: MoveSite) -> None:
    moves.destination()
    study = moves.study(instances=3)
    moves.site.files()[0].unlink()
    final = moves.client().study(study)
    assert (final.status, final.counts) == (B000, (None, 2, 1, 0))


@pytest.mark.parametrize(
    ("silent", "counts"), [("FALSE", (None, 0, 2, 0)), ("TRUE", (None, 0, 0, 0))]
)
def test_what_the_destination_cannot_take(
    moves: MoveSite, silent: str, counts: tuple[int | None, ...]
) -> None:
    moves.destination()
    moves.site.configure(
        f"""\
        dn: cn=MR SCP,{STORESCP}
        changetype: add
        objectClass: dicomTransferCapability
        cn: MR SCP
        dicomSOPClass: 1.2.840.10008.5.1.4.1.1.4
        dicomTransferRole: SCP
        dicomTransferSyntax: 1.2.840.10008.1.2
        """
    )
    moves.set(dcmRestrictRetrieveSilently=silent)
    study = moves.study(instances=2)
    final = moves.client().study(study)
    assert (final.status, final.counts) == (0 if silent == "TRUE" else A702, counts)
