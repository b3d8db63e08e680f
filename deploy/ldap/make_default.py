"""Make the LDIF files of the default directory.

Run it as `python deploy/ldap/make_default.py` after a release of pynetdicom or pydicom that knows
further SOP classes or transfer syntaxes; a test compares the files with what it writes.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import sop_class

FOLDER = Path(__file__).resolve().parent / "default"
BASE = "dc=dcm4che,dc=org"
ROOT = f"cn=DICOM Configuration,{BASE}"
DEVICES = f"cn=Devices,{ROOT}"
UNCOMPRESSED = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
LITTLE_ENDIAN = UNCOMPRESSED[:2]
# Syntaxes for web services or with their pixel data at another place cannot be stored by C-STORE
# as they are; those of SMPTE ST 2110 are for real-time video.
NOT_STORED = ("Referenced", "SMPTE", "Papyrus", "XML Encoding", "RFC 2557", "MIME")
STORAGE_ARC = "1.2.840.10008.5.1.4."
NO_STORAGE_CLASSES = ("Commitment", "Media Storage", "Management", "Service")
# JPEG XL and Deflated Image Frame Compression, which pydicom does not know yet.
NEWER_SYNTAXES = (
    "1.2.840.10008.1.2.4.110",
    "1.2.840.10008.1.2.4.111",
    "1.2.840.10008.1.2.4.112",
    "1.2.840.10008.1.2.8.1",
)
QUEUES = {
    "Export": "Export Tasks",
    "IANSCU": "IAN Tasks",
    "StgCmtSCU": "Storage Commitment SCU Tasks",
    "StgCmtSCP": "Storage Commitment SCP Tasks",
    "StgVerTasks": "Storage Verification Tasks",
    "Retrieve": "Dicom Retrieve Tasks",
    "LeadingCFind": "Leading C-FIND Tasks",
    "MPPSSCU": "MPPS Forward Tasks",
    "HL7Send": "HL7 Forward Tasks",
    "RSClient": "RESTful Forward Tasks",
    "DiffTasks": "Diff Tasks",
    "Rejection": "Rejection Tasks",
}
VERIFICATION = ("1.2.840.10008.1.1", "Verification SOP Class")
AVAILABILITY_NOTIFICATION = (
    "1.2.840.10008.5.1.4.33",
    "Instance Availability Notification SOP Class",
)
COMMITMENT = ("1.2.840.10008.1.20.1", "Storage Commitment Push Model SOP Class")
PROCEDURE_STEP = ("1.2.840.10008.3.1.2.3.3", "Modality Performed Procedure Step SOP Class")
QUERIES = {
    "1.2.840.10008.5.1.4.1.2.1.1": "Patient Root Query/Retrieve Information Model - FIND",
    "1.2.840.10008.5.1.4.1.2.2.1": "Study Root Query/Retrieve Information Model - FIND",
    "1.2.840.10008.5.1.4.1.2.3.1": "Patient/Study Only Query/Retrieve Information Model - FIND",
}
RETRIEVES = {
    "1.2.840.10008.5.1.4.1.2.1.2": "Patient Root Query/Retrieve Information Model - MOVE",
    "1.2.840.10008.5.1.4.1.2.1.3": "Patient Root Query/Retrieve Information Model - GET",
    "1.2.840.10008.5.1.4.1.2.2.2": "Study Root Query/Retrieve Information Model - MOVE",
    "1.2.840.10008.5.1.4.1.2.2.3": "Study Root Query/Retrieve Information Model - GET",
    "1.2.840.10008.5.1.4.1.2.3.2": "Patient/Study Only Query/Retrieve Information Model - MOVE",
    "1.2.840.10008.5.1.4.1.2.3.3": "Patient/Study Only Query/Retrieve Information Model - GET",
}
PEERS = {
    "storescp": ("STORESCP", 11115, ("SCP",)),
    "ianscp": ("IANSCP", 11117, ("SCP",)),
    "dcmqrscp": ("QRSCP", 11113, ("SCP", "SCU")),
    "storescu": ("STORESCU", None, ("SCU",)),
}
TIMEOUTS_MS = {
    "dcmTCPConnectTimeout": 5000,
    "dcmAARQTimeout": 5000,
    "dcmAAACTimeout": 5000,
    "dcmARRPTimeout": 5000,
    "dcmAATimeout": 5000,
    "dcmSendTimeout": 5000,
    "dcmStoreTimeout": 300000,
    "dcmResponseTimeout": 5000,
    "dcmRetrieveTimeout": 300000,
    "dcmIdleTimeout": 300000,
}


def storage_classes() -> dict[str, str]:
    """Return the storage SOP classes of the standard, retired ones included: UID to name."""
    known = {str(uid): name for name, uid in sop_class._STORAGE_CLASSES.items()}  # noqa: SLF001 - only there
    for uid, (name, kind, _, retired, _) in UID_dictionary.items():
        if (
            kind == "SOP Class"
            and uid.startswith(STORAGE_ARC)
            and "Storage" in name
            and not any(part in name for part in NO_STORAGE_CLASSES)
        ):
            known[uid] = f"{name} (Retired)" if retired else name
    return dict(sorted(known.items()))


def stored_syntaxes() -> list[str]:
    """Return the UIDs of all transfer syntaxes in which objects are stored as received."""
    syntaxes = [
        uid
        for uid, (name, kind, _, retired, _) in UID_dictionary.items()
        if kind == "Transfer Syntax"
        and (not retired or uid == ExplicitVRBigEndian or "JPEG" in name)
        and not any(part in name for part in NOT_STORED)
    ]
    return sorted({*syntaxes, *UNCOMPRESSED, *NEWER_SYNTAXES})


def entry(dn: str, *pairs: tuple[str, object]) -> str:
    """Return an entry as text."""
    lines = [f"dn: {dn}", *(f"{name}: {value}" for name, value in pairs)]
    return "\n".join(lines) + "\n"


def roots() -> Iterator[str]:
    """Yield the upper entries."""
    yield entry(
        BASE,
        ("objectClass", "dcObject"),
        ("objectClass", "organization"),
        ("o", "dcm4che.org"),
        ("dc", "dcm4che"),
    )
    for name, object_class, dn in (
        ("DICOM Configuration", "dicomConfigurationRoot", BASE),
        ("Devices", "dicomDevicesRoot", ROOT),
        ("Unique AE Titles Registry", "dicomUniqueAETitlesRegistryRoot", ROOT),
    ):
        yield entry(f"cn={name},{dn}", ("objectClass", object_class), ("cn", name))
    for title in ("DCM4CHEE", *(peer[0] for peer in PEERS.values())):
        yield entry(
            f"dicomAETitle={title},cn=Unique AE Titles Registry,{ROOT}",
            ("objectClass", "dicomUniqueAETitle"),
            ("dicomAETitle", title),
        )


def archive() -> Iterator[str]:
    """Yield the archive's device with everything below it but transfer capabilities."""
    device = f"dicomDeviceName=dcm4chee-arc,{DEVICES}"
    yield entry(
        device,
        ("objectClass", "dicomDevice"),
        ("objectClass", "dcmDevice"),
        ("objectClass", "dcmArchiveDevice"),
        ("dicomDeviceName", "dcm4chee-arc"),
        ("dicomInstalled", "TRUE"),
        ("dicomDescription", "Archive front"),
        ("dicomPrimaryDeviceType", "ARCHIVE"),
        ("dcmFuzzyAlgorithmClass", "org.dcm4che3.soundex.ESoundex"),
        ("dcmOverwritePolicy", "SAME_SOURCE"),
        ("dcmSendPendingCMoveInterval", "PT5S"),
        ("dcmSendPendingCGet", "TRUE"),
        ("dcmTaskPollingInterval", "PT1M"),
        ("dcmPurgeQueueMessagePollingInterval", "PT1H"),
    )
    yield connection(device, 11112, ("dcmBindAddress", "127.0.0.1"), *TIMEOUTS_MS.items())
    yield application(
        device,
        "DCM4CHEE",
        ("objectClass", "dcmNetworkAE"),
        ("objectClass", "dcmArchiveNetworkAE"),
        ("dcmObjectStorageID", "fs1"),
    )
    yield entry(
        f"dcmStorageID=fs1,{device}",
        ("objectClass", "dcmStorage"),
        ("dcmStorageID", "fs1"),
        ("dcmURI", "file:fs1/"),
        ("dcmInstanceAvailability", "ONLINE"),
    )
    for name, description in QUEUES.items():
        yield queue(device, name, description)


def queue(device: str, name: str, description: str) -> str:
    """Return a queue with the values that all queues have."""
    return entry(
        f"dcmQueueName={name},{device}",
        ("objectClass", "dcmQueue"),
        ("dcmQueueName", name),
        ("dicomDescription", description),
        ("dcmMaxRetries", 10),
        ("dcmRetryDelay", "PT30S"),
        ("dcmMaxRetryDelay", "PT10M"),
        ("dcmRetryDelayMultiplier", 200),
        ("dcmPurgeQueueMessageCompletedDelay", "P1D"),
    )


def connection(device: str, port: int | None, *more: tuple[str, object]) -> str:
    """Return the connection of a device on this host."""
    return entry(
        f"cn=dicom,{device}",
        ("objectClass", "dicomNetworkConnection"),
        *([("objectClass", "dcmNetworkConnection")] if more else []),
        ("cn", "dicom"),
        ("dicomHostname", "localhost"),
        *([("dicomPort", port)] if port else []),
        *more,
    )


def application(device: str, title: str, *more: tuple[str, object]) -> str:
    """Return an AE on the connection of its device."""
    return entry(
        f"dicomAETitle={title},{device}",
        ("objectClass", "dicomNetworkAE"),
        *more,
        ("dicomAETitle", title),
        ("dicomNetworkConnectionReference", f"cn=dicom,{device}"),
        ("dicomAssociationInitiator", "TRUE"),
        ("dicomAssociationAcceptor", "TRUE"),
    )


def capability(ae: str, sop: tuple[str, str], role: str, syntaxes: list[str]) -> str:
    """Return a transfer capability."""
    uid, title = sop
    name = f"{title} {role}".replace(",", "").replace("+", "")
    return entry(
        f"cn={name},{ae}",
        ("objectClass", "dicomTransferCapability"),
        ("cn", name),
        ("dicomSOPClass", uid),
        ("dicomTransferRole", role),
        *(("dicomTransferSyntax", syntax) for syntax in syntaxes),
    )


def capabilities() -> Iterator[str]:
    """Yield the transfer capabilities of the archive's AE."""
    ae = f"dicomAETitle=DCM4CHEE,dicomDeviceName=dcm4chee-arc,{DEVICES}"
    native = [str(uid) for uid in LITTLE_ENDIAN]
    yield capability(ae, VERIFICATION, "SCP", native)
    yield capability(ae, VERIFICATION, "SCU", native)
    yield capability(ae, AVAILABILITY_NOTIFICATION, "SCU", native)
    yield capability(ae, COMMITMENT, "SCP", native)
    yield capability(ae, COMMITMENT, "SCU", native)
    yield capability(ae, PROCEDURE_STEP, "SCP", native)
    for sop in (QUERIES | RETRIEVES).items():
        for role in ("SCP", "SCU"):
            yield capability(ae, sop, role, native)
    syntaxes = stored_syntaxes()
    for sop in storage_classes().items():
        for role in ("SCP", "SCU"):
            yield capability(ae, sop, role, syntaxes)


def peers() -> Iterator[str]:
    """Yield the devices of the systems around the archive, all on this host."""
    for name, (title, port, _) in PEERS.items():
        device = f"dicomDeviceName={name},{DEVICES}"
        yield entry(
            device,
            ("objectClass", "dicomDevice"),
            ("dicomDeviceName", name),
            ("dicomInstalled", "TRUE"),
        )
        yield connection(device, port)
        yield application(device, title)


def files() -> dict[str, str]:
    """Return the files of the default directory: name to text."""
    parts = {
        "10-roots.ldif": roots(),
        "20-archive.ldif": archive(),
        "30-capabilities.ldif": capabilities(),
        "40-peers.ldif": peers(),
    }
    return {name: "version: 1\n\n" + "\n".join(entries) for name, entries in parts.items()}


def main() -> None:
    """Write the files."""
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{FOLDER / name}\n")


if __name__ == "__main__":
    main()
