"""Changes to the default directory and the LDAP result codes they end with, record by record.

The embedded directory and a real slapd are held to the same table.
"""

BASE = "dc=dcm4che,dc=org"
DEVICES = f"cn=Devices,cn=DICOM Configuration,{BASE}"
DEVICE = f"dicomDeviceName=dcm4chee-arc,{DEVICES}"
EXPORT = f"dcmQueueName=Export,{DEVICE}"

_DESCRIPTION = (
    "Generic DICOM Exporter (Unrejected Instances & Rejection Notes except Retention Expired)"
)

# As the wiki page "DICOM Exporter" prints it, its indentation taken off.
WIKI_EXPORTER = f"""version: 1
# The Exporter object, specifies the type and destination of the export,
# which local AE shall perform the forward, and which JMS Queue shall be used to queue Export
# Tasks ready to be performed, and optionally to defer the export to specified times
dn: dcmExporterID=STORESCP,{DEVICE}
objectClass: dcmExporter
dcmExporterID: STORESCP
dcmURI: dicom:STORESCP
dicomAETitle: DCM4CHEE
dcmQueueName: Export1
dicomDescription: {_DESCRIPTION}
# defer export after business hours (between 6 pm and 6 am, or at any time on Saturday and Sunday)
#dcmSchedule: hour=18-6 dayOfWeek=*
#dcmSchedule: hour=* dayOfWeek=0,6
"""
# As the page prints it: six blanks before each line, four on the last.
WIKI_EXPORTER_AS_PRINTED = (
    "".join(f"      {line}\n" for line in WIKI_EXPORTER.splitlines()) + "    \n"
)

# As the wiki page "Retrieve from Long Term Archive" prints it.
WIKI_EXTERNAL = f"""version: 1
dn: {DEVICE}
changetype: modify
add: dcmExternalRetrieveAEDestination
dcmExternalRetrieveAEDestination: DCM4CHEE
-
"""
# As the wiki page "Proxy query retrieve requests to another Archive" prints it, its last line too.
WIKI_LEADING = f"""version: 1
dn: {DEVICE}
changetype: modify
add: dcmLeadingCFindSCPQueryCacheStaleTimeout
dcmLeadingCFindSCPQueryCacheStaleTimeout: PT5M
-

dn: {DEVICE}
changetype: modify
add: dcmLeadingCFindSCPQueryCacheSize
dcmLeadingCFindSCPQueryCacheSize: 50
-

dn: cn=Leading DCMQRSCP,{DEVICE}
objectClass: dcmArchiveAttributeCoercion
cn: Leading DCMQRSCP
dcmDIMSE: C_STORE_RQ
dicomTransferRole: SCP
dcmProperty: ReceivingApplicationEntityTitle=STORESCP
dcmLeadingCFindSCP: QRSCP
-
"""

_EXPORTER = f"dn: dcmExporterID=X,{DEVICE}\nobjectClass: dcmExporter\ndcmURI: noop:x\n"


def _modify(dn: str, *modifications: str) -> str:
    return f"dn: {dn}\nchangetype: modify\n" + "\n-\n".join(modifications) + "\n"


CASES: dict[str, tuple[str, list[int]]] = {
    "wiki exporter": (WIKI_EXPORTER, [0]),
    "wiki exporter twice": (f"{WIKI_EXPORTER}\n{WIKI_EXPORTER.partition(chr(10))[2]}", [0, 68]),
    "wiki external retrieve destination": (
        _modify(
            DEVICE,
            "add: dcmExternalRetrieveAEDestination\ndcmExternalRetrieveAEDestination: DCM4CHEE",
        )
        + "-\n",
        [0],
    ),
    "wiki leading query cache": (
        _modify(
            DEVICE,
            "add: dcmLeadingCFindSCPQueryCacheStaleTimeout\n"
            "dcmLeadingCFindSCPQueryCacheStaleTimeout: PT5M",
        )
        + "-\n\n"
        + _modify(
            DEVICE,
            "add: dcmLeadingCFindSCPQueryCacheSize\ndcmLeadingCFindSCPQueryCacheSize: 50",
        )
        + "-\n",
        [0, 0],
    ),
    "wiki leading coercion": (
        (
            f"dn: cn=Leading DCMQRSCP,{DEVICE}\nobjectClass: dcmArchiveAttributeCoercion\n"
            "dcmDIMSE: C_STORE_RQ\ndicomTransferRole: SCP\n"
            "dcmProperty: ReceivingApplicationEntityTitle=STORESCP\ndcmLeadingCFindSCP: QRSCP\n"
        ),
        [0],
    ),
    "naming value is added": (_EXPORTER + "dcmQueueName: Export\n", [0]),
    "names in any case": (
        _modify(
            EXPORT.upper().replace("=EXPORT", "=Export"), "replace: DCMMAXRETRIES\ndcmmaxretries: 3"
        ),
        [0],
    ),
    "must attribute is missing": (_EXPORTER, [65]),
    "attribute of another class": (_EXPORTER + "dcmQueueName: E\ndcmMaxRetries: 1\n", [65]),
    "undefined attribute": (_EXPORTER + "dcmQueueName: E\ndcmNoSuch: 1\n", [17]),
    "undefined class": (f"dn: cn=x,{DEVICE}\nobjectClass: noSuchClass\ncn: x\n", [21]),
    "no class": (f"dn: cn=x,{DEVICE}\ncn: x\n", [65]),
    "no structural class": (f"dn: cn=x,{DEVICE}\nobjectClass: dcmDevice\n", [65]),
    "two structural classes": (
        _EXPORTER + "dcmQueueName: E\nobjectClass: dcmQueue\n",
        [65],
    ),
    "boolean in small letters": (
        _EXPORTER + "dcmQueueName: E\ndcmExportAsSourceAE: true\n",
        [21],
    ),
    "number with letters": (_modify(EXPORT, "replace: dcmMaxRetries\ndcmMaxRetries: ten"), [21]),
    "not ASCII": (_EXPORTER + "dcmQueueName: Ä\n", [21]),
    "not ASCII where it may be": (
        _modify(EXPORT, "replace: dicomDescription\ndicomDescription: Ä"),
        [0],
    ),
    "not an object identifier": (
        (
            f"dn: cn=x,dicomAETitle=DCM4CHEE,{DEVICE}\nobjectClass: dicomTransferCapability\n"
            "dicomSOPClass: *\ndicomTransferRole: SCP\ndicomTransferSyntax: 1.2.840.10008.1.2\n"
        ),
        [21],
    ),
    "empty text": (_modify(EXPORT, "replace: dicomDescription\ndicomDescription:"), [21]),
    "second value of a single one": (_modify(EXPORT, "add: dcmMaxRetries\ndcmMaxRetries: 3"), [19]),
    "value that is there": (_modify(EXPORT, "add: dcmMaxRetries\ndcmMaxRetries: 10"), [20]),
    "value given twice": (
        _modify(EXPORT, "add: dcmSchedule\ndcmSchedule: hour=1\ndcmSchedule: hour=1"),
        [20],
    ),
    "two values of a single one in an add": (
        _EXPORTER + "dcmQueueName: E\ndcmQueueName: F\n",
        [19],
    ),
    "delete what is absent": (_modify(EXPORT, "delete: dcmSchedule"), [16]),
    "delete a value that is absent": (
        _modify(EXPORT, "delete: dcmMaxRetries\ndcmMaxRetries: 77"),
        [16],
    ),
    "delete a value": (_modify(EXPORT, "delete: dcmMaxRetries\ndcmMaxRetries: 10"), [0]),
    "delete what must be there": (_modify(EXPORT, "delete: dcmQueueName"), [64]),
    "replace by nothing": (_modify(EXPORT, "replace: dcmMaxRetries"), [0]),
    "replace what is absent": (_modify(EXPORT, "replace: dcmSchedule\ndcmSchedule: hour=1"), [0]),
    "delete and add in one record": (
        _modify(EXPORT, "delete: dcmMaxRetries", "add: dcmMaxRetries\ndcmMaxRetries: 3"),
        [0],
    ),
    "add a class without its must": (
        _modify(
            f"dicomDeviceName=storescp,{DEVICES}", "add: objectClass\nobjectClass: dcmArchiveDevice"
        ),
        [65],
    ),
    "add a class with its must": (
        _modify(
            f"dicomDeviceName=storescp,{DEVICES}",
            "add: objectClass\nobjectClass: dcmArchiveDevice",
            "add: dcmFuzzyAlgorithmClass\ndcmFuzzyAlgorithmClass: x",
        ),
        [0],
    ),
    "operational attribute": (_EXPORTER + "dcmQueueName: E\ncreatorsName: cn=x\n", [19]),
    "modify nothing that is there": (_modify(f"cn=none,{DEVICE}", "replace: cn\ncn: none"), [32]),
    "add below nothing": (
        (
            "dn: dcmExporterID=X,dicomDeviceName=none,"
            f"{DEVICES}\nobjectClass: dcmExporter\ndcmURI: noop:x\ndcmQueueName: E\n"
        ),
        [32],
    ),
    "add outside": ("dn: dc=other\nobjectClass: dcObject\nobjectClass: organization\no: x\n", [53]),
    "delete a leaf": (f"dn: {EXPORT}\nchangetype: delete\n", [0]),
    "delete a tree": (f"dn: {DEVICE}\nchangetype: delete\n", [66]),
    "delete nothing": (f"dn: cn=none,{DEVICE}\nchangetype: delete\n", [32]),
    "rename": (
        f"dn: {EXPORT}\nchangetype: modrdn\nnewrdn: dcmQueueName=Export1\ndeleteoldrdn: 1\n",
        [0],
    ),
    "rename with two values of a single one": (
        f"dn: {EXPORT}\nchangetype: modrdn\nnewrdn: dcmQueueName=Export1\ndeleteoldrdn: 0\n",
        [19],
    ),
    "rename to a name in use": (
        f"dn: {EXPORT}\nchangetype: modrdn\nnewrdn: dcmQueueName=IANSCU\ndeleteoldrdn: 1\n",
        [68],
    ),
    "move a tree": (
        (
            f"dn: {DEVICE}\nchangetype: modrdn\nnewrdn: dicomDeviceName=arc2\ndeleteoldrdn: 1\n\n"
            f"dn: dcmQueueName=Export,dicomDeviceName=arc2,{DEVICES}\nchangetype: delete\n"
        ),
        [0, 0],
    ),
}
