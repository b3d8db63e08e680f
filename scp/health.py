"""Asks a running SCP for a C-ECHO, as a modality would."""

from typing import Final

from archive.configuration.descriptors import Snapshot
from archive.errors import ConfigurationError, PeerError
from archive.tls.terms import TlsTerms
from scp.requestor import Requestor

_VERIFICATION: Final = "1.2.840.10008.1.1"
_SUCCESS: Final = 0x0000


def verify(
    titles: tuple[str, str],
    address: tuple[str, int],
    *,
    timeout_s: float,
    terms: TlsTerms | None = None,
) -> str:
    """Open an association, verify, release (PS3.4 Annex A).

    Parameters
    ----------
    titles
        The AE to call, and the calling one.
    address
        Host and port.
    timeout_s
        Longest time for connecting and for each answer, seconds.
    terms
        For a port with TLS: our own certificate is shown, and has to be trusted here too.

    Returns
    -------
    str
        What was found, for people.

    Raises
    ------
    PeerError
        When the SCP does not answer as it should.
    """
    called, calling = titles
    host, port = address
    ae = Requestor(calling, terms, host)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = timeout_s
    ae.add_requested_context(_VERIFICATION)
    assoc = ae.associate(host, port, ae_title=called)
    if assoc.is_rejected:
        # whom it lets in is the configuration's decision; it listens, reads and answers
        return f"{called}@{host}:{port} answers, and rejects associations of {calling}"
    if not assoc.is_established:
        msg = f"{called}@{host}:{port} does not answer a request for an association"
        raise PeerError(msg)
    status = assoc.send_c_echo().get("Status")
    assoc.release()
    if status != _SUCCESS:
        msg = f"{called}@{host}:{port} answered the C-ECHO with {status}"
        raise PeerError(msg)
    return f"{called}@{host}:{port} answers C-ECHO"


def titles_to_verify(snapshot: Snapshot) -> tuple[str, str]:
    """Return an AE to call, and a calling one that it knows if it knows any; else itself.

    Raises
    ------
    ConfigurationError
        When no AE accepts associations.
    """
    for title, ae in snapshot.device.aes.items():
        if ae.installed and ae.association_acceptor and any(each.port for each in ae.connections):
            known = sorted(ae.accepted_calling_titles)
            return str(title), str(known[0] if known else title)
    msg = f"no AE of device {snapshot.device.name} accepts associations"
    raise ConfigurationError(msg)
