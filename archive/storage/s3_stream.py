"""An object of an S3 storage, read as a file: one request for all of it, ranges to go on."""

import contextlib
import io
import os
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, HTTPClientError
from typing_extensions import override

from archive.clock import Clock
from archive.errors import StorageError
from archive.storage.s3_client import S3Client

if TYPE_CHECKING:
    from typing_extensions import Buffer

_SKIPPED: Final = 1 << 16
"""Up to so many bytes are read over instead of asked around."""


class S3Stream(io.RawIOBase):
    """A stored object, open for reading; nothing of it is kept in memory.

    A connection that breaks is replaced by another one that goes on where it broke.

    Raises
    ------
    ObjectUnreadableError
        When there is no such object.
    StorageError
        When the server cannot be reached; reading raises it as well.
    """

    def __init__(
        self, client: S3Client, key: str, *, attempts: int, delay_s: float, clock: Clock
    ) -> None:
        super().__init__()
        self._client = client
        self._key = key
        self._attempts = attempts
        self._delay_s = delay_s
        self._clock = clock
        body = client.get(key)
        self._stream = body.stream
        self._size = body.size
        self._etag = body.etag
        self._at = 0
        self._wanted = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def tell(self) -> int:
        return self._wanted

    @override
    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._wanted, os.SEEK_END: self._size}[whence]
        self._wanted = max(0, begin + offset)
        return self._wanted

    @override
    def readinto(self, buffer: "Buffer", /) -> int:
        view = memoryview(buffer).cast("B")
        size = min(len(view), self._size - self._wanted)
        if size <= 0:
            return 0
        data = self._read(size)
        view[: len(data)] = data
        self._wanted += len(data)
        return len(data)

    @override
    def close(self) -> None:
        if not self.closed:
            self._drop()
        super().close()

    def _read(self, size: int) -> bytes:
        """Return at least one and up to `size` bytes from the wanted position on."""
        attempt = 0
        while True:
            attempt += 1
            try:
                self._go_to()
                if data := self._take(size):
                    return data
                reason = "the connection ended early"
            except (BotoCoreError, HTTPClientError, OSError) as error:
                reason = str(error)
            self._drop()
            if attempt == self._attempts:
                msg = (
                    f"{self._key} cannot be read on from byte {self._wanted}: {reason}; it will be "
                    "tried again"
                )
                raise StorageError(msg)
            self._clock.sleep(self._delay_s)

    def _go_to(self) -> None:
        """Have the open request stand at the wanted position, or open another one there."""
        ahead = self._wanted - self._at
        if self._stream is not None and 0 <= ahead <= _SKIPPED:
            while self._at < self._wanted and self._take(self._wanted - self._at):
                pass
        if self._stream is None or self._at != self._wanted:
            self._drop()
            self._stream = self._client.get(self._key, self._wanted, self._etag).stream
            self._at = self._wanted

    def _take(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        self._at += len(data)
        return data

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(BotoCoreError, HTTPClientError, OSError):
                stream.close()
