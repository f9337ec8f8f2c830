"""A dialogue as one flat text, in the way of HH-RLHF: turns behind "Human:" and "Assistant:".

In: a text.  Out: messages, or None for a text that is no dialogue.
"""

from __future__ import annotations

import re

from armorm.conversation import Message

_ROLES = {"Human": "user", "Assistant": "assistant"}
_MARKER = re.compile(r"\n\n(Human|Assistant):")


def turns_of_transcript(text: str) -> list[Message] | None:
    """The turns of a flat dialogue, each behind a blank line and "Human:" or "Assistant:", without the white space around them.

    None where there is text before the first turn, or no turn.
    """
    before, *parts = _MARKER.split(text)
    if before.strip() or not parts:
        return None
    return [Message(role=_ROLES[r], content=t.strip()) for r, t in zip(parts[::2], parts[1::2], strict=True)]


def as_transcript(text: str) -> str:
    """A dialogue as its readers know it: lines that end as on Windows, and a first blank line that lacks, are mended."""
    unix = text.replace("\r\n", "\n").lstrip()
    return f"\n\n{unix}" if unix.startswith(("Human:", "Assistant:")) else text
