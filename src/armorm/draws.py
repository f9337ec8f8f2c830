"""Chance that depends on texts alone: the same texts give the same numbers, in whatever order they come.

In: texts.  Out: a number of 64 bits, a generator.  Cost: one hash of the texts.
"""

from __future__ import annotations

import random
from hashlib import blake2b


def code_of(data: bytes) -> int:
    """Data as a number of 64 bits."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def draw_of(*texts: str) -> random.Random:
    """A generator for these texts; half a surrogate pair counts as a question mark."""
    return random.Random(blake2b("\0".join(texts).encode("utf-8", "replace"), digest_size=8).digest())
