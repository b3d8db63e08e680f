"""A running SCP with objects in its index, and a pynetdicom querier."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from tests.fix_objects import secondary_capture, write
from tests.fix_process import listens, wait_until
from tests.fix_system import System

PATIENT_ROOT = "1.2.840.10008.5.1.4.1.2.1.1"
STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"
PATIENT_STUDY_ONLY = "1.2.840.10008.5.1.4.1.2.3.1"


@dataclass
class Answer:
    """Matches and the final response of a C-FIND."""

    matches: list[Dataset] = field(default_factory=list)
    final: Dataset = field(default_factory=Dataset)

    @property
    def status(self) -> int | None:
        """Status of the final response, None when none came."""
        status = self.final.get("Status")
        return None if status is None else int(status)

    def values(self, keyword: str) -> list[str]:
        """Return the text of one attribute of every match, sorted."""
        return sorted(str(match.get(keyword)) for match in self.matches)


@dataclass
class Querier:
    """Asks AE DCM4CHEE on a loopback port."""

    port: int
    extended: bytes = b""

    def find(self, model: str, level: str | None, **keys: object) -> Answer:
        """Send one C-FIND; each key is an attribute of the identifier."""
        identifier = Dataset()
        if level is not None:
            identifier.QueryRetrieveLevel = level
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        return self.send(model, identifier)

    def send(self, model: str, identifier: Dataset) -> Answer:
        """Send an identifier as it is."""
        ae = AE(ae_title="FINDSCU")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
        ae.add_requested_context(model, ImplicitVRLittleEndian)
        negotiation = SOPClassExtendedNegotiation()
        negotiation.sop_class_uid = model
        negotiation.service_class_application_information = self.extended
        items: list[Any] = [negotiation] if self.extended else []
        association = ae.associate("127.0.0.1", self.port, ae_title="DCM4CHEE", ext_neg=items)
        assert association.is_established
        answer = Answer()
        for status, match in association.send_c_find(identifier, model):
            if match is not None:
                answer.matches.append(match)
            answer.final = status
        association.release()
        return answer


@dataclass
class Archive:
    """A running SCP."""

    system: System
    directory: Path

    @property
    def querier(self) -> Querier:
        """A querier of this archive."""
        return Querier(self.system.port)

    def store(self, *datasets: Dataset) -> None:
        """Store objects and wait until each is acknowledged."""
        files = {
            str(each.SOPInstanceUID): write(each, self.directory / f"{each.SOPInstanceUID}.dcm")
            for each in datasets
        }
        self.system.store_all(files)


def image(study: int, series: int = 1, number: int = 1, **attributes: object) -> Dataset:
    """Return an object of study 1.2.826.0.1.8.<study> with the given attributes."""
    dataset = secondary_capture(f"1.2.826.0.1.8.{study}", series, number, size=4)
    if not str(attributes.get("PatientName", "")).isascii():
        dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def item(**attributes: object) -> Dataset:
    """Return a sequence item."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.fixture
def find_archive(
    idle_system: System, tmp_path: Path
) -> Iterator[Callable[[Sequence[Dataset]], Archive]]:
    """Start an SCP and store objects: ``find_archive([image(1), …])``."""

    def start(datasets: Sequence[Dataset] = ()) -> Archive:
        idle_system.start("scp-0")
        pid = idle_system.processes["scp-0"].pid
        wait_until(lambda: listens(pid, idle_system.port), what="the SCP to listen")
        archive = Archive(idle_system, tmp_path / "objects")
        if datasets:
            archive.store(*datasets)
        return archive

    return start  # type: ignore[return-value]
