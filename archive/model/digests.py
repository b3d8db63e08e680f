"""Digests of stored objects, written as ``algorithm:digits``: each tells how it was made.

So objects whose digest was made by another algorithm than today's can be verified all the same.
"""

import hashlib
from types import MappingProxyType
from typing import Final, Protocol

from blake3 import blake3

DEFAULT_DIGEST: Final = "blake3"
"""As safe as SHA-256, and four times as quick on processors with wide registers."""

DIGESTS: Final = MappingProxyType(
    {
        "BLAKE3": DEFAULT_DIGEST,
        "MD5": "md5",
        "SHA-1": "sha1",
        "SHA-256": "sha256",
        "SHA-384": "sha384",
        "SHA-512": "sha512",
    }
)
"""Algorithms by their names in dcmDigestAlgorithm."""


class Digest(Protocol):
    """A digest that is being made."""

    def update(self, data: bytes | memoryview, /) -> object:
        """Go on with more bytes."""
        ...

    def hexdigest(self) -> str:
        """Return the digest of the bytes so far, in hexadecimal digits."""
        ...


def new_digest(algorithm: str) -> Digest:
    """Return a digest of no bytes.

    Parameters
    ----------
    algorithm
        One of the values of `DIGESTS`.

    Raises
    ------
    ValueError
        When there is no such algorithm.
    """
    if algorithm == DEFAULT_DIGEST:
        return blake3()
    return hashlib.new(algorithm, usedforsecurity=False)
