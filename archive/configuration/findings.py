"""Problems collected while a directory is decoded."""

from dataclasses import dataclass, field

from archive.configuration.attributes import TABLES
from archive.configuration.decode import Reading, Variables, read_entry
from archive.configuration.descriptors import Problem
from archive.configuration.entries import Entry


@dataclass(slots=True)
class Findings:
    """Problems collected while a directory is decoded, and what decoding needs everywhere."""

    variables: Variables = field(default_factory=Variables)
    problems: list[Problem] = field(default_factory=list)

    def read(self, entry: Entry, *classes: str) -> Reading:
        """Read what the tables of `classes` name, noting the problems."""
        rows = tuple(row for one in classes if entry.has_class(one) for row in TABLES[one])
        reading = read_entry(entry, rows, self.variables)
        self.problems.extend(reading.problems)
        return reading

    def report(self, dn: str, attribute: str, reason: str, severity: str = "error") -> None:
        """Note a problem."""
        self.problems.append(Problem(dn, attribute, reason, severity))
