"""Titles, address and time limits of an outgoing association: pure look-ups in a snapshot.

Everything but the address of the peer comes from the local connection entry: time-outs, PDU
lengths and TCP options are those of the device that opens the association, not the peer's.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from archive.configuration.pairs import best_pair, compatible_pairs
from archive.errors import ConfigurationError

if TYPE_CHECKING:
    from archive.configuration.descriptors import Connection, NetworkAE, Snapshot
    from archive.tls.terms import TlsTerms


class NotConfiguredError(ConfigurationError):
    """The directory lacks what a task needs; retried by policy, as the entry may be added."""

    retryable = True


DEFAULT_CONNECT_S = 10.0
DEFAULT_ACCEPT_S = 20.0
DEFAULT_RELEASE_S = 10.0
DEFAULT_STALL_S = 60.0
DEFAULT_STORE_S = 1800.0
DEFAULT_RESPONSE_S = 120.0
DEFAULT_RETRIEVE_S = 600.0


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long each step of an association may take, in seconds; there is no "for ever".

    Attributes
    ----------
    connect_s
        TCP connection (dcmTCPConnectTimeout).
    accept_s
        From A-ASSOCIATE-RQ to its answer (dcmAAACTimeout).
    release_s
        From A-RELEASE-RQ to its answer (dcmARRPTimeout).
    stall_s
        Sending: the peer takes no byte for so long (dcmSendTimeout).
    store_s
        Sending one whole C-STORE request (dcmStoreTimeout).
    response_s
        From the end of a request to its response (dcmResponseTimeout).
    retrieve_s
        From a C-MOVE request to its first response, and from one response to the next
        (dcmRetrieveTimeout).
    """

    connect_s: float = DEFAULT_CONNECT_S
    accept_s: float = DEFAULT_ACCEPT_S
    release_s: float = DEFAULT_RELEASE_S
    stall_s: float = DEFAULT_STALL_S
    store_s: float = DEFAULT_STORE_S
    response_s: float = DEFAULT_RESPONSE_S
    retrieve_s: float = DEFAULT_RETRIEVE_S


def time_limits(connection: "Connection") -> TimeLimits:
    """Return the limits of a local connection entry; the default where it gives none."""
    store_s = connection.store_timeout_s or DEFAULT_STORE_S
    return TimeLimits(
        connect_s=connection.connect_timeout_s or DEFAULT_CONNECT_S,
        accept_s=connection.accept_timeout_s or DEFAULT_ACCEPT_S,
        release_s=connection.release_timeout_s or DEFAULT_RELEASE_S,
        stall_s=min(connection.send_timeout_s or DEFAULT_STALL_S, store_s),
        store_s=store_s,
        response_s=connection.response_timeout_s or DEFAULT_RESPONSE_S,
        retrieve_s=connection.retrieve_timeout_s or DEFAULT_RETRIEVE_S,
    )


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach a remote AE.

    Attributes
    ----------
    remote_aet
        Title of the destination in the directory, for messages.
    calling_aet, called_aet
        Titles put into the A-ASSOCIATE-RQ, after masquerading.
    bind_address
        Local address to connect from, None for any.
    local_aet
        Title of the own AE in the directory.
    send_pdu_length, receive_pdu_length
        Bytes; 0 for no limit of ours.
    tls
        What is demanded of TLS; None for a plain connection.
    may_idle
        Whether an association may stay open that no task uses: not with a peer that limits how
        many it accepts, where it would keep others out.
    """

    remote_aet: str
    calling_aet: str
    called_aet: str
    host: str
    port: int
    limits: TimeLimits
    bind_address: str | None = None
    local_aet: str = ""
    send_pdu_length: int = 16378
    receive_pdu_length: int = 16378
    send_buffer_bytes: int = 0
    receive_buffer_bytes: int = 0
    tls: "TlsTerms | None" = None
    may_idle: bool = True

    @override
    def __str__(self) -> str:
        """Return the destination for messages: title and address."""
        over = " over TLS" if self.tls is not None else ""
        return f"{self.remote_aet} ({self.host}:{self.port}{over})"


def local_ae(snapshot: "Snapshot", title: str | None, wanted_by: str) -> "NetworkAE":
    """Return the own AE called `title`.

    Parameters
    ----------
    title
        dicomAETitle of the exporter, or the task's local AE.
    wanted_by
        The entry or task that names it, for the message.

    Raises
    ------
    NotConfiguredError
        When there is no such AE on the own device, or it may not open associations.
    """
    if title is None:
        msg = f"{wanted_by} has no dicomAETitle: set it to the local AE that shall act for it"
        raise NotConfiguredError(msg)
    ae = snapshot.device.aes.get(title)
    where = f"dicomAETitle={title} below dicomDeviceName={snapshot.device.name}"
    if ae is None:
        msg = f"{wanted_by} needs the local AE {title}, but there is no entry {where}: add it"
        raise NotConfiguredError(msg)
    if not ae.installed or not ae.association_initiator:
        flag = "dicomAssociationInitiator" if ae.installed else "dicomInstalled"
        msg = f"local AE {title} may not open associations: set {flag} to TRUE in {ae.dn or where}"
        raise NotConfiguredError(msg)
    return ae


def remote_ae(snapshot: "Snapshot", title: str, wanted_by: str) -> "NetworkAE":
    """Return the AE called `title` of any device.

    Raises
    ------
    NotConfiguredError
        When the directory has no such AE or it is not installed.
    """
    ae = snapshot.remote_aes.get(title)
    if ae is None:
        msg = (
            f"{wanted_by} needs the remote AE {title}, but no device below cn=Devices has an "
            f"entry dicomAETitle={title}: add the destination's device, connection and AE"
        )
        raise NotConfiguredError(msg)
    if not ae.installed:
        msg = f"remote AE {title} is switched off: set dicomInstalled to TRUE in {_place(ae)}"
        raise NotConfiguredError(msg)
    return ae


def find_route(local: "NetworkAE", remote: "NetworkAE", calling_aet: str | None = None) -> Route:
    """Return how `local` reaches `remote`.

    Parameters
    ----------
    calling_aet
        Calling AE title instead of the local one (dcmExportAsSourceAE); a masqueraded calling
        title of the local AE still takes precedence.

    Raises
    ------
    NotConfiguredError
        When the two have no pair of compatible connections that can be used.
    """
    own, peer = _connection_pair(local, remote)
    if peer.port is None:
        msg = f"the connection {peer.name} of {_place(remote)} has no dicomPort"
        raise NotConfiguredError(msg)
    calling = masqueraded_calling_aet(local, remote.title) or calling_aet or local.title
    return Route(
        remote_aet=remote.title,
        calling_aet=calling,
        called_aet=masqueraded_called_aet(local, remote.title) or remote.title,
        host=peer.hostname,
        port=peer.port,
        limits=time_limits(own),
        bind_address=own.client_bind_address,
        local_aet=local.title,
        send_pdu_length=own.send_pdu_length,
        receive_pdu_length=own.receive_pdu_length,
        send_buffer_bytes=own.send_buffer_bytes,
        receive_buffer_bytes=own.receive_buffer_bytes,
        tls=own.tls,
        may_idle=not limits_associations(remote, calling),
    )


def limits_associations(remote: "NetworkAE", calling_aet: str) -> bool:
    """Tell whether a peer limits how many associations it accepts, of all or of `calling_aet`."""
    of_caller = dict(remote.limit_associations_initiated_by).get(calling_aet, 0)
    return max(remote.limit_open_associations, of_caller) > 0


def masqueraded_calling_aet(local: "NetworkAE", remote_aet: str) -> str | None:
    """Return the title of dcmMasqueradeCallingAETitle for a destination: `[called]AET` or `AET`."""
    prefix = f"[{remote_aet}]"
    general: str | None = None
    for value in local.masquerade_calling_titles:
        if value.startswith(prefix):
            return value[len(prefix) :]
        if not value.startswith("["):
            general = general or value
    return general


def masqueraded_called_aet(local: "NetworkAE", remote_aet: str) -> str | None:
    """Return the title of dcmMasqueradeCalledAETitle for a destination: `configured:used`."""
    for value in local.masquerade_called_titles:
        configured, _, used = value.partition(":")
        if configured == remote_aet and used:
            return used
    return None


def _connection_pair(local: "NetworkAE", remote: "NetworkAE") -> tuple["Connection", "Connection"]:
    """Return the first compatible pair (own, peer's): over TLS if both can, else plain."""
    best = best_pair(local, remote)
    if best is not None:
        return best
    pairs = list(compatible_pairs(local, remote))
    if pairs:
        own, peer = pairs[0]
        msg = (
            f"{remote.title} can be reached over TLS only (connection {peer.name} of "
            f"{_place(remote)}), and connection {own.name} of {_place(local)} cannot be used for "
            f"it: its dicomTLSCipherSuite and dcmTLSProtocol have to name a suite of TLS 1.2 or "
            f"1.3, dcmTrustStoreURL of the device a file; `celery -A workers config check` says "
            f"what is wrong"
        )
    else:
        msg = (
            f"no connection leads from {_place(local)} to {_place(remote)}: the destination needs "
            f"an installed connection with dicomPort, the local AE an installed one, both of "
            f"protocol DICOM and both with or without TLS"
        )
    raise NotConfiguredError(msg)


def _place(ae: "NetworkAE") -> str:
    return ae.dn or f"dicomAETitle={ae.title},dicomDeviceName={ae.device_name}"
