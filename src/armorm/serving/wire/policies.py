"""A policy's prompt, as its own chat template wrote it, and its answer: what the reward model is to score.

In: a prompt (a text, or messages), an answer's text.  Out: a conversation for the service: tokens where the prompt is in the
reward model's own template, messages where it is in another one that is known, or in none.  Cost: one tokenisation.

The answer stands where the prompt ends; nothing in it is read as a turn. In the prompt, turns are what its template marks as
such, as they are for the policy itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from armorm.errors import ConversationError
from armorm.model.templated import THOUGHT, Templated

_ROLES = {"model": "assistant", "human": "user", "ipython": "tool", "[INST]": "user", "[/INST]": "assistant"}
_START = re.compile(r"\s*(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>|<｜begin▁of▁sentence｜>)?\s*")
_MARKED = re.compile(r"<\|[^|<>\s]{1,40}\|>|\[/?INST\]|<(?:start|end)_of_turn>|<｜[^｜<>\s]{1,40}｜>")
"""What templates mark turns with."""


@dataclass(frozen=True)
class Family:
    """How a family of templates opens a turn, the role in a group, and how it may close one."""

    name: str
    opening: re.Pattern[str]
    closings: tuple[str, ...]


FAMILIES = (
    Family("ChatML (Qwen, SmolLM2, …)", re.compile(r"<\|im_start\|>(\w+)\n"), ("<|im_end|>",)),
    Family("Llama 3", re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\s*"), ("<|eot_id|>", "<|eom_id|>")),
    Family("Gemma", re.compile(r"<start_of_turn>(\w+)\n"), ("<end_of_turn>",)),
    Family("Phi, Zephyr, Granite", re.compile(r"<\|(system|user|assistant|tool)\|>\s*"), ("<|end|>", "</s>", "<|endoftext|>")),
    Family("Mistral, Llama 2", re.compile(r"(\[/?INST\])"), ("</s>",)),
)


def conversation_of(templated: Templated, prompt: str | Sequence[Any], answer: str) -> Any:
    """A conversation that the service scores. Raises ConversationError for an unknown template, and for no answer.

    A text in which nothing looks like a template is the user's question.
    """
    if not isinstance(prompt, str):
        return [*prompt, _turn("assistant", templated.without_end(answer))]
    if (rendered := templated.given(prompt, answer)) is not None:
        return rendered
    for family in FAMILIES:
        if (context := read_prompt(prompt, family)) is not None:
            return [*context, _turn("assistant", _without_end(templated.without_end(answer), family))]
    if _MARKED.search(prompt):
        raise ConversationError(
            "unknown-template: the prompt is written by a chat template that is none of "
            f"{', '.join(family.name for family in FAMILIES)}, and not this model's own: send messages in its place",
            fault="unknown-template",
        )
    return [_turn("user", prompt), _turn("assistant", templated.without_end(answer))]


def read_prompt(prompt: str, family: Family) -> list[dict[str, str]] | None:
    """The turns of a prompt that a template of this family wrote; None where it did not."""
    pieces = family.opening.split(prompt)
    if len(pieces) < 3 or not _START.fullmatch(pieces[0]):
        return None
    turns = [
        _turn(_ROLES.get(role, role), _without_end(said.strip(), family).strip())
        for role, said in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    if turns[-1]["role"] == "assistant":
        if not THOUGHT.fullmatch(turns[-1]["content"]):
            return None  # an answer that was begun already
        turns = turns[:-1]
    return turns or None


def _without_end(text: str, family: Family) -> str:
    return next((text.removesuffix(end) for end in family.closings if text.endswith(end)), text)


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
