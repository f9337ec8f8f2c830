"""`armorm explain`: a file's row, a model, a profile → what its score is the sum of, or what makes the difference.

In: a model's name, a file, a row.  Out: `Explained`: explanations, JSON facts, what a page shows.
Cost: loading the model and one forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from armorm.conversation import Conversation
from armorm.data.answer_rows import AnswerRow, answer_row
from armorm.data.files import BadRecord, Record, records
from armorm.errors import DataError
from armorm.model.reward_model import RewardModel
from armorm.scoring.explain import Difference, Explanation, explain
from armorm.scoring.profile import Profile
from armorm.scoring.reference import Alike

PLACEHOLDER = "."
"""Stands for an answer where only the prompt is asked about: the gate reads the prompt's tokens alone."""


@dataclass(frozen=True)
class Explained:
    """One or two answers taken apart; for a prompt alone, `explanations` is empty and `gate` is what it opens."""

    model: str
    prompts: Mapping[str, Conversation]
    answers: Mapping[str, str]
    explanations: Mapping[str, Explanation]
    difference: Difference | None = None
    gate: Mapping[str, float] = field(default_factory=dict)
    gate_as_trained: Mapping[str, float] = field(default_factory=dict)
    alike: tuple[Alike, ...] = ()
    profile: str | None = None
    references: int = 0

    def to_json(self) -> dict[str, Any]:
        """One answer: its explanation. Two: `answers` and `difference`. A prompt: `gate` and `alike`."""
        if self.difference is not None:
            answers = {name: one.to_json() for name, one in self.explanations.items()}
            return {"answers": answers, "difference": self.difference.to_json()}
        for one in self.explanations.values():
            return one.to_json()
        steered = {"profile": self.profile, "gate_as_trained": dict(self.gate_as_trained)} if self.profile is not None else {}
        return {"gate": dict(self.gate), "alike": [a.to_json() for a in self.alike], **steered}

    def to_page(self) -> dict[str, Any]:
        """What the page shows. `prompt` is None where the answers have different ones, which then stand with them."""
        contexts = {name: [dict(m) for m in prompt] for name, prompt in self.prompts.items()}
        first = next(iter(contexts.values()))
        common = all(one == first for one in contexts.values())
        return {
            "model": self.model,
            "profile": self.profile,
            "prompt": first if common else None,
            "answers": [
                {"label": name, "prompt": None if common else contexts[name], "text": self.answers[name], **one.to_json()}
                for name, one in self.explanations.items()
            ],
            "difference": None if self.difference is None else self.difference.to_json(),
            "gate": dict(self.gate),
            "gate_as_trained": dict(self.gate_as_trained),
            "alike": [a.to_json() for a in self.alike],
            "references": self.references,
        }


def explain_row(
    name: str, file: Path, row: int, *, against: int | None = None, profile: Path | None = None, prompt_only: bool = False
) -> Explained:
    """A row's answer, or its chosen answer against its rejected one, or against another row's; or its prompt's gate.

    Raises DataError for a row that is not there or is no conversation, RecipeError for a profile that does not fit.
    """
    if prompt_only and against is not None:
        raise DataError("prompt_only looks at one prompt: leave out against")
    asked = {"prompt": _prompt(file, row)} if prompt_only else _answers(file, row, against)
    steered = Profile.from_yaml(profile) if profile else None
    model, labels = RewardModel.from_pretrained(name), tuple(asked)
    gap = None
    if len(labels) == 2:
        gap = model.difference(*asked.values(), names=(labels[0], labels[1]), profile=steered)
        explanations = {label: explain(score, model.reference) for label, score in zip(labels, (gap.a, gap.b), strict=True)}
    else:
        explanations = {labels[0]: model.explain(asked[labels[0]], profile=steered)}
    first = explanations[labels[0]]
    common: dict[str, Any] = {
        "model": name,
        "prompts": {label: messages[:-1] for label, messages in asked.items()},
        "gate": first.score.gate,
        "gate_as_trained": first.score.gate_as_trained,
        "alike": first.alike,
        "profile": first.score.profile,
        "references": len(model.reference.prompts) if model.reference else 0,
    }
    if prompt_only:
        return Explained(answers={}, explanations={}, **common)
    answers = {label: messages[-1]["content"] for label, messages in asked.items()}
    return Explained(answers=answers, explanations=explanations, difference=gap, **common)


def _answers(file: Path, row: int, against: int | None) -> dict[str, Conversation]:
    found = _row(file, row)
    if against is None:
        labels = {1: ("answer",), 2: ("chosen", "rejected") if "chosen" in found.values else ("first", "second")}
        if len(found.answers) not in labels:
            raise DataError(f"{file}:{row}: holds {len(found.answers)} answers: give one, or two to compare")
        return {label: found.conversation(i) for i, label in enumerate(labels[len(found.answers)])}
    if against == row:
        raise DataError(f"against {against} is the same row: name another")
    other = _row(file, against)
    if len(found.answers) + len(other.answers) > 2:
        raise DataError(f"{file}: against compares rows of one answer each; leave it out where a row holds two")
    return {f"row {row}": found.conversation(0), f"row {against}": other.conversation(0)}


def _row(file: Path, row: int) -> AnswerRow:
    found = answer_row(_record(file, row))
    if fault := found.error or next(filter(None, found.faults), None):
        raise DataError(f"{file}:{row}: {fault}")
    return found


def _prompt(file: Path, row: int) -> Conversation:
    record = _record(file, row)
    values = record.values
    turns = values.get("messages")
    if isinstance(turns, list) and turns and isinstance(turns[-1], Mapping) and turns[-1].get("role") == "user":
        values = {"messages": [*turns, {"role": "assistant", "content": PLACEHOLDER}]}
    elif values.get("prompt") is not None:
        values = {k: v for k, v in values.items() if k in ("prompt", "system")} | {"response": PLACEHOLDER}
    found = answer_row(replace(record, values=values))
    if found.error is not None:
        raise DataError(f"{file}:{row}: {found.error}")
    return (*found.context, {"role": "assistant", "content": PLACEHOLDER})


def _record(file: Path, row: int) -> Record:
    found = next(islice(records(file), row - 1, row), None) if row > 0 else None
    if found is None:
        raise DataError(f"{file}: there is no row {row}")
    if isinstance(found, BadRecord):
        raise DataError(f"{file}:{row}: {found.fault}: {found.remedy}")
    return found
