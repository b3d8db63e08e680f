"""Where an S3 storage is and how it is reached: from a dcmStorage entry, pure."""

import urllib.parse
from dataclasses import dataclass, field
from typing import Final, Protocol

from archive.errors import ConfigurationError
from archive.storage.filesystem import StorageDescriptor
from archive.storage.path_format import check_path

_PROPERTIES: Final = frozenset(
    {
        *("endpoint", "region", "addressing", "caFile", "timeout"),
        *("identity", "credential", "credentialsFile", "profile"),
    }
)
_ADDRESSING: Final = ("path", "virtual", "auto")
_DEFAULT_TIMEOUT_S: Final = 30.0
_DEFAULT_RETRIES: Final = 2
_MAX_TIMEOUT_S: Final = 300.0


class S3Descriptor(StorageDescriptor, Protocol):
    """The part of a dcmStorage entry that an S3 storage needs."""

    @property
    def properties(self) -> tuple[tuple[str, str], ...]:
        """The values of dcmProperty."""
        ...

    @property
    def max_retries(self) -> int:
        """The dcmMaxRetries; 0 takes the default."""
        ...

    @property
    def retry_delay_s(self) -> float | None:
        """The dcmRetryDelay, seconds."""
        ...


@dataclass(frozen=True, slots=True)
class S3Access:
    """How the objects of a storage are reached.

    Attributes
    ----------
    prefix
        What all keys begin with: empty, or ending with a slash.
    endpoint
        URL of the server; None for AWS.
    addressing
        Whether the bucket stands in the path or the host name of requests.
    identity, credential
        Access key and its secret; None for those of `credentials_file`, or where botocore looks.
    timeout_s
        Seconds for connecting, and for each wait for data.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    addressing: str = "auto"
    ca_file: str | None = None
    timeout_s: float = _DEFAULT_TIMEOUT_S
    attempts: int = 1 + _DEFAULT_RETRIES
    retry_delay_s: float = 1.0
    identity: str | None = None
    credential: str | None = field(default=None, repr=False)
    credentials_file: str | None = None
    profile: str | None = None

    @property
    def location(self) -> str:
        """Where the storage is, for messages."""
        return f"bucket {self.bucket} at {self.endpoint or 'AWS'}"


def access_of(descriptor: S3Descriptor) -> S3Access:
    """Return how an S3 storage is reached.

    Raises
    ------
    ConfigurationError
        When dcmURI or a dcmProperty cannot be used.
    """
    bucket, prefix = _bucket_and_prefix(descriptor)
    properties = dict(descriptor.properties)
    unknown = sorted(properties.keys() - _PROPERTIES)
    if unknown:
        raise _wrong(descriptor, f"dcmProperty {unknown[0]} is none of {_listed(_PROPERTIES)}")
    if ("identity" in properties) != ("credential" in properties):
        raise _wrong(descriptor, "dcmProperty identity and credential go together")
    endpoint = properties.get("endpoint")
    return S3Access(
        bucket=bucket,
        prefix=prefix,
        endpoint=_endpoint(descriptor, endpoint) if endpoint else None,
        region=properties.get("region"),
        addressing=_addressing(descriptor, properties.get("addressing"), endpoint),
        ca_file=properties.get("caFile"),
        timeout_s=_timeout_s(descriptor, properties.get("timeout")),
        attempts=1 + (descriptor.max_retries or _DEFAULT_RETRIES),
        retry_delay_s=descriptor.retry_delay_s or 1.0,
        identity=properties.get("identity"),
        credential=properties.get("credential"),
        credentials_file=properties.get("credentialsFile"),
        profile=properties.get("profile"),
    )


def _bucket_and_prefix(descriptor: S3Descriptor) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(descriptor.uri)
    prefix = parts.path.strip("/")
    if parts.scheme != "s3" or not parts.netloc or "${" in descriptor.uri or parts.query:
        msg = f"dcmURI {descriptor.uri!r} is not a usable s3: URI, for example s3://bucket/prefix"
        raise _wrong(descriptor, msg)
    try:
        return parts.netloc, f"{check_path(prefix)}/" if prefix else ""
    except ValueError as error:
        raise _wrong(descriptor, f"dcmURI: {error}") from error


def _endpoint(descriptor: S3Descriptor, endpoint: str) -> str:
    parts = urllib.parse.urlsplit(endpoint)
    if parts.scheme in {"http", "https"} and parts.netloc and "@" not in parts.netloc:
        return endpoint
    msg = "dcmProperty endpoint is no URL such as https://s3.example.org:9000"
    raise _wrong(descriptor, msg)


def _addressing(descriptor: S3Descriptor, value: str | None, endpoint: str | None) -> str:
    if value is None:
        return "path" if endpoint else "auto"
    if value in _ADDRESSING:
        return value
    raise _wrong(descriptor, f"dcmProperty addressing={value} is none of {_listed(_ADDRESSING)}")


def _timeout_s(descriptor: S3Descriptor, value: str | None) -> float:
    if value is None:
        return _DEFAULT_TIMEOUT_S
    try:
        timeout_s = float(value)
    except ValueError:
        timeout_s = 0.0
    if 0 < timeout_s <= _MAX_TIMEOUT_S:
        return timeout_s
    raise _wrong(descriptor, f"dcmProperty timeout={value} is no time of up to 300 seconds")


def _listed(names: frozenset[str] | tuple[str, ...]) -> str:
    return ", ".join(sorted(names))


def _wrong(descriptor: S3Descriptor, what: str) -> ConfigurationError:
    return ConfigurationError(f"storage {descriptor.storage_id}: {what}")
