"""Frozen descriptors of what the directory holds (PS3.15 §H.1.1 and the archive's extensions).

Field names are Python spellings; the LDAP attribute behind each field, its type, default and
unit stand in `attributes.py` and nowhere else.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from archive.model.coercion import CoercionRule
from archive.model.commitment_terms import CommitmentTerms
from archive.model.conditions import Conditions
from archive.model.retrieval import INTERACTIVE_QUEUE
from archive.model.retry import RetryPolicy
from archive.model.schedule import Schedule
from archive.model.task import ExportEntity
from archive.tls.terms import TlsTerms


@dataclass(frozen=True, slots=True)
class Connection:
    """A network connection of a device (dicomNetworkConnection + dcmNetworkConnection).

    Time-outs are in seconds, None for none; PDU lengths are in bytes.

    Attributes
    ----------
    tls
        What it demands of TLS; None without TLS, and where none of its suites can be used.
    """

    name: str
    hostname: str
    port: int | None = None
    installed: bool = True
    tls_cipher_suites: tuple[str, ...] = ()
    tls_protocols: tuple[str, ...] = ()
    tls_need_client_auth: bool = True
    protocol: str = "DICOM"
    bind_address: str | None = None
    client_bind_address: str | None = None
    tcp_backlog: int = 50
    tcp_no_delay: bool = True
    send_buffer_bytes: int = 0
    receive_buffer_bytes: int = 0
    blacklisted_hostnames: tuple[str, ...] = ()
    send_pdu_length: int = 16378
    receive_pdu_length: int = 16378
    max_ops_invoked: int = 1
    max_ops_performed: int = 1
    tls_endpoint_identification: str | None = None
    pack_pdv: bool = True
    close_delay_s: float | None = 0.05
    abort_timeout_s: float | None = 1.0
    retrieve_timeout_total: bool = False
    connect_timeout_s: float | None = None
    request_timeout_s: float | None = None
    accept_timeout_s: float | None = None
    release_timeout_s: float | None = None
    send_timeout_s: float | None = None
    store_timeout_s: float | None = None
    response_timeout_s: float | None = None
    retrieve_timeout_s: float | None = None
    idle_timeout_s: float | None = None
    tls: TlsTerms | None = None

    @property
    def is_tls(self) -> bool:
        """Whether the connection speaks TLS: decided by the presence of cipher suites alone."""
        return bool(self.tls_cipher_suites)


class TransferRole(StrEnum):
    """Role in a transfer capability."""

    SCU = "SCU"
    SCP = "SCP"


@dataclass(frozen=True, slots=True)
class TransferCapability:
    """A SOP class with the transfer syntaxes in which an AE can handle it ('*' as class: any)."""

    sop_class: str
    role: TransferRole
    transfer_syntaxes: tuple[str, ...]
    preferred_transfer_syntaxes: tuple[str, ...] = ()
    relational_queries: bool = False


@dataclass(frozen=True, slots=True)
class ExportRule:
    """Which received objects go to which exporters (dcmExportRule)."""

    name: str
    entity: ExportEntity
    exporter_ids: tuple[str, ...]
    conditions: Conditions = field(default_factory=Conditions)
    schedule: Schedule = field(default_factory=Schedule)
    duration_s: float | None = None
    device_name: str | None = None
    export_reoccurred_instances: str = "REPLACE"
    export_previous_entity: bool = False
    dn: str = ""


class VerificationPolicy(StrEnum):
    """dcmStorageVerificationPolicy: what has to hold before an instance counts as kept."""

    DB_RECORD_EXISTS = "DB_RECORD_EXISTS"
    OBJECT_EXISTS = "OBJECT_EXISTS"
    OBJECT_SIZE = "OBJECT_SIZE"
    OBJECT_FETCH = "OBJECT_FETCH"
    OBJECT_CHECKSUM = "OBJECT_CHECKSUM"


class IanTrigger(StrEnum):
    """dcmIanTrigger: what causes a notification."""

    STUDY_RECEIVED = "STUDY_RECEIVED"
    FIRST_OBJECT_OF_STUDY_RECEIVED = "FIRST_OBJECT_OF_STUDY_RECEIVED"
    MPPS_RECEIVED = "MPPS_RECEIVED"
    REJECTION_NOTE_RECEIVED = "REJECTION_NOTE_RECEIVED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveOptions:
    """What can be set for the archive's device and, going before, for one of its AEs.

    The options of an AE already hold what it takes over from its device.
    """

    return_retrieve_aets: tuple[str, ...] = ()
    default_character_set: str | None = None
    send_pending_c_get: bool = False
    send_pending_c_move_interval_s: float | None = None
    ian_destinations: tuple[str, ...] = ()
    ian_triggers: tuple[IanTrigger, ...] = ()
    ian_delay_s: float | None = None
    ian_timeout_s: float | None = None
    ian_on_timeout: bool = False
    storage_verification_policy: VerificationPolicy = VerificationPolicy.OBJECT_CHECKSUM
    storage_verification_storage_ids: tuple[str, ...] = ()
    commitment_terms: CommitmentTerms = field(default_factory=CommitmentTerms)
    fallback_c_move_scp: str | None = None
    fallback_c_move_scp_destination: str | None = None
    fallback_c_move_scp_calling_aet: str | None = None
    fallback_c_move_scp_leading_c_find_scp: str | None = None
    fallback_c_move_scp_retries: int = 0
    fallback_c_move_scp_study_older_than: str | None = None
    external_retrieve_ae_destination: str | None = None
    alt_c_move_scp: str | None = None
    relational_retrieve_negotiation_lenient: bool = False
    restrict_retrieve_silently: bool = False
    retrieve_task_warning_on_no_match: bool = False
    retrieve_task_warning_on_warnings: bool = False
    role_selection_negotiation_lenient: bool = False
    query_max_number_of_results: int = 0
    relational_query_negotiation_lenient: bool = False
    spanning_c_find_scp: str | None = None
    spanning_c_find_scp_policy: str = "REPLACE"
    spanning_c_find_scp_retrieve_aets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkAE(ArchiveOptions):
    """An application entity (dicomNetworkAE + dcmNetworkAE + dcmArchiveNetworkAE).

    `limit_…` is how many associations its device accepts, in all or of a title; 0 for any number.
    """

    title: str
    device_name: str
    connections: tuple[Connection, ...]
    installed: bool = True
    association_initiator: bool = True
    association_acceptor: bool = True
    other_titles: tuple[str, ...] = ()
    accepted_calling_titles: tuple[str, ...] = ()
    masquerade_calling_titles: tuple[str, ...] = ()
    masquerade_called_titles: tuple[str, ...] = ()
    transfer_capabilities: tuple[TransferCapability, ...] = ()
    object_storage_ids: tuple[str, ...] = ()
    retrieve_aets: tuple[str, ...] = ()
    multiple_store_associations: tuple[str, ...] = ()
    overwrite_policy: str | None = None
    validate_calling_hostname: bool | None = None
    export_rules: tuple[ExportRule, ...] = ()
    coercion_rules: tuple[CoercionRule, ...] = ()
    description: str | None = None
    application_clusters: tuple[str, ...] = ()
    preferred_called_titles: tuple[str, ...] = ()
    preferred_calling_titles: tuple[str, ...] = ()
    no_async_mode_called_titles: tuple[str, ...] = ()
    preferred_transfer_syntaxes: tuple[str, ...] = ()
    shares_capabilities_of: str | None = None
    object_storage_count: int = 1
    accepted_move_destinations: tuple[str, ...] = ()
    query_retrieve_view_id: str | None = None
    limit_open_associations: int = 0
    limit_associations_initiated_by: tuple[tuple[str, int], ...] = ()
    dn: str = ""


class InstanceAvailability(StrEnum):
    """Instance Availability (0008,0056), PS3.3 §C.4.23.1.1."""

    ONLINE = "ONLINE"
    NEARLINE = "NEARLINE"
    OFFLINE = "OFFLINE"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Exporter:
    """Where and how objects are exported (dcmExporter).

    Attributes
    ----------
    scheme, destination
        The two parts of dcmURI: `dicom:STORESCP` is scheme `dicom`, destination `STORESCP`.
    aet
        Local AE that performs the export (dicomAETitle).
    properties
        dcmProperty values, `name` to `value`.
    """

    exporter_id: str
    scheme: str
    destination: str
    queue_name: str
    aet: str | None = None
    description: str | None = None
    export_as_source_ae: bool = False
    ian_destinations: tuple[str, ...] = ()
    retrieve_aets: tuple[str, ...] = ()
    retrieve_location_uid: str | None = None
    instance_availability: InstanceAvailability = InstanceAvailability.ONLINE
    storage_commitment_scp: str | None = None
    delete_study_from_storage_id: str | None = None
    reject_for_data_retention_expiry: bool = False
    check_if_already_exists: bool = False
    schedule: Schedule = field(default_factory=Schedule)
    properties: tuple[tuple[str, str], ...] = ()
    dn: str = ""

    @property
    def remote_aet(self) -> str:
        """AE title of the destination for `dicom:` exporters, else the whole URI."""
        return self.destination if self.scheme == "dicom" else f"{self.scheme}:{self.destination}"


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of tasks (dcmQueue), or the implicit one of an exporter without such an entry.

    Purge delays are in seconds, None keeps tasks for ever.
    """

    name: str
    description: str | None = None
    installed: bool = True
    max_tasks_parallel: int = 1
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    schedule: Schedule = field(default_factory=Schedule)
    purge_completed_s: float | None = None
    purge_failed_s: float | None = None
    purge_warning_s: float | None = None
    purge_canceled_s: float | None = None
    implicit: bool = False
    dn: str = ""


@dataclass(frozen=True, slots=True)
class Storage:
    """A place for objects (dcmStorage)."""

    storage_id: str
    uri: str
    path_format: str
    digest_algorithm: str | None = None
    check_mount_file: str | None = None
    read_only: bool = False
    installed: bool = True
    retrieve_aets: tuple[str, ...] = ()
    instance_availability: InstanceAvailability = InstanceAvailability.ONLINE
    max_retries: int = 0
    retry_delay_s: float | None = None
    duration: str = "PERMANENT"
    properties: tuple[tuple[str, str], ...] = ()
    dn: str = ""


@dataclass(frozen=True, slots=True)
class ArchiveDevice(ArchiveOptions):
    """The device whose entries this system runs on, with its archive extension."""

    name: str
    aes: dict[str, NetworkAE]
    exporters: dict[str, Exporter]
    queues: dict[str, Queue]
    storages: dict[str, Storage]
    export_rules: tuple[ExportRule, ...] = ()
    coercion_rules: tuple[CoercionRule, ...] = ()
    leading_sets: dict[str, tuple[int, ...]] = field(default_factory=dict)
    installed: bool = True
    limit_open_associations: int = 0
    limit_associations_initiated_by: tuple[tuple[str, int], ...] = ()
    time_zone: str | None = None
    overwrite_policy: str = "NEVER"
    validate_calling_hostname: bool = False
    multiple_store_associations: tuple[str, ...] = ()
    retrieve_aets: tuple[str, ...] = ()
    description: str | None = None
    software_versions: tuple[str, ...] = ()
    issuer_of_patient_id: str | None = None
    primary_device_types: tuple[str, ...] = ()
    trust_store_url: str | None = None
    trust_store_type: str | None = None
    trust_store_pin: str | None = field(default=None, repr=False)
    trust_store_pin_property: str | None = None
    key_store_url: str | None = None
    key_store_type: str | None = None
    key_store_pin: str | None = field(default=None, repr=False)
    key_store_pin_property: str | None = None
    key_store_key_pin: str | None = field(default=None, repr=False)
    key_store_key_pin_property: str | None = None
    authorized_certificates: tuple[str, ...] = ()
    own_certificates: tuple[str, ...] = ()
    fuzzy_algorithm_class: str | None = None
    c_store_scu_of_c_move_scp: tuple[str, ...] = ()
    task_polling_interval_s: float | None = None
    task_fetch_size: int = 100
    ian_task_polling_interval_s: float | None = None
    ian_task_fetch_size: int = 100
    purge_queue_polling_interval_s: float | None = None
    purge_commitment_completed_delay_s: float | None = None
    purge_commitment_polling_interval_s: float | None = None
    queue_tasks_fetch_size: int = 100
    scheduler_min_start_delay_s: int = 60
    ae_cache_stale_timeout_s: float | None = None
    leading_c_find_scp_query_cache_stale_timeout_s: float | None = None
    leading_c_find_scp_query_cache_size: int = 10
    dn: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in the directory; nothing else than the named entry or value is affected.

    Attributes
    ----------
    severity
        `error`: the entry or value was set aside; `warning`: it is used, but will not work or not
        as meant; `notice`: worth knowing.
    """

    dn: str
    attribute: str
    reason: str
    severity: str = "error"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent reading of the directory.

    Attributes
    ----------
    remote_aes
        AEs of all devices, own ones included, by title.
    device_exporters
        Exporters of every device by its name, for rules that name another device.
    fingerprint
        Changes whenever the directory changes.
    """

    device: ArchiveDevice
    remote_aes: dict[str, NetworkAE]
    problems: tuple[Problem, ...]
    fingerprint: str
    device_exporters: dict[str, dict[str, Exporter]] = field(default_factory=dict)

    def queue(self, name: str) -> Queue:
        """Return the queue called `name`, or the implicit one of that name."""
        return self.device.queues.get(name) or implicit_queue(name)


def implicit_queue(name: str) -> Queue:
    """Return the queue that an exporter gets which names a queue without a dcmQueue entry.

    That of the retrieves that somebody waits for repeats those of a lost worker at once.
    """
    if name == INTERACTIVE_QUEUE:
        retry = RetryPolicy(max_retries=1, delay_s=0)
        return Queue(name=name, max_tasks_parallel=32, retry=retry, implicit=True)
    retry = RetryPolicy(max_retries=10, delay_s=30, max_delay_s=600, multiplier_percent=200)
    return Queue(name=name, max_tasks_parallel=4, retry=retry, implicit=True)
