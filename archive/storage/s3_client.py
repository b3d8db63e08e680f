"""The seam to botocore: the few requests that a storage makes, with every failure mapped once."""

import base64
import contextlib
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.session import Session

from archive.errors import ObjectUnreadableError, StorageError, StorageFullError
from archive.storage.s3_access import S3Access

_CONNECTIONS: Final = 64
_GONE: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_FULL: Final = frozenset(
    {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507", "ServiceQuotaExceeded"}
)
_REMEDIES: Final = {
    "NoSuchBucket": "create the bucket, or correct dcmURI",
    "AccessDenied": "give the identity the right to read, write, list and delete in the bucket",
    "403": "give the identity the right to read, write, list and delete in the bucket",
    "InvalidAccessKeyId": "correct the identity",
    "SignatureDoesNotMatch": "correct the identity or the credential",
    "RequestTimeTooSkewed": "set the clocks of both hosts",
}


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key with when it was written, and the server's time when it was listed."""

    key: str
    written: datetime
    listed: datetime

    @property
    def age_s(self) -> float:
        """Seconds since it was written, by the server's clock."""
        return (self.listed - self.written).total_seconds()


@dataclass(frozen=True, slots=True)
class Body:
    """An object, or the rest of it, that is being read.

    Attributes
    ----------
    size
        Bytes of the whole object.
    """

    stream: Any
    size: int
    etag: str


class S3Client:
    """Makes the requests of one storage. Safe to use from several threads."""

    def __init__(self, storage_id: str, access: S3Access) -> None:
        logging.getLogger("botocore").setLevel(logging.INFO)  # its details show signed requests
        self._storage_id = storage_id
        self._access = access
        self._s3 = _made(access)

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole; the server compares what it got with the MD5 that is sent.

        Raises
        ------
        StorageError
            When it was not written, or the server says that it wrote something else.
        """
        md5 = _md5(data)
        with self._translated(f"write {key}"):
            answer = self._s3.put_object(
                Bucket=self._access.bucket,
                Key=self._access.prefix + key,
                Body=data,
                ContentMD5=base64.b64encode(md5).decode(),
            )
        self._verify(key, answer, expected=md5.hex(), size=len(data))

    def put_parts(self, key: str, parts: Iterator[bytes]) -> None:
        """Write a large object part by part; it becomes visible with the last one.

        Raises
        ------
        StorageError
            As for `put`; no part is left behind unless the server cannot be reached.
        """
        where = {"Bucket": self._access.bucket, "Key": self._access.prefix + key}
        with self._translated(f"write {key}"):
            upload = self._s3.create_multipart_upload(**where)["UploadId"]
            try:
                done, sums, size = self._upload({**where, "UploadId": upload}, parts)
                answer = self._s3.complete_multipart_upload(
                    **where, UploadId=upload, MultipartUpload={"Parts": done}
                )
            except BaseException:
                with contextlib.suppress(BotoCoreError, ClientError):
                    self._s3.abort_multipart_upload(**where, UploadId=upload)
                raise
        expected = f"{_md5(sums).hex()}-{len(done)}"
        self._verify(key, answer, expected=expected, size=size)

    def _upload(
        self, where: dict[str, str], parts: Iterator[bytes]
    ) -> tuple[list[dict[str, Any]], bytes, int]:
        """Write the parts; return what completes them, their digests and their size."""
        done: list[dict[str, Any]] = []
        sums, size = b"", 0
        for number, part in enumerate(parts, start=1):
            md5 = _md5(part)
            answer = self._s3.upload_part(
                **where,
                PartNumber=number,
                Body=part,
                ContentMD5=base64.b64encode(md5).decode(),
            )
            done.append({"PartNumber": number, "ETag": answer["ETag"]})
            sums += md5
            size += len(part)
        return done, sums, size

    def _verify(self, key: str, answer: dict[str, Any], *, expected: str, size: int) -> None:
        """Check what the server says it wrote: its digest, or, if that is of another kind, size."""
        if str(answer.get("ETag", "")).strip('"').lower() == expected:
            return
        written = self.size(key)
        if written != size:
            msg = (
                f"storage {self._storage_id}: {key} has {written} bytes instead of {size}; it is "
                "not used, senders will try again"
            )
            raise StorageError(msg)

    def size(self, key: str) -> int:
        """Return the length of an object in bytes.

        Raises
        ------
        ObjectUnreadableError
            When there is none.
        StorageError
            When the server cannot say.
        """
        with self._translated(f"look at {key}"):
            where = {"Bucket": self._access.bucket, "Key": self._access.prefix + key}
            return int(self._s3.head_object(**where)["ContentLength"])

    def get(self, key: str, position: int = 0, etag: str | None = None) -> Body:
        """Begin to read an object, from `position` on.

        Parameters
        ----------
        etag
            What it must not have changed from.

        Raises
        ------
        ObjectUnreadableError, StorageError
            As for `size`.
        """
        options: dict[str, str] = {"Range": f"bytes={position}-"} if position else {}
        if etag:
            options["IfMatch"] = etag
        with self._translated(f"read {key}"):
            answer = self._s3.get_object(
                Bucket=self._access.bucket, Key=self._access.prefix + key, **options
            )
        size = position + int(answer["ContentLength"])
        return Body(answer["Body"], size, str(answer.get("ETag", "")))

    def delete(self, key: str) -> None:
        """Delete an object; one that is gone already is no error.

        Raises
        ------
        StorageError
            When the server cannot delete it.
        """
        with self._translated(f"delete {key}"):
            self._s3.delete_object(Bucket=self._access.bucket, Key=self._access.prefix + key)

    def keys(self, below: str) -> Iterator[ListedKey]:
        """Yield the keys that begin with `below`.

        Raises
        ------
        StorageError
            When the server cannot list them.
        """
        prefix = self._access.prefix
        with self._translated(f"list {below}"):
            pages = self._s3.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._access.bucket, Prefix=prefix + below):
                listed = _server_time(page)
                for each in page.get("Contents", ()):
                    written = each["LastModified"]
                    yield ListedKey(each["Key"][len(prefix) :], written, listed or written)

    def abort_uploads(self, older_than_s: float) -> tuple[str, ...]:
        """Give up uploads in parts that nobody goes on with; return their keys.

        Raises
        ------
        StorageError
            When the server cannot be asked.
        """
        given_up: list[str] = []
        where = {"Bucket": self._access.bucket}
        with self._translated("list unfinished uploads"), _if_implemented():
            pages = self._s3.get_paginator("list_multipart_uploads")
            for page in pages.paginate(**where, Prefix=self._access.prefix):
                now = _server_time(page)
                for each in page.get("Uploads", ()):
                    begun = each.get("Initiated")
                    if now and begun and (now - begun).total_seconds() >= older_than_s:
                        self._s3.abort_multipart_upload(
                            **where, Key=each["Key"], UploadId=each["UploadId"]
                        )
                        given_up.append(str(each["Key"]))
        return tuple(given_up)

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """Turn the errors of botocore into ours."""
        try:
            yield
        except ClientError as error:
            raise self._refusal(error, doing) from error
        except (BotoCoreError, HTTPClientError) as error:
            msg = (
                f"storage {self._storage_id}: cannot {doing}: {error}; check "
                f"{self._access.location} and the network, it will be tried again"
            )
            raise StorageError(msg) from error

    def _refusal(self, error: ClientError, doing: str) -> StorageError:
        details = error.response.get("Error", {})
        code = str(details.get("Code", ""))
        status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        text = f"storage {self._storage_id}: cannot {doing}: {code} {details.get('Message', '')}"
        if code in _GONE or (status == "404" and code not in _REMEDIES):
            return ObjectUnreadableError(f"{text.strip()} ({self._access.location})")
        if code in _FULL or status in _FULL:
            return StorageFullError(f"{text.strip()}; free or add space, senders will try again")
        remedy = _REMEDIES.get(code, f"check {self._access.location}")
        return StorageError(f"{text.strip()}; {remedy}, it will be tried again")


def _made(access: S3Access) -> Any:  # noqa: ANN401 - botocore makes its classes as it runs
    session = Session(profile=access.profile)
    if access.credentials_file:
        session.set_config_variable("credentials_file", access.credentials_file)
    return session.create_client(
        "s3",
        region_name=access.region or "us-east-1",
        endpoint_url=access.endpoint,
        verify=access.ca_file or None,
        aws_access_key_id=access.identity,
        aws_secret_access_key=access.credential,
        config=Config(
            signature_version="s3v4",
            connect_timeout=access.timeout_s,
            read_timeout=access.timeout_s,
            max_pool_connections=_CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": access.attempts},
            s3={"addressing_style": access.addressing},
            # the MD5 of each request does it, and servers other than AWS know nothing newer
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@contextlib.contextmanager
def _if_implemented() -> Iterator[None]:
    """Do without what some servers do not know."""
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != "NotImplemented":
            raise


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _server_time(answer: dict[str, Any]) -> datetime | None:
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date) if date else None
