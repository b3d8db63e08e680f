"""Which connection of ours reaches which of a remote AE: both with TLS or both without. Pure."""

from collections.abc import Iterator
from itertools import product

from archive.configuration.descriptors import Connection, NetworkAE

Pair = tuple[Connection, Connection]
"""Our connection and the peer's."""


def compatible_pairs(local: NetworkAE, remote: NetworkAE) -> Iterator[Pair]:
    """Yield the pairs that fit together, the peer's order first."""
    for peer, own in product(remote.connections, local.connections):
        usable = peer.installed and own.installed and peer.port is not None
        if usable and peer.protocol == own.protocol and peer.is_tls == own.is_tls:
            yield own, peer


def best_pair(local: NetworkAE, remote: NetworkAE) -> Pair | None:
    """Return the first pair over which `remote` can be called, with TLS if there is one."""
    pairs = [pair for pair in compatible_pairs(local, remote) if _can_call(pair[0])]
    return max(pairs, key=lambda pair: pair[0].is_tls, default=None)  # the first of the greatest


def _can_call(own: Connection) -> bool:
    return not own.is_tls or (own.tls is not None and own.tls.can_call)
