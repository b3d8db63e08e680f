"""What a benchmark found, for `python -m benchmarks`, which compares it with the targets."""

import argparse
import json
from pathlib import Path


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option with which `python -m benchmarks` asks for the figures."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def write(path: Path | None, figures: dict[str, float]) -> None:
    """Write figures by the names that they have in targets.toml; nothing without a file."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")
