"""One or two answers taken apart, and a profile checked, as what the terminal, JSON and the page show.

In: `Explanation`s, a `Difference`, a prompt's gate.  Out: `Explained`, `Fit`; tables.  Cost: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from armorm.conversation import Conversation
from armorm.numbers import decimal, shorten, signed
from armorm.report.tables import Grid, Row, grid
from armorm.report.terminal import Shown
from armorm.results import Result
from armorm.scoring.explain import Difference, Explanation, bar
from armorm.scoring.reference import Alike

_PROMPT = 90  # characters of a prompt that are shown


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

    def parts(self) -> list[Any]:
        """For the terminal: the difference or the score with bars, then the gate's neighbours."""
        parts: list[Any] = []
        if self.difference is not None:
            parts.append(self.difference)
            parts += [Text(f"{name}: {one.sentence}") for name, one in self.explanations.items()]
        else:
            parts += list(self.explanations.values()) or [Shown(self._gate())]
        return [*parts, Shown(alike_grid(self.alike))] if self.alike else parts

    def _gate(self) -> Grid:
        gate, before = self.gate, self.gate_as_trained
        reach = max(gate.values(), default=0.0) or 1.0
        rows = [
            [
                name,
                *([decimal(before[name])] if before else []),
                decimal(gate[name]),
                "█" * round(20 * gate[name] / reach),
            ]
            for name in sorted(gate, key=lambda name: -gate[name])
        ]
        head = ("objective", *(["as trained"] if before else []), "weight", "")
        title = "weights that this prompt opens" + (f", profile {self.profile}" if self.profile is not None else "")
        return grid("gate", title, head, rows, words=(0, len(head) - 1))


def alike_grid(alike: Sequence[Alike]) -> Grid:
    """Training prompts whose gate is like this one's."""
    rows = [[decimal(one.distance), one.source, shorten(one.prompt, _PROMPT)] for one in alike]
    title = "training prompts that open the gate alike (0 = the same weights)"
    return grid("alike", title, ("distance", "source", "prompt"), rows, words=(1, 2))


class MeanWeight(Result):
    """An objective's mean weight over the reference prompts."""

    as_trained: float
    """Without the profile."""
    steered: float
    """With it."""


class Fit(Result):
    """What a profile does to a model's mean weights."""

    profile: dict[str, Any]
    """The profile."""
    model: str
    """The model's folder or hub id."""
    fits: bool
    """Whether it fits; what does not is an error."""
    prompts: int = 0
    """Reference prompts, where the model has them."""
    mean_weights: Mapping[str, MeanWeight] | None = None
    """By objective, its mean weight over them."""

    def parts(self) -> list[Any]:
        """For the terminal: the verdict, and how each objective's mean weight moves."""
        verdict = Text(f"{self.profile['name']} fits {self.model}")
        if self.mean_weights is None:
            return [verdict]
        moves = {name: one.steered - one.as_trained for name, one in self.mean_weights.items()}
        reach = max(map(abs, moves.values()), default=0.0)
        rows: list[Row] = [
            [name, decimal(one.as_trained), decimal(one.steered), signed(moves[name]), bar(moves[name], reach).plain]
            for name, one in self.mean_weights.items()
        ]
        title = f"mean weight over {self.prompts:,} training prompts"
        head = ("objective", "as trained", "steered", "change", "")
        return [verdict, Shown(grid("weights", title, head, rows, words=(0, 4)))]
