"""Coercion rules and attribute sets as the directory has them."""

import pytest

from archive.configuration.decode import Variables
from archive.configuration.defaults import default_entries
from archive.configuration.descriptors import Snapshot
from archive.configuration.entries import Entry
from archive.configuration.snapshot import build_snapshot
from archive.model.coercion import Occasion, OnFailure, Scheme, UpdatePolicy

DEVICE = "dicomDeviceName=dcm4chee-arc,cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org"
AE = f"dicomAETitle=DCM4CHEE,{DEVICE}"


def entry(object_class: str, below: str = DEVICE, /, **values: object) -> Entry:
    """Return an entry below the archive; `cn` names it."""
    pairs = [("objectClass", object_class.encode())]
    for name, value in values.items():
        texts = value if isinstance(value, list) else [value]
        pairs.extend((name, str(text).encode()) for text in texts)
    cn = values.get("cn", "set")
    return Entry.of(f"cn={cn},{below}", pairs)


def rule(version: str = "2", below: str = DEVICE, /, **values: object) -> Entry:
    """Return a coercion rule for objects that are sent."""
    common: dict[str, object] = {"cn": "rule", "dcmDIMSE": "C_STORE_RQ", "dicomTransferRole": "SCP"}
    return entry(f"dcmArchiveAttributeCoercion{version}", below, **{**common, **values})


def snapshot(*more: Entry) -> Snapshot:
    return build_snapshot(
        [*default_entries(), *more], "dcm4chee-arc", Variables(), fingerprint="test"
    )


def test_the_newer_form() -> None:
    read = snapshot(
        rule(
            dcmURI="leading-arc:QRSCP",
            dcmRulePriority=3,
            dcmAttributeUpdatePolicy="SUPPLEMENT",
            dcmCoercionSufficient="TRUE",
            dcmCoercionOnFailure="CONTINUE",
        ),
        rule(
            "2",
            AE,
            cn="other",
            dcmURI="merge-attrs:",
            dcmMergeAttribute=["PatientID=", "StudyID=X"],
        ),
    )
    (of_device,) = read.device.coercion_rules
    (step,) = of_device.steps
    assert (of_device.occasion, of_device.priority) == (Occasion.SENT, 3)
    assert (step.scheme, step.argument, step.policy) == (
        Scheme.LEADING,
        "QRSCP",
        UpdatePolicy.SUPPLEMENT,
    )
    assert (step.sufficient, step.on_failure) == (True, OnFailure.CONTINUE)
    (of_ae,) = read.device.aes["DCM4CHEE"].coercion_rules
    assert len(of_ae.steps[0].attributes) == 2
    assert of_ae.steps[0].on_failure is OnFailure.RETHROW
    assert not read.problems


def test_the_legacy_form_takes_its_steps_in_the_order_of_the_reference() -> None:
    read = snapshot(
        rule(
            "",
            dcmLeadingCFindSCP="QRSCP",
            dcmMergeAttribute="PatientID=X",
            dcmNullifyTag=["00100030", "7FE00010"],
            dcmTrimISO2022CharacterSet="TRUE",
        )
    )
    (found,) = read.device.coercion_rules
    schemes = [Scheme.LEADING, Scheme.TRIM, Scheme.NULLIFY, Scheme.MERGE]
    assert [step.scheme for step in found.steps] == schemes
    assert found.is_legacy
    assert {step.on_failure for step in found.steps} == {OnFailure.CONTINUE}


@pytest.mark.parametrize(
    ("made", "attribute", "words", "rules"),
    [
        (rule(dcmURI="xslt:file.xsl"), "dcmURI", "not supported", 0),
        (rule(dcmURI="merge-mwl:x"), "dcmURI", "not supported", 0),
        (rule(dcmURI="deidentify:"), "dcmURI", "not supported", 0),
        (rule(dcmURI="leading-arc:"), "dcmURI", "AE title", 0),
        (rule(dcmURI="leading-arc:NOBODY"), "dcmURI", "no AE NOBODY", 1),
        (rule(dcmURI="trim-ISO2022:", dcmDIMSE="C_FIND_RQ"), "dcmDIMSE", "does nothing", 1),
        (rule(dcmURI="merge-attrs:", dcmMergeAttribute="X"), "dcmMergeAttribute", "form", 0),
        (rule("", dcmLeadingCFindSCP="QRSCP", dcmURI="a.xsl"), "dcmURI", "not supported", 1),
        (
            rule("", dcmNullifyTag="00100010", dcmDeIdentification="BasicProfile"),
            "dcmDeIdentification",
            "not supported",
            1,
        ),
    ],
)
def test_what_is_not_supported_is_reported(
    made: Entry, attribute: str, words: str, rules: int
) -> None:
    read = snapshot(made)
    (problem,) = read.problems
    assert problem.attribute == attribute
    assert words in problem.reason
    assert len(read.device.coercion_rules) == rules


def test_attribute_sets_for_leading_archives() -> None:
    common: dict[str, object] = {
        "dcmAttributeSetType": "LEADING_CFIND_SCP",
        "dcmTag": ["00100010", "00100020"],
    }
    read = snapshot(
        entry("dcmAttributeSet", cn="a", dcmAttributeSetID="QRSCP", **common),
        entry("dcmAttributeSet", cn="b", dcmAttributeSetID="*", dicomInstalled="FALSE", **common),
        entry(
            "dcmAttributeSet",
            cn="c",
            dcmAttributeSetType="QIDO_RS",
            dcmAttributeSetID="*",
            dcmTag="00100010",
        ),
    )
    assert read.device.leading_sets == {"QRSCP": (0x00100010, 0x00100020)}
