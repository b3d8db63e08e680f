"""Certificates that the directory itself holds (PS3.15 §H.1.1.2): which entries, what is in them.

The device names the entries: those of peers that may connect and those of its own. Private keys
are never looked for in the directory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from archive.configuration.descriptors import Problem
from archive.configuration.entries import Entry
from archive.configuration.names import Name
from archive.errors import InvalidValueError
from archive.tls.certificates import certificate_pem, revocation_list_pem

TRUSTED: Final = "dicomAuthorizedNodeCertificateReference"
OWN: Final = "dicomThisNodeCertificateReference"
_CERTIFICATE: Final = "userCertificate"
_AUTHORITY: Final = "cACertificate"
_REVOKED: Final = "certificateRevocationList"
_BINARY: Final = ";binary"
CERTIFICATE_ATTRIBUTES: Final = tuple(
    f"{name}{option}" for name in (_CERTIFICATE, _AUTHORITY, _REVOKED) for option in ("", _BINARY)
)
Find = Callable[[str], Entry | None]


def certificate_names(entries: Iterable[Entry], device_name: str) -> tuple[str, ...]:
    """Return the names of the entries with certificates that a device refers to."""
    return tuple(
        dict.fromkeys(
            reference
            for entry in entries
            if entry.has_class("dicomDevice")
            and device_name.lower() in {text.lower() for text in entry.texts("dicomDeviceName")}
            for attribute in (TRUSTED, OWN)
            for reference in entry.texts(attribute)
        )
    )


def with_certificates(entries: Iterable[Entry], found: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return `entries` and those of `found`, in one where both have the same name."""
    added = {_key(entry.dn): entry for entry in found}
    merged = []
    for entry in entries:
        more = added.pop(_key(entry.dn), None) if added else None
        merged.append(
            entry if more is None else Entry(entry.dn, {**more.attributes, **entry.attributes})
        )
    return (*merged, *added.values())


def _key(dn: str) -> str:
    try:
        return Name.parse(dn).key(frozenset())
    except InvalidValueError:
        return dn


@dataclass(slots=True)
class DirectoryCertificates:
    """What the entries hold that a device refers to.

    Attributes
    ----------
    trusted
        Certificates and revocation lists with which peers are checked, PEM.
    own
        Certificates of the device, PEM.
    """

    dn: str
    trusted: tuple[bytes, ...] = ()
    own: tuple[bytes, ...] = ()
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def read(cls, dn: str, fields: Mapping[str, Any], find: Find) -> "DirectoryCertificates":
        """Read what a device refers to.

        Parameters
        ----------
        dn
            Name of the device's entry.
        fields
            Its fields.
        find
            Returns the entry of a name, None when there is none.
        """
        made = cls(dn)
        for prefix, attribute in (("trust_store", TRUSTED), ("key_store", OWN)):
            if fields.get(_FIELDS[attribute]) and bool(fields.get(f"{prefix}_url")) is (
                attribute == TRUSTED
            ):
                made.problems.append(Problem(dn, attribute, _UNUSED[attribute], "notice"))
        if not fields.get("trust_store_url"):
            references = fields.get(_FIELDS[TRUSTED], ())
            made.trusted = tuple(made._values(TRUSTED, references, find))
        made.own = tuple(made._values(OWN, fields.get(_FIELDS[OWN], ()), find))
        return made

    def _values(self, attribute: str, references: Iterable[str], find: Find) -> Iterator[bytes]:
        for reference in references:
            entry = find(reference)
            if entry is None:
                reason = (
                    f"names {reference}, which does not exist or may not be read; correct it, or "
                    "let the entry that dicomq binds with read it"
                )
                self._report(attribute, reason)
                continue
            values = list(self._of_entry(attribute, entry))
            if not values:
                self._report(attribute, f"names {reference}, {_EMPTY[attribute]}")
            yield from values

    def _of_entry(self, attribute: str, entry: Entry) -> Iterator[bytes]:
        kinds = _KINDS if attribute == TRUSTED else _KINDS[:1]
        for name, read in kinds:
            for value in (*entry.values(name), *entry.values(name + _BINARY)):
                try:
                    yield read(value)
                except InvalidValueError as error:
                    reason = f"a value {error}; it is not used"
                    self.problems.append(Problem(entry.dn, name, reason, "warning"))

    def _report(self, attribute: str, reason: str) -> None:
        self.problems.append(Problem(self.dn, attribute, reason, "warning"))


_FIELDS: Final = {TRUSTED: "authorized_certificates", OWN: "own_certificates"}
_KINDS: Final = (
    (_CERTIFICATE, certificate_pem),
    (_AUTHORITY, certificate_pem),
    (_REVOKED, revocation_list_pem),
)
_EMPTY: Final = {
    TRUSTED: f"which holds neither {_CERTIFICATE} nor {_AUTHORITY}: nobody is trusted by it",
    OWN: f"which holds no {_CERTIFICATE}",
}
_UNUSED: Final = {
    TRUSTED: "is not used: dcmTrustStoreURL goes before it; delete one of them",
    OWN: (
        "is not used: dcmKeyStoreURL names no file with the private key, and private keys are "
        "never read from the directory"
    ),
}
