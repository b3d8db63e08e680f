"""The REST interface: all its endpoints, and their OpenAPI document."""

import re
from collections.abc import Iterable
from functools import partial
from typing import Any

from tornado.routing import URLSpec
from tornado.web import url

from archive.model.task import TaskKind
from workers.monitor.rest import Call, Endpoint, Reply, RestHandler
from workers.monitor.rest_exports import export_endpoints
from workers.monitor.rest_lists import list_endpoints
from workers.monitor.rest_retrieves import retrieve_endpoints
from workers.monitor.rest_tasks import task_endpoints

_NAME = re.compile(r"\{(\w+)\}")
_ALWAYS = {401: "Not logged in", 403: "Not allowed", 503: "PostgreSQL cannot be reached"}
_MEANINGS = {
    200: "Done",
    202: "Accepted",
    204: "Done, nothing to say",
    206: "Done in part",
    400: "A value cannot be used",
    404: "Something named does not exist",
    406: "No such form of answer",
    409: "Not possible in the present status",
    413: "More matches than may be ordered at once",
    502: "The other system refused or could not be reached",
}
_UID = {"type": "string", "pattern": r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*$", "maxLength": 64}
_ERROR = {
    "type": "object",
    "properties": {"errorMessage": {"type": "string"}},
}


def all_endpoints() -> list[Endpoint]:
    """Return every endpoint; of two that match the same path the earlier one answers."""
    return [
        *list_endpoints(),
        *task_endpoints("/monitor/export", TaskKind.EXPORT),
        *task_endpoints("/monitor/retrieve", TaskKind.RETRIEVE),
        *task_endpoints("/queue/{queueName}", None),
        *retrieve_endpoints(),
        *export_endpoints(),
    ]


def rest_routes(prefix: str, root: str = "") -> list[URLSpec]:
    """Return the handlers of the REST interface below `prefix`.

    Parameters
    ----------
    root
        Flower's own `--url_prefix`, which clients see before ours.
    """
    endpoints = all_endpoints()
    document = partial(_document, openapi(endpoints, f"{root}{prefix}"))
    endpoints.append(Endpoint("GET", "/openapi.json", document, "This document"))
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    in_order = sorted(by_path, key=_names_last)
    routes = [
        url(
            f"{re.escape(prefix)}{_expression(path)}",
            RestHandler,
            {"endpoints": by_path[path], "names": _NAME.findall(path)},
        )
        for path in in_order
    ]
    anything_else: dict[str, Any] = {"endpoints": {}, "names": ()}
    return [*routes, url(rf"{re.escape(prefix)}(?:/.*)?", RestHandler, anything_else)]


def _names_last(path: str) -> list[bool]:
    """Sort paths so that words go before names at the same place."""
    return [segment.startswith("{") for segment in path.split("/")]


def _expression(path: str) -> str:
    parts = _NAME.split(path)
    return "".join(r"([^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts))


def _document(document: dict[str, Any], _call: Call) -> Reply:
    return Reply(json=document)


def openapi(endpoints: Iterable[Endpoint], prefix: str) -> dict[str, Any]:
    """Return the OpenAPI document of some endpoints."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operations = paths.setdefault(endpoint.path, {})
        operations[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.0.3",
        "info": {"title": "dicomq", "version": "1", "description": "As dcm4chee-arc-light's."},
        "servers": [{"url": prefix}],
        "paths": paths,
        "components": {"securitySchemes": {"basic": {"type": "http", "scheme": "basic"}}},
        "security": [{"basic": []}, {}],
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    names = _NAME.findall(endpoint.path)
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": _path(name)}
                for name in names
            ),
            *(
                {
                    "name": each.name,
                    "in": "query",
                    "required": each.required,
                    "description": each.description,
                    "schema": dict(each.schema),
                }
                for each in endpoint.parameters
            ),
        ],
        "responses": {
            str(status): _response(status) for status in sorted({*endpoint.statuses, *_ALWAYS})
        },
    }
    if endpoint.body:
        content = {endpoint.body: {"schema": {"type": "string"}}}
        operation["requestBody"] = {"content": content}
    return operation


def _path(name: str) -> dict[str, Any]:
    if name in {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"}:
        return _UID
    if name in {"taskID", "column", "seriesColumn"}:
        return {"type": "integer", "minimum": 1, "maximum": 9999}
    return {"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9_.-]+$", "maxLength": 16}


def _response(status: int) -> dict[str, Any]:
    meaning = _MEANINGS.get(status) or _ALWAYS[status]
    if status == 204:  # noqa: PLR2004 - has no body
        return {"description": meaning}
    if status >= 400 and status not in {409, 502}:  # noqa: PLR2004 - errors
        return {"description": meaning, "content": {"application/json": {"schema": _ERROR}}}
    content: dict[str, Any] = {"application/json": {"schema": {}}}
    if status == 200:  # noqa: PLR2004 - lists
        content["text/csv"] = {"schema": {"type": "string"}}
    return {"description": meaning, "content": content}
