"""All benchmarks, one after the other, beside their targets.

    python -m benchmarks [SUITE …] [--quick] [--record] [--check] [--plot FILE]

prints what each benchmark prints, then one table of all figures with their targets. `--record`
keeps the figures in benchmarks/recorded.json; `--check` ends with status 1 when one of those that
targets.toml marks is 30 % worse than recorded. The machine should do nothing else meanwhile.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "recorded.json"
TOLERATED_LOSS = 0.30


@dataclass(frozen=True)
class Figure:
    """A figure, its target, and what it was when it was recorded."""

    suite: str
    name: str
    value: float
    terms: Mapping[str, Any]
    recorded: float | None

    @property
    def higher_is_better(self) -> bool:
        """Whether the target is a lower bound."""
        return "at_least" in self.terms

    @property
    def target(self) -> float:
        """What it has to be."""
        return float(self.terms["at_least" if self.higher_is_better else "at_most"])

    @property
    def is_met(self) -> bool:
        """Whether the target is met."""
        return self.value >= self.target if self.higher_is_better else self.value <= self.target

    @property
    def margin(self) -> float:
        """How many times better than its target it is."""
        better = self.value / self.target
        return better if self.higher_is_better else 1 / max(better, 1e-9)

    @property
    def loss(self) -> float:
        """How much worse it is than recorded, as a share of the recorded value; 0 if it is not."""
        if not self.recorded or not self.value:
            return 0.0
        share = self.value / self.recorded
        return max(0.0, 1 - share if self.higher_is_better else 1 - 1 / share)


def measured(suites: Mapping[str, Any], *, quick: bool) -> Iterator[Figure]:
    """Run benchmarks and yield their figures."""
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    for suite, terms in suites.items():
        arguments = terms.get("quick") if quick else terms.get("arguments", [])
        if arguments is None:
            continue
        values = _run(suite, arguments)
        for name, of_figure in terms["figures"].items():
            if name in values:
                before = recorded.get(suite, {}).get(name)
                yield Figure(suite, name, values[name], of_figure, before)


def _run(suite: str, arguments: list[str]) -> dict[str, float]:
    print(f"\n=== python -m benchmarks.{suite} {' '.join(arguments)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="dicomq-bench-") as directory:
        path = Path(directory) / "figures.json"
        argv = [sys.executable, "-m", f"benchmarks.{suite}", *arguments, "--json", str(path)]
        subprocess.run(argv, check=True, cwd=HERE.parent)
        found: dict[str, float] = json.loads(path.read_text())
        return found


def table(figures: list[Figure]) -> Table:
    """Return all figures for people."""
    shown = Table("benchmark", "figure", title="Figures and targets")
    for heading in ("value", "target", "recorded"):
        shown.add_column(heading, justify="right")
    shown.add_column("")
    for each in figures:
        unit = f" {each.terms['unit']}" if "unit" in each.terms else ""
        sign = "≥" if each.higher_is_better else "≤"
        before = "" if each.recorded is None else f"{each.recorded:.3g}"
        met = "[green]met[/]" if each.is_met else "[red]missed[/]"
        value, target = f"{each.value:.3g}{unit}", f"{sign} {each.target:g}{unit}"
        shown.add_row(each.suite, each.name, value, target, before, met)
    return shown


def record(figures: list[Figure]) -> None:
    """Keep the figures beside those of suites that did not run."""
    kept = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    for each in figures:
        kept.setdefault(each.suite, {})[each.name] = float(f"{each.value:.3g}")
    RECORDED.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def lost(figures: list[Figure]) -> list[str]:
    """Return what is too much worse than recorded, of the figures that are to be checked."""
    return [
        f"{each.suite}, {each.name}: {each.value:.3g} is {each.loss:.0%} worse than {each.recorded}"
        for each in figures
        if each.terms.get("check") and each.loss > TOLERATED_LOSS
    ]


def main() -> int:
    """Measure, print, and judge where asked to."""
    targets = tomllib.loads((HERE / "targets.toml").read_text())
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("suite", nargs="*", choices=[*targets, []], help="default: all")
    parser.add_argument("--quick", action="store_true", help="the short versions, where they exist")
    parser.add_argument("--record", action="store_true", help="keep the figures")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them (.svg, .png)")
    parser.add_argument("--check", action="store_true", help="fail on a loss of 30 %%")
    options = parser.parse_args()
    chosen = {name: targets[name] for name in options.suite or targets}
    figures = list(measured(chosen, quick=options.quick))
    Console().print(table(figures))
    if options.record:
        record(figures)
    if options.plot:
        from benchmarks.plot import draw  # noqa: PLC0415 - matplotlib is slow to import

        draw([(f"{each.suite}: {each.name}", each.margin) for each in figures], options.plot)
    complaints = lost(figures) if options.check else []
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
