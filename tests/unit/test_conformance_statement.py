"""The conformance statement says what the code does, in the order of PS3.2 Annex N."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
OUTLINE = """
1 Overview
1.1 Content and transfer
1.2 DIMSE services
1.3 DICOM Web services
1.4 Media services
1.5 Real-Time Video services
1.6 De-identification profiles
1.7 Specific Character Sets
2 Table of contents
3 Introduction
3.1 Revision history
3.2 Audience
3.3 Remarks
3.4 Terms and definitions
3.5 Abbreviations
3.6 References
4 Implementation model
4.1 Application entities and data flow
4.1.1 Functional definition of the archive AE
5 Service and interoperability description
5.1 Mapping of services to application entities
5.2 DIMSE services
5.2.1 Basic Worklist Management service
5.2.2 Modality Performed Procedure Step service
5.2.3 Unified Worklist and Procedure Step service
5.2.4 Instance Availability Notification service
5.2.5 Storage service
5.2.6 Storage Commitment service
5.2.7 Query/Retrieve service
5.2.8 Print Management service
5.3 DICOM Web services
5.4 Media services
5.5 Real-Time Video services
5.6 Cross-service considerations
5.7 Specific Character Sets
6 Configuration
6.1 General configuration parameters
6.2 Configuration of DIMSE services
6.3 Configuration of DICOM Web services
6.4 Configuration of media storage services
6.5 Configuration of Real-Time Video services
6.6 Configuration of audit trail
7 Network and media communication details
7.1 General
7.1.1 General association parameters
7.2 Specifications
7.2.1 Archive AE
7.3 Status codes
7.3.1 General communication and failure behavior
7.3.2 DIMSE services
8 Security
8.1 Introduction
8.2 External network requirements
8.3 TCP port configuration
8.4 DICOM security profiles
8.5 User identity negotiation
8.6 Web services security features
8.7 Other security features
Annex A Information object definitions
Annex B Structured report content encoding
Annex C Security details
Annex D Mapping of attributes
Annex E Code sets
"""
"""Sections of the template down to the third level, N left out (PS3.2 Annex N)."""


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """What the script defines that makes the tables."""
    return runpy.run_path(str(ROOT / "deploy" / "make_conformance.py"))


@pytest.fixture(scope="module")
def text() -> str:
    """The page."""
    return (ROOT / "docs" / "conformance-statement.md").read_text(encoding="utf-8")


def test_tables_are_those_of_the_code(script: dict[str, Any], text: str) -> None:
    assert script["renewed"](text) == text, "run python deploy/make_conformance.py"


def test_every_table_stands_there_once(script: dict[str, Any], text: str) -> None:
    assert sorted(re.findall(r"<!-- table (\S+) -->", text)) == sorted(script["TABLES"])


def test_order_of_the_template(text: str) -> None:
    headings = re.findall(r"^#{2,4} (.*)$", text, re.MULTILINE)
    assert headings == OUTLINE.strip().splitlines()
