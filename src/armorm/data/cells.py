"""What one cell of a raw row holds: nothing, a number, or turns of a conversation that may be written as text.

In: a value as its file has it.  Out: plain numbers and lists.  Cost: none, but for lists that are stored as JSON text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from armorm.conversation import Message

NOT_AVAILABLE = frozenset({"n/a", "na", "none", "null"})
"""How sets write that there is no value, letter case aside."""
_TRUTHS = {"true": 1.0, "false": 0.0}


def is_absent(value: Any) -> bool:
    """Whether a cell says that it holds nothing: null, blank or "N/A"."""
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
    try:
        return float(value) if isinstance(value, str | int | float | Decimal) else None
    except ValueError:
        return None
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def parse_list(value: Any) -> Any:
    """A list that a CSV or Parquet file stores as JSON text, of turns, texts or lists; anything else as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] != "[":
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed if isinstance(parsed, list) and all(isinstance(entry, Mapping | str | list) for entry in parsed) else value


def is_answer_turn(value: Any) -> bool:
    """Whether this is a turn of the assistant's."""
    return isinstance(value, Mapping) and value.get("role") == "assistant"


def context_turns(prompt: Any, system: Any) -> list[Any]:
    """The turns before an answer: `prompt` is a list of them or the user's text; `system` comes first where no turn is one."""
    turns = list(prompt) if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    has_system = bool(turns) and isinstance(turns[0], Mapping) and turns[0].get("role") == "system"
    return turns if system in (None, "") or has_system else [{"role": "system", "content": system}, *turns]


def messages_of(turns: Iterable[Mapping[str, Any]]) -> tuple[Message, ...]:
    """Turns without what else their file says of them."""
    return tuple(Message(role=turn["role"], content=turn["content"]) for turn in turns)
