"""Bases of our handlers: checks, threads, errors and headers."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, TypeVar

from flower.views import BaseHandler
from tornado.web import HTTPError
from typing_extensions import override

from archive.errors import (
    ConfigurationError,
    DatasetError,
    DicomqError,
    IllegalTransitionError,
    InvalidValueError,
    LedgerUnavailableError,
    NoSuchTaskError,
    PeerError,
)
from workers.monitor import wording
from workers.monitor.access import (
    OWN_HEADERS,
    SAFE_METHODS,
    Role,
    check_host,
    check_origin,
    check_role,
    user_of,
)
from workers.monitor.services import Services
from workers.operations import UnknownNameError

LOGGER = logging.getLogger(__name__)
T = TypeVar("T")
Arguments = dict[str, list[str]]

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none';"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",
    **OWN_HEADERS,
}


class NotFoundError(DicomqError):
    """Something that a request names does not exist."""


class NotAcceptableError(DicomqError):
    """A client wants an answer in a form that there is not."""


class TooManyError(DicomqError):
    """More matches than may be ordered at once."""


_STATUSES: tuple[tuple[type[DicomqError], HTTPStatus], ...] = (
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (NotAcceptableError, HTTPStatus.NOT_ACCEPTABLE),
    (TooManyError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (DatasetError, HTTPStatus.BAD_REQUEST),
    (UnknownNameError, HTTPStatus.NOT_FOUND),
    (NoSuchTaskError, HTTPStatus.NOT_FOUND),
    (IllegalTransitionError, HTTPStatus.CONFLICT),
    (InvalidValueError, HTTPStatus.BAD_REQUEST),
    (LedgerUnavailableError, HTTPStatus.SERVICE_UNAVAILABLE),
    (PeerError, HTTPStatus.BAD_GATEWAY),
    (ConfigurationError, HTTPStatus.NOT_FOUND),
)


def status_of(error: DicomqError) -> HTTPStatus:
    """Return the HTTP status that tells an error."""
    return next(
        (status for kind, status in _STATUSES if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )


class Handler(BaseHandler):
    """What all our handlers have in common.

    Attributes
    ----------
    change_role
        Role that a change needs; looking needs a viewer.
    """

    change_role = Role.OPERATOR

    @property
    def services(self) -> Services:
        """What the handlers work with."""
        services: Services = self.settings["dicomq"]
        return services

    def set_default_headers(self) -> None:
        """Set the security headers of every answer."""
        super().set_default_headers()
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Check host, login, role and origin of a request.

        Raises
        ------
        HTTPError
            When one of them forbids it.
        """
        check_host(self.request, self.application.options)
        is_change = self.request.method not in SAFE_METHODS
        if is_change:
            check_origin(self.request)
        if not self.current_user and self._send_to_login():
            return
        check_role(self, self.services.roles, self.change_role if is_change else Role.VIEWER)

    def _send_to_login(self) -> bool:
        return False

    def check_xsrf_cookie(self) -> None:
        """Leave it to `prepare`, which runs for every kind of login."""

    @property
    def executor(self) -> ThreadPoolExecutor:
        """Threads in which it waits."""
        return self.services.executor

    @property
    def actor(self) -> str:
        """Who asks, for the history."""
        return f"{user_of(self)}@{self.request.remote_ip} (Flower)"

    @property
    def role(self) -> Role:
        """What the user may do."""
        if self.application.options.read_only:
            return Role.VIEWER
        return self.services.roles.of(user_of(self))

    @property
    def queries(self) -> Arguments:
        """Parameters in the address, as text.

        Raises
        ------
        HTTPError
            400 when one is not UTF-8.
        """
        return {
            name: [self.decode_argument(value, name) for value in values]
            for name, values in self.request.query_arguments.items()
        }

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Do what waits in a thread, and return its result."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, work, *arguments)

    def body_json(self) -> dict[str, Any]:
        """Return the JSON object of the body.

        Raises
        ------
        InvalidValueError
            When it is none.
        """
        try:
            value = json.loads(self.request.body or b"{}")
        except ValueError as error:
            msg = f"the body is not JSON: {error}"
            raise InvalidValueError(msg) from error
        if not isinstance(value, dict):
            msg = "the body is not a JSON object"
            raise InvalidValueError(msg)
        return value

    def write_json(self, value: object, status: int = 200) -> None:
        """Answer with JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.write(json.dumps(value, ensure_ascii=False))

    def log_exception(self, *details: Any) -> None:  # noqa: ANN401 - tornado's own
        """Log defects of ours whole, what is unavailable in a line, what was asked wrongly not."""
        error = details[1]
        if not isinstance(error, DicomqError):
            super().log_exception(*details)
        elif status_of(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
            LOGGER.warning("%s %s: %s", self.request.method, self.request.path, error)

    def problem(self, status: int, details: Mapping[str, Any]) -> tuple[int, str]:
        """Return status and message of an error, without what concerns nobody but us."""
        error = details.get("exc_info", (None, None))[1]
        if isinstance(error, DicomqError):
            return status_of(error), str(error)
        if isinstance(error, HTTPError):
            return status, str(error.log_message or error.reason or HTTPStatus(status).phrase)
        return status, HTTPStatus(status).phrase


class JsonHandler(Handler):
    """Answers with JSON, errors too."""

    def write_error(self, status_code: int, **details: Any) -> None:  # noqa: ANN401 - tornado's own
        """Answer with the reason as ``errorMessage``."""
        status, message = self.problem(status_code, details)
        if status == HTTPStatus.UNAUTHORIZED:
            self.set_header("WWW-Authenticate", 'Basic realm="flower"')
        self.write_json({"errorMessage": message}, status)
        self.finish()


class PageHandler(Handler):
    """Answers with a page, or with the part of it that is live.

    Attributes
    ----------
    template
        Its name; the live part is the template of that name with ``_live``.
    tab
        Which entry of the navigation bar is active.
    is_live
        Whether it has a live part.
    """

    template = ""
    tab = ""
    is_live = True

    @override
    def _send_to_login(self) -> bool:
        if self.request.method not in SAFE_METHODS:
            return False
        self.redirect(self.get_login_url())
        return True

    async def get(self, *names: str) -> None:
        """Answer with the page."""
        content = await self.run(self.load, *names)
        part = self.is_live and self.request.headers.get("X-Part")
        template = self.template.replace(".html", "_live.html") if part else self.template
        self.set_header("Vary", "X-Part")
        self.show(template, **content)

    def load(self, *names: str) -> dict[str, Any]:
        """Return what the template shows; runs in a thread."""
        raise NotImplementedError

    def show(self, template: str, **content: Any) -> None:  # noqa: ANN401 - what templates take
        """Answer with a template."""
        self.render(
            f"dicomq/{template}",
            ui=wording,
            tab=self.tab,
            may_change=self.role >= Role.OPERATOR,
            now=self.services.clock.now(),
            **content,
        )

    def write_error(self, status_code: int, **details: Any) -> None:  # noqa: ANN401 - tornado's own
        """Answer with a page that says what is wrong and what to do."""
        status, message = self.problem(status_code, details)
        if status == HTTPStatus.UNAUTHORIZED:
            self.set_status(status)
            self.set_header("WWW-Authenticate", 'Basic realm="flower"')
            self.finish("Access denied")
            return
        self.set_status(status)
        try:
            self.render(
                "dicomq/problem.html",
                ui=wording,
                tab=self.tab,
                message=message,
                status=status,
                may_change=False,
            )
        except (HTTPError, OSError):
            self.finish(message)
