import pytest

from archive.ledger.migrations import Stage, missing

SCRIPTS = [("0001_pre_a.sql", "1"), ("0002_post_b.sql", "2"), ("0003_pre_c.sql", "3")]
FUNCTIONS = ("functions.sql", "f2")


@pytest.mark.parametrize(
    ("known", "stage", "expected"),
    [
        # a new database gets everything, whoever starts first
        ({}, Stage.PRE, ["0001_pre_a.sql", "0002_post_b.sql", "0003_pre_c.sql", "functions.sql"]),
        # the previous release may still run
        ({"0001_pre_a.sql": "1"}, Stage.PRE, ["0003_pre_c.sql", "functions.sql"]),
        # it has gone
        (
            {"0001_pre_a.sql": "1", "0003_pre_c.sql": "3", "functions.sql": "f2"},
            Stage.ALL,
            ["0002_post_b.sql"],
        ),
        # functions are replaced when their text changes, migrations never
        ({name: "other" for name, _ in [*SCRIPTS, FUNCTIONS]}, Stage.ALL, ["functions.sql"]),
    ],
)
def test_missing(known: dict[str, str], stage: Stage, expected: list[str]) -> None:
    assert missing(known, [*SCRIPTS, FUNCTIONS], stage) == expected
