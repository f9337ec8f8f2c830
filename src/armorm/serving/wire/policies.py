"""A policy's prompt, as its own chat template wrote it, and its answer: what the reward model is to score.

In: a prompt (a text, or messages), an answer's text.  Out: a conversation for the service: tokens where the prompt is in the
reward model's own template, messages where it is in another one that is known, or in none.  Cost: one tokenisation.

The answer stands where the prompt ends; nothing in it is read as a turn. In the prompt, turns are what its template marks as
such, as they are for the policy itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from armorm.errors import ConversationError
from armorm.model.templated import Templated
from armorm.prompts import FAMILIES, read_prompt

_MARKED = re.compile(r"<\|[^|<>\s]{1,40}\|>|\[/?INST\]|<(?:start|end)_of_turn>|<｜[^｜<>\s]{1,40}｜>")
"""What templates mark turns with."""


def conversation_of(templated: Templated, prompt: str | Sequence[Any], answer: str) -> Any:
    """A conversation that the service scores. Raises ConversationError for an unknown template, and for no answer.

    A text in which nothing looks like a template is the user's question.
    """
    if not isinstance(prompt, str):
        return [*prompt, _turn("assistant", templated.without_end(answer))]
    if (rendered := templated.given(prompt, answer)) is not None:
        return rendered
    if (written := read_prompt(prompt)) is not None and not written.begun:
        return [*written.turns, _turn("assistant", written.family.without_end(templated.without_end(answer)))]
    if _MARKED.search(prompt):
        raise ConversationError(
            "unknown-template: the prompt is written by a chat template that is none of "
            f"{', '.join(family.name for family in FAMILIES)}, and not this model's own: send messages in its place",
            fault="unknown-template",
        )
    return [_turn("user", prompt), _turn("assistant", templated.without_end(answer))]


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
