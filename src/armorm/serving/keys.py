"""API keys: where they come from, where a request carries one, and whether it is one of them.

In: an environment variable's name or a file; a request's headers and query.  Out: `Keys`.
Cost: a hash a request; the comparison takes the same time whatever is sent.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qsl

from armorm.errors import DataError
from armorm.user_files import open_file

IN_URL = "api_key"
LEAST = 8
LARGEST_FILE = 2**16


@dataclass(frozen=True)
class Keys:
    """The digests of the keys that open a server; without any, it is open."""

    digests: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, keys: Iterable[str]) -> Keys:
        """Of the keys themselves. Raises DataError for one that is too short, or that no header can carry."""
        found = list(keys)
        if wrong := [key for key in found if len(key) < LEAST or not (key.isascii() and key.isprintable()) or " " in key]:
            raise DataError(
                f"{len(wrong)} of {len(found)} API keys can't be used: a key has {LEAST} letters, digits or signs at least"
            )
        return cls(tuple(map(_digest, (key.encode() for key in found))))

    @classmethod
    def read(cls, environment: str | None = None, file: Path | None = None) -> Keys:
        """From an environment variable and from a file with one key a line. Raises DataError where what is named holds none."""
        keys: list[str] = []
        if environment is not None:
            if not (value := os.environ.get(environment, "").strip()):
                raise DataError(f"the environment variable {environment} holds no API key: set it, or name another one")
            keys.append(value)
        if file is not None:
            with open_file(file) as opened:
                lines = opened.read(LARGEST_FILE).decode("utf-8", "replace").split("\n")
            found = [line.strip() for line in lines if line.strip()]
            if not found:
                raise DataError(f"{file}: holds no API key: write one a line")
            keys += found
        return cls.of(keys)

    def __bool__(self) -> bool:
        return bool(self.digests)

    def admit(self, headers: Iterable[tuple[bytes, bytes]], query: bytes) -> bool:
        """Whether a request carries a key: as `Authorization: Bearer`, as `X-API-Key`, or in the URL as `api_key`."""
        if not self.digests:
            return True
        given = [_digest(key) for key in _carried(headers, query)]
        return sum(hmac.compare_digest(one, known) for one in given for known in self.digests) > 0  # all are compared


def _carried(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> list[bytes]:
    # At most one of each kind, so that a request tries three keys at most.
    found: dict[str, bytes] = {}
    for name, value in headers:
        kind, _, key = value.partition(b" ")
        if name == b"authorization" and kind.lower() == b"bearer":
            found["bearer"] = key.strip()
        elif name == b"x-api-key":
            found["header"] = value.strip()
    for name_, value_ in parse_qsl(query.decode("latin-1")):
        if name_ == IN_URL:
            found["url"] = value_.encode("utf-8", "surrogatepass")
    return list(found.values())


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()
