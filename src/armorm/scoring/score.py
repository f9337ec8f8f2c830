"""What scoring one conversation gives: a number, and the sum that it is.

In: the heads' outputs for one row.  Out: `Score`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from armorm.numbers import decimal, signed


@dataclass(frozen=True)
class Score:
    """One conversation's score, taken apart.

    `rewards`: predicted rating per objective, [0, 1] scale; `raw`: the same on the rating's own scale; `gate`: weight per
    objective, sums to 1; `coefficients`: what each term is multiplied with after debiasing (objectives, then computed
    nuisances, then a profile's constraints); `terms`: the multiplied values; `contributions`: coefficient · term, they sum to
    `score`. `truncated` says that the conversation did not fit and lost its oldest part; `notes` name what the chat template left
    out or could not keep apart. `std` and `reward_std`: how far the
    score and the rewards may be off because ratings were few, as standard deviations; None where the model doesn't know.
    `gate_std` and `std_from_gate`: how far the gates of several seeds are apart, as standard deviations of the weights and of the
    score that they give; empty and None where the gate is of one seed.

    Under a steering profile, `profile` is its name, `gate` holds the steered weights, `gate_as_trained` those that the gate
    gave, and `constraints` names the terms that are constraints.
    """

    score: float
    rewards: Mapping[str, float]
    raw: Mapping[str, float]
    gate: Mapping[str, float]
    terms: Mapping[str, float]
    coefficients: Mapping[str, float]
    contributions: Mapping[str, float]
    truncated: bool = False
    std: float | None = None
    reward_std: Mapping[str, float | None] = field(default_factory=dict)
    gate_std: Mapping[str, float] = field(default_factory=dict)
    std_from_gate: float | None = None
    profile: str | None = None
    gate_as_trained: Mapping[str, float] = field(default_factory=dict)
    constraints: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __float__(self) -> float:
        return self.score

    # Scores are put in order by their numbers, among each other and beside plain ones; they are equal where all of them is.

    def __lt__(self, other: Score | float) -> bool:
        return self.score < float(other) if isinstance(other, _NUMBERS) else NotImplemented

    def __le__(self, other: Score | float) -> bool:
        return self.score <= float(other) if isinstance(other, _NUMBERS) else NotImplemented

    def __gt__(self, other: Score | float) -> bool:
        return self.score > float(other) if isinstance(other, _NUMBERS) else NotImplemented

    def __ge__(self, other: Score | float) -> bool:
        return self.score >= float(other) if isinstance(other, _NUMBERS) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.score)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The number as an array of no dimensions, so that arrays of scores are arrays of numbers."""
        if copy is False:
            raise ValueError("a score is no array, so one of it is a copy: leave copy=False out")
        return np.array(self.score, dtype=dtype)

    def to_json(self) -> dict[str, Any]:
        steered = {"profile": self.profile, "gate_as_trained": dict(self.gate_as_trained), "constraints": list(self.constraints)}
        seeds = {"gate_std": dict(self.gate_std), "std_from_gate": self.std_from_gate}
        return {
            "score": self.score,
            "rewards": dict(self.rewards),
            "raw": dict(self.raw),
            "gate": dict(self.gate),
            "terms": dict(self.terms),
            "coefficients": dict(self.coefficients),
            "contributions": dict(self.contributions),
            "truncated": self.truncated,
            "std": self.std,
            "reward_std": dict(self.reward_std),
            **(seeds if self.gate_std else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
            **(steered if self.profile is not None else {}),
        }

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        unsure = "" if self.std is None else f" ± {decimal(self.std, 4)}"
        table = Table(title=Text(f"score {decimal(self.score, 4)}{unsure}"), title_justify="left")
        over_seeds = [("± over seeds", self.gate_std)] if self.gate_std else []
        columns = [("reward", self.terms), ("raw", self.raw), ("gate", self.gate), *over_seeds]
        for name in ("term", *(name for name, _ in columns), "coefficient", "contribution"):
            table.add_column(name, justify="left" if name == "term" else "right")
        for term, contribution in sorted(self.contributions.items(), key=lambda c: -abs(c[1])):
            numbers = (decimal(one.get(term)) for _, one in columns)
            cells = (*numbers, signed(self.coefficients[term], 4), signed(contribution, 4))
            table.add_row(Text(term), *cells)
        yield table


_NUMBERS = (Score, Real)
