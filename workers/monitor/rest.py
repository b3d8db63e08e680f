"""The frame of the REST interface: calls, replies, and the handler between them and HTTP.

Every endpoint is a function from a `Call` to a `Reply` that runs in a thread. Paths, verbs,
parameters, status codes and bodies are those of dcm4chee-arc-light.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from tornado.web import HTTPError
from typing_extensions import override

from archive.errors import InvalidValueError
from archive.model.task import FINAL_STATUSES, Task
from workers.monitor.handler import JsonHandler
from workers.monitor.parameters import Arguments, normalized
from workers.monitor.services import Services

WAIT_S = 3600.0
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter.

    Attributes
    ----------
    schema
        Its JSON schema.
    is_condition
        Whether it, and any other attribute of DICOM, restricts what is meant.
    """

    name: str
    description: str
    schema: Mapping[str, Any] = field(
        default_factory=lambda: {"type": "string", "pattern": "^[ -~]*$", "maxLength": 64}
    )
    required: bool = False
    is_condition: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A request to an endpoint.

    Attributes
    ----------
    path
        Values of the names in the path.
    queries
        Query parameters under their usual names.
    conditions
        All other query parameters, where such are taken.
    """

    services: Services
    actor: str
    path: Mapping[str, str]
    queries: Arguments
    body: bytes
    headers: Mapping[str, str]
    conditions: Arguments


@dataclass(frozen=True, slots=True)
class Reply:
    """What an endpoint answers.

    Attributes
    ----------
    json
        Body; None for none.
    text
        Instead of it: pieces of a text, none of them empty.
    warning
        Goes into the header Warning.
    """

    status: int = 200
    json: object = None
    text: Iterator[str] | None = None
    content_type: str = "application/json; charset=UTF-8"
    warning: str | None = None


Answer = Callable[[Call], Reply]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path and a verb, who answers, and how OpenAPI describes it.

    Attributes
    ----------
    path
        Below the prefix, with names in braces.
    statuses
        Status codes that it answers with, beside 401, 403 and 503.
    body
        Media type of what it takes; empty for nothing.
    """

    method: str
    path: str
    answer: Answer
    summary: str
    parameters: Sequence[Parameter] = ()
    statuses: Sequence[int] = (200,)
    body: str = ""


class RestHandler(JsonHandler):
    """Answers for all verbs of a path."""

    def initialize(self, endpoints: Mapping[str, Endpoint], names: Sequence[str]) -> None:
        """Take the endpoints by verb, none for a path that is none, and the names in it."""
        self._endpoints = endpoints
        self._names = names

    @property
    @override
    def executor(self) -> ThreadPoolExecutor:
        return self.services.rest_executor

    async def get(self, *values: str) -> None:
        """Answer a GET."""
        await self._answer(values)

    async def post(self, *values: str) -> None:
        """Answer a POST."""
        await self._answer(values)

    async def delete(self, *values: str) -> None:
        """Answer a DELETE."""
        await self._answer(values)

    async def _answer(self, values: Sequence[str]) -> None:
        endpoint = self._endpoints.get(self.request.method or "")
        if not self._endpoints:
            raise HTTPError(HTTPStatus.NOT_FOUND, "there is no such path; openapi.json lists all")
        if endpoint is None:
            self.set_header("Allow", ", ".join(sorted(self._endpoints)))
            raise HTTPError(HTTPStatus.METHOD_NOT_ALLOWED)
        known = {each.name for each in endpoint.parameters if not each.is_condition}
        queries = {name: values for name, values in self.queries.items() if name in known}
        takes_more = any(each.is_condition for each in endpoint.parameters)
        others = {name: values for name, values in self.queries.items() if name not in known}
        call = Call(
            services=self.services,
            actor=self.actor,
            path={name: _path_value(text) for name, text in zip(self._names, values, strict=True)},
            queries=normalized(queries) | _flags(queries),
            body=self.request.body,
            headers=dict(self.request.headers),
            conditions=others if takes_more else {},
        )
        await self._send(await self.run(endpoint.answer, call))

    async def _send(self, reply: Reply) -> None:
        if reply.warning:
            self.set_header("Warning", f'299 dicomq "{_header_text(reply.warning)}"')
        if reply.text is not None:
            self.set_header("Content-Type", reply.content_type)
            while piece := await self.run(next, reply.text, ""):
                self.write(piece)
                await self.flush()
        elif reply.json is None:
            self.set_status(reply.status)
        else:
            self.write_json(reply.json, reply.status)


def _flags(queries: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the parameters that are given without a value."""
    return {name: [""] for name, values in queries.items() if not any(map(str.strip, values))}


def _path_value(text: str) -> str:
    value = unquote(text)
    if not value.isprintable():
        msg = "the path contains characters that cannot be printed"
        raise InvalidValueError(msg)
    return value


def _header_text(text: str) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return printable.encode("ascii", "replace").decode().replace('"', "'")[:500]


def wait_for_end(call: Call, pk: int) -> Task:
    """Return a task once it has ended, or has to wait for another attempt.

    Raises
    ------
    NoSuchTaskError
        When it was deleted meanwhile.
    """
    clock = call.services.clock
    operations = call.services.operations(call.actor)
    end = clock.monotonic() + WAIT_S
    while True:
        task = operations.show(pk).task
        if task.status in FINAL_STATUSES or task.failures or clock.monotonic() > end:
            return task
        clock.sleep(POLL_S)
