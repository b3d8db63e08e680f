"""Parameters of requests, roles, origins, wording and charts: pure."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders
from tornado.web import HTTPError

from archive.errors import InvalidValueError
from archive.ledger.monitoring import Slice
from archive.ledger.operations import PageOrder
from archive.model.task import TaskKind, TaskStatus
from archive.model.task_filter import PagePosition, TaskFilter, TimeRange
from workers.monitor import wording
from workers.monitor.access import Role, check_origin, is_loopback, parse_roles
from workers.monitor.charts import chart
from workers.monitor.openapi import all_endpoints, openapi
from workers.monitor.parameters import (
    flag_of,
    instant_of,
    normalized,
    number_of,
    order_of,
    position_in,
    position_text,
    task_filter,
    text_of,
)
from workers.monitor.study_filter import study_filter

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_filters_hold_together_and_names_have_aliases() -> None:
    arguments = normalized(
        {
            "type": ["ian"],
            "status": ["FAILED,in_process", "SCHEDULED FOR RETRY"],
            "dcmQueueName": ["IANSCU"],
            "localAET": [" DCM4CHEE "],
            "taskID": ["7"],
            "batchID": [""],
            "updatedTime": ["2h"],
        }
    )

    assert task_filter(arguments, NOW) == TaskFilter(
        task_pks=(7,),
        kinds=(TaskKind.IAN,),
        statuses=(TaskStatus.FAILED, TaskStatus.IN_PROCESS, TaskStatus.SCHEDULED_FOR_RETRY),
        queue_names=("IANSCU",),
        local_aets=("DCM4CHEE",),
        updated=TimeRange(NOW - timedelta(hours=2), None),
    )


def test_all_problems_of_a_filter_are_named() -> None:
    arguments = {"status": ["DONE"], "taskID": ["x"], "createdTime": ["soon"]}

    with pytest.raises(InvalidValueError, match=r"'soon'.*'x'.*'DONE'"):
        task_filter(arguments, NOW)


@pytest.mark.parametrize(
    "arguments",
    [
        {"orderby": ["name"]},
        {"after": ["yesterday"]},
        {"after": ["2026-01-01~x"]},
        {"after": ["2026-01-01~1~FAILED"]},
        {"after": ["2026-01-01~1"], "orderby": ["status"]},
        {"after": ["2026-01-01~1~FAILED"], "orderby": ["-queue"]},
    ],
)
def test_unusable_pages_are_refused(arguments: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidValueError):
        (order_of(arguments), position_in(arguments))


@given(time=st.datetimes(timezones=st.just(UTC)), pk=st.integers(min_value=1, max_value=2**63 - 1))
def test_positions_survive_the_address(time: datetime, pk: int) -> None:
    for order, words in (
        ("-updatedTime", ()),
        ("status", ("FAILED",)),
        ("-queue", ("a~b", "WARNING")),
    ):
        position = PagePosition(time, pk, words)
        arguments = {"orderby": [order], "after": [position_text(position)]}

        assert position_in(arguments) == position


@given(st.dictionaries(st.text(), st.lists(st.text())))
def test_any_arguments_give_a_filter_or_a_named_problem(arguments: dict[str, list[str]]) -> None:
    with suppress(InvalidValueError):
        assert "\0" not in str(task_filter(normalized(arguments), NOW))


def test_values() -> None:
    given_values = {"limit": ["5"], "at": ["+30m"], "only-ian": [""], "only-stgcmt": ["false"]}

    assert order_of({}) is PageOrder.UPDATED_DESCENDING
    assert number_of(given_values, "limit", least=1) == 5
    assert instant_of(given_values, "at", NOW) == NOW + timedelta(minutes=30)
    assert flag_of(given_values, "only-ian")
    assert not flag_of(given_values, "only-stgcmt")
    assert text_of(given_values, "batch") is None
    for name, value in (("limit", "0"), ("limit", "1e3"), ("limit", "٣")):
        with pytest.raises(InvalidValueError):
            number_of({name: [value]}, name, least=1)
    with pytest.raises(InvalidValueError):
        text_of({"batch": ["a\x00b"]}, "batch")


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("20261121", "20261121", "20261121"),
        ("2026-11-21", "20261121", "20261121"),
        ("20261101-20261121", "20261101", "20261121"),
        ("20261101-", "20261101", None),
        ("-20261121", None, "20261121"),
    ],
)
def test_study_dates(text: str, since: str | None, until: str | None) -> None:
    found = study_filter({"StudyDate": [text], "PatientName": ["DOE*"]})

    assert (found.study_date_since, found.study_date_until) == (since, until)
    assert found.patient_name == "DOE"


@pytest.mark.parametrize("arguments", [{"StudyDate": ["today"]}, {"StudyInstanceUID": ["1.x"]}])
def test_unusable_study_filters_are_refused(arguments: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidValueError):
        study_filter(arguments)


def test_roles() -> None:
    roles = parse_roles(["anna:admin", "", "# comment", "otto:Operator", "a:b:viewer"])

    assert [roles.of(user) for user in ("anna", "otto", "a:b", "stranger")] == [
        Role.ADMIN,
        Role.OPERATOR,
        Role.VIEWER,
        Role.VIEWER,
    ]
    assert parse_roles(["*:operator"]).of("stranger") is Role.OPERATOR
    assert parse_roles([]).of("anybody") is Role.ADMIN
    with pytest.raises(InvalidValueError, match="'anna'"):
        parse_roles(["anna", "otto:operator"])


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("[::1]", True),
        ("x.localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - is not loopback
        ("localhost.evil.example", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local


@dataclass
class Request:
    """As much of a request as the origin is judged by."""

    host: str = "here:5555"
    headers: HTTPHeaders = field(default_factory=HTTPHeaders)


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://here:5555"}, True),
        ({"Origin": "http://here:5555"}, True),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "http://here:80"}, False),
        ({"Origin": "null"}, False),
    ],
)
def test_origins(headers: dict[str, str], allowed: bool) -> None:
    request: Any = Request(headers=HTTPHeaders(headers))
    if allowed:
        check_origin(request)
        return
    with pytest.raises(HTTPError):
        check_origin(request)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.6, "1 min 0 s"), (3600, "1 h 0 min"), (90061, "1 d 1 h"), (-5, "5 s")],
)
def test_spans(seconds: float, words: str) -> None:
    assert wording.span(seconds) == words


def test_words() -> None:
    assert wording.relative(NOW + timedelta(hours=1), NOW) == "in 1 h 0 min"
    assert wording.number(1234567) == "1\u202f234\u202f567"
    assert wording.query({"a": ["1", "2"], "b": ["x y"]}, b=None, c="é") == "a=1&a=2&c=%C3%A9"
    assert wording.hexadecimal(0xA700) == "A700H"


def test_charts_stay_inside_their_drawing() -> None:
    slices = [
        Slice("PACS", NOW - timedelta(seconds=120 * number), number + 1, number, 0.5, number)
        for number in range(30)
    ]

    drawn = chart(slices, NOW, since_s=3600, slice_s=120)

    assert (drawn.ended, drawn.failed, drawn.most) == (465, 435, 30)
    assert all(0 <= bar.x <= 600 and 0 <= bar.failed <= bar.height <= 100 for bar in drawn.bars)
    assert chart([], NOW, since_s=3600, slice_s=120).line == ""


def test_openapi_names_every_parameter_of_a_path() -> None:
    document = openapi(all_endpoints(), "/x")

    for path, operations in document["paths"].items():
        for operation in operations.values():
            inside = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert inside == {part.split("}")[0] for part in path.split("{")[1:]}
