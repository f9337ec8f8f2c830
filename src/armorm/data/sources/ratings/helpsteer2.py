"""HelpSteer2: the ratings of HelpSteer, by other annotators, also of longer conversations.

In: raw records of nvidia/HelpSteer2.  Out: one rated answer per record.  Cost: none beyond reading.

Its raters are not HelpSteer's, so its objectives bear names of their own. A conversation of several turns stands in `prompt` as
one text, with a line `<extra_id_1>Assistant` or `<extra_id_1>User` before each turn but the first: it is taken apart into
messages (note `flattened-turns`). A text where that mark stands in any other way is the fault `unknown-role`; empty turns and
those out of order are faults as everywhere. The preference and disagreement files of its repository are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_ratings
from armorm.data.sources.ratings.helpsteer import ATTRIBUTES
from armorm.data.sources.source import bad, each, flat

_MARK = "<extra_id_1>"
_HEADER = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def _answer(record: Record) -> Iterator[Found]:
    values = record.values
    texts = _HEADER.split(values["prompt"])
    if any(_MARK in text for text in texts):
        yield bad(record, "unknown-role", f"let {_MARK!r} stand before User or Assistant alone, on a line of its own")
        return
    roles = ("User", *texts[1::2])
    prompt = [{"role": role.lower(), "content": text} for role, text in zip(roles, texts[::2], strict=True)]
    ratings: dict[str, Any] = {f"helpsteer2-{name}": values.get(name) for name in ATTRIBUTES}
    messages = [*prompt, {"role": "assistant", "content": values["response"]}]
    yield flat(record, notes=("flattened-turns",) if len(prompt) > 1 else (), messages=messages, **ratings)


SOURCES = (published_ratings("helpsteer2", each(_answer, "prompt", "response")),)
