"""JSON that people and other programs wrote: read strictly and within limits, with a name for what is wrong.

In: a text.  Out: its value, or `JsonFault`.  Cost: one parse; where brackets are many, a look at their depth before, and where
values may be too many for a reader, a look at their number.

What Python takes beyond JSON is decided here: NaN and Infinity are the numbers of that name, as tables and Python write them; a
reader of rows takes the first for nothing, and no scale holds the second. A key that stands twice in one object is refused, since
either value may be meant.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

DEEPEST = 100
"""Objects and lists within each other: more is no row."""


class JsonFault(ValueError):  # noqa: N818 - named for what was seen
    """What is wrong with a text that should be JSON, and what was seen.

    "not-json", "too-deep", "repeated-key"; "too-many-values" and "too-many-keys" where a reader bounds them.
    """

    def __init__(self, name: str, seen: str = "") -> None:
        super().__init__(f"{name}: {seen}" if seen else name)
        self.name = name


@dataclass(frozen=True)
class Most:
    """How many values a text may hold, an empty list or object counting twice, and how many keys one object."""

    values: int
    keys: int


def read_json(text: str, *, constants: bool = True, deepest: int = DEEPEST, most: Most | None = None) -> Any:
    """The value of a text; without `constants`, NaN and Infinity are faults. Raises JsonFault."""
    if most is not None and (seen := _values(text, most.values)) > most.values:
        raise JsonFault("too-many-values", f"it holds {seen:,} values, and may hold {most.values:,}")
    value, end = read_first(text, constants=constants, deepest=deepest, keys=None if most is None else most.keys)
    if text[end:].strip(_SPACE):
        raise JsonFault("not-json")
    return value


def read_first(text: str, *, constants: bool = True, deepest: int = DEEPEST, keys: int | None = None) -> tuple[Any, int]:
    """The first value in a text, and where it ends. Raises JsonFault."""
    if text.count("[") + text.count("{") > deepest and _depth(text) > deepest:
        raise JsonFault("too-deep")
    try:
        return _decoder(constants, keys).raw_decode(text, len(text) - len(text.lstrip(_SPACE)))
    except JsonFault:
        raise
    except (json.JSONDecodeError, RecursionError) as error:
        raise JsonFault("not-json", str(error)) from None
    except ValueError:  # Python's own words for it name a switch of the interpreter's
        told = f"a whole number has more than the {sys.get_int_max_str_digits():,} digits that are read: shorten it"
        raise JsonFault("not-json", told) from None


def _values(text: str, most: int) -> int:
    # At least as many as there are; exact, but for what is empty, where the signs in texts would make too many of them.
    seen = _marked(text)
    return seen if seen <= most else _marked(_TEXT.sub("", text))


def _marked(text: str) -> int:
    return 1 + sum(map(text.count, ",[{"))


def _depth(text: str) -> int:
    # How many brackets are open at most, those in strings aside.
    depth = deepest = 0
    for found in _MARKS.finditer(text):
        if (mark := found[0][0]) in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark != '"':
            depth -= 1
    return deepest


def _unique(keys: int | None, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if keys is not None and len(pairs) > keys:
        raise JsonFault("too-many-keys", f"an object has {len(pairs):,} keys, and may have {keys:,}")
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set[str]()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise JsonFault("repeated-key", f"the key {twice!r:.100} stands twice: leave one out")
    return found


_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
"""A text, or what stands behind a quotation mark that is never closed: looked at once, wherever it ends."""
_TEXT = re.compile(_STRING, re.DOTALL)
_MARKS = re.compile(_STRING + r"|[\[\]{}]", re.DOTALL)
_SPACE = " \t\r\n"
_CONSTANTS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _no_constant(word: str) -> Any:
    raise JsonFault("not-json", f"{word} is no number in JSON")


@cache
def _decoder(constants: bool, keys: int | None) -> json.JSONDecoder:
    constant: Callable[[str], Any] = _CONSTANTS.__getitem__ if constants else _no_constant
    return json.JSONDecoder(object_pairs_hook=partial(_unique, keys), parse_constant=constant)
