"""Receiving: dicomq against dcmtk storescp, bare pynetdicom and Orthanc, interleaved, in one run.

``python -m benchmarks.receive [--rounds 5] [--objects 1000] [--only small] [--quick]`` prints a
table of medians and ratios. All receivers get the same objects from the same minimal sender over
loopback. Only dicomq and Orthanc index what they receive; dicomq also evaluates a rule and
coalesces a task.
"""

import argparse
import contextlib
import socket
import statistics
import struct
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.data import get_testdata_file

from archive.clock import SYSTEM_CLOCK
from benchmarks import report
from benchmarks.receivers import FLOOR, Receiver, receivers
from scp.pdus import PduType, encode_command
from tests.fix_objects import encoded_dataset
from tests.fix_scp import CT, EXPLICIT, RawPeer, element, store_command

PDU_LENGTH = 65536
MOST_FOR_ALL = 4
"""More associations than this at once are sent to dicomq only: others make them wait or go."""

BOTH = "dicomq, 2 processes"

SOP_ROOT = "1.2.826.0.1.3680043.9.7433.1"


# --- objects -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Template:
    """A CT image whose UIDs are filled in."""

    name: str
    head: bytes
    middle: bytes
    tail: bytes

    def encoded(self, sop_uid: str, study_uid: str = f"{SOP_ROOT}.9") -> bytes:
        """Return the data set of an object in the one series of a study."""
        study = element(0x0020000D, "UI", study_uid)
        series = element(0x0020000E, "UI", f"{study_uid}.1")
        own = element(0x00080018, "UI", sop_uid)
        return b"".join((self.head, own, self.middle, study, series, self.tail))

    @property
    def length(self) -> int:
        """Bytes of an object."""
        return len(self.encoded(SOP_ROOT))


def template(name: str, pixel_bytes: int | None) -> Template:
    """Return CT_small, its pixel data replaced by `pixel_bytes` zeros unless that is None."""
    path = Path(str(get_testdata_file("CT_small.dcm", download=False)))
    raw, values = encoded_dataset(path), dcmread(path)
    head, _, rest = raw.partition(element(0x00080018, "UI", str(values.SOPInstanceUID)))
    middle, _, rest = rest.partition(element(0x0020000D, "UI", str(values.StudyInstanceUID)))
    _, _, tail = rest.partition(element(0x0020000E, "UI", str(values.SeriesInstanceUID)))
    if pixel_bytes is not None:
        before, _, _ = tail.partition(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))
        tail = before + element(0x7FE00010, "OW", bytes(pixel_bytes))
    return Template(name, head, middle, tail)


TEMPLATES = {
    "small": template("small", None),
    "ct512": template("ct512", 512 * 512 * 2),
    "multi": template("multi", 50 << 20),
}


# --- sender --------------------------------------------------------------------------------------


def send(
    port: int,
    called_aet: str,
    objects: Sequence[tuple[str, bytes]],
    *,
    calling_aet: str = "BENCH",
    with_nagle: bool = False,
) -> list[float]:
    """Send objects over one association and return the seconds until each response.

    Parameters
    ----------
    with_nagle
        Send as most toolkits do: each PDU by a call of its own, held back by Nagle's algorithm.
    """
    times = []
    with RawPeer(port, timeout_s=120) as peer:
        if with_nagle:
            peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        peer.associate({1: (CT, [EXPLICIT])}, calling_aet=calling_aet, called_aet=called_aet)
        for number, (uid, dataset) in enumerate(objects):
            began = SYSTEM_CLOCK.monotonic()
            _send_object(peer, number + 1, uid, dataset, is_split=with_nagle)
            reply = peer.reply()
            if reply.status != 0:
                msg = f"status {reply.status:04X}: {reply.comment}"
                raise ConnectionError(msg)
            times.append(SYSTEM_CLOCK.monotonic() - began)
        peer.release()
    return times


def _send_object(
    peer: RawPeer, message_id: int, uid: str, dataset: bytes, *, is_split: bool
) -> None:
    step = min(PDU_LENGTH, peer.max_length) - 6
    view = memoryview(dataset)
    pending = [encode_command(1, store_command(message_id & 0xFFFF, CT, uid))]
    for start in range(0, len(dataset), step):
        piece = view[start : start + step]
        is_last = start + step >= len(dataset)
        head = struct.pack(
            ">BxLLBB", PduType.P_DATA_TF, len(piece) + 6, len(piece) + 2, 1, 2 if is_last else 0
        )
        if is_split:
            for each in (*pending, head + piece):
                peer.sock.sendall(each)
        else:  # the kernel puts together what belongs together, without copies made here
            peer.sock.sendall(b"".join((*pending, head)), socket.MSG_MORE)
            peer.sock.sendall(piece)
        pending = []


# --- measurement ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What is sent."""

    template: Template
    associations: int
    objects: int
    with_nagle: bool = False

    @property
    def name(self) -> str:
        """Name of the row."""
        nagle = ", Nagle" if self.with_nagle else ""
        return f"{self.template.name}, {self.associations} assoc{nagle}"


@dataclass
class Figures:
    """Measurements of one receiver in one case, one value per round.

    Attributes
    ----------
    memory_mb
        Peak of the resident memory above that before the round.
    """

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p95_ms: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)

    def add(self, case: Case, wall_s: float, cpu_s: float, times: list[float]) -> None:
        """Add what a round took."""
        ordered = sorted(times)
        self.wall_s.append(wall_s * 100 / case.objects)
        self.cpu_s.append(cpu_s * 100 / case.objects)
        self.p50_ms.append(statistics.median(ordered) * 1000)
        self.p95_ms.append(ordered[max(0, int(len(ordered) * 0.95) - 1)] * 1000)


def measure(receiver: Receiver, case: Case, prefix: str, figures: Figures) -> None:
    """Send the objects of a case, a study for each association."""
    share = case.objects // case.associations
    batches = []
    for association in range(case.associations):
        study = f"{prefix}.{association}"
        uids = [f"{study}.{number}" for number in range(share)]
        batches.append([(uid, case.template.encoded(uid, study)) for uid in uids])
    times: list[float] = []

    def send_batch(batch: list[tuple[str, bytes]]) -> None:
        called = receiver.called_aet
        times.extend(send(receiver.port, called, batch, with_nagle=case.with_nagle))

    threads = [threading.Thread(target=send_batch, args=(batch,)) for batch in batches]
    receiver.forget_peak()
    memory, cpu = receiver.resident_mb(), receiver.cpu_s()
    began = SYSTEM_CLOCK.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = SYSTEM_CLOCK.monotonic() - began
    if len(times) != share * case.associations:
        msg = f"{receiver.name} did not take every object of {case.name}"
        raise RuntimeError(msg)
    figures.add(case, wall, receiver.cpu_s() - cpu, times)
    figures.memory_mb.append(receiver.peak_mb() - memory)


Found = dict[tuple[str, str], Figures]


def run(cases: Sequence[Case], rounds: int, where: Path) -> Found:
    """Measure every receiver in every case, one after the other in each round."""
    found: Found = {}
    with receivers(where) as running:
        for each in running:  # what is only slow the first time is not measured
            measure(each, Case(TEMPLATES["small"], 1, 10), f"{SOP_ROOT}.0", Figures())
        for number in range(rounds):
            for index, case in enumerate(cases):
                for each in running:
                    if case.associations > MOST_FOR_ALL and not each.name.startswith("dicomq"):
                        continue
                    figures = found.setdefault((case.name, each.name), Figures())
                    measure(each, case, f"{SOP_ROOT}.{number + 1}.{index}", figures)
    return found


def table(found: Found) -> str:
    """Return the medians as a Markdown table, with ratios against dicomq."""
    lines = [
        "| case | receiver | s / 100 | × dicomq | CPU s / 100 | p50 ms | p95 ms | peak MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (case, name), figures in found.items():
        wall = statistics.median(figures.wall_s)
        ratio = wall / statistics.median(found[case, "dicomq"].wall_s)
        cpu, p50, p95, memory = (
            statistics.median(each)
            for each in (figures.cpu_s, figures.p50_ms, figures.p95_ms, figures.memory_mb)
        )
        lines.append(
            f"| {case} | {name} | {wall:.3f} | {ratio:.2f} | {cpu:.2f} | {p50:.1f} | {p95:.1f} "
            f"| {memory:.0f} |"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class Median:
    """A median that was measured."""

    found: Found
    case: str
    receiver: str = "dicomq"
    figure: str = "wall_s"

    def __truediv__(self, other: "Median") -> float:
        """Return the quotient of two medians."""
        return self.value / other.value

    @property
    def value(self) -> float:
        """Return the median; KeyError when it was not measured."""
        figures = self.found[self.case, self.receiver]
        values: list[float] = getattr(figures, self.figure)
        return statistics.median(values)


def ratios(found: Found) -> dict[str, float]:
    """Return the figures that have targets, as far as they were measured."""
    values: dict[str, float] = {}
    for case in {case for case, _ in found}:
        with contextlib.suppress(KeyError):
            best = min(Median(found, case), Median(found, case, BOTH), key=lambda each: each.value)
            values[f"{case}: Orthanc / dicomq"] = Median(found, case, "Orthanc") / best
            own = Median(found, case, figure="cpu_s")
            values[f"{case}: CPU dicomq / Orthanc"] = own / Median(found, case, "Orthanc", "cpu_s")
        with contextlib.suppress(KeyError):
            values[f"{case}: dicomq / floor"] = Median(found, case) / Median(found, case, FLOOR)
    return values | _further_ratios(found)


def _further_ratios(found: Found) -> dict[str, float]:
    values: dict[str, float] = {}
    small, few, many = "small, 1 assoc", "small, 4 assoc", "small, 64 assoc"
    storescp = "dcmtk storescp"
    with contextlib.suppress(KeyError):
        case = "ct512, 1 assoc"
        values[f"{case}: dicomq / storescp"] = Median(found, case) / Median(found, case, storescp)
    with contextlib.suppress(KeyError):
        case = f"{small}, Nagle"
        values["Nagle at the sender / not"] = Median(found, case) / Median(found, small)
    with contextlib.suppress(KeyError):
        case = "multi, 1 assoc"
        values["50 MB: dicomq / storescp"] = Median(found, case) / Median(found, case, storescp)
        values["50 MB: memory above idle"] = max(found[case, "dicomq"].memory_mb)
    with contextlib.suppress(KeyError):
        values["throughput of 64 associations / 4"] = Median(found, few, BOTH) / Median(
            found, many, BOTH
        )
        response = Median(found, many, BOTH, "p95_ms") / Median(found, small, BOTH, "p50_ms")
        values["p95 of 64 associations / 64 × lone p50"] = response / 64
    return values


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--objects", type=int, default=1000, help="objects of 39 kB per case, in whole studies"
    )
    parser.add_argument("--only", default="", help="cases whose name contains this, such as ct512")
    parser.add_argument("--quick", action="store_true", help="three rounds of the small cases")
    report.add_option(parser)
    options = parser.parse_args()
    objects, rounds = options.objects, options.rounds
    small = TEMPLATES["small"]
    cases = [Case(small, n, objects) for n in (1, 4)]
    cases.extend(Case(TEMPLATES["ct512"], n, objects // 2) for n in (1, 4))
    if options.quick:
        cases, rounds = cases[:2], 3
    else:
        cases.append(Case(small, 1, objects // 4, with_nagle=True))
        cases.append(Case(small, 64, objects * 4))
        cases.append(Case(TEMPLATES["multi"], 1, 8))
    cases = [each for each in cases if options.only in each.name]
    with tempfile.TemporaryDirectory(prefix="dicomq-bench-") as name:
        found = run(cases, rounds, Path(name))
    print(table(found))
    report.write(options.json, ratios(found))


if __name__ == "__main__":
    main()
