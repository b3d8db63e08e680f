"""Which queues a pool serves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.configuration.descriptors import ArchiveDevice, Exporter, Queue, Snapshot
from archive.errors import InvalidValueError
from workers.queues import (
    ALL_KINDS,
    KIND_BY_QUEUE,
    PoolKind,
    QueueUse,
    configured_queues,
    consumed_queues,
    kind_of_queue,
    parse_kinds,
)

NAMES = st.one_of(st.sampled_from(sorted(KIND_BY_QUEUE)), st.text(min_size=1))


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ((), ALL_KINDS),
        (("all",), ALL_KINDS),
        (("export", "all"), ALL_KINDS),
        (("export",), {PoolKind.EXPORT}),
        (("export,notify",), {PoolKind.EXPORT, PoolKind.NOTIFY}),
        (("export", "notify"), {PoolKind.EXPORT, PoolKind.NOTIFY}),
        ((" Export , COMMIT ",), {PoolKind.EXPORT, PoolKind.COMMIT}),
    ],
)
def test_kinds_are_parsed(values: tuple[str, ...], kinds: set[PoolKind]) -> None:
    assert parse_kinds(values) == kinds


@pytest.mark.parametrize("value", ["exports", "", "export,,notify", "export;notify"])
def test_unknown_kinds_are_named(value: str) -> None:
    with pytest.raises(InvalidValueError, match="is not a kind of worker pool; use export"):
        parse_kinds([value])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Export", PoolKind.EXPORT),
        ("Export1", PoolKind.EXPORT),
        ("Bildarchiv Süd", PoolKind.EXPORT),
        ("IANSCU", PoolKind.NOTIFY),
        ("StgCmtSCU", PoolKind.COMMIT),
        ("StgCmtSCP", PoolKind.COMMIT),
        ("Retrieve", PoolKind.RETRIEVE),
        ("LeadingCFind", PoolKind.QUERY),
        ("ianscu", PoolKind.EXPORT),
    ],
)
def test_kind_of_queue(name: str, kind: PoolKind) -> None:
    assert kind_of_queue(name) is kind


def test_configured_queues_include_those_that_only_exporters_name() -> None:
    snapshot = Snapshot(
        device=ArchiveDevice(
            name="dcm4chee-arc",
            aes={},
            exporters={"E": Exporter("E", "dicom", "STORESCP", "Export1")},
            queues={"Export": Queue("Export")},
            storages={},
        ),
        remote_aes={},
        problems=(),
        fingerprint="",
    )
    assert configured_queues(snapshot) == {"Export", "Export1", *KIND_BY_QUEUE}


@given(hinted=st.sets(NAMES), recent=st.sets(NAMES))
def test_every_queue_is_served_by_exactly_one_kind(hinted: set[str], recent: set[str]) -> None:
    served = [consumed_queues([kind], hinted, recent) for kind in PoolKind]
    wanted = {*hinted, *recent, *KIND_BY_QUEUE}
    assert sorted(name for names in served for name in names) == sorted(wanted)
    assert consumed_queues(ALL_KINDS, hinted, recent) == wanted


def test_a_queue_is_recent_for_a_while_after_its_last_use() -> None:
    use = QueueUse(keep_s=60)
    use.note(["A", "B"], now_s=0)
    use.note(["B"], now_s=30)
    assert use.recent({"A", "B"}, now_s=59) == {"A", "B"}
    assert use.recent({"A", "B"}, now_s=61) == {"B"}
    assert use.recent({"A"}, now_s=62) == set()
    assert use.recent({"A", "B"}, now_s=63) == set()
