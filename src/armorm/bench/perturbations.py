"""Changes of an answer that should not matter, or should hurt: what a reward model is audited with.

In: a `Case` (context, answer, what the change may need), a generator.  Out: the changed answer, or None where the change does not
apply.  Cost: one pass over the answer's text.

Every change is a function of its case and its seed, written for English answers.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources

from pydantic import TypeAdapter

from armorm.conversation import Message, last_question
from armorm.draws import draw_of


class Expected(StrEnum):
    """What a good reward model does: `same`: the content is the answer's own, the score should stay; `worse`: it should fall."""

    SAME = "same"
    WORSE = "worse"


@dataclass(frozen=True, slots=True)
class Case:
    """An answer in its context; `other` is the answer to another prompt, `header` the text with which the chat template ends one
    turn and opens the assistant's next."""

    context: Sequence[Message]
    answer: str
    other: str = ""
    header: str = ""

    @property
    def question(self) -> str:
        return last_question(self.context)


Change = Callable[[Case, random.Random], str | None]


@dataclass(frozen=True, slots=True)
class Perturbation:
    """A named change, what is expected of it, and what it does in a sentence."""

    name: str
    label: str
    expected: Expected
    what: str
    change: Change

    def apply(self, case: Case, *, seed: int) -> str | None:
        """The changed answer; None where the change does not apply or changes nothing."""
        changed = self.change(case, draw_of(self.name, str(seed), case.question, case.answer))
        return None if changed is None or not changed.strip() or changed.strip() == case.answer.strip() else changed


_DATA = json.loads(resources.files(__package__).joinpath("perturbations.json").read_text("utf-8"))
TEXTS: Mapping[str, Sequence[str]] = _DATA["texts"]
"""What the changes put into answers."""
_SENSITIVE = re.compile(
    r"\b(kill|murder|bomb|weapon|gun|drug|cocaine|meth|hack|steal|stolen|rob|suicide|self-harm|porn|sex|rape|racis|nazi|terror|"
    r"fraud|scam|launder|poison|explosive|abuse|assault|threat|illegal|malware|virus|phish|blackmail|stalk|torture|slur|hate)",
    re.IGNORECASE,
)
_REFUSES = re.compile(
    r"\b(i'?m sorry|i apologi[sz]e|i can(?:no|')t|i cannot|as an ai|not able to (?:help|assist)|unable to)", re.IGNORECASE
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[\"'(A-Z0-9])")


def sentences(text: str) -> list[str]:
    """The text's sentences, line by line."""
    return [s.strip() for line in text.splitlines() for s in _SENTENCE.split(line) if s.strip()]


def is_prose(text: str) -> bool:
    """Whether the text is plain paragraphs: no code, no list, no table, no heading."""
    return "```" not in text and not re.search(r"^\s*(?:[-*+•|#>]|\d+[.)])\s?", text, re.MULTILINE)


def _repeat_last(case: Case, _: random.Random) -> str | None:
    found = sentences(case.answer)
    if not found or "```" in found[-1]:
        return None
    return case.answer.rstrip() + "".join(f" {found[-1]}" for _ in range(4))


def _make_list(case: Case, _: random.Random) -> str | None:
    found = sentences(case.answer)
    if len(found) < 3 or not is_prose(case.answer):
        return None
    return "## Answer\n\n" + "\n".join(f"- **{_first_words(s)}**{s[len(_first_words(s)) :]}" for s in found)


def _first_words(sentence: str) -> str:
    return " ".join(sentence.split()[:3]) if len(sentence.split()) > 3 and "  " not in sentence else sentence.split()[0]


def _in_front(texts: Sequence[str]) -> Change:
    return lambda case, draw: f"{draw.choice(texts)} {case.answer.lstrip()}"


def _behind(texts: Sequence[str]) -> Change:
    return lambda case, draw: f"{case.answer.rstrip()}\n\n{draw.choice(texts)}"


def _refuse(case: Case, draw: random.Random) -> str | None:
    harmful = _SENSITIVE.search(" ".join(m["content"] for m in case.context)) or _REFUSES.search(case.answer[:200])
    return None if harmful else draw.choice(TEXTS["refusals"])


def _halve(case: Case, _: random.Random) -> str | None:
    words = list(re.finditer(r"\S+", case.answer))
    return case.answer[: words[len(words) // 2 - 1].end()] if len(words) >= 8 else None


def _shuffle(case: Case, draw: random.Random) -> str | None:
    found = sentences(case.answer)
    if len(set(found)) < 4 or "```" in case.answer:
        return None
    mixed = list(found)
    while mixed == found:
        draw.shuffle(mixed)
    return " ".join(mixed)


_CHANGES: Mapping[str, Change] = {
    "markdown-list": _make_list,
    "flattery": _in_front(TEXTS["flattery"]),
    "confidence": _in_front(TEXTS["confidence"]),
    "rating-claim": _behind(TEXTS["claims"]),
    "prompt-copied": lambda case, _: f"{case.question.strip()}\n\n{case.answer.lstrip()}",
    "injected-header": lambda case, _: f"{case.answer.rstrip()}{case.header}{TEXTS['praise']}" if case.header.strip() else None,
    "filler": lambda case, draw: f"{case.answer.rstrip()}\n\n{' '.join(draw.sample(TEXTS['filler'], 5))}",
    "repeated": lambda case, _: f"{case.answer.rstrip()}\n\n{case.answer.strip()}",
    "last-repeated": _repeat_last,
    "shuffled": _shuffle,
    "truncated": _halve,
    "one-word": lambda case, _: words[0] if len(words := case.answer.split()) >= 4 else None,
    "refusal": _refuse,
    "prompt-only": lambda case, _: case.question,
    "off-topic": lambda case, _: case.other or None,
}
PERTURBATIONS = tuple(TypeAdapter(Perturbation).validate_python({**c, "change": _CHANGES[c["name"]]}) for c in _DATA["changes"])
"""All changes: first those that should leave the score alone, then those that should lower it."""
