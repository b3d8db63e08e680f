"""Associations that the SCP itself opens, over TLS where the route goes over it."""

import socket
from typing import Final

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket
from typing_extensions import override

from archive.tls.channel import TlsSocket
from archive.tls.stores import client_context
from archive.tls.terms import TlsTerms

DEFAULT_CONNECT_S: Final = 10.0


class Requestor(ApplicationEntity):
    """An AE that opens associations.

    Parameters
    ----------
    terms
        What is demanded of TLS; None for plain associations.
    host
        Whom it calls, for the check of the certificate.

    Raises
    ------
    TlsMaterialError
        When our key or the trusted certificates cannot be read; on opening an association.
    """

    def __init__(self, ae_title: str, terms: TlsTerms | None, host: str) -> None:
        super().__init__(ae_title)
        self._terms = terms
        self._host = host

    @override
    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: object
    ) -> AssociationSocket:
        if self._terms is None:
            return super()._create_socket(assoc, address, None)
        made = _Calling(address.address_family, socket.SOCK_STREAM)
        made.secure(client_context(self._terms), host=self._host)
        made.bind(address.as_tuple)
        transport = _SecureTransport(assoc, address=address)
        if transport.socket is not None:
            transport.socket.close()
        transport.socket = made
        return transport


class _Calling(TlsSocket):
    """One that agrees on keys as soon as it is connected."""

    @override
    def connect(self, address: tuple[str, int]) -> None:  # type: ignore[override]
        super().connect(address)
        self.handshake(self.gettimeout() or DEFAULT_CONNECT_S)


class _SecureTransport(AssociationSocket):
    """What pynetdicom reads from; `select` does not see into TLS."""

    @property
    @override
    def ready(self) -> bool:
        sock = self.socket
        return isinstance(sock, TlsSocket) and self._is_connected and sock.is_readable()
