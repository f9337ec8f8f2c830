"""What trainers call a prompt and a completion, as a conversation: texts, messages, or text in a chat template.

In: a prompt and a completion in any of these forms.  Out: messages, as the scoring core and a server read them.

Some trainers hold only the text that their policy read. Of the templates in `TEMPLATES` it is taken apart again; any other text
is one turn of the user's. A person who writes such marks can write turns that way, as in the policy's own eyes; where the trainer
has messages, these are used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from armorm.conversation import entries_of

Messages = list[Any]


@dataclass(frozen=True)
class Marks:
    """How a template marks turns: what opens one (with its role), what closes it, and whether an answer stands behind that."""

    opening: re.Pattern[str]
    closing: re.Pattern[str]
    answer_behind: bool = False


TEMPLATES: Mapping[str, Marks] = {
    "chatml": Marks(re.compile(r"<\|im_start\|>(\w+)\n"), re.compile(r"<\|im_end\|>")),
    "llama-3": Marks(re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n"), re.compile(r"<\|(?:eot_id|eom_id)\|>")),
    "gemma": Marks(re.compile(r"<start_of_turn>(\w+)\n"), re.compile(r"<end_of_turn>")),
    "zephyr": Marks(re.compile(r"<\|(system|user|assistant)\|>\n"), re.compile(r"</s>|<\|end\|>|<\|endoftext\|>")),
    "mistral": Marks(re.compile(r"(\[INST\])"), re.compile(r"\[/INST\]"), answer_behind=True),
}
"""The marks of one turn. The last turn may be open: it is the header of the answer."""
_OPENING = re.compile(r"\s*(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>)*\s*")
_ROLES = {"model": "assistant", "ipython": "tool", "[INST]": "user"}
ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
    "<｜end▁of▁sentence｜>",
)
"""The tokens that end an answer, as decoders write them out."""


def joined(prompt: Any, completion: Any) -> Messages:
    """A prompt (a text, or messages) and its completion (a text, or the turns behind the prompt) as one conversation."""
    turns = entries_of(completion)
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else (entries_of(prompt) or [])
    return [*asked, *([{"role": "assistant", "content": completion}] if turns is None else turns)]


def from_text(prompt: Any, answer: Any) -> Messages:
    """The same where a prompt's text is the template's own, and the answer may carry the token that ended it."""
    asked = untemplated(prompt) if isinstance(prompt, str) else prompt
    return joined(asked, without_end(answer) if isinstance(answer, str) else answer)


def untemplated(text: str) -> Messages:
    """The messages of a prompt that a chat template wrote; any other text is the user's turn."""
    start = _OPENING.match(text)
    body = text[start.end() :] if start else text
    for marks in TEMPLATES.values():
        if (found := _turns(marks, body)) is not None:
            return found
    return [{"role": "user", "content": text}]


def without_end(answer: str) -> str:
    """An answer without the tokens that ended it."""
    end = len(answer)
    while True:
        closed = end
        while closed and answer[closed - 1] == "\n":
            closed -= 1
        mark = next((mark for mark in ENDS if answer.endswith(mark, 0, closed)), None)
        if mark is None:
            return answer[:end]
        end = closed - len(mark)


def prompt_in(facts: Any, *keys: str) -> Any:
    """The first of some columns that holds a prompt; None where none does."""
    if not isinstance(facts, Mapping):
        return None
    return next((facts[key] for key in keys if isinstance(facts.get(key), str) or entries_of(facts.get(key))), None)


def _turns(marks: Marks, text: str) -> Messages | None:
    # The turns, if they are all that the text holds and a person's turn is among them.
    opened = list(marks.opening.finditer(text))
    if not opened or text[: opened[0].start()].strip():
        return None
    found = list[dict[str, str]]()
    ends = [*(match.start() for match in opened[1:]), len(text)]
    for match, end in zip(opened, ends, strict=True):
        closed = marks.closing.search(text, match.end(), end)
        behind = "" if closed is None else text[closed.end() : end].strip()
        if (closed is None and end < len(text)) or (behind and not marks.answer_behind):
            return None
        said = text[match.end() : end if closed is None else closed.start()].strip()
        found += [{"role": _ROLES.get(match[1], match[1]), "content": said}] if said else []
        found += [{"role": "assistant", "content": without_end(behind)}] if behind else []
    return list(found) if any(message["role"] == "user" for message in found) else None
