"""Settings of a process: the only reader of the environment.

Everything that administrators of DICOM devices configure lies in the directory; the environment
says only where the directory, the ledger and the broker are and how this process works.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from types import MappingProxyType

from archive.errors import InvalidValueError

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_LOG_FORMATS = ("text", "json")


@dataclass(frozen=True, slots=True)
class Settings:
    """How this process is set up. Times are in seconds.

    Attributes
    ----------
    directory
        Path of an LDIF file, or URL of an LDAP server with the base DN, such as
        `ldap://ldap.example.org/dc=dcm4che,dc=org`; several URLs for servers that stand in for
        one another.
    bind_address
        Address on which the SCP listens instead of the configured one.
    ldap_ca_file
        Certificates trusted for `ldaps:`; None for those of the operating system.
    ldap_password_file
        File that holds the password instead of `ldap_password`; read for each connection.
    proxies
        Networks of balancers before the SCP that say whose connection they pass on.
    lease_s, heartbeat_s
        How long a claimed task belongs to a worker, and how often the worker renews the claim.
    poll_s
        Safety net for lost notifications.
    breaker_failures
        Connection failures in a row that pause a destination until it answers a C-ECHO; 0 never.
    association_idle_s
        How long an association to another AE stays open for the next task to use; 0 releases it
        at once.
    leading_wait_s
        How long an export or retrieve waits for the answer of a leading archive.
    retrieve_claim_s
        How long a C-MOVE waits for a retrieve worker to take it up, before it fails (A702).
    metrics_port
        Port on which a dispatcher or worker serves Prometheus metrics; None does not.
    metrics_address
        Address on which it does so.
    drain_s
        How long an SCP that is told to stop lets associations go on before it ends them.
    log_format
        `text` for people, `json` for programs: one object per line.
    variables
        The whole environment, for `${env.NAME}` in the directory.
    """

    database_url: str = field(default="postgresql:///dicomq", repr=False)
    redis_url: str = field(default="redis://localhost:6379/0", repr=False)
    data_dir: Path = Path("data")
    directory: str = "data/directory.ldif"
    device_name: str = "dcm4chee-arc"
    bind_address: str | None = None
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    lease_s: float = 20.0
    heartbeat_s: float = 5.0
    poll_s: float = 5.0
    breaker_failures: int = 3
    association_idle_s: float = 1.0
    leading_wait_s: float = 30.0
    retrieve_claim_s: float = 60.0
    log_level: str = "INFO"
    log_format: str = "text"
    metrics_port: int | None = None
    metrics_address: str = "127.0.0.1"
    drain_s: float = 0.0
    ldap_bind_dn: str | None = None
    ldap_password: str | None = field(default=None, repr=False)
    ldap_password_file: str | None = None
    ldap_ca_file: str | None = None
    ldap_start_tls: bool = False
    ldap_timeout_s: float = 5.0
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings from environment variables.

        Each variable may instead be given as the path of a file that holds its value, under its
        name with `_FILE` behind it: secrets then stand neither in the environment nor in a
        process list.

        Parameters
        ----------
        environ
            Variables to read; None for those of the process.

        Raises
        ------
        InvalidValueError
            When variables have values that cannot be used; the message names all of them.
        """
        return _read(cls, os.environ if environ is None else environ)

    @property
    def properties(self) -> Mapping[str, str]:
        """Values of `${name}` in the directory, beside the environment."""
        root = self.data_dir.resolve()
        return {
            "jboss.server.data.dir": str(root),
            "jboss.server.data.url": root.as_uri(),
            "dicomq.data": str(root),
        }


def _read(cls: type[Settings], environ: Mapping[str, str]) -> Settings:
    errors: list[str] = []
    values: dict[str, object] = {}
    for name, (attribute, convert) in _VARIABLES.items():
        try:
            if text := _text(environ, name):
                values[attribute] = convert(text)
        except ValueError as error:
            errors.append(f"{name}: {error}")
    if errors:
        msg = "environment variables cannot be used: " + "; ".join(errors)
        raise InvalidValueError(msg)
    data_dir = values.setdefault("data_dir", Path("data"))
    values.setdefault("directory", f"{data_dir}/directory.ldif")
    values["variables"] = MappingProxyType(dict(environ))
    return cls(**values)  # type: ignore[arg-type] # the table below pairs names and types


def _text(environ: Mapping[str, str], name: str) -> str:
    """Return the value of a variable, from the file that `<name>_FILE` names if that is set.

    Raises
    ------
    ValueError
        When both are set, or the file is empty or cannot be read.
    """
    text = environ.get(name, "").strip()
    path = environ.get(f"{name}_FILE", "").strip()
    if not path or f"{name}_FILE" in _VARIABLES:
        return text
    if text:
        msg = f"{name}_FILE is set as well; remove one of them"
        raise ValueError(msg)
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        msg = f"the file {path} that {name}_FILE names cannot be read: {error.strerror}"
        raise ValueError(msg) from error
    if not text:
        msg = f"the file {path} that {name}_FILE names is empty"
        raise ValueError(msg)
    return text


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def _pause(text: str) -> float:
    return 0.0 if text == "0" else _seconds(text)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86400:  # noqa: PLR2004 - a day
        msg = f"{text} is not between 0 and 86400 seconds"
        raise ValueError(msg)
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 1000:  # noqa: PLR2004 - more is a slip
        msg = f"{text} is not between 0 and 1000"
        raise ValueError(msg)
    return value


def _flag(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    msg = f"{text!r} is neither true nor false"
    raise ValueError(msg)


def _log_level(text: str) -> str:
    if text.upper() not in _LOG_LEVELS:
        msg = f"{text!r} is none of {', '.join(_LOG_LEVELS)}"
        raise ValueError(msg)
    return text.upper()


def _log_format(text: str) -> str:
    if text.lower() not in _LOG_FORMATS:
        msg = f"{text!r} is none of {', '.join(_LOG_FORMATS)}"
        raise ValueError(msg)
    return text.lower()


def _port(text: str) -> int:
    value = int(text)
    if not 0 < value <= 65535:  # noqa: PLR2004 - TCP
        msg = f"{text} is not a TCP port"
        raise ValueError(msg)
    return value


_VARIABLES: dict[str, tuple[str, Callable[[str], object]]] = {
    "DATABASE_URL": ("database_url", str),
    "REDIS_URL": ("redis_url", str),
    "DICOMQ_DATA": ("data_dir", Path),
    "DICOMQ_DIRECTORY": ("directory", str),
    "DICOMQ_DEVICE": ("device_name", str),
    "DICOMQ_BIND": ("bind_address", str),
    "DICOMQ_PROXIES": ("proxies", _networks),
    "DICOMQ_LEASE_S": ("lease_s", _seconds),
    "DICOMQ_HEARTBEAT_S": ("heartbeat_s", _seconds),
    "DICOMQ_POLL_S": ("poll_s", _seconds),
    "DICOMQ_BREAKER_FAILURES": ("breaker_failures", _count),
    "DICOMQ_ASSOCIATION_IDLE_S": ("association_idle_s", _pause),
    "DICOMQ_LEADING_WAIT_S": ("leading_wait_s", _seconds),
    "DICOMQ_RETRIEVE_CLAIM_S": ("retrieve_claim_s", _seconds),
    "DICOMQ_LOG_LEVEL": ("log_level", _log_level),
    "DICOMQ_LOG_FORMAT": ("log_format", _log_format),
    "DICOMQ_METRICS_PORT": ("metrics_port", _port),
    "DICOMQ_METRICS_ADDRESS": ("metrics_address", str),
    "DICOMQ_DRAIN_S": ("drain_s", _pause),
    "DICOMQ_LDAP_BIND_DN": ("ldap_bind_dn", str),
    "DICOMQ_LDAP_PASSWORD": ("ldap_password", str),
    "DICOMQ_LDAP_PASSWORD_FILE": ("ldap_password_file", str),
    "DICOMQ_LDAP_CA_FILE": ("ldap_ca_file", str),
    "DICOMQ_LDAP_START_TLS": ("ldap_start_tls", _flag),
    "DICOMQ_LDAP_TIMEOUT_S": ("ldap_timeout_s", _seconds),
}
