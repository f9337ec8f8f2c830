"""`armorm explain` and `armorm steer`: a file's row, a model, a profile → explanations; profiles checked and baked.

In: arguments.  Out: `Explained` (tables, JSON facts, an HTML page); a model folder with its profile.
Cost: loading the model and one or two forward passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from armorm.conversation import Conversation
from armorm.data.answer_rows import AnswerRow, answer_row
from armorm.data.files import BadRecord, Record, records
from armorm.errors import DataError, StorageError
from armorm.model.reward_model import RewardModel
from armorm.scoring.explain import Difference, Explanation, bar, explain
from armorm.scoring.profile import FILE, Profile
from armorm.scoring.reference import Alike, shortened
from armorm.scoring.steer import Steering

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

    def tables(self) -> list[Any]:
        """For the terminal: the difference or the score with bars, then the gate's neighbours."""
        parts: list[Any] = []
        if self.difference is not None:
            parts.append(self.difference)
            parts += [Text(f"{name}: {one.sentence}") for name, one in self.explanations.items()]
        else:
            parts += list(self.explanations.values()) or [_gate_table(self.gate, self.gate_as_trained, self.profile)]
        return [*parts, _alike_table(self.alike)] if self.alike else parts


def explained(
    name: str, file: Path, row: int, *, against: int | None = None, profile: Path | None = None, prompt_only: bool = False
) -> Explained:
    """A row's answer, or its chosen answer against its rejected one, or against another row's; or its prompt's gate.

    Raises DataError for a row that is not there or is no conversation, RecipeError for a profile that does not fit.
    """
    if prompt_only and against is not None:
        raise DataError("--prompt-only looks at one prompt: leave out --against")
    asked = {"prompt": _prompt(file, row)} if prompt_only else _answers(file, row, against)
    steered = Profile.from_yaml(profile) if profile else None
    model = RewardModel.from_pretrained(name)
    reference = model.reference
    pair = list(asked)
    gap = model.difference(*asked.values(), names=(pair[0], pair[1]), profile=steered) if len(pair) == 2 else None
    compared = model.score(list(asked.values()), profile=steered) if gap is None else [gap.a, gap.b]
    scores = dict(zip(asked, compared, strict=True))
    found = {label: explain(score, reference) for label, score in scores.items()}
    first = next(iter(found.values()))
    common: dict[str, Any] = {
        "model": name,
        "prompts": {label: messages[:-1] for label, messages in asked.items()},
        "gate": first.score.gate,
        "gate_as_trained": first.score.gate_as_trained,
        "alike": first.alike,
        "profile": first.score.profile,
        "references": len(reference.prompts) if reference else 0,
    }
    if prompt_only:
        return Explained(answers={}, explanations={}, **common)
    answers = {label: messages[-1]["content"] for label, messages in asked.items()}
    return Explained(answers=answers, explanations=found, difference=gap, **common)


def checked(profile: Path, name: str) -> dict[str, Any]:
    """What a profile does to a model's mean weights, as JSON facts. Raises RecipeError with every fault."""
    import numpy as np
    import torch

    steered, model = Profile.from_yaml(profile), RewardModel.from_pretrained(name)
    steering = Steering.of(steered, model.objectives.names, model.config.computed, model.reward_transform_matrix)
    reference = model.reference
    facts = {"profile": steered.to_json(), "model": name, "fits": True}
    if reference is None or not len(reference.gates):
        return facts
    gates = torch.from_numpy(np.asarray(reference.gates, dtype=np.float64))
    means = [g.mean(dim=0).tolist() for g in (gates, steering.apply_gate(gates))]  # over the prompts
    weights = {
        objective: {"as_trained": before, "steered": after}
        for objective, before, after in zip(model.objectives.names, *means, strict=True)
    }
    return facts | {"prompts": len(gates), "mean_weights": weights}


def baked(name: str, profile: Path, out: Path) -> dict[str, Any]:
    """Write the model with the profile in its config, and beside it; what was written, as JSON facts.

    Raises RecipeError for a profile that does not fit, DataError where `out` holds something, StorageError where it can't be
    written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there already: name a new folder")
    steered, model = Profile.from_yaml(profile), RewardModel.from_pretrained(name)
    Steering.of(steered, model.objectives.names, model.config.computed, model.reward_transform_matrix)
    reference = model.reference
    model.config.profile = steered.to_json()
    try:
        model.save_pretrained(out)
    except OSError as error:
        raise StorageError(f"{out}: the model can't be written: {error.strerror}") from error
    if reference is not None:
        reference.save(out)
    steered.to_yaml(out / FILE)
    return {"model": str(out), "profile": steered.to_json()}


def check_table(facts: Mapping[str, Any]) -> list[Any]:
    """The verdict, and each objective's mean weight without and with the profile where the model has a reference."""
    verdict = Text(f"{facts['profile']['name']} fits {facts['model']}")
    if "mean_weights" not in facts:
        return [verdict]
    table = Table(title=f"mean weight over {facts['prompts']:,} training prompts", title_justify="left", title_style="bold")
    table.add_column("objective")
    for head in ("as trained", "steered", "change"):
        table.add_column(head, justify="right")
    table.add_column("", no_wrap=True)
    moves = {name: w["steered"] - w["as_trained"] for name, w in facts["mean_weights"].items()}
    reach = max(map(abs, moves.values()), default=0.0)
    for name, w in facts["mean_weights"].items():
        cells = (f"{w['as_trained']:.3f}", f"{w['steered']:.3f}", f"{moves[name]:+.3f}".replace("-", "−"))
        table.add_row(Text(name), *cells, bar(moves[name], reach))
    return [verdict, table]


def comparison_table(rows: Sequence[Mapping[str, Any]], profile: str) -> Table:
    """`bench.profiles.profile_comparison`'s rows for the terminal."""
    table = Table(title=Text(f"What the profile {profile} costs and brings, in %"), title_justify="left", title_style="bold")
    table.add_column("")
    for head in ("without", "with", "difference (95 % interval)", "p", "gained", "lost"):
        table.add_column(head, justify="right")
    several = len({row["aggregate"] for row in rows}) > 1
    for row in rows:
        name = f"{row['aggregate']}: {row['name']}" if several else row["name"]
        gap, p = row["difference"], row["p"]
        span = "" if gap["value"] is None else _points(gap)
        values = ("" if one["value"] is None else f"{100 * one['value']:.1f}" for one in (row["base"], row["steered"]))
        written = "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
        table.add_row(
            Text(name), *values, span, written, str(row["gained"]), str(row["lost"]), end_section=row["level"] == "overall"
        )
    return table


def _points(gap: Mapping[str, float]) -> str:
    value, low, high = (f"{100 * gap[k]:+.1f}".replace("-", "−") for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _gate_table(gate: Mapping[str, float], as_trained: Mapping[str, float], profile: str | None) -> Table:
    title = "weights that this prompt opens" + (f", profile {profile}" if profile is not None else "")
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    table.add_column("objective")
    for head in ("as trained", "weight") if as_trained else ("weight",):
        table.add_column(head, justify="right")
    table.add_column("", no_wrap=True)
    reach = max(gate.values(), default=0.0)
    for name in sorted(gate, key=lambda n: -gate[n]):
        cells = [f"{as_trained[name]:.3f}"] if as_trained else []
        table.add_row(Text(name), *cells, f"{gate[name]:.3f}", Text("█" * round(20 * gate[name] / reach), style="blue"))
    return table


def _alike_table(alike: Sequence[Alike]) -> Table:
    table = Table(
        title="training prompts that open the gate alike (0 = the same weights)", title_justify="left", title_style="bold"
    )
    table.add_column("distance", justify="right")
    table.add_column("source")
    table.add_column("prompt")
    for one in alike:
        table.add_row(f"{one.distance:.3f}", Text(one.source), Text(shortened(one.prompt, 90)))
    return table


def _answers(file: Path, row: int, against: int | None) -> dict[str, Conversation]:
    found = _row(file, row)
    if against is None:
        labels = {1: ("answer",), 2: ("chosen", "rejected") if "chosen" in found.values else ("first", "second")}
        if len(found.answers) not in labels:
            raise DataError(f"{file}:{row}: holds {len(found.answers)} answers: give one, or two to compare")
        return {label: found.conversation(i) for i, label in enumerate(labels[len(found.answers)])}
    if against == row:
        raise DataError(f"--against {against} is the same row: name another")
    other = _row(file, against)
    if len(found.answers) + len(other.answers) > 2:
        raise DataError(f"{file}: --against compares rows of one answer each; leave it out where a row holds two")
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
