"""What a system that waits for work costs: memory, processor time, wake-ups, start.

    python -m benchmarks.idle [--settle 20] [--seconds 30]

starts a system as ``make run`` does, over a data directory of its own, and tells of each process,
the launcher and PostgreSQL's backends included:

* memory: its share (PSS), in which what several processes use together is counted once;
  and what `top` shows (RSS), in which it is counted in each of them;
* processor time and wake-ups per second while nothing happens;
* processor time until then, which is what starting it costs.
"""

import argparse
import contextlib
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from archive.clock import SYSTEM_CLOCK
from benchmarks import report
from tests.fix_installation import BANNER, Installation

_ROW = "| {:<24} | {:>6} | {:>6} | {:>6} | {:>7} | {:>8} |"
_OTHERS = "launcher, supervisor"
_PROGRAMS = {
    "-m scp": "scp",
    "-m workers dispatcher": "dispatcher",
    "-m workers flower": "Flower",
    "redis": "Redis",
    "valkey": "Redis",
    "postgres": "PostgreSQL",
    "-m deploy.run": _OTHERS,
    "supervisord": _OTHERS,
    "-m deploy.console": _OTHERS,
}


@dataclass(frozen=True)
class Use:
    """What a process uses.

    Attributes
    ----------
    share_mb, resident_mb
        PSS and RSS.
    cpu_s
        Processor seconds since it began.
    wakes
        How often one of its threads has begun to wait since it began.
    """

    name: str
    share_mb: float
    resident_mb: float
    cpu_s: float
    wakes: int


def name_of(process: psutil.Process) -> str:
    """Return what a process of the system is called in the table."""
    words = " ".join(process.cmdline())
    if "--hostname" in words:
        return f"worker {words.partition('--hostname ')[2].partition('@')[0]}"
    return next((name for sign, name in _PROGRAMS.items() if sign in words), words[:24])


def use_of(process: psutil.Process) -> Use:
    """Return what a process uses now."""
    proc = Path(f"/proc/{process.pid}")
    memory = dict(
        line.split(":", 1) for line in (proc / "smaps_rollup").read_text("ascii").splitlines()[1:]
    )
    times = process.cpu_times()
    return Use(
        name_of(process),
        int(memory["Pss"].split()[0]) / 1000,
        int(memory["Rss"].split()[0]) / 1000,
        times.user + times.system,
        sum(_wakes(status) for status in proc.glob("task/*/status")),
    )


def _wakes(status: Path) -> int:
    with contextlib.suppress(FileNotFoundError):  # a thread that has ended
        for line in status.read_text("ascii").splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                return int(line.split()[1])
    return 0


def uses(launcher: psutil.Process) -> dict[int, Use]:
    """Return what every process of the system uses, by process id."""
    found = {}
    for each in (launcher, *launcher.children(recursive=True)):
        with contextlib.suppress(psutil.Error, FileNotFoundError, ProcessLookupError):
            found[each.pid] = use_of(each)
    return found


@dataclass(frozen=True)
class Idle:
    """One row of the table: the processes of one name together, per second where that applies."""

    processes: int
    share_mb: float
    resident_mb: float
    start_s: float
    cpu_percent: float
    wakes: float


def compared(before: dict[int, Use], after: dict[int, Use], seconds: float) -> dict[str, Idle]:
    """Return by name what the processes used between two looks; the last row is all of them."""
    names = list(dict.fromkeys(each.name for each in after.values()))
    groups = {name: [pid for pid in after if after[pid].name == name] for name in names}
    groups["all"] = list(after)
    found = {}
    for name, pids in groups.items():
        used = [after[pid].cpu_s - before[pid].cpu_s for pid in pids if pid in before]
        woken = [after[pid].wakes - before[pid].wakes for pid in pids if pid in before]
        found[name] = Idle(
            len(pids),
            sum(after[pid].share_mb for pid in pids),
            sum(after[pid].resident_mb for pid in pids),
            sum(before[pid].cpu_s for pid in pids if pid in before),
            sum(used) / seconds * 100,
            sum(woken) / seconds,
        )
    return found


@contextlib.contextmanager
def running(where: Path) -> Iterator[tuple[psutil.Process, float]]:
    """Start a system; yield its launcher and the seconds until it answered."""
    installation = Installation(where)
    began = SYSTEM_CLOCK.monotonic()
    process = installation.start()
    try:
        if BANNER not in process.output():
            raise RuntimeError(process.output())
        yield psutil.Process(process.pid), SYSTEM_CLOCK.monotonic() - began
    finally:
        process.send(signal.SIGINT)
        process.stop()
        for left in installation.processes():
            left.kill()


def show(found: dict[str, Idle]) -> None:
    """Print the table."""
    print(_ROW.format("process", "PSS MB", "RSS MB", "CPU %", "wakes/s", "start s"))
    print("|---|---|---|---|---|---|")
    for name, each in found.items():
        shown = f"{name} × {each.processes}" if each.processes > 1 and name != "all" else name
        numbers = (
            f"{each.share_mb:.0f}",
            f"{each.resident_mb:.0f}",
            f"{each.cpu_percent:.2f}",
            f"{each.wakes:.0f}",
            f"{each.start_s:.2f}",
        )
        print(_ROW.format(shown, *numbers))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--settle", type=float, default=20.0, help="seconds before the measurement")
    parser.add_argument("--seconds", type=float, default=30.0, help="its length")
    report.add_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dicomq-bench-") as name:
        where = Path(name)
        where.chmod(0o755)  # PostgreSQL, which does not run as root, has to get in
        with running(where) as (launcher, answered_s):
            SYSTEM_CLOCK.sleep(options.settle)
            before = uses(launcher)
            SYSTEM_CLOCK.sleep(options.seconds)
            found = compared(before, uses(launcher), options.seconds)
    show(found)
    print(f"it answered {answered_s:.1f} s after it was started")
    figures = {
        "memory of the whole system": found["all"].share_mb,
        "processor time of the whole system": found["all"].cpu_percent,
        "start until it answers": answered_s,
    }
    report.write(options.json, figures)


if __name__ == "__main__":
    main()
