"""Renew the tables of docs/conformance-statement.md from the code that behaves so.

Run it as `python deploy/make_conformance.py`. The prose of the page is written by hand; what stands
between `<!-- table NAME -->` and `<!-- end -->` is made here. A test compares the page with what
this writes.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydicom.datadict import keyword_for_tag
from pydicom.uid import UID

from archive.configuration.decode import Variables
from archive.configuration.defaults import default_entries
from archive.configuration.descriptors import NetworkAE, TransferRole, VerificationPolicy
from archive.configuration.snapshot import build_snapshot
from archive.model.commitment import (
    DEFAULT_DEADLINE_S,
    DEFAULT_LINGER_S,
    DEFAULT_MAX_INSTANCES,
    FailureReason,
    Rung,
    next_step,
    reason_words,
)
from archive.model.durations import format_duration
from archive.model.query import ATTRIBUTES, Computed, Level
from archive.model.retrieval import RetrieveStatus
from archive.model.status import Service, classify
from archive.storage.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from scp.commitment import NormalizedStatus
from scp.listening import DEFAULT_IDLE_TIMEOUT_S, DEFAULT_REQUEST_TIMEOUT_S
from scp.matching import FindStatus
from scp.negotiation import DEFAULT_PDU_LENGTH
from scp.rejection import REJECTION_CODES, REVOCATION_CODES
from scp.statuses import StoreStatus
from workers.notification import notification_attributes
from workers.route import TimeLimits

PAGE = Path(__file__).resolve().parents[1] / "docs" / "conformance-statement.md"
IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1."
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
ANY_STATUS = (
    *(0x0000, 0x0001, 0x0105, 0x0106, 0x0107, 0x0110, 0x0111, 0x0112, 0x0116, 0x0117, 0x0118),
    *(0x0119, 0x0120, 0x0121, 0x0122, 0x0124, 0x0210, 0x0211, 0x0212, 0x0213),
)
MATCHED_BELOW = (Computed.MODALITIES, Computed.SOP_CLASSES)
ASKED = (0x0000, 0x0110, 0x0112, 0x0115, 0x0119, 0x0122, 0x0123, 0x0124, 0x0211, 0x0213)
STORED = (0x0000, 0xB000, 0xB006, 0xB007, 0xA700, 0xA900, 0xC000, 0x0122, 0x0124)
MOVED = (0x0000, 0xFF00, 0xB000, 0xA701, 0xA702, 0xA801, 0xA900, 0xC000, 0xFE00)


def rows(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Return a table."""
    head = f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}\n"
    return head + "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def default_ae() -> NetworkAE:
    """Return the AE of the default directory."""
    entries = default_entries()
    device = build_snapshot(entries, "dcm4chee-arc", Variables(), fingerprint="x").device
    return device.aes["DCM4CHEE"]


def is_storage(sop_class_uid: str) -> bool:
    """Tell whether a SOP class is stored by C-STORE; its name says so."""
    name = UID(sop_class_uid).name
    known = "Storage" in name and "Commitment" not in name
    return known or sop_class_uid.startswith(IMAGE_STORAGE)


def services() -> str:
    """Return the SOP classes that are not of storage, with their roles."""
    roles: dict[str, set[TransferRole]] = {}
    for each in default_ae().transfer_capabilities:
        if not is_storage(each.sop_class):
            roles.setdefault(each.sop_class, set()).add(each.role)
    lines = [
        (UID(uid).name, uid, *("yes" if role in known else "no" for role in TransferRole))
        for uid, known in sorted(roles.items(), key=lambda pair: UID(pair[0]).name)
    ]
    return rows(("SOP class", "UID", "SCU", "SCP"), lines)


def storage() -> str:
    """Return the storage SOP classes."""
    classes = {
        each.sop_class for each in default_ae().transfer_capabilities if is_storage(each.sop_class)
    }
    return rows(("SOP class", "UID"), sorted((UID(uid).name, uid) for uid in classes))


def syntaxes() -> str:
    """Return the transfer syntaxes in which objects are taken and sent as stored."""
    ct = next(
        each
        for each in default_ae().transfer_capabilities
        if each.sop_class == CT_IMAGE_STORAGE and each.role is TransferRole.SCP
    )
    return rows(("transfer syntax", "UID"), [(UID(uid).name, uid) for uid in ct.transfer_syntaxes])


def behaviour(service: Service, codes: Iterable[int]) -> str:
    """Return what is made of the statuses of a service as SCU."""

    def lines() -> Iterator[tuple[str, str, str, str]]:
        for code in codes:
            status = classify(service, code)
            then = "done" if status.is_accepted else str(status.failure or "–")
            again = {"transient": "retried by the queue's policy", "permanent": "not retried"}
            yield (f"{code:04X}", status.meaning, status.status_class, again.get(then, then))

    return rows(("status", "meaning", "class", "behaviour"), lines())


def answers(statuses: type[StoreStatus | FindStatus | RetrieveStatus | NormalizedStatus]) -> str:
    """Return the statuses that an SCP answers."""
    return rows(
        ("status", "meaning"),
        [(f"{each.value:04X}", each.name.replace("_", " ").lower()) for each in statuses],
    )


def reasons() -> str:
    """Return what is done about each failure reason of a report."""
    return rows(
        (
            "failure reason",
            "after the first request",
            "after the second",
            "after it was sent again",
        ),
        [
            (reason_words(reason), *(next_step(r, reason, can_resend=True).lower() for r in Rung))
            for reason in (None, *FailureReason)
        ],
    )


def properties() -> str:
    """Return the properties of exporters that govern commitment."""
    return rows(
        ("dcmProperty", "default", "meaning"),
        (
            (
                "StgCmtDeadline",
                format_duration(DEFAULT_DEADLINE_S),
                "how long a report is waited for",
            ),
            ("StgCmtMaxInstances", DEFAULT_MAX_INSTANCES, "most instances in one request"),
            (
                "StgCmtSameAssociation",
                format_duration(DEFAULT_LINGER_S),
                "how long the association of a request is held open for its report",
            ),
            ("IANAfter", "export", "`commitment`: notifications wait for the commitment"),
        ),
    )


def limits() -> str:
    """Return the time limits of associations that are opened."""
    found = TimeLimits()
    return rows(
        ("limit", "attribute", "default"),
        (
            ("TCP connection", "dcmTCPConnectTimeout", f"{found.connect_s:g} s"),
            ("A-ASSOCIATE-AC", "dcmAAACTimeout", f"{found.accept_s:g} s"),
            ("A-RELEASE-RP", "dcmARRPTimeout", f"{found.release_s:g} s"),
            ("peer takes no byte", "dcmSendTimeout", f"{found.stall_s:g} s"),
            ("one C-STORE request", "dcmStoreTimeout", f"{found.store_s:g} s"),
            ("response", "dcmResponseTimeout", f"{found.response_s:g} s"),
        ),
    )


def associations() -> str:
    """Return the parameters of all associations (PS3.2 table N.7-1)."""
    return rows(
        ("name", "value"),
        (
            ("Application Context Name", "1.2.840.10008.3.1.1.1"),
            ("Implementation Class UID", IMPLEMENTATION_CLASS_UID),
            ("Implementation Version Name", IMPLEMENTATION_VERSION_NAME),
            ("longest PDU offered", f"{DEFAULT_PDU_LENGTH} bytes (dcmReceivePDULength)"),
            ("asynchronous operations", "not negotiated: one message at a time"),
            ("wait for A-ASSOCIATE-RQ", f"{DEFAULT_REQUEST_TIMEOUT_S:g} s (dcmAARQTimeout)"),
            ("idle association", f"{DEFAULT_IDLE_TIMEOUT_S:g} s (dcmIdleTimeout)"),
            (
                "associations accepted",
                "dcmLimitOpenAssociations, dcmLimitAssociationsInitiatedBy; no limit when absent",
            ),
            (
                "associations opened",
                "dcmMaxTasksParallel of a queue, dcmMultipleStoreAssociations",
            ),
        ),
    )


def commit_failures() -> str:
    """Return when each failure reason is reported (PS3.2 table N.5-16)."""
    when = {
        FailureReason.PROCESSING_FAILURE: (
            "no copy passes verification, there is none, or COMMITTED_BY is not fulfilled"
        ),
        FailureReason.NO_SUCH_OBJECT_INSTANCE: "the index has no such instance, or it is rejected",
        FailureReason.CLASS_INSTANCE_CONFLICT: "the instance is of another SOP class",
    }
    return rows(
        ("failure reason", "sent when"),
        [(reason_words(each), when.get(each, "code is not supported")) for each in FailureReason],
    )


def query_keys() -> str:
    """Return the attributes that queries match and return, by level."""
    levels = tuple(Level)
    lines = [
        (
            each.level,
            keyword_for_tag(each.tag) or each.key,
            f"({each.key[:4]},{each.key[4:]})",
            "returned"
            if each.computed and each.computed not in MATCHED_BELOW
            else "matched, returned",
        )
        for each in sorted(
            ATTRIBUTES.values(), key=lambda each: (levels.index(each.level), each.tag)
        )
    ]
    return rows(("level", "attribute", "tag", "use"), lines)


def verification() -> str:
    """Return the policies of verification before storage is committed to."""
    meanings = {
        VerificationPolicy.DB_RECORD_EXISTS: "the index has the instance",
        VerificationPolicy.OBJECT_EXISTS: "its file exists",
        VerificationPolicy.OBJECT_SIZE: "and has the recorded length",
        VerificationPolicy.OBJECT_FETCH: "and can be read to its end",
        VerificationPolicy.OBJECT_CHECKSUM: "and has the recorded digest (default)",
    }
    return rows(
        ("dcmStorageVerificationPolicy", "an instance counts as kept when"), meanings.items()
    )


def titles(codes: Mapping[tuple[str, str], str]) -> str:
    """Return titles of key object selection documents."""
    lines = [(value, scheme, name) for (value, scheme), name in codes.items()]
    return rows(("code value", "scheme", "meaning"), lines)


TABLES: Mapping[str, Callable[[], str]] = {
    "services": services,
    "storage": storage,
    "syntaxes": syntaxes,
    "associations": associations,
    "limits": limits,
    "store-scu": lambda: behaviour(Service.C_STORE, STORED),
    "store-scp": lambda: answers(StoreStatus),
    "find-scp": lambda: answers(FindStatus),
    "move-scu": lambda: behaviour(Service.C_MOVE, MOVED),
    "move-scp": lambda: answers(RetrieveStatus),
    "create-scu": lambda: behaviour(Service.N_CREATE, ANY_STATUS),
    "action-scu": lambda: behaviour(Service.N_ACTION, ASKED),
    "report-scp": lambda: behaviour(Service.N_EVENT_REPORT, ASKED),
    "normalized-scp": lambda: answers(NormalizedStatus),
    "reasons": reasons,
    "properties": properties,
    "verification": verification,
    "commit-failures": commit_failures,
    "query-keys": query_keys,
    "rejections": lambda: titles(REJECTION_CODES),
    "revocations": lambda: titles(REVOCATION_CODES),
    "notification": lambda: rows(("attribute", "type"), notification_attributes()),
}


def renewed(text: str) -> str:
    """Return the page with its tables made anew."""
    parts = text.split("<!-- table ")
    pieces = [parts[0]]
    for part in parts[1:]:
        name, _, rest = part.partition(" -->")
        _, _, after = rest.partition("<!-- end -->")
        pieces.append(f"<!-- table {name} -->\n{TABLES[name]()}<!-- end -->{after}")
    return "".join(pieces)


def main() -> None:
    """Write the page."""
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    main()
