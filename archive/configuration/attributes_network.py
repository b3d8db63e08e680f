"""Rows of the table of attributes: devices and AEs (PS3.15 §H.1.3)."""

from archive.configuration.rows import Kind, many, must, one, vital

DESCRIPTION = one("description", "dicomDescription", Kind.TEXT, "text for people")
INSTALLED = one("installed", "dicomInstalled", Kind.BOOLEAN, "switch of the entry")
LENIENT = one(
    "role_selection_negotiation_lenient",
    "dcmRoleSelectionNegotiationLenient",
    Kind.BOOLEAN,
    "send without an accepted role selection",
)
LIMITS = (
    one("limit_open_associations", "dcmLimitOpenAssociations", Kind.INTEGER, "most associations"),
    many(
        "limit_associations_initiated_by",
        "dcmLimitAssociationsInitiatedBy",
        Kind.PEER_LIMITS,
        "most associations of one calling AE",
    ),
)

DEVICE = (
    must("name", "dicomDeviceName", Kind.TEXT, "name of the device"),
    INSTALLED,
    DESCRIPTION,
    many("software_versions", "dicomSoftwareVersion", Kind.TEXT, "versions of the software"),
    one("issuer_of_patient_id", "dicomIssuerOfPatientID", Kind.TEXT, "issuer where none is given"),
    many("primary_device_types", "dicomPrimaryDeviceType", Kind.TEXT, "kinds of the device"),
    LENIENT,
    *LIMITS,
    one("trust_store_url", "dcmTrustStoreURL", Kind.TEXT, "file with trusted certificates"),
    one(
        "trust_store_type",
        "dcmTrustStoreType",
        Kind.TEXT,
        "its format, which is recognized anyhow",
    ),
    one("trust_store_pin", "dcmTrustStorePin", Kind.SECRET, "opens the trust store"),
    one(
        "trust_store_pin_property",
        "dcmTrustStorePinProperty",
        Kind.TEXT,
        "environment variable with that pin",
    ),
    one("key_store_url", "dcmKeyStoreURL", Kind.TEXT, "file with our key and certificate"),
    one("key_store_type", "dcmKeyStoreType", Kind.TEXT, "its format, which is recognized anyhow"),
    one("key_store_pin", "dcmKeyStorePin", Kind.SECRET, "opens the key store"),
    one(
        "key_store_pin_property",
        "dcmKeyStorePinProperty",
        Kind.TEXT,
        "environment variable with that pin",
    ),
    one("key_store_key_pin", "dcmKeyStoreKeyPin", Kind.SECRET, "opens the key in it"),
    one(
        "key_store_key_pin_property",
        "dcmKeyStoreKeyPinProperty",
        Kind.TEXT,
        "environment variable with that pin",
    ),
    many(
        "authorized_certificates",
        "dicomAuthorizedNodeCertificateReference",
        Kind.TEXT,
        "entries with certificates that are trusted, where no trust store is named",
    ),
    many(
        "own_certificates",
        "dicomThisNodeCertificateReference",
        Kind.TEXT,
        "entries with our certificate, where the key store holds the private key alone",
    ),
    one("time_zone", "dcmTimeZoneOfDevice", Kind.ZONE, "zone of schedules and of today's date"),
)

# Attributes that the archive's device and its AEs share: a value at the AE goes before.
ARCHIVE = (
    many(
        "retrieve_aets", "dcmRetrieveAET", Kind.AE_TITLE, "AEs from which objects can be retrieved"
    ),
    many(
        "return_retrieve_aets", "dcmReturnRetrieveAET", Kind.AE_TITLE, "AEs named in C-FIND answers"
    ),
    many(
        "multiple_store_associations",
        "dcmMultipleStoreAssociations",
        Kind.TEXT,
        "parallel associations of one export: n, or AET:n",
    ),
    one("default_character_set", "dcmDefaultCharacterSet", Kind.TEXT, "character set if missing"),
    one("overwrite_policy", "dcmOverwritePolicy", Kind.OVERWRITE, "what a repeated object does"),
    one(
        "validate_calling_hostname",
        "dcmValidateCallingAEHostname",
        Kind.BOOLEAN,
        "compare the peer's address with its configured host",
    ),
    one("send_pending_c_get", "dcmSendPendingCGet", Kind.BOOLEAN, "send pending C-GET responses"),
    one(
        "send_pending_c_move_interval_s",
        "dcmSendPendingCMoveInterval",
        Kind.DURATION,
        "period of pending C-MOVE responses",
    ),
    many("ian_destinations", "dcmIanDestination", Kind.AE_TITLE, "AEs that are notified"),
    many("ian_triggers", "dcmIanTrigger", Kind.IAN_TRIGGER, "events that cause a notification"),
    one("ian_delay_s", "dcmIanDelay", Kind.DURATION, "quiet time before a study is announced"),
    one("ian_timeout_s", "dcmIanTimeout", Kind.DURATION, "longest wait for objects of an MPPS"),
    one(
        "ian_on_timeout",
        "dcmIanOnTimeout",
        Kind.BOOLEAN,
        "announce when the wait for an MPPS is over",
    ),
    one(
        "storage_verification_policy",
        "dcmStorageVerificationPolicy",
        Kind.VERIFICATION,
        "what is verified before storage is committed to",
    ),
    many(
        "storage_verification_storage_ids",
        "dcmStorageVerificationStorageID",
        Kind.TEXT,
        "storages whose copies count for that; else all",
    ),
    one(
        "commitment_terms",
        "dcmStgCmtPolicy",
        Kind.COMMITMENT_TERMS,
        "commit only what the commitment SCPs of these exporters have committed to; how long to"
        " report on the association of the request",
    ),
    one(
        "fallback_c_move_scp",
        "dcmFallbackCMoveSCP",
        Kind.AE_TITLE,
        "C-MOVE SCP for what is unknown here or may be incomplete",
    ),
    one(
        "fallback_c_move_scp_destination",
        "dcmFallbackCMoveSCPDestination",
        Kind.AE_TITLE,
        "move destination of the fallback C-MOVE; without one only what is unknown is asked for",
    ),
    one(
        "fallback_c_move_scp_calling_aet",
        "dcmFallbackCMoveSCPCallingAET",
        Kind.AE_TITLE,
        "calling AE of the fallback C-MOVE",
    ),
    one(
        "fallback_c_move_scp_leading_c_find_scp",
        "dcmFallbackCMoveSCPLeadingCFindSCP",
        Kind.AE_TITLE,
        "C-FIND SCP that tells how many objects to expect",
    ),
    one(
        "fallback_c_move_scp_retries",
        "dcmFallbackCMoveSCPRetries",
        Kind.INTEGER,
        "how often what did not come whole from there is asked for again; -1 always",
    ),
    one(
        "fallback_c_move_scp_study_older_than",
        "dcmFallbackCMoveSCPStudyOlderThan",
        Kind.TEXT,
        "studies before this date (YYYYMMDD) or without one are fetched once, though known here",
    ),
    one(
        "external_retrieve_ae_destination",
        "dcmExternalRetrieveAEDestination",
        Kind.AE_TITLE,
        "move destination of objects fetched from another archive",
    ),
    one("alt_c_move_scp", "dcmAltCMoveSCP", Kind.AE_TITLE, "C-MOVE SCP for objects without a file"),
    one(
        "relational_retrieve_negotiation_lenient",
        "dcmRelationalRetrieveNegotiationLenient",
        Kind.BOOLEAN,
        "take relational retrieves without negotiation",
    ),
    one(
        "query_max_number_of_results",
        "dcmQueryMaxNumberOfResults",
        Kind.INTEGER,
        "most matches of a C-FIND without a unique key, 0 for any number",
    ),
    one(
        "relational_query_negotiation_lenient",
        "dcmRelationalQueryNegotiationLenient",
        Kind.BOOLEAN,
        "take relational queries without negotiation",
    ),
    one(
        "spanning_c_find_scp",
        "dcmSpanningCFindSCP",
        Kind.AE_TITLE,
        "C-FIND SCP whose matches are returned too",
    ),
    one(
        "spanning_c_find_scp_policy",
        "dcmSpanningCFindSCPPolicy",
        Kind.SPANNING,
        "how its matches and the own ones come together",
    ),
    many(
        "spanning_c_find_scp_retrieve_aets",
        "dcmSpanningCFindSCPRetrieveAET",
        Kind.AE_TITLE,
        "Retrieve AE Title of its matches instead of what it says",
    ),
    one(
        "restrict_retrieve_silently",
        "dcmRestrictRetrieveSilently",
        Kind.BOOLEAN,
        "objects that the destination cannot take are no failures",
    ),
    one(
        "retrieve_task_warning_on_no_match",
        "dcmRetrieveTaskWarningOnNoMatch",
        Kind.BOOLEAN,
        "a retrieve of nothing ends with WARNING",
    ),
    one(
        "retrieve_task_warning_on_warnings",
        "dcmRetrieveTaskWarningOnWarnings",
        Kind.BOOLEAN,
        "warnings of sub-operations end with WARNING",
    ),
)

ARCHIVE_DEVICE = (
    *ARCHIVE,
    one("fuzzy_algorithm_class", "dcmFuzzyAlgorithmClass", Kind.TEXT, "phonetic code of names"),
    many(
        "c_store_scu_of_c_move_scp",
        "dcmCStoreSCUOfCMoveSCP",
        Kind.TEXT,
        "which AE stores for which C-MOVE SCP",
    ),
    one(
        "task_polling_interval_s", "dcmTaskPollingInterval", Kind.DURATION, "safety net of dispatch"
    ),
    one("task_fetch_size", "dcmTaskFetchSize", Kind.INTEGER, "tasks per look at the ledger"),
    one(
        "ian_task_polling_interval_s",
        "dcmIanTaskPollingInterval",
        Kind.DURATION,
        "safety net of notifications",
    ),
    one("ian_task_fetch_size", "dcmIanTaskFetchSize", Kind.INTEGER, "IANs per look at the ledger"),
    one(
        "purge_queue_polling_interval_s",
        "dcmPurgeQueueMessagePollingInterval",
        Kind.DURATION,
        "how often old tasks are purged",
    ),
    one(
        "purge_commitment_completed_delay_s",
        "dcmPurgeStgCmtCompletedDelay",
        Kind.DURATION,
        "age at which commitment results are purged",
    ),
    one(
        "purge_commitment_polling_interval_s",
        "dcmPurgeStgCmtPollingInterval",
        Kind.DURATION,
        "how often commitment results are purged",
    ),
    one("queue_tasks_fetch_size", "dcmQueueTasksFetchSize", Kind.INTEGER, "tasks per bulk change"),
    one("scheduler_min_start_delay_s", "dcmSchedulerMinStartDelay", Kind.INTEGER, "wait at start"),
    one("ae_cache_stale_timeout_s", "dcmAECacheStaleTimeout", Kind.DURATION, "age of known AEs"),
    one(
        "leading_c_find_scp_query_cache_stale_timeout_s",
        "dcmLeadingCFindSCPQueryCacheStaleTimeout",
        Kind.DURATION,
        "age of answers of a leading archive",
    ),
    one(
        "leading_c_find_scp_query_cache_size",
        "dcmLeadingCFindSCPQueryCacheSize",
        Kind.INTEGER,
        "most answers of leading archives kept, 0 for any number",
    ),
)

AE = (
    must("title", "dicomAETitle", Kind.AE_TITLE, "AE title"),
    vital("references", "dicomNetworkConnectionReference", Kind.TEXT, "names of its connections"),
    one(
        "association_initiator", "dicomAssociationInitiator", Kind.BOOLEAN, "may open associations"
    ),
    one(
        "association_acceptor", "dicomAssociationAcceptor", Kind.BOOLEAN, "may accept associations"
    ),
    INSTALLED,
    DESCRIPTION,
    many("application_clusters", "dicomApplicationCluster", Kind.TEXT, "groups it belongs to"),
    many(
        "preferred_called_titles",
        "dicomPreferredCalledAETitle",
        Kind.TEXT,
        "peers preferred for outgoing associations",
    ),
    many(
        "preferred_calling_titles",
        "dicomPreferredCallingAETitle",
        Kind.TEXT,
        "peers preferred for incoming associations",
    ),
    LENIENT,
    many(
        "accepted_calling_titles", "dcmAcceptedCallingAETitle", Kind.TEXT, "who may call; else all"
    ),
    many(
        "other_titles", "dcmOtherAETitle", Kind.AE_TITLE, "further titles under which it is called"
    ),
    many(
        "no_async_mode_called_titles",
        "dcmNoAsyncModeCalledAETitle",
        Kind.TEXT,
        "peers that are offered no asynchronous window",
    ),
    many(
        "masquerade_called_titles", "dcmMasqueradeCalledAETitle", Kind.TEXT, "called title to send"
    ),
    many(
        "masquerade_calling_titles",
        "dcmMasqueradeCallingAETitle",
        Kind.TEXT,
        "calling title to send",
    ),
    many(
        "preferred_transfer_syntaxes",
        "dcmPreferredTransferSyntax",
        Kind.ORDERED,
        "transfer syntaxes, best first",
    ),
    one(
        "shares_capabilities_of",
        "dcmShareTransferCapabilitiesFromAETitle",
        Kind.AE_TITLE,
        "AE whose transfer capabilities it uses",
    ),
)

ARCHIVE_AE = (
    *ARCHIVE,
    many("object_storage_ids", "dcmObjectStorageID", Kind.TEXT, "storages for received objects"),
    one("object_storage_count", "dcmObjectStorageCount", Kind.INTEGER, "storages filled at a time"),
    many(
        "accepted_move_destinations",
        "dcmAcceptedMoveDestination",
        Kind.TEXT,
        "move destinations allowed; else all",
    ),
    one("query_retrieve_view_id", "dcmQueryRetrieveViewID", Kind.TEXT, "which objects it shows"),
)

TRANSFER_CAPABILITY = (
    must("sop_class", "dicomSOPClass", Kind.TEXT, "SOP class UID"),
    must("role", "dicomTransferRole", Kind.ROLE, "SCU or SCP"),
    many("transfer_syntaxes", "dicomTransferSyntax", Kind.TEXT, "transfer syntax UIDs"),
    many(
        "preferred_transfer_syntaxes",
        "dcmPreferredTransferSyntax",
        Kind.ORDERED,
        "transfer syntaxes, best first",
    ),
    one("relational_queries", "dcmRelationalQueries", Kind.BOOLEAN, "relational queries"),
)
