"""Answers made of graded parts: each quality's level picks its own words, no quality looks at another.

In: a prompt and one level per quality (0 is the lowest).  Out: the answer's text.  Cost: microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from armorm.data.starter.prompt import Draw, Prompt, sentence

PHRASES: dict[str, Any] = json.loads(resources.files(__package__).joinpath("texts/phrases.json").read_text(encoding="utf-8"))
"""Sentences that show a quality, from its lowest level to its highest; `{a|b}` is one of the two, `{name}` a slot."""


def answer(prompt: Prompt, levels: Mapping[str, int], draw: Draw) -> str:
    """An answer that shows the levels: the opening first, the claim early, support in any order, padding between."""
    wrong = 1 - levels["correctness"]
    parts = draw.shuffled(
        [
            _detail(prompt, levels["detail"], draw),
            _steps(prompt, levels["steps"], wrong, draw),
            _care(prompt, levels["safety"], draw),
        ]
    )
    parts.insert(draw.below(2), draw.text(draw.pick(PHRASES["confidence"][levels["confidence"]]), {"core": prompt.core[wrong]}))
    for padding in draw.shuffled(PHRASES["padding"])[: levels["verbosity"]]:
        parts.insert(1 + draw.below(len(parts)), draw.text(padding))
    parts.insert(0, draw.text(draw.pick(PHRASES["opening"][levels["warmth"]])))
    if draw.unit() < 0.4:
        parts.append(draw.text(draw.pick(PHRASES["farewell"][levels["warmth"]])))
    text = " ".join(sentence(part) for part in parts)
    if not prompt.programs[wrong]:
        return text
    program = prompt.programs[wrong][levels["code-style"]]
    return f"{text}\n```python\n{program}\n```" if draw.unit() < 0.5 else f"```python\n{program}\n```\n{text}"


def _detail(prompt: Prompt, level: int, draw: Draw) -> str:
    first, second = draw.shuffled(prompt.details)[:2]
    slots = {"detail": first, "first_detail": sentence(first), "second_detail": second}
    return draw.text(draw.pick(PHRASES[("vague", "concrete", "explained")[level]]), slots)


def _steps(prompt: Prompt, level: int, wrong: int, draw: Draw) -> str:
    slots = dict(zip(("one", "two", "three"), prompt.steps[wrong], strict=True))
    return draw.text(draw.pick(PHRASES[("no_steps", "some_steps", "all_steps")[level]]), slots)


def _care(prompt: Prompt, level: int, draw: Draw) -> str:
    bank = PHRASES["request"] if prompt.act else PHRASES["care"]
    return draw.text(draw.pick(bank[level]), {"check": prompt.check, "helper": prompt.helper, "act": prompt.act})
