"""Prompts as a policy's own chat template wrote them, taken apart into messages.

In: a prompt's text.  Out: its turns; None where no template of `FAMILIES` wrote it.  Cost: a pass over the text for each family.

Turns are what the template marks as such, as they are for the policy itself: a person who writes such marks can write turns that
way. Where a trainer has messages, these are used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ROLES = {"model": "assistant", "human": "user", "ipython": "tool", "[INST]": "user", "[/INST]": "assistant"}
_START = re.compile(r"\s*+(?:(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>|<｜begin▁of▁sentence｜>)\s*+)*+")
"""What may stand before the first turn. It never looks at a letter twice, so that time follows the length."""
THOUGHT = re.compile(r"\s*(?:<think>\s*(?:</think>\s*)?)?")
"""What a generation prompt may hold behind the header: the start of a think block, or an empty one."""


@dataclass(frozen=True)
class Family:
    """How a family of templates opens a turn, the role in a group, and how it may close one."""

    name: str
    opening: re.Pattern[str]
    closings: tuple[str, ...]

    def without_end(self, text: str) -> str:
        """A turn's text without the one mark that closes it, if it has one."""
        return next((text.removesuffix(end) for end in self.closings if text.endswith(end)), text)


FAMILIES = (
    Family("ChatML (Qwen, SmolLM2, …)", re.compile(r"<\|im_start\|>(\w+)\n"), ("<|im_end|>",)),
    Family("Llama 3", re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\s*"), ("<|eot_id|>", "<|eom_id|>")),
    Family("Gemma", re.compile(r"<start_of_turn>(\w+)\n"), ("<end_of_turn>",)),
    Family("Phi, Zephyr, Granite", re.compile(r"<\|(system|user|assistant|tool)\|>\s*"), ("<|end|>", "</s>", "<|endoftext|>")),
    Family("Mistral, Llama 2", re.compile(r"(\[/?INST\])"), ("</s>",)),
)


@dataclass(frozen=True)
class Written:
    """A prompt's turns, and the family whose template wrote it. The header of the answer is no turn."""

    family: Family
    turns: tuple[dict[str, str], ...]

    @property
    def begun(self) -> bool:
        """Whether the prompt ends with words of the assistant's."""
        return self.turns[-1]["role"] == "assistant"


def read_prompt(prompt: str) -> Written | None:
    """The turns of a prompt that a chat template wrote; None for any other text."""
    for family in FAMILIES:
        if turns := _turns(prompt, family):
            return Written(family, turns)
    return None


def _turns(prompt: str, family: Family) -> tuple[dict[str, str], ...]:
    pieces = family.opening.split(prompt)
    if len(pieces) < 3 or not _START.fullmatch(pieces[0]):
        return ()
    turns = tuple(
        {"role": _ROLES.get(role, role), "content": family.without_end(said.strip()).strip()}
        for role, said in zip(pieces[1::2], pieces[2::2], strict=True)
    )
    headed = turns[-1]["role"] == "assistant" and THOUGHT.fullmatch(turns[-1]["content"])
    return turns[:-1] if headed else turns
