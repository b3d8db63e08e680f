"""Frozen descriptors of what the directory holds (PS3.15 §H.1.1 and the archive's extensions).

Field names are Python spellings; the LDAP attribute behind each field, its type, default and
unit stand in `attributes.py` and nowhere else.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from archive.model.conditions import Conditions
from archive.model.retry import RetryPolicy
from archive.model.schedule import Schedule
from archive.model.task import ExportEntity


@dataclass(frozen=True, slots=True)
class Connection:
    """A network connection of a device (dicomNetworkConnection + dcmNetworkConnection).

    Time-outs are in seconds, None for none; PDU lengths are in bytes.
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
    connect_timeout_s: float | None = None
    request_timeout_s: float | None = None
    accept_timeout_s: float | None = None
    release_timeout_s: float | None = None
    send_timeout_s: float | None = None
    store_timeout_s: float | None = None
    response_timeout_s: float | None = None
    retrieve_timeout_s: float | None = None
    idle_timeout_s: float | None = None

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


@dataclass(frozen=True, slots=True)
class NetworkAE:
    """An application entity (dicomNetworkAE + dcmNetworkAE + dcmArchiveNetworkAE)."""

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
    ian_destinations: tuple[str, ...] = ()
    export_rules: tuple[ExportRule, ...] = ()
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
    properties: tuple[tuple[str, str], ...] = ()
    dn: str = ""


@dataclass(frozen=True, slots=True)
class ArchiveDevice:
    """The device whose entries this system runs on, with its archive extension."""

    name: str
    aes: dict[str, NetworkAE]
    exporters: dict[str, Exporter]
    queues: dict[str, Queue]
    storages: dict[str, Storage]
    export_rules: tuple[ExportRule, ...] = ()
    installed: bool = True
    limit_open_associations: int = 0
    limit_associations_initiated_by: tuple[tuple[str, int], ...] = ()
    time_zone: str | None = None
    overwrite_policy: str = "NEVER"
    validate_calling_hostname: bool = False
    multiple_store_associations: tuple[str, ...] = ()
    retrieve_aets: tuple[str, ...] = ()
    restrict_retrieve_silently: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in the directory; the entry (or value) was set aside, nothing else."""

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
    fingerprint
        Changes whenever the directory changes.
    """

    device: ArchiveDevice
    remote_aes: dict[str, NetworkAE]
    problems: tuple[Problem, ...]
    fingerprint: str

    def queue(self, name: str) -> Queue:
        """Return the queue called `name`, or the implicit one of that name."""
        return self.device.queues.get(name) or implicit_queue(name)


def implicit_queue(name: str) -> Queue:
    """Return the queue that an exporter gets which names a queue without a dcmQueue entry."""
    return Queue(
        name=name,
        max_tasks_parallel=4,
        retry=RetryPolicy(max_retries=10, delay_s=30, max_delay_s=600, multiplier_percent=200),
        implicit=True,
    )
