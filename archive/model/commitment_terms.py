"""On which terms an AE commits to what others ask for: the value of dcmStgCmtPolicy. Pure."""

from dataclasses import dataclass

from archive.errors import InvalidValueError
from archive.model.durations import parse_duration

TERMS_FORM = "COMMITTED_BY:exporter,exporter;SAME_ASSOCIATION:duration"


@dataclass(frozen=True, slots=True)
class CommitmentTerms:
    """Terms of an AE as storage commitment SCP.

    Attributes
    ----------
    committed_by
        Exporters all of whose commitment SCPs have to keep an instance before this AE commits to
        it; none: what is here is committed.
    same_association_s
        How long, in seconds, the report may be sent on the association of its request, as long as
        that is open; afterwards it goes over a new one. 0: always a new one.
    """

    committed_by: tuple[str, ...] = ()
    same_association_s: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "CommitmentTerms":
        """Read terms separated by semicolons, each at most once.

        Raises
        ------
        InvalidValueError
            When the text is not of that form.
        """
        terms = _terms(text)
        try:
            hold_s = parse_duration(terms.get("SAME_ASSOCIATION", "PT0S"))
        except InvalidValueError as error:
            msg = f"SAME_ASSOCIATION: {error}"
            raise InvalidValueError(msg) from error
        names = [name.strip() for name in terms.get("COMMITTED_BY", "").split(",")]
        exporters = tuple(dict.fromkeys(filter(None, names)))
        if "COMMITTED_BY" in terms and not exporters:
            msg = "COMMITTED_BY names no exporter"
            raise InvalidValueError(msg)
        return cls(exporters, hold_s)


def _terms(text: str) -> dict[str, str]:
    pairs = [part.partition(":") for part in text.split(";") if part.strip()]
    terms = {word.strip().upper(): value.strip() for word, _, value in pairs}
    is_known = terms.keys() <= {"COMMITTED_BY", "SAME_ASSOCIATION"}
    if not terms or not is_known or not all(terms.values()) or len(terms) < len(pairs):
        msg = f"not of the form {TERMS_FORM}"
        raise InvalidValueError(msg)
    return terms
