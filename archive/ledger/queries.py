"""Named queries, read once from the .sql files beside this module.

A file holds blocks of ``-- name --``, comment lines that give the purpose, and one statement. The
texts are `LiteralString`, so a statement put together at run time does not type-check.
"""

import re
from functools import cache
from importlib.resources import files
from typing import LiteralString, cast

_BLOCK = re.compile(r"^-- (\w+) --$", re.MULTILINE)


@cache
def load_queries(room: str) -> dict[str, LiteralString]:
    """Return the statements of ``sql/<room>.sql`` by name."""
    text = files("archive.ledger").joinpath("sql", f"{room}.sql").read_text("utf-8")
    parts = _BLOCK.split(text)
    return {
        name: cast("LiteralString", body.strip())
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }
