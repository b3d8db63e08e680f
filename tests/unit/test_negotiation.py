from dataclasses import replace

import pytest

from archive.configuration.descriptors import (
    ArchiveDevice,
    Connection,
    NetworkAE,
    Snapshot,
    TransferCapability,
    TransferRole,
)
from scp.negotiation import (
    AssociationRequest,
    ContextResult,
    OpenAssociations,
    ProposedContext,
    Rejection,
    decide_association,
    decide_contexts,
    offered_pdu_length,
)

CONNECTION = Connection(name="dicom", hostname="pacs", port=11112)
ARCHIVE = NetworkAE(
    title="DCM4CHEE", device_name="dev", connections=(CONNECTION,), other_titles=("ALIAS",)
)
OTHER = NetworkAE(title="OTHER", device_name="dev", connections=(replace(CONNECTION, port=11113),))
REMOTE = NetworkAE(
    title="CT1", device_name="ct", connections=(Connection(name="c", hostname="CT.local"),)
)


def snapshot(
    *aes: NetworkAE, limit: int = 0, by: tuple[tuple[str, int], ...] = (), validate: bool = False
) -> Snapshot:
    device = ArchiveDevice(
        name="dev",
        aes={ae.title: ae for ae in aes},
        exporters={},
        queues={},
        storages={},
        limit_open_associations=limit,
        limit_associations_initiated_by=by,
        validate_calling_hostname=validate,
    )
    return Snapshot(device=device, remote_aes={"CT1": REMOTE}, problems=(), fingerprint="1")


def decide(
    here: Snapshot,
    *,
    calling: str = "CT1",
    called: str = "DCM4CHEE",
    port: int | None = 11112,
    hosts: tuple[str, ...] = ("10.0.0.1",),
    others: OpenAssociations | None = None,
) -> str:
    request = AssociationRequest(calling, called, frozenset(hosts), port)
    decision = decide_association(here, request, others or OpenAssociations())
    if isinstance(decision, Rejection):
        assert decision.message
        return f"{decision.result:d}-{decision.source:d}-{decision.reason}"
    return decision.title


CALLED, CALLING, LIMIT = "1-1-7", "1-1-3", "2-3-2"


@pytest.mark.parametrize(
    ("called", "port", "wanted"),
    [
        ("DCM4CHEE", 11112, "DCM4CHEE"),
        ("ALIAS", 11112, "DCM4CHEE"),
        ("OTHER", 11113, "OTHER"),
        ("OTHER", 11112, CALLED),  # another port
        ("OTHER", None, "OTHER"),  # a port that the directory does not know
        ("dcm4chee", 11112, CALLED),  # AE titles tell case apart
        ("NOBODY", 11112, CALLED),
    ],
)
def test_called_ae(called: str, port: int | None, wanted: str) -> None:
    assert decide(snapshot(ARCHIVE, OTHER), called=called, port=port) == wanted


@pytest.mark.parametrize(
    ("ae", "wanted"),
    [
        (replace(ARCHIVE, installed=False), CALLED),
        (replace(ARCHIVE, association_acceptor=False), CALLED),
        (replace(ARCHIVE, title="*"), "*"),
        (replace(ARCHIVE, title="X", other_titles=("*",)), "X"),
        (replace(ARCHIVE, connections=(replace(CONNECTION, installed=False),)), CALLED),
        (replace(ARCHIVE, accepted_calling_titles=("MR1",)), CALLING),
        (replace(ARCHIVE, accepted_calling_titles=("MR1", "CT1")), "DCM4CHEE"),
    ],
)
def test_properties_of_the_ae(ae: NetworkAE, wanted: str) -> None:
    assert decide(snapshot(ae)) == wanted


def test_a_title_of_its_own_comes_before_a_wild_card() -> None:
    wild = replace(ARCHIVE, title="*")
    assert decide(snapshot(wild, OTHER), called="OTHER", port=None) == "OTHER"
    assert decide(snapshot(wild, OTHER), called="ANY", port=None) == "*"


@pytest.mark.parametrize(
    ("device", "ae", "calling", "hosts", "wanted"),
    [
        (False, None, "CT1", ("10.0.0.1",), "DCM4CHEE"),
        (True, None, "CT1", ("10.0.0.1",), CALLING),
        (True, None, "CT1", ("10.0.0.1", "ct.local"), "DCM4CHEE"),
        (True, None, "STRANGER", ("10.0.0.1", "ct.local"), CALLING),
        (True, False, "STRANGER", (), "DCM4CHEE"),
        (False, True, "CT1", (), CALLING),
    ],
)
def test_calling_host(
    device: bool, ae: bool | None, calling: str, hosts: tuple[str, ...], wanted: str
) -> None:
    here = snapshot(replace(ARCHIVE, validate_calling_hostname=ae), validate=device)
    assert decide(here, calling=calling, hosts=hosts) == wanted


@pytest.mark.parametrize(
    ("limit", "by", "total", "mine", "wanted"),
    [
        (0, 0, 9999, 9999, "DCM4CHEE"),
        (5, 0, 4, 4, "DCM4CHEE"),
        (5, 0, 5, 0, LIMIT),
        (0, 2, 9, 1, "DCM4CHEE"),
        (0, 2, 9, 2, LIMIT),
    ],
)
def test_limits(limit: int, by: int, total: int, mine: int, wanted: str) -> None:
    here = snapshot(ARCHIVE, limit=limit, by=(("CT1", by), ("MR1", 1)))
    assert decide(here, others=OpenAssociations(total, {"CT1": mine})) == wanted


CAPABILITIES = (
    TransferCapability("1.1", TransferRole.SCP, ("ts1", "ts2", "ts3"), ("ts3",)),
    TransferCapability("1.2", TransferRole.SCP, ("ts1", "ts2")),
    TransferCapability("1.3", TransferRole.SCU, ("ts1",)),
    TransferCapability("1.4", TransferRole.SCP, ("*",)),
)


@pytest.mark.parametrize(
    ("abstract", "proposed", "wanted"),
    [
        ("1.1", ("ts1", "ts3"), "ts3"),  # preferred by us
        ("1.1", ("ts2", "ts1"), "ts2"),  # first of the requestor
        ("1.2", ("ts9", "ts2"), "ts2"),
        ("1.2", ("ts9",), ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED),
        ("1.2", (), ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED),
        ("1.3", ("ts1",), ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED),
        ("1.4", ("tsX", "ts1"), "tsX"),
        ("1.9", ("ts1",), ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED),
    ],
)
def test_contexts(abstract: str, proposed: tuple[str, ...], wanted: object) -> None:
    (decision,) = decide_contexts(CAPABILITIES, [ProposedContext(1, abstract, proposed)])
    assert wanted in {decision.transfer_syntax, decision.result}
    assert (decision.result is ContextResult.ACCEPTANCE) is (decision.transfer_syntax is not None)


def test_any_sop_class() -> None:
    any_class = (TransferCapability("*", TransferRole.SCP, ("ts1",)),)
    decisions = decide_contexts(any_class, [ProposedContext(3, "9.9", ("ts1",))])
    assert decisions[0].transfer_syntax == "ts1"


@pytest.mark.parametrize(
    ("configured", "offered"),
    [
        (16378, 131072),
        (16384, 131072),
        (0, 1 << 20),
        (65536, 65536),
        (100, 4096),
        (1 << 30, 1 << 20),
    ],
)
def test_offered_length(configured: int, offered: int) -> None:
    assert offered_pdu_length(configured) == offered
