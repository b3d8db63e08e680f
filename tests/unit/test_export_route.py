"""Titles, addresses and limits of an outgoing association."""

import dataclasses
from pathlib import Path

import pytest

from archive.configuration.descriptors import Connection
from archive.tls.terms import DeviceStores, StoreReference, TlsTerms
from tests.fix_export import PROMPT, local_ae, remote_ae
from workers.route import (
    DEFAULT_RESPONSE_S,
    DEFAULT_STALL_S,
    NotConfiguredError,
    TimeLimits,
    find_route,
    masqueraded_called_aet,
    masqueraded_calling_aet,
    time_limits,
)

PLAIN = Connection("plain", "h1", 104)
TLS = Connection("tls", "h2", 2762, tls_cipher_suites=("TLS_RSA_WITH_AES_128_CBC_SHA",))
OUT = Connection("out", "me")
TERMS = TlsTerms("cn=x", DeviceStores("dn", trust=StoreReference("a", Path("/t"))), (), ())
OUT_TLS = dataclasses.replace(TLS, name="out-tls", hostname="me", port=None)
OUT_SECURE = dataclasses.replace(OUT_TLS, tls=TERMS)


def test_defaults_are_finite() -> None:
    assert time_limits(OUT) == TimeLimits()
    assert min(dataclasses.astuple(TimeLimits())) > 0


def test_configured_limits() -> None:
    connection = Connection(
        "c",
        "me",
        connect_timeout_s=1,
        accept_timeout_s=2,
        release_timeout_s=3,
        send_timeout_s=400,
        store_timeout_s=300,
    )
    assert time_limits(connection) == TimeLimits(1, 2, 3, 300, 300, DEFAULT_RESPONSE_S)
    short = dataclasses.replace(connection, send_timeout_s=None, store_timeout_s=None)
    assert time_limits(short).stall_s == DEFAULT_STALL_S


@pytest.mark.parametrize(
    ("own", "peers", "port"),
    [
        ((OUT,), (PLAIN,), 104),
        ((OUT,), (TLS, PLAIN), 104),
        ((OUT_TLS, OUT), (TLS, PLAIN), 104),
        ((OUT, OUT_SECURE), (PLAIN, TLS), 2762),
        ((OUT,), (dataclasses.replace(PLAIN, installed=False), PROMPT, PLAIN), 104),
        ((OUT,), (dataclasses.replace(PLAIN, protocol="HL7", port=1), PLAIN), 104),
    ],
)
def test_first_compatible_pair(
    own: tuple[Connection, ...], peers: tuple[Connection, ...], port: int
) -> None:
    route = find_route(local_ae(connections=own), remote_ae("X", 1, connections=peers))
    assert route.port == port


@pytest.mark.parametrize(
    ("own", "peers", "words"),
    [
        ((OUT,), (), "no connection leads"),
        ((), (PLAIN,), "no connection leads"),
        ((OUT,), (TLS,), "no connection leads"),
        ((OUT_TLS,), (TLS,), "can be reached over TLS only"),
    ],
)
def test_no_usable_pair(
    own: tuple[Connection, ...], peers: tuple[Connection, ...], words: str
) -> None:
    with pytest.raises(NotConfiguredError, match=words) as caught:
        find_route(local_ae(connections=own), remote_ae("X", 1, connections=peers))
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), None),
        (("ANY",), "ANY"),
        (("ANY", "[X]MINE"), "MINE"),
        (("[X]MINE", "ANY"), "MINE"),
        (("[Y]THEIRS",), None),
        (("[Y]THEIRS", "ANY", "LATER"), "ANY"),
    ],
)
def test_calling_title(values: tuple[str, ...], expected: str | None) -> None:
    ae = local_ae(masquerade_calling_titles=values)
    assert masqueraded_calling_aet(ae, "X") == expected


@pytest.mark.parametrize(
    ("values", "expected"), [((), None), (("X:Z",), "Z"), (("Y:Z",), None), (("X",), None)]
)
def test_called_title(values: tuple[str, ...], expected: str | None) -> None:
    assert masqueraded_called_aet(local_ae(masquerade_called_titles=values), "X") == expected


def test_source_title_yields_to_masquerading() -> None:
    remote = remote_ae("X", 1)
    assert find_route(local_ae(), remote).calling_aet == "DCM4CHEE"
    assert find_route(local_ae(), remote, "CT99").calling_aet == "CT99"
    masked = local_ae(masquerade_calling_titles=("MASK",))
    assert find_route(masked, remote, "CT99").calling_aet == "MASK"


@pytest.mark.parametrize(
    ("limit", "by_caller", "calling", "may_idle"),
    [
        (0, (), None, True),
        (1, (), None, False),
        (4, (), None, False),
        (0, (("DCM4CHEE", 1),), None, False),
        (0, (("OTHER", 1),), None, True),
        (0, (("OTHER", 1),), "OTHER", False),
        (0, (("DCM4CHEE", 0),), None, True),
    ],
)
def test_nothing_idles_at_a_peer_that_limits_its_associations(
    limit: int, by_caller: tuple[tuple[str, int], ...], calling: str | None, *, may_idle: bool
) -> None:
    remote = remote_ae(
        "X", 1, limit_open_associations=limit, limit_associations_initiated_by=by_caller
    )
    assert find_route(local_ae(), remote, calling).may_idle is may_idle
