"""Attributes of a network connection (dicomNetworkConnection with dcmNetworkConnection)."""

from archive.configuration.attributes_network import INSTALLED
from archive.configuration.rows import Kind, many, must, one

CONNECTION = (
    one("name", "cn", Kind.TEXT, "name of the connection"),
    must("hostname", "dicomHostname", Kind.TEXT, "host name or address"),
    one("port", "dicomPort", Kind.INTEGER, "TCP port; without it the connection is only outgoing"),
    INSTALLED,
    many(
        "tls_cipher_suites", "dicomTLSCipherSuite", Kind.TEXT, "cipher suites; any value means TLS"
    ),
    one("protocol", "dcmProtocol", Kind.TEXT, "DICOM where it is absent"),
    one(
        "tls_need_client_auth", "dcmTLSNeedClientAuth", Kind.BOOLEAN, "demand a client certificate"
    ),
    many("tls_protocols", "dcmTLSProtocol", Kind.TEXT, "versions of TLS"),
    one(
        "tls_endpoint_identification",
        "dcmTLSEndpointIdentificationAlgorithm",
        Kind.TEXT,
        "HTTPS or LDAPS: check the host name of the certificate",
    ),
    one("tcp_backlog", "dcmTCPBacklog", Kind.INTEGER, "connections waiting to be accepted"),
    one("connect_timeout_s", "dcmTCPConnectTimeout", Kind.MILLISECONDS, "opening the connection"),
    one("close_delay_s", "dcmTCPCloseDelay", Kind.MILLISECONDS, "wait before closing"),
    one("send_buffer_bytes", "dcmTCPSendBufferSize", Kind.INTEGER, "SO_SNDBUF, 0 for the system's"),
    one(
        "receive_buffer_bytes",
        "dcmTCPReceiveBufferSize",
        Kind.INTEGER,
        "SO_RCVBUF, 0 for the system's",
    ),
    one("tcp_no_delay", "dcmTCPNoDelay", Kind.BOOLEAN, "TCP_NODELAY"),
    one("bind_address", "dcmBindAddress", Kind.TEXT, "address to listen on"),
    one("client_bind_address", "dcmClientBindAddress", Kind.TEXT, "source address"),
    many("blacklisted_hostnames", "dcmBlacklistedHostname", Kind.TEXT, "hosts refused at once"),
    one("send_pdu_length", "dcmSendPDULength", Kind.INTEGER, "longest PDU sent, bytes"),
    one("receive_pdu_length", "dcmReceivePDULength", Kind.INTEGER, "longest PDU received, bytes"),
    one("max_ops_performed", "dcmMaxOpsPerformed", Kind.INTEGER, "asynchronous window, performed"),
    one("max_ops_invoked", "dcmMaxOpsInvoked", Kind.INTEGER, "asynchronous window, invoked"),
    one("pack_pdv", "dcmPackPDV", Kind.BOOLEAN, "command and data in one PDU"),
    one("request_timeout_s", "dcmAARQTimeout", Kind.MILLISECONDS, "wait for A-ASSOCIATE-RQ"),
    one("accept_timeout_s", "dcmAAACTimeout", Kind.MILLISECONDS, "wait for A-ASSOCIATE-AC"),
    one("release_timeout_s", "dcmARRPTimeout", Kind.MILLISECONDS, "wait for A-RELEASE-RP"),
    one("abort_timeout_s", "dcmAATimeout", Kind.MILLISECONDS, "wait before A-ABORT"),
    one("send_timeout_s", "dcmSendTimeout", Kind.MILLISECONDS, "sending a DIMSE request"),
    one("store_timeout_s", "dcmStoreTimeout", Kind.MILLISECONDS, "sending a C-STORE request"),
    one("response_timeout_s", "dcmResponseTimeout", Kind.MILLISECONDS, "wait for a response"),
    one(
        "retrieve_timeout_s",
        "dcmRetrieveTimeout",
        Kind.MILLISECONDS,
        "wait for a response of C-MOVE or C-GET",
    ),
    one(
        "retrieve_timeout_total",
        "dcmRetrieveTimeoutTotal",
        Kind.BOOLEAN,
        "pending responses do not restart the wait for retrieves",
    ),
    one("idle_timeout_s", "dcmIdleTimeout", Kind.MILLISECONDS, "close an idle association"),
)
