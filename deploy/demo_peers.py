"""The demonstration's peers, each run as a process: a storage SCP and an IAN SCP.

They print one line of JSON for each object or notification they take.

Usage: python -m deploy.demo_peers store|ian TITLE PORT
"""

import json
import sys

from pydicom import Dataset
from pydicom.uid import (
    AllTransferSyntaxes,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.events import Event

VERIFICATION = "1.2.840.10008.1.1"
INSTANCE_AVAILABILITY_NOTIFICATION = "1.2.840.10008.5.1.4.33"
SUCCESS = 0x0000
DUPLICATE_SOP_INSTANCE = 0x0111


def main(service: str, title: str, port: int) -> None:
    """Listen until the process is ended."""
    ae = AE(ae_title=title)
    ae.add_supported_context(VERIFICATION)
    if service == "store":
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(str(context.abstract_syntax), AllTransferSyntaxes)
    else:
        syntaxes = [ImplicitVRLittleEndian, ExplicitVRLittleEndian]
        ae.add_supported_context(INSTANCE_AVAILABILITY_NOTIFICATION, syntaxes)
    seen: set[str] = set()
    ae.start_server(
        ("", port),
        block=True,
        evt_handlers=[(evt.EVT_C_STORE, _on_store), (evt.EVT_N_CREATE, _on_create, [seen])],
    )


def _on_store(event: Event) -> int:
    _print(event, "C-STORE-RQ", Dataset())
    return SUCCESS


def _on_create(event: Event, seen: set[str]) -> tuple[int, Dataset | None]:
    uid = str(event.request.AffectedSOPInstanceUID)
    if uid in seen:
        return DUPLICATE_SOP_INSTANCE, None
    seen.add(uid)
    _print(event, "N-CREATE-RQ", event.attribute_list)
    return SUCCESS, Dataset()


def _print(event: Event, command: str, dataset: Dataset) -> None:
    record = {
        "command": command,
        "calling": event.assoc.requestor.ae_title,
        "cuid": str(event.request.AffectedSOPClassUID),
        "iuid": str(event.request.AffectedSOPInstanceUID),
        "tsuid": str(event.context.transfer_syntax),
        "dataset": dataset.to_json_dict(),
    }
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
