"""JSON that people and other programs wrote: read strictly and within limits, with a name for what is wrong.

In: a text.  Out: its value, or `JsonFault`.  Cost: one parse; where brackets are many, a look at their depth before.

What Python takes beyond JSON is decided here: NaN and Infinity are the numbers of that name, as tables and Python write them; a
reader of rows takes the first for nothing, and no scale holds the second. A key that stands twice in one object is refused, since
either value may be meant.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

DEEPEST = 100
"""Objects and lists within each other: more is no row."""


class JsonFault(ValueError):  # noqa: N818 - named for what was seen
    """What is wrong with a text that should be JSON: "not-json", "too-deep" or "repeated-key", and what was seen."""

    def __init__(self, name: str, seen: str = "") -> None:
        super().__init__(f"{name}: {seen}" if seen else name)
        self.name = name


def read_json(text: str, *, constants: bool = True, deepest: int = DEEPEST) -> Any:
    """The value of a text; without `constants`, NaN and Infinity are faults. Raises JsonFault."""
    value, end = read_first(text, constants=constants, deepest=deepest)
    if text[end:].strip(_SPACE):
        raise JsonFault("not-json")
    return value


def read_first(text: str, *, constants: bool = True, deepest: int = DEEPEST) -> tuple[Any, int]:
    """The first value in a text, and where it ends. Raises JsonFault."""
    if text.count("[") + text.count("{") > deepest and _depth(text) > deepest:
        raise JsonFault("too-deep")
    try:
        return (_DECODER if constants else _PLAIN).raw_decode(text, len(text) - len(text.lstrip(_SPACE)))
    except JsonFault:
        raise
    except (ValueError, RecursionError) as error:
        raise JsonFault("not-json", str(error)) from None


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


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise JsonFault("repeated-key", f"the key {twice!r:.100} stands twice: leave one out")
    return found


_MARKS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)
_SPACE = " \t\r\n"
_CONSTANTS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _no_constant(word: str) -> Any:
    raise JsonFault("not-json", f"{word} is no number in JSON")


_PLAIN = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_CONSTANTS.__getitem__)
