"""Prompts as a policy's own chat template wrote them, taken apart into messages; and the answer behind such a prompt.

In: a prompt's text.  Out: its turns; None where no template of `FAMILIES` wrote it.  Cost: a pass over the text for each family.

Trainers' functions and a server's routes read prompts here, so that a text has one score whichever way it comes. Turns are what
the template marks as such, as they are for the policy itself: a person who writes such marks can write turns that way. Where a
trainer has messages, these are used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from armorm.errors import ConversationError

_ROLES = {"model": "assistant", "human": "user", "ipython": "tool", "[INST]": "user", "[/INST]": "assistant"}
_START = re.compile(r"\s*+(?:(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>|<｜begin▁of▁sentence｜>)\s*+)*+")
"""What may stand before the first turn. It never looks at a letter twice, so that time follows the length."""
THOUGHT = re.compile(r"\s*(?:<think>\s*(?:</think>\s*)?)?")
"""What a generation prompt may hold behind the header: the start of a think block, or an empty one."""
_MARKED = re.compile(r"<\|[^|<>\s]{1,40}\|>|\[/?INST\]|<(?:start|end)_of_turn>|<｜[^｜<>\s]{1,40}｜>")
"""What templates mark turns with."""
_DATES = re.compile(r"(?:Environment: ipython\n)?Cutting Knowledge Date: [^\n]*\nToday Date: [^\n]*(?:\n+|$)")
"""What Llama 3's template writes at the head of every system turn, and writes again where the turn is rendered anew."""


@dataclass(frozen=True)
class Family:
    """How a family of templates opens a turn, the role in a group, and how it may close one."""

    name: str
    opening: re.Pattern[str]
    closings: tuple[str, ...]
    exact: bool = False
    """Whether a turn's words stand between its marks to the letter; other templates leave white space out, or add some."""

    def said(self, text: str) -> str:
        """A turn's words, of the text between its header and the next."""
        closed = text.rstrip()
        said = self.without_end(closed)
        return said if self.exact and said != closed else said.strip()

    def without_end(self, text: str) -> str:
        """A turn's text without the one mark that closes it, if it has one."""
        return next((text.removesuffix(end) for end in self.closings if text.endswith(end)), text)


FAMILIES = (
    Family("ChatML (Qwen, SmolLM2, …)", re.compile(r"<\|im_start\|>(\w+)\n"), ("<|im_end|>",), exact=True),
    Family("Llama 3", re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\s*"), ("<|eot_id|>", "<|eom_id|>")),
    Family("Gemma", re.compile(r"<start_of_turn>(\w+)\n"), ("<end_of_turn>",)),
    Family("Phi, Zephyr, Granite", re.compile(r"<\|(system|user|assistant|tool)\|>\s*"), ("<|end|>", "</s>", "<|endoftext|>")),
    Family("Mistral, Llama 2", re.compile(r"(\[/?INST\])"), ("</s>",)),
)


@dataclass(frozen=True)
class Written:
    """A prompt's turns, and the family whose template wrote it. `headed`: the answer's header ends it, which is no turn."""

    family: Family
    turns: tuple[dict[str, str], ...]
    headed: bool

    @property
    def begun(self) -> bool:
        """Whether the prompt ends with words of the assistant's."""
        return self.turns[-1]["role"] == "assistant"


def read_prompt(prompt: str) -> Written | None:
    """The turns of a prompt that a chat template wrote; None for any other text."""
    for family in FAMILIES:
        if (written := _written(prompt, family)) is not None:
            return written
    return None


def whole_prompt(prompt: str) -> Written | None:
    """The same where the prompt ends before the answer begins; None for one that ends with the assistant's words."""
    written = read_prompt(prompt)
    return None if written is None or written.begun else written


def users_own(prompt: str) -> dict[str, str]:
    """A text that no template wrote, as the user's question. Raises ConversationError where it looks like a template's."""
    if _MARKED.search(prompt):
        raise ConversationError(
            "unknown-template: the prompt is written by a chat template that is none of "
            f"{', '.join(family.name for family in FAMILIES)}, and not this model's own: send messages in its place",
            fault="unknown-template",
        )
    return {"role": "user", "content": prompt}


def answer_behind(query: str, prompts: Iterable[str]) -> str:
    """What stands in a query behind its prompt, which is given in every way in which it may stand there.

    Raises ConversationError for a query that begins with none of them.
    """
    prompt = next((prompt for prompt in prompts if query.startswith(prompt)), None)
    if prompt is None:
        raise ConversationError(
            "prompt-elsewhere: the query does not begin with its prompt (cut by the trainer, or decoded otherwise): raise the "
            "trainer's prompt length, or leave such prompts out",
            fault="prompt-elsewhere",
        )
    return query[len(prompt) :]


def _written(prompt: str, family: Family) -> Written | None:
    pieces = family.opening.split(prompt)
    if len(pieces) < 3 or not _START.fullmatch(pieces[0]):
        return None
    turns = [
        {"role": _ROLES.get(role, role), "content": family.said(said)}
        for role, said in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    headed = turns[-1]["role"] == "assistant" and THOUGHT.fullmatch(turns[-1]["content"]) is not None
    if headed:
        turns.pop()
    if turns and turns[0]["role"] == "system" and (dates := _DATES.match(turns[0]["content"])):
        turns[0]["content"] = turns[0]["content"][dates.end() :]
    if len(turns) > 1 and turns[0] == {"role": "system", "content": ""}:
        turns.pop(0)
    return Written(family, tuple(turns), headed) if turns else None
