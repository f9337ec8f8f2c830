"""What trainers call a prompt and a completion, as a conversation: texts, messages, or text in a chat template.

In: a prompt and a completion in any of these forms.  Out: messages, as the scoring core and a server read them.

Some trainers hold only the text that their policy read. Where one of the templates in `armorm.prompts` wrote it, it is taken
apart again; any other text is one turn of the user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from armorm.conversation import entries_of
from armorm.prompts import read_prompt

Messages = list[Any]
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
    written = read_prompt(prompt) if isinstance(prompt, str) else None
    return joined(prompt if written is None else list(written.turns), without_end(answer) if isinstance(answer, str) else answer)


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
