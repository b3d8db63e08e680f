"""What is known of a stored object: the indexed attributes and where its bytes lie (PS3.3 §7)."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ObjectAttributes:
    """Indexed attributes of one object, read from its header before the pixel data.

    Text is decoded to Unicode; an absent or empty element is None. Dates and times are kept as
    the DA and TM text of the object.
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
    """

    instance_pk: int
    version: int
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    sending_aet: str | None
    file: StoredFile | None


@dataclass(frozen=True, slots=True)
class InstanceReference:
    """An instance as an availability notification or commitment request names it."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class StudyCounts:
    """How far a study has come at one destination, for reconciliation."""

    study_instance_uid: str
    received: int
    exported: dict[str, int] = field(default_factory=dict)
    notified: dict[str, int] = field(default_factory=dict)
