"""THE table: field of a descriptor, LDAP attribute, type, default and unit (PS3.15 §H.1.3).

Decoding is driven by it, the reference in the documentation and the descriptions in the LDAP
schema are made from it. Nowhere else is an LDAP attribute spelt. Where no default stands, the
descriptor's own holds. Attributes of what this release does not perform yet are read and kept.
"""

from archive.configuration.attributes_coercion import ATTRIBUTE_SET, COERCION, COERCION_2
from archive.configuration.attributes_connection import CONNECTION
from archive.configuration.attributes_network import (
    AE,
    ARCHIVE_AE,
    ARCHIVE_DEVICE,
    DESCRIPTION,
    DEVICE,
    INSTALLED,
    TRANSFER_CAPABILITY,
)
from archive.configuration.rows import Attribute, Kind, many, must, one, vital

EXPORTER = (
    must("exporter_id", "dcmExporterID", Kind.TEXT, "name of the exporter"),
    must("uri", "dcmURI", Kind.URI, "destination; dicom:AET for C-STORE, noop:text for nothing"),
    must("queue_name", "dcmQueueName", Kind.TEXT, "queue of its tasks"),
    DESCRIPTION,
    one("aet", "dicomAETitle", Kind.AE_TITLE, "local AE that exports"),
    one("export_as_source_ae", "dcmExportAsSourceAE", Kind.BOOLEAN, "call as the AE that sent"),
    many("ian_destinations", "dcmIanDestination", Kind.AE_TITLE, "AEs notified after the export"),
    many("retrieve_aets", "dcmRetrieveAET", Kind.AE_TITLE, "Retrieve AE Title in the notification"),
    one(
        "retrieve_location_uid",
        "dcmRetrieveLocationUID",
        Kind.UID,
        "Retrieve Location UID in the notification",
    ),
    one(
        "instance_availability",
        "dcmInstanceAvailability",
        Kind.AVAILABILITY,
        "Instance Availability in the notification",
    ),
    one("storage_commitment_scp", "dcmStgCmtSCP", Kind.AE_TITLE, "AE asked for commitment"),
    one(
        "delete_study_from_storage_id",
        "dcmDeleteStudyFromStorageID",
        Kind.TEXT,
        "storage freed after the export",
    ),
    one(
        "reject_for_data_retention_expiry",
        "dcmRejectForDataRetentionExpiry",
        Kind.BOOLEAN,
        "reject what was exported",
    ),
    one(
        "check_if_already_exists",
        "dcmCheckIfAlreadyExistsOnDestination",
        Kind.BOOLEAN,
        "do not copy what is there",
    ),
    vital("schedule", "dcmSchedule", Kind.SCHEDULE, "hours to which tasks of rules are put off"),
    many("properties", "dcmProperty", Kind.PROPERTIES, "parameters of the exporter"),
)

EXPORT_RULE = (
    must("name", "cn", Kind.TEXT, "name of the rule"),
    must("entity", "dcmEntity", Kind.ENTITY, "how much is exported"),
    Attribute(
        "exporter_ids",
        "dcmExporterID",
        Kind.TEXT,
        "exporters, a task for each",
        many=True,
        required=True,
    ),
    vital("conditions", "dcmProperty", Kind.CONDITIONS, "what objects are meant; all have to hold"),
    vital("schedule", "dcmSchedule", Kind.SCHEDULE, "hours of receipt in which the rule holds"),
    Attribute(
        "duration_s", "dcmDuration", Kind.DURATION, "quiet time after the last object", unit="s"
    ),
    one("device_name", "dicomDeviceName", Kind.TEXT, "device that exports"),
    one(
        "export_reoccurred_instances",
        "dcmExportReoccurredInstances",
        Kind.REOCCURRED,
        "whether an object that comes again is exported again",
    ),
    one(
        "export_previous_entity",
        "dcmExportPreviousEntity",
        Kind.BOOLEAN,
        "export also the study that a replaced object belonged to",
    ),
)

QUEUE = (
    must("name", "dcmQueueName", Kind.TEXT, "name of the queue"),
    DESCRIPTION,
    INSTALLED,
    one("max_tasks_parallel", "dcmMaxTasksParallel", Kind.INTEGER, "most tasks at a time"),
    one("max_retries", "dcmMaxRetries", Kind.INTEGER, "attempts after the first"),
    one("delay_s", "dcmRetryDelay", Kind.DURATION, "wait before the first retry"),
    one("max_delay_s", "dcmMaxRetryDelay", Kind.DURATION, "longest wait before a retry"),
    one(
        "multiplier_percent", "dcmRetryDelayMultiplier", Kind.INTEGER, "growth of the wait, percent"
    ),
    one("retry_on_warning", "dcmRetryOnWarning", Kind.BOOLEAN, "retry what ended with WARNING"),
    one(
        "purge_completed_s",
        "dcmPurgeQueueMessageCompletedDelay",
        Kind.DURATION,
        "age at which COMPLETED tasks are purged",
    ),
    one(
        "purge_failed_s",
        "dcmPurgeQueueMessageFailedDelay",
        Kind.DURATION,
        "age at which FAILED tasks are purged",
    ),
    one(
        "purge_warning_s",
        "dcmPurgeQueueMessageWarningDelay",
        Kind.DURATION,
        "age at which WARNING tasks are purged",
    ),
    one(
        "purge_canceled_s",
        "dcmPurgeQueueMessageCanceledDelay",
        Kind.DURATION,
        "age at which CANCELED tasks are purged",
    ),
    many("schedule", "dcmSchedule", Kind.SCHEDULE, "hours in which tasks are started"),
)

STORAGE = (
    must("storage_id", "dcmStorageID", Kind.TEXT, "name of the storage"),
    must("uri", "dcmURI", Kind.URI, "where it is: file: and a directory, s3://bucket/prefix"),
    one("path_format", "dcmStoragePathFormat", Kind.TEXT, "pattern of paths below"),
    one(
        "check_mount_file", "dcmCheckMountFilePath", Kind.TEXT, "file that tells it is not mounted"
    ),
    one(
        "digest_algorithm",
        "dcmDigestAlgorithm",
        Kind.DIGEST,
        "digest of stored objects: BLAKE3 (default), MD5, SHA-1, SHA-256, SHA-384 or SHA-512",
    ),
    one("max_retries", "dcmMaxRetries", Kind.INTEGER, "attempts to write again"),
    one("retry_delay_s", "dcmRetryDelay", Kind.DURATION, "wait before another attempt to write"),
    many("retrieve_aets", "dcmRetrieveAET", Kind.AE_TITLE, "AEs from which its objects come"),
    one(
        "instance_availability",
        "dcmInstanceAvailability",
        Kind.AVAILABILITY,
        "Instance Availability of its objects",
    ),
    one("duration", "dcmStorageDuration", Kind.TEXT, "PERMANENT, CACHE or TEMPORARY"),
    one("read_only", "dcmReadOnly", Kind.BOOLEAN, "nothing is written"),
    INSTALLED,
    many("properties", "dcmProperty", Kind.PROPERTIES, "parameters of the storage"),
)

TABLES: dict[str, tuple[Attribute, ...]] = {
    "dicomDevice": DEVICE,
    "dcmArchiveDevice": ARCHIVE_DEVICE,
    "dicomNetworkConnection": CONNECTION,
    "dicomNetworkAE": AE,
    "dcmArchiveNetworkAE": ARCHIVE_AE,
    "dicomTransferCapability": TRANSFER_CAPABILITY,
    "dcmExporter": EXPORTER,
    "dcmExportRule": EXPORT_RULE,
    "dcmQueue": QUEUE,
    "dcmStorage": STORAGE,
    "dcmArchiveAttributeCoercion": COERCION,
    "dcmArchiveAttributeCoercion2": COERCION_2,
    "dcmAttributeSet": ATTRIBUTE_SET,
}
