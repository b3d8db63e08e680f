"""All benchmarks, one after the other, beside their targets.

    python -m benchmarks [SUITE …] [--quick] [--record] [--recorded] [--check] [--plot FILE]

prints what each benchmark prints, then one table of all figures with their targets. A benchmark
that fails leaves a line in the table, the others go on, and the exit status is 1. `--record` keeps
the figures in benchmarks/recorded.json; `--recorded` measures nothing and shows what is kept there;
`--check` ends with status 1 when one of those that targets.toml marks is 30 % worse than recorded.
The machine should do nothing else meanwhile.
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

from archive.clock import SYSTEM_CLOCK

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "recorded.json"
TOLERATED_LOSS = 0.30
_LONG = 1000

Values = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Figure:
    """A figure with a target, and what it was when it was recorded.

    Attributes
    ----------
    value
        None when it was not measured, because its benchmark failed or a peer is not installed.
    """

    suite: str
    name: str
    value: float | None
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
    def unit(self) -> str:
        """Unit with a space before it; empty for a ratio."""
        return f" {self.terms['unit']}" if "unit" in self.terms else ""

    @property
    def shown(self) -> str:
        """The value as people read it."""
        return "" if self.value is None else f"{_number(self.value)}{self.unit}"

    @property
    def demand(self) -> str:
        """The target as people read it."""
        return f"{'≥' if self.higher_is_better else '≤'} {_number(self.target)}{self.unit}"

    @property
    def is_met(self) -> bool:
        """Whether the target is met."""
        return self.margin >= 1

    @property
    def margin(self) -> float:
        """How many times better than its target it is."""
        if self.value is None:
            return 0.0
        better = self.value / self.target
        return better if self.higher_is_better else 1 / max(better, 1e-9)

    @property
    def loss(self) -> float:
        """How much worse it is than recorded, as a share of the recorded value; 0 if it is not."""
        if not self.recorded or not self.value:
            return 0.0
        share = self.value / self.recorded
        return max(0.0, 1 - share if self.higher_is_better else 1 - 1 / share)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= _LONG else f"{value:.3g}"


def recorded() -> Values:
    """Return what is kept, by suite and name."""
    found: Values = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    return found


def measured(suites: Mapping[str, Any], *, quick: bool) -> Iterator[tuple[str, dict[str, float]]]:
    """Run benchmarks one after the other; yield what each found, nothing where it failed."""
    kind = "quick" if quick else "arguments"
    chosen = [name for name, terms in suites.items() if kind in terms]
    began = SYSTEM_CLOCK.monotonic()
    for number, suite in enumerate(chosen, start=1):
        minutes = (SYSTEM_CLOCK.monotonic() - began) / 60
        arguments = suites[suite][kind]
        line = f"python -m benchmarks.{suite} {' '.join(arguments)}"
        print(f"\n=== {number} of {len(chosen)}, {minutes:.0f} min so far: {line}", flush=True)
        yield suite, _run(suite, arguments)


def _run(suite: str, arguments: list[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="dicomq-bench-") as directory:
        path = Path(directory) / "figures.json"
        argv = [sys.executable, "-m", f"benchmarks.{suite}", *arguments, "--json", str(path)]
        status = subprocess.run(argv, check=False, cwd=HERE.parent).returncode
        if not path.exists():  # some end with 1 when they miss a target
            print(f"=== benchmarks.{suite} failed with status {status}; the others go on")
            return {}
        found: dict[str, float] = json.loads(path.read_text())
        return found


def figures_of(suites: Mapping[str, Any], values: Values) -> list[Figure]:
    """Return the figures that have a target, of the suites that were run."""
    kept = recorded()
    return [
        Figure(suite, name, found.get(name), terms, kept.get(suite, {}).get(name))
        for suite, found in values.items()
        for name, terms in suites[suite]["figures"].items()
    ]


def table(figures: list[Figure]) -> Table:
    """Return all figures for people."""
    shown = Table("benchmark", "figure", title="Figures and targets")
    for heading in ("value", "target", "recorded"):
        shown.add_column(heading, justify="right")
    shown.add_column("")
    for each in figures:
        before = "" if each.recorded is None else _number(each.recorded)
        met = "[green]met[/]" if each.is_met else "[red]missed[/]"
        if each.value is None:
            met = "[red]not measured[/]"
        shown.add_row(each.suite, each.name, each.shown, each.demand, before, met)
    return shown


def record(values: Values) -> None:
    """Keep all figures, with or without a target, beside those of suites that did not run."""
    kept = {suite: dict(of_suite) for suite, of_suite in recorded().items()}
    for suite, found in values.items():
        rounded = {name: float(f"{value:.3g}") for name, value in found.items()}
        kept.setdefault(suite, {}).update(rounded)
    RECORDED.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def lost(figures: list[Figure]) -> list[str]:
    """Return what is too much worse than recorded, of the figures that are to be checked."""
    return [
        f"{each.suite}, {each.name}: {each.shown} is {each.loss:.0%} worse than {each.recorded}"
        for each in figures
        if each.terms.get("check") and each.loss > TOLERATED_LOSS
    ]


def _options(suites: Mapping[str, Any]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("suite", nargs="*", choices=[*suites, []], help="default: all")
    parser.add_argument("--quick", action="store_true", help="the short versions, where they exist")
    parser.add_argument("--record", action="store_true", help="keep the figures")
    parser.add_argument("--recorded", action="store_true", help="show those that are kept")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them (.svg, .png)")
    parser.add_argument("--check", action="store_true", help="fail on a loss of 30 %%")
    return parser.parse_args()


def main() -> int:
    """Measure, print, and judge where asked to."""
    targets = tomllib.loads((HERE / "targets.toml").read_text())
    options = _options(targets)
    chosen = {name: targets[name] for name in options.suite or targets}
    if options.recorded:
        kept = recorded()
        values: Values = {name: kept.get(name, {}) for name in chosen}
    else:
        values = dict(measured(chosen, quick=options.quick))
    figures = figures_of(chosen, values)
    if options.quick:
        figures = [each for each in figures if each.value is not None]
    Console().print(table(figures))
    if options.record:
        record(values)
    if options.plot:
        _plot(figures, options.plot)
    complaints = lost(figures) if options.check else []
    if not options.recorded:
        complaints += [f"benchmarks.{suite} failed" for suite, found in values.items() if not found]
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


def _plot(figures: list[Figure], path: Path) -> None:
    from benchmarks.plot import Bar, draw  # noqa: PLC0415 - matplotlib is slow to import

    bars = [
        Bar(each.suite, each.name, each.margin, f"{each.shown}, {each.demand}")
        for each in figures
        if each.value is not None
    ]
    draw(bars, path)


if __name__ == "__main__":
    sys.exit(main())
