"""What the directory says of TLS: from connections and their device to terms, with what is wrong.

The connections of other devices are read as well: their suites say that they speak TLS. What is
wrong with them matters on their device only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from archive.configuration.certificates import DirectoryCertificates, Find
from archive.configuration.descriptors import Connection, Problem
from archive.errors import InvalidValueError
from archive.tls.terms import (
    DeviceStores,
    StoreReference,
    TlsTerms,
    Wishes,
    decide_terms,
    store_reference,
)

_URL = {"key_store": "dcmKeyStoreURL", "trust_store": "dcmTrustStoreURL"}


@dataclass(slots=True)
class DeviceTls:
    """The key store and the trust store of one device, and what is wrong with its TLS."""

    dn: str
    stores: DeviceStores
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def read(
        cls, dn: str, fields: Mapping[str, Any], environment: Mapping[str, str], find: Find
    ) -> "DeviceTls":
        """Read what a device's entry says.

        Parameters
        ----------
        fields
            Fields of the entry.
        environment
            Variables that hold pins.
        find
            Returns the entry of a name: certificates can lie in the directory.
        """
        problems: list[Problem] = []

        def store(prefix: str) -> StoreReference | None:
            try:
                return store_reference(prefix, fields, environment)
            except InvalidValueError as error:
                problems.append(Problem(dn, _URL[prefix], f"{error}; it is not used", "warning"))
                return None

        held = DirectoryCertificates.read(dn, fields, find)
        stores = DeviceStores(
            dn, store("key_store"), store("trust_store"), trusted=held.trusted, own=held.own
        )
        return cls(dn, stores, [*problems, *held.problems])

    def terms(self, dn: str, connection: Connection) -> TlsTerms | None:
        """Return what a connection of the device demands; None when no suite can be used."""
        if not connection.is_tls:
            return None
        wishes = Wishes(
            suites=connection.tls_cipher_suites,
            protocols=connection.tls_protocols,
            need_client_auth=connection.tls_need_client_auth,
            host_check=connection.tls_endpoint_identification,
            has_port=connection.port is not None,
        )
        terms, problems = decide_terms(dn, wishes, self.stores)
        self.problems.extend(
            Problem(self.dn if each.is_ours else dn, each.attribute, each.reason, "warning")
            for each in problems
        )
        return terms
