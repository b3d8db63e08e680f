"""A directory as large and as varied as the one that dcm4chee ships, made up by construction.

Built from facts only: which devices, AEs, queues and other entries there are, of which classes,
with how many transfer capabilities. Most attributes are unknown to us, as there.
"""

from collections.abc import Iterable, Iterator

from archive.configuration.entries import Entry
from archive.configuration.schema import AttributeType, load_schema
from tests.directory_cases import BASE, DEVICE, DEVICES

ROOT = f"cn=DICOM Configuration,{BASE}"
QUEUES = (
    *("Export", "IANSCU", "HL7Send", "MPPSSCU", "RSClient", "Retrieve"),
    *("DiffTasks", "Rejection", "StgCmtSCP", "StgCmtSCU", "StgVerTasks"),
)
# AE title to query retrieve view, and number of capabilities as SCP and as SCU.
AES = {
    "DCM4CHEE": ("hideRejected", 264, 256),
    "AS_RECEIVED": ("iocmDisabled", 10, 254),
    "IOCM_REGULAR_USE": ("regularUse", 10, 255),
    "WORKLIST": ("hideRejected", 8, 2),
    "IOCM_EXPIRED": ("dataRetentionPolicyExpired", 4, 1),
    "IOCM_QUALITY": ("rejectedForQualityReasons", 4, 1),
    "IOCM_PAT_SAFETY": ("rejectedForPatientSafetyReasons", 4, 1),
    "IOCM_WRONG_MWL": ("incorrectModalityWorklistEntry", 4, 1),
}
CONNECTIONS = {
    "dicom": ("DICOM", 11112),
    "dicom-tls": ("DICOM", 2762),
    "hl7": ("HL7", 2575),
    "hl7-tls": ("HL7", 12575),
    "syslog": ("SYSLOG_UDP", None),
}
DURATION_FOR = ("Interval", "Delay", "Duration", "Timeout", "Stale")
SUITE = "TLS_RSA_WITH_AES_128_CBC_SHA"
_SAMPLES = {
    "7": b"TRUE",
    "12": DEVICE.encode(),
    "27": b"5",
    "38": b"1.2.840.10008.1.2",
    "40": b"\x01\x02",
    "5": b"PK\x03\x04",
}


def shipped_like() -> Iterator[Entry]:
    """Yield the entries, each below those that it depends on."""
    yield from _roots()
    yield from _archive()
    for title, (view, scp, scu) in AES.items():
        yield from _application(title, view)
        yield from _capabilities(title, "SCP", scp)
        yield from _capabilities(title, "SCU", scu)
    yield from _coercions()
    yield from _children_of_device()
    yield from _other_devices()


def kitchen_sink() -> Iterator[Entry]:
    """Yield one entry of every structural class, with a value for every attribute it may have.

    What the values mean was not considered: the loader has to cope with that as well.
    """
    schema = load_schema()
    for number, one in enumerate(schema.classes.values()):
        if one.kind != "structural" or one.builtin or one.name.endswith("Root"):
            continue
        types = [schema.attributes[name.lower()] for name in (*one.must, *one.may)]
        naming = types[0]
        name = f"1.2.{number}" if naming.syntax == "38" else f"all of {one.name}"
        values = {each.name: _sample(each) for each in types} | {naming.name: name.encode()}
        above = DEVICES if one.name == "dicomDevice" else DEVICE
        pairs = [("objectClass", one.name.encode()), *values.items()]
        yield Entry.of(f"{naming.name}={name},{above}", pairs)


def _sample(attribute: AttributeType) -> bytes:
    if attribute.syntax in _SAMPLES:
        return _SAMPLES[attribute.syntax]
    return attribute.name.encode()


def entry(dn: str, classes: str, **values: object) -> Entry:
    """Return an entry; lists are several values."""
    pairs = [("objectClass", name.encode()) for name in classes.split()]
    for name, value in values.items():
        each = value if isinstance(value, list) else [value]
        pairs += [(name, str(one).encode()) for one in each]
    return Entry.of(dn, pairs)


def _unknown_values(names: Iterable[str]) -> dict[str, object]:
    """Return values for attributes that nobody here reads."""
    schema = load_schema()
    values: dict[str, object] = {}
    for name in names:
        attribute = schema.attribute(name)
        assert attribute is not None
        values[name] = _sample(attribute).decode("latin-1")
        if attribute.syntax == "26" and any(word in name for word in DURATION_FOR):
            values[name] = "PT5M"
    return values


def _roots() -> Iterator[Entry]:
    yield entry(BASE, "dcObject organization", o="dcm4che.org", dc="dcm4che")
    yield entry(ROOT, "dicomConfigurationRoot", cn="DICOM Configuration")
    yield entry(DEVICES, "dicomDevicesRoot", cn="Devices")
    for name, kind in (
        ("Unique AE Titles Registry", "dicomUniqueAETitlesRegistryRoot"),
        ("Unique HL7 Application Names Registry", "hl7UniqueApplicationNamesRegistryRoot"),
        ("Unique Web Application Names Registry", "dcmUniqueWebAppNamesRegistryRoot"),
    ):
        yield entry(f"cn={name},{ROOT}", kind, cn=name)
    for title in AES:
        dn = f"dicomAETitle={title},cn=Unique AE Titles Registry,{ROOT}"
        yield entry(dn, "dicomUniqueAETitle", dicomAETitle=title)
        dn = f"dcmWebAppName={title},cn=Unique Web Application Names Registry,{ROOT}"
        yield entry(dn, "dcmUniqueWebAppName", dcmWebAppName=title)


def _archive() -> Iterator[Entry]:
    ignored = (
        *("dcmAuditAggregateDuration", "dcmAuditPollingInterval", "dcmCalculateStudySizeDelay"),
        *("dcmCompressionAETitle", "dcmDeleteRejectedPollingInterval", "dcmDeleteUPSCanceledDelay"),
        *(
            "dcmHideSPSWithStatusFromMWL",
            "dcmPurgeStoragePollingInterval",
            "dcmUnzipVendorDataToURI",
        ),
        *(
            "dcmRejectExpiredStudiesFetchSize",
            "dcmWadoSupportedSRClasses",
            "dcmWadoSupportedPRClasses",
        ),
        *("hl7PSUTemplateParam", "hl7PatientArrivalMessageType", "hl7ScheduleProcedureTemplateURI"),
        *("dcmQidoMaxNumberOfResults", "dcmBulkDataDescriptorID", "dcmRejectionNoteStorageAET"),
    )
    yield entry(
        DEVICE,
        "dicomDevice dcmDevice dcmArchiveDevice",
        dicomDeviceName="dcm4chee-arc",
        dicomInstalled="TRUE",
        dicomPrimaryDeviceType="ARCHIVE",
        dicomManufacturer="dcm4che.org",
        dicomManufacturerModelName="dcm4chee-arc",
        dicomVendorData="PK-not-really-a-zip",
        dcmKeyStorePin="secret",
        dcmFuzzyAlgorithmClass="org.dcm4che3.soundex.ESoundex",
        dcmAECacheStaleTimeout="PT5M",
        dcmExternalRetrieveAEDestination="DCM4CHEE",
        dcmLeadingCFindSCPQueryCacheStaleTimeout="PT5M",
        dcmIanTaskPollingInterval="PT1M",
        dcmTaskPollingInterval="PT1M",
        dcmPurgeQueueMessagePollingInterval="PT1H",
        dcmPurgeStgCmtPollingInterval="PT1H",
        dcmPurgeStgCmtCompletedDelay="P1D",
        dcmSendPendingCGet="TRUE",
        dcmSendPendingCMoveInterval="PT5S",
        dcmOverwritePolicy="SAME_SOURCE",
        **_unknown_values(ignored),
    )
    for name, (protocol, port) in CONNECTIONS.items():
        tls = {"dicomTLSCipherSuite": [SUITE, "SSL_RSA_WITH_3DES_EDE_CBC_SHA"]}
        yield entry(
            f"cn={name},{DEVICE}",
            "dicomNetworkConnection dcmNetworkConnection",
            cn=name,
            dicomHostname="127.0.0.1",
            **({"dicomPort": port} if port else {}),
            **(tls if name.endswith("tls") else {}),
            dcmProtocol=protocol,
            dcmBindAddress="0.0.0.0",  # noqa: S104 - what the directory says, nobody listens
            dcmTCPConnectTimeout=5000,
            dcmRetrieveTimeout=300000,
            dcmMaxOpsInvoked=0,
            dcmMaxOpsPerformed=0,
        )


def _application(title: str, view: str) -> Iterator[Entry]:
    references = [f"cn=dicom,{DEVICE}", f"cn=dicom-tls,{DEVICE}"]
    yield entry(
        f"dicomAETitle={title},{DEVICE}",
        "dicomNetworkAE dcmNetworkAE dcmArchiveNetworkAE",
        dicomAETitle=title,
        dicomDescription=f"Made up: {title}",
        dicomNetworkConnectionReference=references,
        dicomAssociationInitiator="TRUE",
        dicomAssociationAcceptor="TRUE",
        dcmObjectStorageID="fs1",
        dcmQueryRetrieveViewID=view,
        dcmAcceptedUserRole="user",
    )


def _capabilities(title: str, role: str, count: int) -> Iterator[Entry]:
    for number in range(count):
        name = f"Made up {number} {role}"
        yield entry(
            f"cn={name},dicomAETitle={title},{DEVICE}",
            "dicomTransferCapability dcmTransferCapability",
            cn=name,
            dicomSOPClass=f"1.2.840.10008.5.1.4.1.1.{number + 1}",
            dicomTransferRole=role,
            dicomTransferSyntax=["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"],
            dcmRelationalQueries="TRUE",
        )


def _coercions() -> Iterator[Entry]:
    for title, name, dimse, role, uri in (
        ("DCM4CHEE", "SupplementIssuerOfPatientID", "C_STORE_RQ", "SCU", "merge-attrs:"),
        ("DCM4CHEE", "SupplementIssuerOnMPPS", "N_CREATE_RQ", "SCU", "merge-attrs:"),
        ("DCM4CHEE", "RemoveTotalLength", "C_STORE_RQ", "SCP", "merge-attrs:"),
        ("AS_RECEIVED", "RetrieveAsReceived", "C_STORE_RQ", "SCP", "retrieve-as-received:"),
    ):
        yield entry(
            f"cn={name},dicomAETitle={title},{DEVICE}",
            "dcmArchiveAttributeCoercion2",
            cn=name,
            dcmDIMSE=dimse,
            dicomTransferRole=role,
            dcmURI=uri,
            dcmMergeAttribute="IssuerOfPatientID=made-up",
        )


def _children_of_device() -> Iterator[Entry]:
    for name in QUEUES:
        yield entry(
            f"dcmQueueName={name},{DEVICE}",
            "dcmQueue",
            dcmQueueName=name,
            dicomDescription=f"{name} Tasks",
            dcmMaxRetries=10,
            dcmRetryDelay="PT30S",
            dcmRetryDelayMultiplier=200,
            dcmMaxRetryDelay="PT10M",
            dcmPurgeQueueMessageCompletedDelay="P1D",
        )
    yield entry(
        f"dcmStorageID=fs1,{DEVICE}",
        "dcmStorage",
        dcmStorageID="fs1",
        dcmURI="${jboss.server.data.url}/fs1/",
        dcmDigestAlgorithm="MD5",
        dcmCheckMountFilePath="NO_MOUNT",
    )
    for kind, ids in {"LEADING_CFIND_SCP": "*", "QIDO_RS": "all", "WADO_RS": "all"}.items():
        yield entry(
            f"dcmAttributeSetID={ids}+dcmAttributeSetType={kind},{DEVICE}",
            "dcmAttributeSet",
            dcmAttributeSetID=ids,
            dcmAttributeSetType=kind,
            dcmTag=["00080020", "00100010", "0020000D"],
        )
    for entity in ("Patient", "Study", "Series", "Instance", "MPPS", "MWL", "UPS"):
        yield entry(
            f"dcmEntity={entity},{DEVICE}",
            "dcmAttributeFilter",
            dcmEntity=entity,
            dcmTag="00100010",
        )
    for view, *_ in {view: None for view, *_ in AES.values()}.items():
        dn = f"dcmQueryRetrieveViewID={view},{DEVICE}"
        yield entry(dn, "dcmQueryRetrieveView", dcmQueryRetrieveViewID=view)
    yield from _foreign_children()


def _foreign_children() -> Iterator[Entry]:
    """Yield entries of classes that mean nothing here."""
    for title in AES:
        yield entry(
            f"dcmWebAppName={title},{DEVICE}",
            "dcmWebApp",
            dcmWebAppName=title,
            dcmWebServiceClass=["QIDO_RS", "WADO_RS"],
            dcmWebServicePath=f"/dcm4chee-arc/aets/{title}/rs",
            dicomAETitle=title,
        )
    yield entry(
        f"hl7ApplicationName=*,{DEVICE}",
        "hl7Application dcmArchiveHL7Application",
        hl7ApplicationName="*",
        dicomNetworkConnectionReference=[f"cn=hl7,{DEVICE}", f"cn=hl7-tls,{DEVICE}"],
        hl7AcceptedMessageType=["ADT^A08", "ORM^O01"],
        hl7PatientUpdateTemplateURI="${jboss.server.temp.url}/made-up.xsl",
        dicomAETitle="DCM4CHEE",
    )
    yield entry(
        f"cn=Audit Logger,{DEVICE}",
        "dcmAuditLogger",
        cn="Audit Logger",
        dicomNetworkConnectionReference=f"cn=syslog,{DEVICE}",
        dcmAuditRecordRepositoryDeviceReference=f"dicomDeviceName=logstash,{DEVICES}",
        dcmAuditIncludeInstanceUID="FALSE",
    )
    above = f"cn=Audit Logger,{DEVICE}"
    yield entry(f"cn=heartbeat,{above}", "dcmAuditSuppressCriteria", cn="heartbeat")
    for factory in ("Reader", "Writer"):
        above = f"cn=Image {factory} Factory,{DEVICE}"
        yield entry(above, f"dcmImage{factory}Factory", cn=f"Image {factory} Factory")
        yield entry(
            f"dicomTransferSyntax=1.2.840.10008.1.2.4.50,{above}",
            f"dcmImage{factory}",
            dicomTransferSyntax="1.2.840.10008.1.2.4.50",
            dcmIIOFormatName="jpeg-made-up",
        )
    for rule, uri in {"SEND_IAN": "ianscu:IANSCP", "DICOM_EXPORT": "storescu:STORESCP"}.items():
        yield entry(
            f"dcmUPSProcessingRuleID={rule},{DEVICE}",
            "dcmUPSProcessingRule",
            dcmUPSProcessingRuleID=rule,
            dcmURI=uri,
            dicomAETitle="DCM4CHEE",
            dcmUPSPriority="MEDIUM",
        )
    for generator in ("PatientID", "AccessionNumber"):
        yield entry(
            f"dcmIDGeneratorName={generator},{DEVICE}",
            "dcmIDGenerator",
            dcmIDGeneratorName=generator,
            dcmIDGeneratorFormat="X-%08d",
        )
    for status in ("SCHEDULED", "CANCELED"):
        dn = f"dcmSPSStatus={status},{DEVICE}"
        yield entry(dn, "hl7OrderSPSStatus", dcmSPSStatus=status, hl7OrderControlStatus="NW_SC")
    above = f"dcmuiConfigName=default,{DEVICE}"
    yield entry(above, "dcmuiConfig", dcmuiConfigName="default")
    dn = f"dcmuiPermissionName=Menu,{above}"
    yield entry(dn, "dcmuiPermission", dcmuiPermissionName="Menu", dcmuiAction="menu-made-up")


def _other_devices() -> Iterator[Entry]:
    for name, title, port in (("storescp", "STORESCP", 11117), ("station", "SCHEDULED", 104)):
        device = f"dicomDeviceName={name},{DEVICES}"
        yield entry(device, "dicomDevice", dicomDeviceName=name, dicomInstalled="TRUE")
        yield entry(
            f"cn=dicom,{device}",
            "dicomNetworkConnection",
            cn="dicom",
            dicomHostname="localhost",
            dicomPort=port,
        )
        yield entry(
            f"dicomAETitle={title},{device}",
            "dicomNetworkAE",
            dicomAETitle=title,
            dicomNetworkConnectionReference=f"cn=dicom,{device}",
            dicomAssociationInitiator="FALSE",
            dicomAssociationAcceptor="TRUE",
        )
    logstash = f"dicomDeviceName=logstash,{DEVICES}"
    yield entry(logstash, "dicomDevice", dicomDeviceName="logstash", dicomInstalled="TRUE")
    dn, connection = f"cn=syslog,{logstash}", "dicomNetworkConnection dcmNetworkConnection"
    yield entry(dn, connection, cn="syslog", dicomHostname="logstash", dcmProtocol="SYSLOG_UDP")
    yield entry(
        f"cn=Audit Record Repository,{logstash}",
        "dcmAuditRecordRepository",
        cn="Audit Record Repository",
        dicomNetworkConnectionReference=dn,
    )
    keycloak = f"dicomDeviceName=keycloak,{DEVICES}"
    yield entry(keycloak, "dicomDevice", dicomDeviceName="keycloak", dicomInstalled="TRUE")
    yield entry(
        f"dcmKeycloakClientID=made-up,{keycloak}",
        "dcmKeycloakClient",
        dcmKeycloakClientID="made-up",
        dcmKeycloakRealm="realm",
        dcmURI="https://keycloak:8843",
        dcmKeycloakClientSecret="secret",
    )
