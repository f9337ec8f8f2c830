"""A policy's prompt, as its own chat template wrote it, and its answer: what the reward model is to score.

In: a prompt (a text, or messages), an answer's text.  Out: a conversation for the service: messages where the prompt is in a
template that is known or in none, tokens where only the reward model's own template is like it.  Cost: one tokenisation at most.

The answer stands where the prompt ends; nothing in it is read as a turn. In the prompt, turns are what its template marks as
such, as they are for the policy itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from armorm.model.templated import Templated
from armorm.prompts import users_own, whole_prompt


def conversation_of(templated: Templated, prompt: str | Sequence[Any], answer: str) -> Any:
    """A conversation that the service scores. Raises ConversationError for an unknown template, and for no answer.

    A text in which nothing looks like a template is the user's question.
    """
    if not isinstance(prompt, str):
        return [*prompt, _turn("assistant", templated.without_end(answer))]
    if (written := whole_prompt(prompt)) is not None:
        said = templated.without_end(answer)
        return [*written.turns, _turn("assistant", written.family.without_end(answer) if said == answer else said)]
    if (rendered := templated.given(prompt, answer)) is not None:
        return rendered
    return [users_own(prompt), _turn("assistant", templated.without_end(answer))]


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
