"""Outgoing associations over TLS, with dcmtk and openssl as peers."""

import contextlib
import dataclasses
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from archive.configuration.descriptors import Connection
from archive.errors import PeerError, TlsHandshakeError, TlsMaterialError
from archive.model.task import Failure, TaskStatus
from archive.tls.terms import TlsTerms
from tests.fix_dcmtk import Dcmtk
from tests.fix_export import PROMPT, ExportBench, exporter, local_ae, remote_ae
from tests.fix_objects import bundled, encoded_dataset
from tests.fix_orthanc import Orthanc
from tests.fix_process import Spawn, free_port, listens, missing, wait_until
from tests.fix_tls import Node, Pki, TlsSite
from workers.association import Association
from workers.contexts import ProposedContext
from workers.route import Route, TimeLimits
from workers.sending import StoreLoop, StoreRequest

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
VERIFICATION, IMPLICIT = "1.2.840.10008.1.1", "1.2.840.10008.1.2"
PROPOSED = (ProposedContext(CT, (EXPLICIT,)), ProposedContext(VERIFICATION, (IMPLICIT,)))
CT_UID = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
LIMITS = TimeLimits(5.0, 5.0, 2.0, 2.0, 20.0, 5.0)


def _route(port: int, terms: TlsTerms | None, **changes: object) -> Route:
    route = Route("STORESCP", "DCM4CHEE", "STORESCP", "localhost", port, LIMITS, tls=terms)
    return dataclasses.replace(route, **changes)  # type: ignore[arg-type]


def _failure(route: Route) -> PeerError:
    with pytest.raises(PeerError) as caught, Association(route, PROPOSED):
        pass
    return caught.value


def _openssl(spawn: Spawn, node: Node, *options: str) -> int:
    """Start a TLS server that speaks no DICOM, and return its port."""
    if shutil.which("openssl") is None:
        missing("openssl is not installed (apt-get install openssl)")
    port = free_port()
    argv = ["openssl", "s_server", "-quiet", "-accept", f"127.0.0.1:{port}"]
    argv += ["-key", str(node.key), "-cert", str(node.cert), *options]
    process = spawn(argv)
    wait_until(lambda: listens(process.pid, port), what=f"openssl on {port}")
    return port


@pytest.fixture
def tls_peer(dcmtk: Dcmtk, pki: Pki) -> Callable[..., int]:
    """Start a storescp with TLS on the peer's key, and return its port."""

    def start(*options: str) -> int:
        trusted = ("+cf", str(pki.authority.file))
        key = ("+tls", str(pki.peer.key), str(pki.peer.cert))
        return dcmtk.storescp(*key, *trusted, *options).port

    return start


@pytest.mark.parametrize("versions", [("TLSv1.2",), ("TLSv1.2", "TLSv1.3"), ("TLSv1.3",)])
def test_objects_arrive_as_they_are_with_both_certificates_checked(
    dcmtk: Dcmtk, tls_peer: Callable[..., int], pki: Pki, versions: tuple[str, ...]
) -> None:
    profile = () if versions == ("TLSv1.2",) else ("+px",)
    port = tls_peer("--require-peer-cert", *profile)
    terms = pki.terms(versions=versions, check_host=True)
    data = encoded_dataset(bundled("CT_small.dcm"))
    with Association(_route(port, terms), PROPOSED) as association:
        assert association.echo() == 0
        with association.exclusive_socket() as sock:
            loop = StoreLoop(association, sock)
            for _ in range(3):
                request = StoreRequest(1, CT, CT_UID, len(data))
                assert loop.send(request, BytesIO(data)).status == 0
        assert association.echo() == 0
    [file] = dcmtk.peers[0].wait_for(1).values()
    assert file.read_bytes().endswith(data)


def test_an_object_of_many_records_arrives_whole(
    tls_peer: Callable[..., int], dcmtk: Dcmtk, pki: Pki
) -> None:
    port = tls_peer()
    data = encoded_dataset(bundled("CT_small.dcm"))
    pixels = b"\xe0\x7f\x10\x00OW\x00\x00" + (40_000_000).to_bytes(4, "little")
    head = data[: data.index(b"\xe0\x7f\x10\x00")]
    big = head + pixels + bytes(range(250)) * 160_000
    with (
        Association(_route(port, pki.terms()), PROPOSED) as association,
        association.exclusive_socket() as sock,
    ):
        request = StoreRequest(1, CT, CT_UID, len(big))
        assert StoreLoop(association, sock).send(request, BytesIO(big)).status == 0
    [file] = dcmtk.peers[0].wait_for(1).values()
    assert file.read_bytes().endswith(big)


@pytest.mark.parametrize(
    ("server", "ours", "changes", "words"),
    [
        ("stranger", "ours", {}, "no authority that we trust"),
        ("expired", "ours", {}, "its certificate has expired: the peer has to renew it"),
        ("other_host", "ours", {"check_host": True}, "for another host: correct dicomHostname"),
        ("peer", "stranger", {"versions": ("TLSv1.2",)}, "does not trust our certificate"),
        ("peer", "stranger", {}, "does not trust our certificate"),
        ("peer", "expired", {}, "our certificate has expired: renew it"),
        ("peer", None, {}, "it demands a certificate: name ours in dcmKeyStoreURL"),
    ],
)
def test_a_certificate_that_does_not_fit(
    spawn: Spawn,
    pki: Pki,
    server: str,
    ours: str | None,
    changes: dict[str, Any],
    words: str,
) -> None:
    verify = ["-CAfile", str(pki.authority.file), "-Verify", "2", "-verify_return_error"]
    port = _openssl(spawn, getattr(pki, server), *verify)
    key = getattr(pki, ours).both if ours else None
    terms = pki.terms(key=key, **changes)
    if ours is None:
        terms = dataclasses.replace(terms, stores=dataclasses.replace(terms.stores, key=None))
    error = _failure(_route(port, terms))
    assert isinstance(error, TlsHandshakeError)
    assert error.retryable
    assert words in str(error)
    assert f"STORESCP (localhost:{port} over TLS)" in str(error)


def test_a_certificate_for_another_host_is_taken_unless_the_directory_says_to_check(
    dcmtk: Dcmtk, pki: Pki
) -> None:
    node = pki.other_host
    trusted = ("+cf", str(pki.authority.file))
    port = dcmtk.storescp("+tls", str(node.key), str(node.cert), *trusted).port
    with Association(_route(port, pki.terms()), PROPOSED) as association:
        assert association.echo() == 0


def test_a_single_peers_certificate_can_be_trusted(tls_peer: Callable[..., int], pki: Pki) -> None:
    route = _route(tls_peer(), pki.terms(trust=pki.peer.cert))
    with Association(route, PROPOSED) as association:
        assert association.echo() == 0


def test_no_cipher_suite_in_common(spawn: Spawn, pki: Pki) -> None:
    port = _openssl(spawn, pki.peer, "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")
    error = _failure(_route(port, pki.terms(versions=("TLSv1.2",))))
    assert isinstance(error, TlsHandshakeError)
    assert "compare dicomTLSCipherSuite" in str(error)


def test_a_plain_peer_on_the_port(dcmtk: Dcmtk, pki: Pki) -> None:
    error = _failure(_route(dcmtk.storescp().port, pki.terms()))
    assert isinstance(error, TlsHandshakeError)
    assert "does not speak TLS" in str(error)


def test_a_tls_peer_called_plainly(spawn: Spawn, pki: Pki) -> None:
    error = _failure(_route(_openssl(spawn, pki.peer), None))
    assert "TLS on that port" in str(error)


def test_a_tls_peer_of_dcmtk_called_plainly(tls_peer: Callable[..., int]) -> None:
    assert "does it expect TLS on that port?" in str(_failure(_route(tls_peer(), None)))


def test_a_peer_that_says_nothing_costs_no_more_than_the_time_to_connect(pki: Pki) -> None:
    with _silent() as port:
        limits = dataclasses.replace(LIMITS, connect_s=0.3)
        error = _failure(_route(port, pki.terms(), limits=limits))
    assert isinstance(error, TlsHandshakeError)
    assert "did not agree on TLS within 0.3 s" in str(error)


def test_a_waiting_handshake_can_be_shut_down(pki: Pki) -> None:
    with _silent() as port:
        association = Association(_route(port, pki.terms()), PROPOSED)
        timer = threading.Timer(0.2, association.shutdown)
        timer.start()
        with pytest.raises(PeerError), association:
            pass
        timer.join()


def test_orthanc_in_both_directions(
    tls_site: TlsSite, orthanc: Callable[..., Orthanc], pki: Pki
) -> None:
    tls_site.site.start()
    tls_site.wait_for_log("message=listening")
    options = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(pki.peer.cert),
        "DicomTlsPrivateKey": str(pki.peer.key),
        "DicomTlsTrustedCertificates": str(pki.authority.file),
        "DicomTlsRemoteCertificateRequired": True,
    }
    peer = orthanc(tls_site.port, options)
    data = encoded_dataset(bundled("CT_small.dcm"))
    route = _route(peer.port, pki.terms(), called_aet="QRSCP")
    with (
        Association(route, PROPOSED) as association,
        association.exclusive_socket() as sock,
    ):
        request = StoreRequest(1, CT, CT_UID, len(data))
        assert StoreLoop(association, sock).send(request, BytesIO(data)).status == 0
    [instance] = peer.get("/instances")
    peer.post("/modalities/archive/store", {"Resources": [instance]})
    assert tls_site.site.count("instance") == 1
    stranger = pki.terms(key=pki.stranger.both, versions=("TLSv1.2",))
    assert "does not trust our certificate" in str(_failure(_route(peer.port, stranger)))


@pytest.mark.parametrize("is_trusted", [True, False])
def test_an_export_goes_over_tls_or_waits(
    bench: ExportBench, tls_peer: Callable[..., int], pki: Pki, is_trusted: bool
) -> None:
    suites = ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",)
    terms = pki.terms() if is_trusted else pki.terms(trust=pki.strange_authority.file)
    ours = dataclasses.replace(PROMPT, name="tls", tls_cipher_suites=suites, tls=terms)
    theirs = Connection("tls", "localhost", tls_peer(), tls_cipher_suites=suites)
    plain = Connection("dicom", "127.0.0.1", 1)
    bench.add(
        exporter(),
        local_ae(connections=(PROMPT, ours)),
        remote_ae("STORESCP", 1, connections=(plain, theirs)),
    )
    bench.store(bundled("CT_small.dcm"))
    outcome = bench.perform(bench.export_task("1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"))
    if is_trusted:
        assert outcome.status is TaskStatus.COMPLETED
        return
    assert (outcome.status, outcome.failure) == (TaskStatus.FAILED, Failure.TRANSIENT)
    assert outcome.unreached
    assert "no authority that we trust" in outcome.message


def test_a_missing_key_is_named(pki: Pki, tmp_path: Path) -> None:
    route = _route(1, pki.terms(key=tmp_path / "none.pem"))
    with pytest.raises(TlsMaterialError, match=r"none\.pem of dcmKeyStoreURL cannot be read"):
        Association(route, PROPOSED)


@contextlib.contextmanager
def _silent() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
