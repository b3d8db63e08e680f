"""What holds for all objects of one association, worked out once, not for each object."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from archive.configuration.announcements import announcements
from archive.configuration.descriptors import ExportRule, NetworkAE, Snapshot
from archive.errors import ConfigurationError
from archive.model.coercion import CoercionRule
from archive.model.entities import OverwritePolicy, Reception, StorePolicy
from archive.storage.base import Storage, Storages
from scp.coercing import receiving_rules
from scp.dimse import StoreRequest
from scp.header import INDEXED_TAGS, PARENT_TAGS
from scp.header_reader import HeaderReader


@dataclass(slots=True)
class EarlyAnswers:
    """The number of the last object that was answered before it was safe (`scp.gathering`)."""

    number: int = 0


@dataclass(frozen=True)
class Session:
    """What holds for all objects of one association: configuration and peer, as of its start."""

    snapshot: Snapshot
    ae: NetworkAE
    storages: Storages
    calling_aet: str
    called_aet: str
    calling_host: str
    answered: EarlyAnswers = field(default_factory=EarlyAnswers, compare=False)

    @property
    def export_rules(self) -> tuple[ExportRule, ...]:
        """The rules for objects of this association."""
        return (*self.ae.export_rules, *self.snapshot.device.export_rules)

    @cached_property
    def rule_tags(self) -> frozenset[int]:
        """Top-level elements that the conditions of the rules look at."""
        return frozenset(rule_tags(self.export_rules))

    @cached_property
    def has_lasting_intents(self) -> bool:
        """Whether the rules demand the same for all objects of a series, at any time."""
        if not self.rule_tags <= PARENT_TAGS:
            return False
        exporters = [*self.snapshot.device.exporters.values()]
        for others in self.snapshot.device_exporters.values():
            exporters.extend(others.values())
        schedules = [each.schedule for each in self.export_rules]
        schedules.extend(each.schedule for each in exporters)
        if not all(each.is_always for each in schedules):
            return False
        conditions = (each for rule in self.export_rules for each in rule.conditions.conditions)
        return not any(each.depends_on_time for each in conditions)

    @cached_property
    def receiving_rules(self) -> tuple[CoercionRule, ...]:
        """The coercion rules for received objects."""
        return receiving_rules(self.snapshot.device, self.ae.coercion_rules)

    @cached_property
    def wanted_tags(self) -> frozenset[int] | None:
        """Elements of an object that anybody looks at; None for all."""
        return None if self.receiving_rules else INDEXED_TAGS | self.rule_tags

    @cached_property
    def headers(self) -> HeaderReader:
        """Reads the headers of the objects, as far as `wanted_tags` go."""
        return HeaderReader(self.wanted_tags)

    @cached_property
    def storage(self) -> Storage:
        """The storage that takes the objects of the called AE (dcmObjectStorageID).

        Raises
        ------
        ConfigurationError
            When the directory names none that is installed and not read-only.
        """
        storages = self.snapshot.device.storages
        for storage_id in self.ae.object_storage_ids or sorted(storages):
            descriptor = storages.get(storage_id)
            if descriptor is not None and descriptor.installed and not descriptor.read_only:
                return self.storages.get(storage_id)
        msg = (
            f"AE {self.ae.title} has no storage that can be written: add a dcmStorage entry and "
            "name it in dcmObjectStorageID"
        )
        raise ConfigurationError(msg)

    @cached_property
    def policy(self) -> StorePolicy:
        """How the archive takes objects in: AE before device before default."""
        device = self.snapshot.device
        descriptor = device.storages[self.storage.storage_id]
        return StorePolicy(
            overwrite=OverwritePolicy(self.ae.overwrite_policy or device.overwrite_policy),
            retrieve_aets=self.ae.retrieve_aets or device.retrieve_aets or (self.ae.title,),
            availability=descriptor.instance_availability,
            announcements=announcements(self.snapshot, self.ae),
        )

    @cached_property
    def key(self) -> tuple[str, ...]:
        """Equal for associations whose objects are treated alike."""
        return (
            self.snapshot.fingerprint,
            self.ae.title,
            self.calling_aet,
            self.called_aet,
            self.calling_host,
        )

    def reception(self, request: StoreRequest) -> Reception:
        """Return from whom and as whom an object of this association is received."""
        originator, message_id = request.move_originator_aet, request.move_originator_message_id
        if originator is None and message_id is None:
            return self._own_reception
        return replace(
            self._own_reception,
            move_originator_aet=originator,
            move_originator_message_id=message_id,
        )

    @cached_property
    def _own_reception(self) -> Reception:
        """From whom and as whom an object is received that no C-MOVE asked for."""
        return Reception(self.calling_aet, self.called_aet, self.calling_host)


def rule_tags(rules: tuple[ExportRule, ...]) -> Iterator[int]:
    """Yield the top-level elements that `rules` look at."""
    for rule in rules:
        for condition in rule.conditions.conditions:
            if condition.path:
                yield condition.path[0]
