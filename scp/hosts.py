"""What the host of a peer is called, asked of the name service only when somebody wants to know."""

import ipaddress
import socket
from collections.abc import Iterable

from archive.configuration.descriptors import NetworkAE, Snapshot


def names_among(address: str, candidates: Iterable[str]) -> frozenset[str]:
    """Return `address` and those of `candidates` that resolve to it, lower case."""
    found = {address.lower()}
    for name in candidates:
        try:
            resolved = {str(info[4][0]) for info in socket.getaddrinfo(name, None)}
        except OSError:
            continue
        if address in resolved:
            found.add(name.lower())
    return frozenset(found)


def host_name(address: str) -> str:
    """Return the name of the host with `address`, the address itself when it has none."""
    if ipaddress.ip_address(address).is_loopback:
        return "localhost"
    try:
        return socket.gethostbyaddr(address)[0]
    except OSError:
        return address


def asks_for_host(snapshot: Snapshot, ae: NetworkAE) -> bool:
    """Tell whether a rule that applies to objects sent to `ae` looks at the sending host."""
    rules = (*ae.export_rules, *snapshot.device.export_rules)
    return any(
        each.fact == "SendingHostname" for rule in rules for each in rule.conditions.conditions
    )
