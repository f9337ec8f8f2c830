"""`armorm explain` and `armorm steer`: a file's row, a model, a profile → explanations; profiles checked and baked.

In: arguments.  Out: `Explained`, `Fit`; a model folder with its profile.
Cost: loading the model and one or two forward passes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from armorm.conversation import Conversation, written_out
from armorm.data.answer_rows import AnswerRow, answer_row
from armorm.data.files import BadRecord, Record, records
from armorm.data.shapes import RowFormat
from armorm.disk import require_free, writing_folder
from armorm.errors import DataError
from armorm.model.folder import local
from armorm.model.reward_model import RewardModel
from armorm.owner import owning
from armorm.report.explained import Explained, Fit, MeanWeight
from armorm.scoring.comparison import Comparison
from armorm.scoring.explain import explain
from armorm.scoring.profile import Profile
from armorm.scoring.steer import Steering

PLACEHOLDER = "."
"""Stands for an answer where only the prompt is asked about: the gate reads the prompt's tokens alone."""


def explain_row(
    name: str,
    file: Path,
    row: int,
    *,
    against: int | None = None,
    profile: Path | None = None,
    prompt_only: bool = False,
    max_tokens: int | None = None,
    rows: RowFormat = RowFormat(),  # noqa: B008 - frozen
) -> Explained:
    """A row's answer, or its chosen answer against its rejected one, or against another row's; or its prompt's gate.

    `rows` says how the file is read; `max_tokens` bounds a conversation, in place of the model's own bound. Raises DataError
    for a row that is not there or is no conversation, RecipeError for a profile that does not fit, BackboneError for more
    tokens than the decoder has positions.
    """
    if prompt_only and against is not None:
        raise DataError("the gate is asked about one prompt: leave out `against`, the other row")
    asked = {"prompt": _prompt(file, row, rows)} if prompt_only else _answers(file, row, against, rows)
    steered = Profile.from_yaml(profile) if profile else None
    model, (one, *others) = RewardModel.from_pretrained(local(name)), asked
    reference, engine = model.reference, model.engine(max_tokens=max_tokens)
    pair: Comparison | None = None
    if others:
        pair = model.compare(*asked.values(), names=(one, others[0]), profile=steered, max_tokens=max_tokens)
        scores = [pair.a, pair.b]
    else:
        scores = list(engine.score([asked[one]], profile=steered, deviations=True, strict=True))
    explanations = {label: explain(score, reference) for label, score in zip(asked, scores, strict=True)}
    first = explanations[one]
    return Explained(
        model=name,
        prompts={label: messages[:-1] for label, messages in asked.items()},
        answers={} if prompt_only else {label: written_out(messages[-1]) for label, messages in asked.items()},
        explanations={} if prompt_only else explanations,
        comparison=pair,
        gate=first.score.gate,
        gate_as_trained=first.score.gate_as_trained,
        alike=first.alike,
        profile=first.score.profile,
        references=len(reference.prompts) if reference else 0,
        max_tokens=engine.renderer.max_tokens,
        truncated=tuple(label for label, score in zip(asked, scores, strict=True) if score.truncated),
        notes={label: score.notes for label, score in zip(asked, scores, strict=True) if score.notes},
    )


def check_profile(profile: Path, name: str) -> Fit:
    """What a profile does to a model's mean weights. Raises RecipeError with every fault."""
    steering, model = _bind(profile, name)
    facts: dict[str, Any] = {"profile": steering.profile.to_json(), "model": name, "fits": True}
    if model.reference is None or not len(model.reference.gates):
        return Fit(**facts)
    gates = torch.tensor(model.reference.gates, dtype=torch.float64)
    means = [g.mean(dim=0).tolist() for g in (gates, steering.apply_gate(gates))]  # over the prompts
    weights = {
        objective: MeanWeight(as_trained=before, steered=after)
        for objective, before, after in zip(model.objectives.names, *means, strict=True)
    }
    return Fit(**facts, prompts=len(gates), mean_weights=weights)


def bake_profile(name: str, profile: Path, out: Path) -> dict[str, Any]:
    """Write the model with the profile in its config, and beside it; what was written, as JSON facts.

    Raises RecipeError for a profile that does not fit, DataError where `out` holds something, StorageError where it can't be
    written.
    """
    require_free(out)
    steering, model = _bind(profile, name)
    model.config.profile = steering.profile.to_json()
    model.config.measured = []  # of the model as it was trained
    with owning(out), writing_folder(out, new=True) as folder:
        model.save_pretrained(folder)
    return {"model": str(out), "profile": steering.profile.to_json()}


def _bind(profile: Path, name: str) -> tuple[Steering, RewardModel]:
    wanted, model = Profile.from_yaml(profile), RewardModel.from_pretrained(local(name))
    return Steering.of(wanted, model.objectives.names, model.config.computed, model.reward_transform_matrix), model


def _answers(file: Path, row: int, against: int | None, how: RowFormat) -> dict[str, Conversation]:
    found = _row(file, row, how)
    if against is None:
        labels = {1: ("answer",), 2: ("chosen", "rejected") if found.wins == (True, False) else ("first", "second")}
        if len(found.answers) not in labels:
            raise DataError(f"{file}:{row}: holds {len(found.answers)} answers: give one, or two to compare")
        return {label: found.conversation(i) for i, label in enumerate(labels[len(found.answers)])}
    if against == row:
        raise DataError(f"row {against} is the same row: name another to compare it with")
    other = _row(file, against, how)
    if len(found.answers) + len(other.answers) > 2:
        raise DataError(
            f"{file}: two rows are compared where each holds one answer; leave the other row out where a row holds two"
        )
    return {f"row {row}": found.conversation(0), f"row {against}": other.conversation(0)}


def _row(file: Path, row: int, how: RowFormat) -> AnswerRow:
    found = answer_row(_record(file, row, how), how)
    if fault := found.error or next(filter(None, found.faults), None):
        raise DataError(f"{file}:{row}: {fault}")
    return found


def _prompt(file: Path, row: int, how: RowFormat) -> Conversation:
    record, columns = _record(file, row, how), how.columns
    values, asked = record.values, (columns.prompt, columns.system, columns.tools)
    turns = values.get(columns.messages)
    if isinstance(turns, list) and turns and isinstance(turns[-1], Mapping) and turns[-1].get("role") == "user":
        values = {columns.messages: [*turns, {"role": "assistant", "content": PLACEHOLDER}]}
    elif values.get(columns.prompt) is not None:
        values = {k: v for k, v in values.items() if k in asked} | {columns.response: PLACEHOLDER}
    found = answer_row(replace(record, values=values), how)
    if found.error is not None:
        raise DataError(f"{file}:{row}: {found.error}")
    return (*found.context, {"role": "assistant", "content": PLACEHOLDER})


def _record(file: Path, row: int, how: RowFormat) -> Record:
    found = next(islice(records(file, how.cells), row - 1, row), None) if 0 < row <= sys.maxsize else None
    if found is None:
        raise DataError(f"{file}: there is no row {row}")
    if isinstance(found, BadRecord):
        raise DataError(f"{file}:{row}: {found.fault}: {found.remedy}")
    return found
