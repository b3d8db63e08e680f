"""Tables of what the configuration says, for ``celery -A workers config show``."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from archive.configuration.descriptors import ExportRule, NetworkAE, Snapshot
from archive.model.durations import format_duration


@dataclass(frozen=True, slots=True)
class Table:
    """What is printed below a title."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


def tables(snapshot: Snapshot) -> Iterator[Table]:
    """Yield the tables of a snapshot."""
    device = snapshot.device
    yield _table(
        f"Application entities (own device {device.name})",
        ("AE title", "device", "listens on", "installed"),
        ((ae.title, ae.device_name, _address(ae), ae.installed) for ae in _sorted_aes(snapshot)),
    )
    yield _table(
        "Exporters",
        ("exporter", "URI", "local AE", "queue", "then notifies", "schedule"),
        (
            (
                one.exporter_id,
                f"{one.scheme}:{one.destination}",
                one.aet,
                one.queue_name,
                " ".join(one.ian_destinations),
                " | ".join(one.schedule.text),
            )
            for one in device.exporters.values()
        ),
    )
    yield _table(
        "Export rules",
        ("rule", "AE", "entity", "exporters", "quiet time", "conditions", "schedule"),
        _rules(snapshot),
    )
    yield _queues(snapshot)
    yield _table(
        "Storages",
        ("storage", "URI", "digest", "read only"),
        (
            (one.storage_id, one.uri, one.digest_algorithm, one.read_only)
            for one in device.storages.values()
        ),
    )


def _queues(snapshot: Snapshot) -> Table:
    names = dict.fromkeys(snapshot.device.queues)
    names |= dict.fromkeys(one.queue_name for one in snapshot.device.exporters.values())
    queues = [snapshot.queue(name) for name in names]
    return _table(
        "Queues",
        ("queue", "open", "parallel", "retries", "delay", "factor", "at most", "schedule"),
        (
            (
                f"{one.name} (implicit)" if one.implicit else one.name,
                one.installed,
                one.max_tasks_parallel,
                one.retry.max_retries,
                _duration(one.retry.delay_s),
                f"{one.retry.multiplier_percent} %",
                _duration(one.retry.max_delay_s),
                " | ".join(one.schedule.text),
            )
            for one in queues
        ),
    )


def _rules(snapshot: Snapshot) -> Iterator[tuple[object, ...]]:
    for rule in snapshot.device.export_rules:
        yield _rule(rule, "all")
    for ae in snapshot.device.aes.values():
        for rule in ae.export_rules:
            yield _rule(rule, ae.title)


def _rule(rule: ExportRule, aet: str) -> tuple[object, ...]:
    return (
        rule.name,
        aet,
        rule.entity,
        " ".join(rule.exporter_ids),
        _duration(rule.duration_s),
        " & ".join(rule.conditions.text),
        " | ".join(rule.schedule.text),
    )


def _sorted_aes(snapshot: Snapshot) -> list[NetworkAE]:
    own = snapshot.device.name
    return sorted(
        snapshot.remote_aes.values(),
        key=lambda ae: (ae.device_name != own, ae.device_name, ae.title),
    )


def _address(ae: NetworkAE) -> str:
    return " ".join(f"{one.hostname}:{one.port}" for one in ae.connections if one.port)


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else format_duration(seconds)


def _table(title: str, columns: Sequence[str], rows: Iterable[tuple[object, ...]]) -> Table:
    return Table(title, columns, [[_cell(cell) for cell in row] for row in rows])


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value
