"""Names the plug-ins, one per concern; everything else stands in them."""

from hypothesis import settings

# How long an example takes says something about the machine only; benchmarks judge speed.
settings.register_profile("dicomq", deadline=None)
settings.load_profile("dicomq")

pytest_plugins = (
    "tests.fix_process",
    "tests.fix_postgres",
    "tests.fix_redis",
    "tests.fix_slapd",
    "tests.fix_dcmtk",
    "tests.fix_peer",
    "tests.fix_objects",
    "tests.fix_system",
    "tests.fix_chaos",
    "tests.fix_scp",
    "tests.fix_reception",
    "tests.fix_engine",
    "tests.fix_export",
    "tests.fix_commitment",
    "tests.fix_orthanc",
    "tests.fix_raw_peer",
    "tests.fix_query",
    "tests.fix_leading",
    "tests.fix_retrieve",
    "tests.fix_move",
    "tests.fix_monitor",
    "tests.fix_session",
    "tests.fix_compose",
    "tests.fix_tls",
    "tests.fix_s3",
)
