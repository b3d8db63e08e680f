"""Why a directory refuses a change: LDAP result codes with their words and a hint."""

from dataclasses import dataclass

from archive.configuration.records import Record
from archive.errors import ConfigurationError, DirectoryUnavailableError

RESULT_TEXTS = {
    1: "Operations error",
    2: "Protocol error",
    10: "Referral",
    16: "No such attribute",
    17: "Undefined attribute type",
    18: "Inappropriate matching",
    19: "Constraint violation",
    20: "Type or value exists",
    21: "Invalid syntax",
    32: "No such object",
    34: "Invalid DN syntax",
    49: "Invalid credentials",
    50: "Insufficient access",
    53: "Server is unwilling to perform",
    64: "Naming violation",
    65: "Object class violation",
    66: "Operation not allowed on non-leaf",
    67: "Operation not allowed on RDN",
    68: "Already exists",
    80: "Other (e.g., implementation specific) error",
}
_HINTS = {
    10: "the server is a replica; put the one that takes changes first in DICOMQ_DIRECTORY",
    16: "use add: or replace: when the attribute may be absent",
    17: "check the spelling; the directory takes only attributes of its schema",
    19: "use replace: to change an attribute that can have only one value",
    20: "the value is set already; use replace: to set whatever was there before",
    21: "booleans are TRUE or FALSE, numbers have digits only, titles and queue names are ASCII",
    32: "the entry, or for an add the entry above it, has to exist first",
    50: "bind as a DN that may write",
    64: "the attribute that names the entry has to keep that value",
    65: "compare the attributes with the object classes of the entry",
    66: "delete the entries below it first",
    68: "the entry is there already; use changetype: modify to change it",
}


class RefusedChangeError(ConfigurationError):
    """The directory refused a change; nothing of that record was applied.

    Parameters
    ----------
    operation
        `add`, `modify`, `delete` or `rename`.
    code
        LDAP result code (RFC 4511 Appendix A).
    info
        What exactly is wrong.
    """

    def __init__(self, operation: str, code: int, info: str = "") -> None:
        text = f"ldap_{operation}: {RESULT_TEXTS.get(code, 'Error')} ({code})"
        text += f"; additional info: {info}" if info else ""
        hint = _HINTS.get(code)
        super().__init__(f"{text}; hint: {hint}" if hint else text)
        self.operation = operation
        self.code = code
        self.info = info


@dataclass(frozen=True, slots=True)
class Applied:
    """A change record that was tried, and why it was refused if it was."""

    record: Record
    refusal: RefusedChangeError | None = None


class InterruptedChangesError(DirectoryUnavailableError):
    """A server broke off between change records; what it applied before stays.

    Parameters
    ----------
    cause
        How it broke off.
    done
        The records that it answered.
    present
        The record that it did not answer.
    """

    def __init__(self, cause: Exception, done: tuple[Applied, ...], present: Record) -> None:
        super().__init__(
            f'{cause}; whether "{present.dn}" (line {present.line}) was applied is unknown, what '
            "was applied before stays: see with `config diff` what is missing, then import again "
            "with --continue"
        )
        self.done = done
