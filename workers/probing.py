"""Asking a destination for a C-ECHO: which way there is to it, and whether it answers.

Apart from `workers.breaker`, so that a dispatcher loads pynetdicom with its first probe only.
"""

from archive.clock import SYSTEM_CLOCK, Clock
from archive.configuration.descriptors import Snapshot
from archive.errors import NoAcceptedContextError
from archive.model.gates import DueProbe
from workers.association import Association
from workers.contexts import IMPLICIT_VR_LE, ProposedContext
from workers.route import NotConfiguredError, Route, find_route, local_ae, remote_ae

VERIFICATION = "1.2.840.10008.1.1"


def route_to(snapshot: Snapshot, remote_aet: str, local_aet: str | None = None) -> Route:
    """Return how the archive reaches a destination.

    Parameters
    ----------
    local_aet
        The AE that shall do so; None for one whose exporter goes there, else any that may.

    Raises
    ------
    NotConfiguredError
        When the destination or a local AE are missing, or no connection fits.
    """
    remote = remote_ae(snapshot, remote_aet, "the C-ECHO")
    title = local_aet or _calling_aet(snapshot, remote_aet)
    return find_route(local_ae(snapshot, title, "the C-ECHO"), remote)


def _calling_aet(snapshot: Snapshot, remote_aet: str) -> str | None:
    device = snapshot.device
    by_exporter = (
        each.aet for each in device.exporters.values() if each.aet and each.remote_aet == remote_aet
    )
    able = (ae.title for ae in device.aes.values() if ae.installed and ae.association_initiator)
    return next(by_exporter, None) or next(able, None)


def send_echo(route: Route, clock: Clock = SYSTEM_CLOCK) -> int | None:
    """Send a C-ECHO and return the status of its response (PS3.4 Annex A).

    Returns
    -------
    int or None
        None when the peer opened the association but knows no Verification: it is there.

    Raises
    ------
    PeerError
        When the peer cannot be reached, rejects the association or does not answer.
    """
    try:
        with Association(route, [ProposedContext(VERIFICATION, (IMPLICIT_VR_LE,))], clock) as peer:
            return peer.echo()
    except NoAcceptedContextError:
        return None


def probe_route(snapshot: Snapshot, probe: DueProbe) -> Route:
    """Return the way on which a paused destination is probed.

    It is that of the local AE that met the failures, else of any AE that may go there.

    Raises
    ------
    NotConfiguredError
        When there is none.
    """
    try:
        return route_to(snapshot, probe.remote_aet, probe.local_aet)
    except NotConfiguredError:
        return route_to(snapshot, probe.remote_aet)
