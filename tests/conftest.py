"""Names the plug-ins, one per concern; everything else stands in them."""

pytest_plugins = (
    "tests.fix_process",
    "tests.fix_postgres",
    "tests.fix_redis",
    "tests.fix_slapd",
    "tests.fix_dcmtk",
    "tests.fix_peer",
    "tests.fix_objects",
    "tests.fix_system",
    "tests.fix_scp",
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
)
