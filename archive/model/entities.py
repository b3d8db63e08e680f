"""What is known of a stored object: the indexed attributes and where its bytes lie (PS3.3 §7)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class ObjectAttributes:
    """Indexed attributes of one object, read from its header before the pixel data.

    Text is decoded to Unicode; an absent or empty element is None. Dates and times are kept as
    the DA and TM text of the object.

    Attributes
    ----------
    further
        Attributes without a column in the DICOM JSON model, by table and tag.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    patient_id: str | None = None
    issuer_of_patient_id: str | None = None
    patient_name: str | None = None
    patient_birth_date: str | None = None
    patient_sex: str | None = None
    study_date: str | None = None
    study_time: str | None = None
    accession_number: str | None = None
    study_id: str | None = None
    study_description: str | None = None
    referring_physician_name: str | None = None
    modality: str | None = None
    series_number: str | None = None
    series_description: str | None = None
    body_part_examined: str | None = None
    station_name: str | None = None
    performed_procedure_step_start_date: str | None = None
    performed_procedure_step_start_time: str | None = None
    instance_number: str | None = None
    content_date: str | None = None
    content_time: str | None = None
    number_of_frames: str | None = None
    rows: int | None = None
    columns: int | None = None
    further: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is durable on a storage.

    Attributes
    ----------
    storage_path
        Path below the storage's root, with forward slashes.
    object_size
        Bytes of the whole file, preamble and file meta information included.
    dataset_offset
        Bytes before the data set: the encoded data set starts here.
    digest
        `algorithm:hexdigits` over the encoded data set, the same however it was framed.
    """

    storage_id: str
    storage_path: str
    transfer_syntax_uid: str
    object_size: int
    dataset_offset: int
    digest: str


@dataclass(frozen=True, slots=True)
class Reception:
    """From whom and as whom an object was received."""

    calling_aet: str
    called_aet: str
    calling_host: str = ""
    move_originator_aet: str | None = None
    move_originator_message_id: int | None = None


@dataclass(frozen=True, slots=True)
class InstanceToSend:
    """An instance as an export or retrieve needs it.

    Attributes
    ----------
    version
        Grows by one whenever the object is replaced; deliveries are recorded per version.
    file
        Where its bytes lie, None when every copy was purged.
    coercions
        What was changed in its attributes when it was received.
    """

    instance_pk: int
    version: int
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    sending_aet: str | None
    file: StoredFile | None
    coercions: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class InstanceReference:
    """An instance as an availability notification or commitment request names it."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class AnnouncedInstance:
    """An instance in a notification, with its own Instance Availability (0008,0056)."""

    reference: InstanceReference
    availability: str


@dataclass(frozen=True, slots=True)
class InstanceResult:
    """What a destination answered for one instance.

    Attributes
    ----------
    delivered
        Whether a C-STORE-RSP said success or warning (0000, Bxxx).
    dimse_status
        Status of the response; None when none came.
    permanent
        Refused for a reason that another attempt cannot mend.
    """

    instance_pk: int
    version: int
    delivered: bool
    dimse_status: int | None = None
    message: str = ""
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class DeliverySummary:
    """Counts over all instances that a task has dealt with in its present round.

    Attributes
    ----------
    refused
        Those of the failed ones that another attempt cannot mend.
    """

    delivered: int
    warning: int
    failed: int
    refused: int = 0


@dataclass(frozen=True, slots=True)
class FixedNotification:
    """The N-CREATE of an availability notification, the same in every attempt.

    Attributes
    ----------
    dataset_json
        DICOM JSON model (PS3.18 §F) of the attribute list.
    """

    sop_instance_uid: str
    dataset_json: str


class StoreKind(StrEnum):
    """What became of a received object."""

    STORED = "STORED"
    REPLACED = "REPLACED"
    DUPLICATE = "DUPLICATE"
    IGNORED = "IGNORED"


class OverwritePolicy(StrEnum):
    """dcmOverwritePolicy: when a different object of the same SOP Instance UID replaces it."""

    NEVER = "NEVER"
    SAME_SOURCE = "SAME_SOURCE"
    ALWAYS = "ALWAYS"
    EVEN_WITH_EQUAL_DIGEST = "EVEN_WITH_EQUAL_DIGEST"


@dataclass(frozen=True, slots=True)
class Announcements:
    """What an AE announces of what it receives (PS3.4 Annex R; dcmIanTrigger).

    Attributes
    ----------
    destinations
        AEs that are notified, in this order.
    retrieve_aets
        Retrieve AE Title (0008,0054), never empty.
    study_delay_s
        Quiet time after the last object before a study is announced; None: it is not.
    timeout_s
        Longest wait for the objects of a procedure step; None for any time.
    on_timeout
        Announce what is there when that wait is over.
    """

    device_name: str
    local_aet: str
    queue_name: str
    destinations: tuple[str, ...]
    retrieve_aets: tuple[str, ...]
    study_delay_s: float | None = None
    first_object: bool = False
    rejections: bool = False
    procedure_steps: bool = False
    timeout_s: float | None = None
    on_timeout: bool = False


@dataclass(frozen=True, slots=True)
class RejectionNote:
    """What a rejection note takes out of use, or puts back.

    Attributes
    ----------
    code
        `code value,coding scheme` of its document title.
    sop_instance_uids
        Instances of the note's own study.
    revokes
        It takes an earlier rejection of these instances back.
    names_step
        The notification of it says which performed procedure step the instances came from.
    """

    code: str
    note_sop_instance_uid: str
    sop_instance_uids: tuple[str, ...]
    revokes: bool = False
    names_step: bool = False


@dataclass(frozen=True, slots=True)
class StorePolicy:
    """How the archive takes an object in, and what it tells others about it."""

    overwrite: OverwritePolicy = OverwritePolicy.NEVER
    retrieve_aets: tuple[str, ...] = ()
    availability: str = "ONLINE"
    announcements: Announcements | None = None
    rejection: RejectionNote | None = None


@dataclass(frozen=True, slots=True)
class StoreResult:
    """What the ledger did with a received object.

    Attributes
    ----------
    obsolete_files
        Files whose object was replaced; to be deleted now that the change is committed.
    staged_tasks
        Export tasks inserted, widened or joined.
    patient_conflict
        The study is known under another patient; it stays with that one.
    """

    kind: StoreKind
    instance_pk: int
    obsolete_files: tuple[StoredFile, ...] = ()
    staged_tasks: int = 0
    patient_conflict: bool = False

    @property
    def keep_file(self) -> bool:
        """Whether the new file belongs to the archive now; else it is to be deleted."""
        return self.kind in {StoreKind.STORED, StoreKind.REPLACED}
