"""Answers queries from the index.

Conditions and columns are put together from the constant fragments of ``query.sql``; every value
is a parameter. The first page comes over a pooled connection that is given back at once; only an
answer longer than that is read through a server-side cursor, on a connection of its own, so that
neither memory nor the pool depends on how much a peer asks for or how slowly it reads.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, cast

from psycopg import sql

from archive.ledger.connection import Ledger, Transaction
from archive.ledger.queries import load_queries
from archive.model.query import (
    AnyBelow,
    AnyLike,
    AnyNumber,
    AnyOf,
    Attribute,
    Between,
    Computed,
    JsonMatch,
    Level,
    Match,
    MomentBetween,
    NameLike,
    Query,
)

_PAGE: Final = 500
_TABLES: Final = {
    Level.PATIENT: "patient",
    Level.STUDY: "study",
    Level.SERIES: "series",
    Level.IMAGE: "instance",
}
_BY_LEVEL: Final = frozenset({Computed.RETRIEVE_AETS, Computed.AVAILABILITY})


def find(ledger: Ledger, query: Query) -> Generator[Match, None, None]:
    """Yield what matches a query, in no particular order.

    Close the iterator when no more is wanted: a long answer holds a connection.

    Raises
    ------
    LedgerUnavailableError
        When PostgreSQL cannot be reached, or the query takes longer than two minutes per page.
    """
    statement = _Statement(query)
    with ledger.transaction() as tx:
        tx.execute(_text("bounds"))
        page = tx.execute(statement.find(limit=_PAGE + 1), statement.parameters).fetchall()
    if len(page) <= _PAGE:
        yield from map(statement.match, page)
        return
    with ledger.long_transaction() as tx, tx.cursor("find") as cursor:
        tx.execute(_text("bounds"))
        cursor.itersize = _PAGE
        cursor.execute(statement.find(), statement.parameters)
        yield from map(statement.match, cursor)


def count(ledger: Ledger, query: Query, most: int) -> int:
    """Return how many match, counted up to `most` + 1."""
    statement = _Statement(query)
    counted = sql.SQL(_text("count")).format(find=statement.find(limit=most + 1))
    with ledger.transaction() as tx:
        tx.execute(_text("bounds"))
        row = tx.execute(counted, statement.parameters).fetchone()
    return int(row[0]) if row else 0


def execute(tx: Transaction, query: Query) -> list[Match]:
    """Return all that matches, for queries that match little."""
    statement = _Statement(query)
    return [statement.match(row) for row in tx.execute(statement.find(), statement.parameters)]


@dataclass(slots=True)
class _Statement:
    """A query in SQL."""

    query: Query
    parameters: dict[str, Any] = field(default_factory=dict)
    conditions: sql.Composable = field(init=False)

    def __post_init__(self) -> None:
        conditions = [_CONDITIONS[type(each)](self, each) for each in self.query.criteria]
        self.conditions = sql.SQL(" AND ").join(conditions or [sql.SQL("true")])

    def find(self, limit: int = 0) -> sql.Composed:
        """Return the statement for all, or the first `limit`, matches."""
        level = self.query.level
        columns = [*map(self._column, self.query.returned)]
        columns += [_identifier(level, "attributes") for level in level.reached]
        return sql.SQL(_text(f"find_{level.value.lower()}")).format(
            columns=sql.SQL(", ").join(columns),
            conditions=self.conditions,
            limit=sql.SQL("LIMIT {}").format(sql.Literal(limit)) if limit else sql.SQL(""),
        )

    def match(self, row: tuple[Any, ...]) -> Match:
        """Return the match that a row of the statement holds."""
        returned = self.query.returned
        values = {
            attribute.tag: tuple(value) if isinstance(value, list) else value
            for attribute, value in zip(returned, row, strict=False)
        }
        further: dict[str, Any] = {}
        for attributes in row[len(returned) :]:
            further |= attributes or {}
        return Match(values, further)

    def _column(self, attribute: Attribute) -> sql.Composable:
        if attribute.computed is None:
            if not attribute.column:
                return sql.SQL("NULL")
            return _identifier(attribute.level, attribute.column)
        name = attribute.computed.value
        if attribute.computed in _BY_LEVEL:
            if self.query.level is Level.PATIENT:
                return sql.SQL("NULL")
            name = f"{name}_{self.query.level.value.lower()}"
        return sql.SQL(_text(name))

    def value(self, value: object) -> sql.Placeholder:
        """Return the placeholder of a new parameter."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return sql.Placeholder(name)

    def any_of(self, criterion: AnyOf) -> sql.Composable:
        return self._fragment("any_of", criterion.attribute, values=list(criterion.values))

    def any_number(self, criterion: AnyNumber) -> sql.Composable:
        return self._fragment("any_number", criterion.attribute, values=list(criterion.values))

    def any_like(self, criterion: AnyLike) -> sql.Composable:
        name = "folded_like" if criterion.folded else "like"
        return _either(
            self._fragment(name, criterion.attribute, value=each) for each in criterion.patterns
        )

    def between(self, criterion: Between) -> sql.Composable:
        bounds = (("at_least", criterion.low), ("at_most", criterion.high))
        return sql.SQL(" AND ").join(
            self._fragment(name, criterion.attribute, value=bound)
            for name, bound in bounds
            if bound
        )

    def moment_between(self, criterion: MomentBetween) -> sql.Composable:
        date = _identifier(criterion.date.level, criterion.date.column)
        time = _identifier(criterion.time.level, criterion.time.column)
        parts = [self.between(Between(criterion.date, criterion.low[0], criterion.high[0]))]
        for name, side, bound in (
            ("moment_at_least", "low", criterion.low),
            ("moment_at_most", "high", criterion.high),
        ):
            if bound[0]:
                bounds = {
                    f"{side}_date": self.value(bound[0]),
                    f"{side}_time": self.value(bound[1]),
                }
                parts.append(sql.SQL(_text(name)).format(date=date, time=time, **bounds))
        return sql.SQL(" AND ").join(parts)

    def name_like(self, criterion: NameLike) -> sql.Composable:
        if criterion.any_group:
            return _either(
                self._fragment(f"name_like_{number}", criterion.attribute, value=pattern)
                for number in (1, 2, 3)
                for pattern in criterion.groups[0]
            )
        return sql.SQL(" AND ").join(
            _either(
                self._fragment(f"name_like_{number}", criterion.attribute, value=pattern)
                for pattern in patterns
            )
            for number, patterns in enumerate(criterion.groups, 1)
            if patterns
        )

    def json_match(self, criterion: JsonMatch) -> sql.Composable:
        column = _identifier(criterion.level, "attributes")
        return sql.SQL(_text("json_match")).format(column=column, value=self.value(criterion.path))

    def any_below(self, criterion: AnyBelow) -> sql.Composable:
        text = sql.SQL(_text(f"below_{criterion.computed.value}"))
        return _either(text.format(value=self.value(each)) for each in criterion.patterns)

    def _fragment(self, name: str, attribute: Attribute, **values: object) -> sql.Composable:
        column = _identifier(attribute.level, attribute.column)
        bound = {key: self.value(value) for key, value in values.items()}
        return sql.SQL(_text(name)).format(column=column, **bound)


_Condition = Callable[[_Statement, Any], sql.Composable]
_CONDITIONS: Final[dict[type, _Condition]] = {
    AnyOf: _Statement.any_of,
    AnyLike: _Statement.any_like,
    AnyNumber: _Statement.any_number,
    Between: _Statement.between,
    MomentBetween: _Statement.moment_between,
    NameLike: _Statement.name_like,
    JsonMatch: _Statement.json_match,
    AnyBelow: _Statement.any_below,
}


def _either(conditions: Iterator[sql.Composable]) -> sql.Composable:
    return sql.SQL("({})").format(sql.SQL(" OR ").join(conditions))


def _identifier(level: Level, column: str) -> sql.Identifier:
    return sql.Identifier(_TABLES[level], column)


def _text(name: str) -> Any:  # noqa: ANN401 - LiteralString, which a look-up by name loses
    return cast("Any", load_queries("query")[name])
