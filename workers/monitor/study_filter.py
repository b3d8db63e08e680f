"""Parameters of requests as conditions on studies: pure."""

from archive.errors import InvalidValueError
from archive.ledger.studies import StudyFilter
from archive.model.identifiers import check_uid
from workers.monitor.parameters import Arguments, text_of

STUDY_NAMES = (
    *("PatientName", "PatientID", "StudyDate", "ModalitiesInStudy"),
    *("AccessionNumber", "StudyInstanceUID"),
)


def study_filter(arguments: Arguments) -> StudyFilter:
    """Return which studies the arguments mean; a trailing `*` of a name may be left out.

    Raises
    ------
    InvalidValueError
        When a date or a UID has no usable form.
    """
    since, until = _dates(text_of(arguments, "StudyDate"))
    uids = tuple(
        each.strip()
        for value in arguments.get("StudyInstanceUID", ())
        for each in value.replace("\\", ",").split(",")
        if each.strip()
    )
    for uid in uids:
        check_uid(uid, "Study Instance UID")
    name = text_of(arguments, "PatientName")
    return StudyFilter(
        study_instance_uids=uids,
        patient_id=text_of(arguments, "PatientID"),
        patient_name=name.rstrip("*") if name else None,
        accession_number=text_of(arguments, "AccessionNumber"),
        modality=text_of(arguments, "ModalitiesInStudy"),
        study_date_since=since,
        study_date_until=until,
    )


def _dates(text: str | None) -> tuple[str | None, str | None]:
    """Return the ends of a range of DA values (PS3.4 §C.2.2.2.5)."""
    if not text:
        return None, None
    plain = text.replace(" ", "")
    if len(plain) == len("YYYY-MM-DD") and plain[4] == plain[7] == "-":
        plain = plain.replace("-", "")
    since, dash, until = plain.partition("-")
    for date in (since, until):
        if date and not (date.isascii() and date.isdecimal() and len(date) == len("YYYYMMDD")):
            msg = f"StudyDate={text[:40]!r} is no date or range: write 20261121, a-b, a- or -b"
            raise InvalidValueError(msg)
    return since or None, (until if dash else since) or None
