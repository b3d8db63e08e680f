"""Associations that come in over TLS, next to those without."""

import contextlib
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import Dataset

from scp.pdus import encode_command, encode_fragment
from scp.proxied import SIGNATURE
from tests.fix_dcmtk import Dcmtk
from tests.fix_find_peer import FindScp
from tests.fix_objects import bundled
from tests.fix_process import free_port
from tests.fix_query import STUDY_ROOT, Querier
from tests.fix_scp import SECONDARY_CAPTURE, RawPeer, Site, small_dataset, store_command
from tests.fix_system import device_ldif
from tests.fix_tls import DEVICE_DN, Pki, TlsPeer, TlsSite, device_stores, tls_connection

CONNECTION_DN = f"cn=dicom-tls,{DEVICE_DN}"


@pytest.fixture
def secure(tls_site: TlsSite) -> TlsSite:
    """A site with one running SCP."""
    tls_site.site.start()
    tls_site.wait_for_log("message=listening")
    return tls_site


def test_dcmtk_stores_over_tls_and_without(
    secure: TlsSite, dcmtk: Dcmtk, bundled_file: Path
) -> None:
    peer, authority = secure.pki.peer, secure.pki.authority
    options = ("+tls", str(peer.key), str(peer.cert), "+cf", str(authority.file))
    done = dcmtk.storescu(bundled_file, port=secure.port, options=options)
    assert done.returncode == 0, done.stdout
    assert secure.site.count("instance") == 1
    done = dcmtk.echoscu(secure.site.port)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def bundled_file() -> Path:
    """A CT image."""
    return Path(bundled("CT_small.dcm"))


def test_objects_of_all_sizes_arrive_whole(secure: TlsSite) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = secure.context(secure.pki.peer)
        context.minimum_version = context.maximum_version = version
        with secure.peer(context=context) as peer:
            peer.associate()
            for number, pixels in enumerate((0, 16_384, 5_000_001)):
                uid = f"1.2.3.{version}.{number}"
                assert peer.store(uid, small_dataset(uid, pixels=pixels)).status == 0
            peer.release()
    sizes = sorted(path.stat().st_size for path in secure.site.files())
    assert len(sizes) == 6
    assert sizes[-2] > 5_000_000


def test_messages_that_come_in_one_record_are_all_answered(secure: TlsSite) -> None:
    """What is decrypted already makes no socket readable."""
    with secure.peer() as peer:
        peer.associate()
        requests = []
        for number in (1, 2, 3):
            uid = f"1.2.3.4.1.{number}"
            requests.append(encode_command(1, store_command(number, SECONDARY_CAPTURE, uid)))
            requests.append(encode_fragment(1, small_dataset(uid, pixels=64), control=2))
        peer.send(b"".join(requests))
        assert [peer.reply().message_id for _ in range(3)] == [1, 2, 3]


def test_who_does_not_fit_is_refused_and_the_log_says_what_to_do(secure: TlsSite) -> None:
    for who, words in (
        (None, "it showed no certificate: have it use one"),
        ("stranger", "its certificate comes from no authority that we trust"),
        ("expired", "its certificate has expired: the peer has to renew it"),
    ):
        node = getattr(secure.pki, who) if who else None
        with (
            pytest.raises((OSError, ConnectionError)),
            TlsPeer(secure.port, context=secure.context(node)) as peer,
        ):
            peer.associate()
        secure.wait_for_log(words)
    context = secure.context(secure.pki.peer)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    with pytest.raises(ssl.SSLError):
        secure.peer(context=context)
    secure.wait_for_log("no cipher suite in common")
    assert f"no TLS on port {secure.port}" in secure.site.log()


def test_no_certificate_is_needed_where_the_directory_says_so(tls_site: TlsSite) -> None:
    tls_site.site.modify(CONNECTION_DN, dcmTLSNeedClientAuth="FALSE")
    tls_site.site.start()
    with TlsPeer(tls_site.port, context=tls_site.context(None)) as peer:
        peer.associate()
        assert peer.store("1.2.3", small_dataset("1.2.3")).status == 0
        peer.release()
    assert tls_site.site.count("instance") == 1


def test_plain_dicom_on_the_port_for_tls_and_the_other_way_round(secure: TlsSite) -> None:
    with RawPeer(secure.port) as peer, pytest.raises(ConnectionError):
        peer.associate()
    secure.wait_for_log(f"speaks plain DICOM on port {secure.port}")
    with pytest.raises(OSError, match=r"\w"):
        TlsPeer(secure.site.port, context=secure.context(secure.pki.peer))
    secure.wait_for_log("it speaks TLS on a port without")


def test_peers_that_stop_in_the_handshake_hold_nobody_up_and_are_dropped(
    tls_site: TlsSite,
) -> None:
    tls_site.site.modify(CONNECTION_DN, dcmAARQTimeout="700")
    tls_site.site.start()
    silent = [socket.create_connection(("127.0.0.1", tls_site.port)) for _ in range(20)]
    for each in silent:
        each.sendall(b"\x16\x03\x01")
    with tls_site.peer() as peer:
        peer.associate()
        peer.release()
    for each in silent:
        each.settimeout(20)
        with contextlib.suppress(ConnectionResetError):
            assert each.recv(1) == b""
        each.close()
    tls_site.wait_for_log("did not finish the handshake within 0.7 s (dcmAARQTimeout)")


def test_who_only_looks_whether_the_port_is_open_leaves_no_trace(tls_site: TlsSite) -> None:
    """A balancer asks every few seconds: connects, says that it is itself, and hangs up hard."""
    tls_site.site.start(DICOMQ_PROXIES="127.0.0.1")
    tls_site.wait_for_log("message=listening")
    itself = SIGNATURE + bytes([0x20, 0, 0, 0])
    for words in (b"", itself, itself, itself):
        with socket.create_connection(("127.0.0.1", tls_site.port)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            probe.sendall(words)
    with pytest.raises(ssl.SSLError), tls_site.peer(context=ssl.create_default_context()):
        pass  # it does not trust us, and that is said: all before it was answered
    tls_site.wait_for_log("tls-refused")
    log = tls_site.site.log()
    assert log.count("tls-refused") == 1
    assert "Traceback" not in log


def test_an_association_left_in_an_object_is_ended(tls_site: TlsSite) -> None:
    tls_site.site.modify(CONNECTION_DN, dcmIdleTimeout="700")
    tls_site.site.start()
    with tls_site.peer() as peer:
        peer.associate()
        peer.begin_store("1.2.3")
        kind, _ = peer.receive()
        assert kind in {0, 7}


def test_a_renewed_certificate_holds_at_once(secure: TlsSite) -> None:
    with secure.peer() as peer:
        before = peer.sock.getpeercert()  # type: ignore[attr-defined] # it is one of ssl
    renewed = secure.pki.authority.issue("renewed")
    shutil.copy(renewed.both, secure.key)
    with secure.peer() as peer:
        after = peer.sock.getpeercert()  # type: ignore[attr-defined]
        peer.associate()
        peer.release()
    assert before["serialNumber"] != after["serialNumber"]


def test_a_key_that_is_missing_is_named_and_used_when_it_comes(tls_site: TlsSite) -> None:
    tls_site.key.unlink()
    tls_site.site.start()
    tls_site.wait_for_log("key.pem of dcmKeyStoreURL cannot be read: No such file or directory")
    shutil.copy(tls_site.pki.ours.both, tls_site.key)
    with tls_site.peer() as peer:
        peer.associate()
        assert peer.store("1.2.3", small_dataset("1.2.3")).status == 0
        peer.release()


def test_ports_open_and_close_with_the_directory(site: Site, pki: Pki) -> None:
    site.start()
    port = free_port()
    site.configure(device_stores(pki.ours.both, pki.authority.file), tls_connection(port))
    tls_site = TlsSite(site, port, pki.ours.both, pki.authority.file, pki)
    tls_site.wait_for_log("message=listening")
    with tls_site.peer() as peer:
        peer.associate()
        site.modify(CONNECTION_DN, dicomInstalled="FALSE")
        tls_site.wait_for_log("message=closed")
        assert peer.store("1.2.3", small_dataset("1.2.3")).status == 0
        peer.release()
    with pytest.raises(ConnectionRefusedError):
        tls_site.peer()


def test_a_device_with_tls_alone(tls_site: TlsSite) -> None:
    tls_site.site.modify(f"cn=dicom,{DEVICE_DN}", dicomInstalled="FALSE")
    tls_site.site.start()
    with tls_site.peer() as peer:
        peer.associate()
        assert peer.store("1.2.3", small_dataset("1.2.3")).status == 0
        peer.release()
    argv = [sys.executable, "-m", "scp", "--health"]
    environment = {**os.environ, **tls_site.site.environment}
    done = subprocess.run(argv, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"DCM4CHEE@127.0.0.1:{tls_site.port} answers C-ECHO" in done.stdout
    assert "no TLS" not in tls_site.site.log()


def test_another_archive_is_asked_over_tls(tls_site: TlsSite, pki: Pki) -> None:
    match = Dataset()
    match.QueryRetrieveLevel, match.StudyInstanceUID = "STUDY", "1.2.840.7"
    other = FindScp([match], "ELSEWHERE")
    other.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki.authority.file)
    other.tls.verify_mode = ssl.CERT_REQUIRED
    other.tls.load_cert_chain(pki.peer.cert, pki.peer.key)
    other.start()
    suite = "dicomTLSCipherSuite: TLS_AES_256_GCM_SHA384"
    entry = device_ldif("ELSEWHERE", other.port).replace("cn: dicom\n", f"cn: dicom\n{suite}\n")
    tls_site.site.configure(entry)
    tls_site.site.modify(DEVICE_DN, dcmSpanningCFindSCP="ELSEWHERE")
    tls_site.site.start()
    answer = Querier(tls_site.site.port).find(STUDY_ROOT, "STUDY", StudyInstanceUID="")
    assert answer.status == 0
    assert [str(each.StudyInstanceUID) for each in answer.matches] == ["1.2.840.7"]
    other.stop()


def test_associations_over_tls_end_with_the_process(secure: TlsSite) -> None:
    with secure.peer() as peer:
        peer.associate()
        assert secure.site.processes[0].stop() == 0
        kind, _ = peer.receive()
        assert kind == 7


@pytest.mark.parametrize("which", ["plain", "tls"])
def test_a_port_that_is_taken_is_named_at_start(tls_site: TlsSite, which: str) -> None:
    port = tls_site.site.port if which == "plain" else tls_site.port
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(RuntimeError, match=f"cannot listen on 127.0.0.1:{port}: Address already"),
    ):
        tls_site.site.start()
    assert "Traceback" not in tls_site.site.log()
