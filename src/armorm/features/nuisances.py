"""Nuisances that are computed: an answer's length in tokens, and the style of its text, as leaderboards control for it.

In: an answer's text as the chat template renders it, counts of tokens.  Out: counts, and the places of their columns.
Cost: one pass over the text for each count.

Code counts as code alone: what looks like a heading, a list, bold type or an exclamation within fences is none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from armorm.errors import FitError

RESPONSE_TOKENS = "response-tokens"
STYLE = ("markdown-headers", "list-items", "bold-spans", "code-fences", "exclamation-marks", "emoji")
"""What is counted in an answer's text, in the order of its columns."""
COMPUTED = (RESPONSE_TOKENS, *STYLE)
"""Every nuisance that is no objective."""
VERSION = 1
"""Changes whenever the same text may give other counts."""

_FENCE = re.compile(r"^ {0,3}(`{3,}+|~{3,}+)([^\n]*)$", re.MULTILINE)
_HEADER = re.compile(r"^ {0,3}#{1,6}+[ \t]++[^\s]", re.MULTILINE)
_ITEM = re.compile(r"^[ \t]*+(?:[-*+•]|[0-9]{1,9}[.)])[ \t]++[^\s]", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]++\*\*|__(?=[^\s_])[^_\n]++__")
_EXCLAMATION = re.compile(r"[!！]")
_PICTURE = "[\u231a\u231b\u23e9-\u23f3\u2600-\u27bf\u2b50\u2b55\U0001f300-\U0001f3fa\U0001f400-\U0001faff]"
_CHANGED = "[\ufe0f\U0001f3fb-\U0001f3ff]"  # in colour, in a tone of skin
_EMOJI = re.compile(f"[\U0001f1e6-\U0001f1ff]{{2}}|{_PICTURE}{_CHANGED}*+(?:\u200d{_PICTURE}{_CHANGED}*+)*+")
"""A flag is two letters; pictures that are joined to one count as one."""


def style_of(text: str) -> tuple[int, ...]:
    """The counts of `STYLE` in an answer's text: lines that are Markdown headings, items of lists, spans in bold type, fenced
    blocks of code (one that isn't closed too), exclamation marks, emoji."""
    prose, fences = _without_code(text)
    emoji = 0 if prose.isascii() else len(_EMOJI.findall(prose))
    lines = (len(pattern.findall(prose)) for pattern in (_HEADER, _ITEM, _BOLD))
    return (*lines, fences, len(_EXCLAMATION.findall(prose)), emoji)


def places_of(names: Sequence[str]) -> list[int]:
    """Where each nuisance stands among `COMPUTED`. Raises FitError for a name that is none of them."""
    if unknown := [name for name in names if name not in COMPUTED]:
        raise FitError(f"{', '.join(unknown)}: is no nuisance that can be computed; choose among {', '.join(COMPUTED)}")
    return [COMPUTED.index(name) for name in names]


def counts_style(names: Sequence[str]) -> bool:
    """Whether any of the nuisances is counted in a text."""
    return any(name in STYLE for name in names)


def _without_code(text: str) -> tuple[str, int]:
    # What stands outside of fenced blocks, and how many of these there are. A block ends with at least as many of its own signs.
    if "```" not in text and "~~~" not in text:
        return text, 0
    kept, blocks, done, opened = list[str](), 0, 0, ""
    for found in _FENCE.finditer(text):
        signs, said = found[1], found[2]
        if not opened:
            if signs[0] == "`" and "`" in said:  # code within a line
                continue
            kept.append(text[done : found.start()])
            opened, blocks = signs, blocks + 1
        elif signs[0] == opened[0] and len(signs) >= len(opened) and not said.strip():
            opened, done = "", found.end()
    return "".join(kept) + ("" if opened else text[done:]), blocks
