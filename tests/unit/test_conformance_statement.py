"""The conformance statement says what the code does."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_tables_are_those_of_the_code() -> None:
    script = runpy.run_path(str(ROOT / "deploy" / "make_conformance.py"))
    text = (ROOT / "docs" / "conformance-statement.md").read_text(encoding="utf-8")
    assert script["renewed"](text) == text, "run python deploy/make_conformance.py"
