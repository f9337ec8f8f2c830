"""What one cell of a raw row holds: nothing, a number, or JSON text of a list or of messages.

In: a value as its file has it.  Out: plain numbers and lists.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

from armorm.user_json import JsonFault, read_json

NOT_AVAILABLE = frozenset({"n/a", "na", "nan", "none", "null"})
"""How sets write that there is no value, letter case aside."""
_NUMBER = re.compile(
    r"\s*[+-]?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?|inf|infinity|nan)\s*", re.IGNORECASE
)
_TRUTHS = {"true": 1.0, "false": 0.0}


def is_nothing(value: Any) -> bool:
    """Whether a cell is null, NaN (a table's null) or empty text."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str) and not value)


def is_absent(value: Any) -> bool:
    """Whether a cell says that it holds nothing: null, NaN, blank or "N/A"."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value.strip().casefold() in {"", *NOT_AVAILABLE})


def number(value: Any) -> float | None:
    """A finite number, also where it is written as text; None for anything else, truth values included."""
    read = None if isinstance(value, bool) else _float(value)
    return read if read is not None and math.isfinite(read) else None


def rating(value: Any) -> float | None:
    """A number or a truth value (1 or 0), also where it is written as text; None for anything else.

    It may be NaN or infinite: a whole number that no float holds is infinite.
    """
    truth = _TRUTHS.get(value.strip().casefold()) if isinstance(value, str) else None
    return _float(value) if truth is None else truth


def _float(value: Any) -> float | None:
    if isinstance(value, str) and not _NUMBER.fullmatch(value):  # Python knows more spellings than people and files
        return None
    try:
        return float(value) if isinstance(value, str | int | float | Decimal) else None
    except ValueError:
        return None
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def list_in(text: str) -> list[Any] | None:
    """The list that a JSON text holds, or None."""
    if text.lstrip()[:1] != "[":
        return None
    parsed = _parsed(text)
    return parsed if isinstance(parsed, list) else None


def messages_in(text: str) -> list[Any] | None:
    """The messages that a JSON text holds, or None: mappings with a role and a content (or `from` and `value`), or one such."""
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    parsed = _parsed(text)
    turns = [parsed] if isinstance(parsed, dict) else parsed
    return turns if isinstance(turns, list) and turns and all(map(_is_turn, turns)) else None


_KEYS = ({"role", "content"}, {"role", "tool_calls"}, {"from", "value"})


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and any(keys <= turn.keys() for keys in _KEYS)


def _parsed(text: str) -> Any:
    try:
        return read_json(text)
    except JsonFault:
        return None
