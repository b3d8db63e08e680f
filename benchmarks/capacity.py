"""How many processes and cores a hospital needs, from the recorded unit costs.

    python -m benchmarks.capacity --objects-per-day 200000 --peak 20 [--kilobytes 530]
                                  [--objects-per-study 200] [--destinations 1] [--notified]
                                  [--cores 4] [--flushes 1000] [--network 110]

`--peak` is objects per second at the busiest time. Costs of a unit (`python -m benchmarks.units
--json FILE`, kept in benchmarks/recorded.json) hold for the machine that they were measured on: on
another one measure them there, `--units FILE`. A process is taken to be full at 70 % of a core,
because Python uses one core for a process and a queue grows before that.
"""

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RECORDED = Path(__file__).resolve().parent / "recorded.json"
SMALL_MB = 0.039
"""Size of the objects of which the cost per object is told."""
FULL = 0.7
PROCESSES = ("scp", "dispatcher", "worker", "PostgreSQL")


@dataclass(frozen=True)
class Load:
    """What a hospital does.

    Attributes
    ----------
    peak
        Objects received per second at the busiest time.
    objects_per_day, kilobytes, objects_per_study
        Of a day; of an object; of a study.
    destinations
        To how many places each study is exported.
    notified
        Whether an instance availability notification follows each export.
    """

    objects_per_day: float
    peak: float
    kilobytes: float
    objects_per_study: float
    destinations: int
    notified: bool

    def units_per_object(self) -> dict[str, float]:
        """Return how many units of each kind an object that is received brings."""
        studies = 1 / self.objects_per_study
        more_mb = max(0.0, self.kilobytes / 1000 - SMALL_MB)
        return {
            "object received": 1.0,
            "MB received": more_mb,
            "study received": studies,
            "object sent": float(self.destinations),
            "MB sent": more_mb * self.destinations,
            "export task": studies * self.destinations,
            "notification": studies * self.destinations * self.notified,
        }


@dataclass(frozen=True)
class Need:
    """What a load needs.

    Attributes
    ----------
    cores
        By kind of process, at the peak.
    log_flushes, file_flushes
        Of PostgreSQL's log, if no two commits share one, and of files; per second at the peak.
    network_mb
        In or out, whichever is more, MB per second at the peak.
    stored_gb, log_gb, ledger_gb
        Per day: files, write-ahead log, and growth of the ledger.
    """

    cores: Mapping[str, float]
    log_flushes: float
    file_flushes: float
    network_mb: float
    stored_gb: float
    log_gb: float
    ledger_gb: float

    def processes(self, name: str) -> int:
        """Return how many processes of a kind there should be."""
        return max(1, math.ceil(self.cores[name] / FULL))


@dataclass(frozen=True)
class Hardware:
    """What a host has.

    Attributes
    ----------
    flushes
        That its disk makes in a second, one after the other.
    network_mb
        MB per second in each direction.
    """

    cores: float
    flushes: float
    network_mb: float


def need(load: Load, units: Mapping[str, float]) -> Need:
    """Return what a load needs."""
    amounts = load.units_per_object()

    def per_object(what: str) -> float:
        return sum(amount * units[f"{unit}: {what}"] for unit, amount in amounts.items())

    def per_day(what: str) -> float:
        return per_object(what) * load.objects_per_day / 1e6

    return Need(
        cores={name: per_object(name) / 1000 * load.peak for name in PROCESSES},
        log_flushes=per_object("flushes") * load.peak,
        file_flushes=load.peak,
        network_mb=load.peak * load.kilobytes / 1000 * max(1, load.destinations),
        stored_gb=load.objects_per_day * load.kilobytes / 1e6,
        log_gb=per_day("WAL kB"),
        ledger_gb=per_day("ledger kB"),
    )


def limits(found: Need, hardware: Hardware) -> dict[str, float]:
    """Return by what is full at how many times the peak."""
    busy = hardware.cores * FULL
    return {
        f"one host of {hardware.cores:g} cores with everything on it": busy
        / sum(found.cores.values()),
        "its network, the busier direction": hardware.network_mb / found.network_mb,
        "flushes of its disk by files": hardware.flushes / found.file_flushes,
        "PostgreSQL's cores, on a host of its own": busy / found.cores["PostgreSQL"],
        "flushes of PostgreSQL's log": hardware.flushes / found.log_flushes,
    }


def show(load: Load, found: Need, hardware: Hardware) -> None:
    """Print tables."""
    print(f"| at {load.peak:g} objects/s | cores | processes |\n|---|---|---|")
    for name, cores in found.cores.items():
        count = "1 server" if name == "PostgreSQL" else str(found.processes(name))
        print(f"| {name} | {cores:.2f} | {count} |")
    print(f"| together | {sum(found.cores.values()):.2f} | |")
    print("\n| is full | at × this peak |\n|---|---|")
    for name, times in sorted(limits(found, hardware).items(), key=lambda each: each[1]):
        print(f"| {name} | {times:.1f} |")
    print(
        f"\nPer day: {found.stored_gb:.1f} GB of objects, {found.log_gb:.2f} GB of write-ahead log,"
        f" {found.ledger_gb:.2f} GB more of ledger before tasks are purged. More hosts, each with"
        " storage of its own, divide everything but what is PostgreSQL's."
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--objects-per-day", type=float, default=200_000)
    parser.add_argument("--peak", type=float, default=20, help="objects per second")
    parser.add_argument("--kilobytes", type=float, default=530, help="per object")
    parser.add_argument("--objects-per-study", type=float, default=200)
    parser.add_argument("--destinations", type=int, default=1, help="exports of each study")
    parser.add_argument("--notified", action="store_true", help="a notification for each export")
    parser.add_argument("--cores", type=float, default=4, help="of a host")
    parser.add_argument("--flushes", type=float, default=1000, help="that a disk makes a second")
    parser.add_argument("--network", type=float, default=110, help="MB/s, default: 1 Gbit/s")
    parser.add_argument("--units", type=Path, metavar="FILE", help="costs measured elsewhere")
    return parser.parse_args()


def main() -> None:
    """Compute and print."""
    options = _options()
    if options.units is None:
        units: dict[str, float] = json.loads(RECORDED.read_text())["units"]
    else:
        units = json.loads(options.units.read_text())
    load = Load(
        options.objects_per_day,
        options.peak,
        options.kilobytes,
        options.objects_per_study,
        options.destinations,
        options.notified,
    )
    hardware = Hardware(options.cores, options.flushes, options.network)
    show(load, need(load, units), hardware)


if __name__ == "__main__":
    main()
