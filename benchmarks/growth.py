"""How the cost of receiving grows with what is stored: the same objects into two archives.

``python -m benchmarks.growth [--studies 1000000] [--rounds 7] [--objects 400]`` fills one archive
with 1,000 studies and another with many, of two series each, and sends small objects of new
studies to both in turn. What counts is processor time, that of PostgreSQL included.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import psycopg

from benchmarks import report
from benchmarks.find import fill
from benchmarks.receive import SOP_ROOT, TEMPLATES, Case, Figures, measure
from benchmarks.receivers import Receiver, durable_postgres, start_dicomq

FEW = 1000

LOCATIONS = b"""
INSERT INTO location (instance_fk, storage_id, storage_path, transfer_syntax_uid, object_size,
                      dataset_offset, digest)
SELECT i.pk, 'fs1', '2000/01/01/' || upper(to_hex(hashtext(i.sop_instance_uid))) || '/' || i.pk,
       '1.2.840.10008.1.2.1', 500000, 500, 'sha256:' || repeat('0', 64)
FROM instance i
"""


def filled(url: str, studies: int) -> None:
    """Fill a migrated archive."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET max_wal_size = '8GB'")
        connection.execute("SELECT pg_reload_conf()")
    fill(url, 1, studies)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(LOCATIONS)
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def compare(few: Receiver, many: Receiver, rounds: int, objects: int) -> dict[str, Figures]:
    """Send the same to both, in turn."""
    found = {"few": Figures(), "many": Figures()}
    case = Case(TEMPLATES["small"], 1, objects)
    for number in range(rounds + 1):
        for name, receiver in (("few", few), ("many", many)):
            figures = found[name] if number else Figures()  # the first round warms up
            measure(receiver, case, f"{SOP_ROOT}.{number + 1}", figures)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--objects", type=int, default=400)
    report.add_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dicomq-bench-") as name:
        where = Path(name)
        with durable_postgres(where) as (postgres, first, second):
            running: list[Receiver] = []
            try:
                running.append(start_dicomq(where, first, postgres, name="few"))
                running.append(start_dicomq(where, second, postgres, name="many"))
                filled(first, FEW)
                filled(second, options.studies)
                found = compare(running[0], running[1], options.rounds, options.objects)
            finally:
                for receiver in running:
                    receiver.stop()
    print("| stored studies | ms / object | CPU ms / object |\n|---|---|---|")
    for count, figures in zip((FEW, options.studies), found.values(), strict=True):
        wall, cpu = statistics.median(figures.wall_s), statistics.median(figures.cpu_s)
        print(f"| {count:,} | {wall * 10:.2f} | {cpu * 10:.2f} |")
    few, many = (statistics.median(each.cpu_s) for each in found.values())
    report.write(options.json, {"CPU per object, 1,000,000 studies / 1,000": many / few})


if __name__ == "__main__":
    main()
