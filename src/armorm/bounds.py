"""What a setting may be: one type for each meaning, with the bounds in which the number means something.

In: plain values from recipes, profiles, judges, code.  Out: annotated types for pydantic; sentences about what is out of bounds.

Every float here is finite and every whole number is one that NumPy and torch take. A name that becomes a folder or a file is one
part of a path.
"""

from __future__ import annotations

import math
import re
import unicodedata
from numbers import Real
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictInt

from armorm.limits import MOST_ROWS, MOST_TOKENS

WEAKEST, STRONGEST = 1e-12, 1e15
"""Of a ridge."""
COLDEST, HOTTEST = 1e-6, 1e6
"""Of a softmax's temperature: between them, logits stay numbers in float32."""
STEEPEST = 1e12
"""Of β, and of a factor on a gate's weights."""
FURTHEST = 1e12
"""From 0, of any number."""
LONGEST_NAME = 100
"""Bytes of a name: a file system takes 255, and names get keys and endings of ours."""
LONGEST_SEEN = 100
"""Letters of a value that an error shows."""
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)

Finite = Annotated[float, Field(ge=-FURTHEST, le=FURTHEST, allow_inf_nan=False)]
"""A number, of whatever meaning."""
Magnitude = Annotated[float, Field(ge=0, le=FURTHEST, allow_inf_nan=False)]
"""A size: 0 or more."""
Factor = Annotated[float, Field(gt=0, le=FURTHEST, allow_inf_nan=False)]
"""What something is multiplied with: above 0."""
Weight = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A part of a whole, the whole included."""
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
"""A part of a whole that leaves something."""
Strength = Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(lambda given: strength(given))]
"""Of a ridge, see `strength`."""
Rate = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
"""A learning rate."""
Decay = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
"""A weight decay."""
Seconds = Annotated[float, Field(ge=0.001, le=1e6, allow_inf_nan=False)]
"""A time to wait: up to eleven days."""
PerMinute = Annotated[float, Field(ge=1e-3, le=1e9, allow_inf_nan=False)]
"""How often something may happen."""
Price = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
"""In US dollars."""

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What NumPy, torch and scikit-learn all take as a seed."""
Count = Annotated[int, Field(ge=0, le=MOST_ROWS)]
"""So many of something, or none."""
Rows = Annotated[int, Field(ge=1, le=MOST_ROWS)]
"""So many rows, items or steps: 1 or more."""
Tokens = Annotated[int, Field(ge=16, le=MOST_TOKENS)]
"""Tokens of a conversation."""
BatchTokens = Annotated[int, Field(ge=64, le=MOST_TOKENS)]
"""Tokens of a batch."""

Size = Annotated[StrictInt, Field(ge=1, le=2**31)]
"""A size in a model's config.json."""
TokenId = Annotated[StrictInt, Field(ge=0, le=2**31)]
"""A token's number there."""


def strength(given: float) -> float:
    """A ridge's strength. Raises ValueError for one that is lost beside rounding, or that leaves no weight."""
    if not WEAKEST <= given <= STRONGEST:
        raise ValueError(f"a strength from {WEAKEST:g} to {STRONGEST:g} is wanted: outside, all is rounding")
    return given


def name_fault(name: str) -> str:
    """Why a name can't be that of a folder or a file ("" where it can)."""
    if not name.strip():
        return "a name is empty: give it letters"
    if name != name.strip():
        return "a name has white space at its ends: take it away"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return "a name has control characters or half a letter in it: leave them out"
    if name in (".", "..") or "/" in name or "\\" in name:
        return "a name is one part of a path: leave out / and \\, and don't call it . or .."
    if (size := len(name.encode())) > LONGEST_NAME:
        return f"a name has {size} bytes: give one of at most {LONGEST_NAME}"
    return ""


def _named(name: str) -> str:
    if fault := name_fault(name):
        raise ValueError(fault)
    return name


Name = Annotated[str, AfterValidator(_named)]
"""What becomes the name of a folder or a file."""


def finite(value: Any) -> float:
    """A number as a float; NaN, which is within no bounds, for anything else, an infinite one too."""
    return float(value) if is_finite(value) else math.nan


def plain_number(text: str) -> float:
    """The number that a text writes in digits, such as -1.5 or 2e3. Raises ValueError for "1_0", "nan", "½" and the like."""
    if not _PLAIN_NUMBER.fullmatch(text.strip()):
        raise ValueError(f"{shown(text)} is no number")
    return float(text)


def is_finite(value: Any) -> bool:
    """Whether this is a number, neither NaN nor infinite, and no bool."""
    try:
        return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def shown(value: Any) -> str:
    """A value as an error shows it: cut in the middle where it is long, one line, letters that any terminal prints."""
    if isinstance(value, str | bytes | list | tuple | dict) and len(value) > LONGEST_SEEN:
        if not isinstance(value, str | bytes):
            return f"a {type(value).__name__} of {len(value):,}"
        return f"{_printed(value[: LONGEST_SEEN // 2])} … ({len(value):,} letters)"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"a number of about {int(value.bit_length() * 0.30103) + 1:,} digits"
    text = _printed(value)
    return text if len(text) <= 2 * LONGEST_SEEN else text[: 2 * LONGEST_SEEN - 1] + "…"


def readable(said: str) -> str:
    """A sentence in which words without end, and the whole, are cut: it may repeat a value of a megabyte."""
    cut = re.sub(r"\S{200,}", lambda word: f"{word[0][: LONGEST_SEEN - 1]}…", said[: 100 * LONGEST_SEEN])
    return cut if len(cut) <= 20 * LONGEST_SEEN else cut[: 20 * LONGEST_SEEN - 1] + "…"


def _printed(value: Any) -> str:
    try:
        return repr(value).encode("utf-8", "backslashreplace").decode()
    except (ValueError, RecursionError):  # a number of more digits than Python prints, a list in itself
        return f"a {type(value).__name__}"
