"""What scoring one conversation gives: a number, and the sum that it is.

In: the heads' outputs for one row.  Out: `Score`.  Cost: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table


@dataclass(frozen=True)
class Score:
    """One conversation's score, taken apart.

    `rewards`: predicted rating per objective, [0, 1] scale; `raw`: the same on the rating's own scale; `gate`: weight per
    objective, sums to 1; `coefficients`: what each term is multiplied with after debiasing (objectives, then computed
    nuisances); `terms`: the multiplied values; `contributions`: coefficient · term, they sum to `score`.
    `truncated` says that the conversation did not fit and lost its oldest part.
    """

    score: float
    rewards: Mapping[str, float]
    raw: Mapping[str, float]
    gate: Mapping[str, float]
    terms: Mapping[str, float]
    coefficients: Mapping[str, float]
    contributions: Mapping[str, float]
    truncated: bool = False

    def __float__(self) -> float:
        return self.score

    def to_json(self) -> dict[str, Any]:
        return {
            "score": self.score,
            "rewards": dict(self.rewards),
            "raw": dict(self.raw),
            "gate": dict(self.gate),
            "coefficients": dict(self.coefficients),
            "contributions": dict(self.contributions),
            "truncated": self.truncated,
        }

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        table = Table(title=f"score {self.score:.4f}", title_justify="left")
        for name in ("term", "reward", "raw", "gate", "coefficient", "contribution"):
            table.add_column(name, justify="left" if name == "term" else "right")
        for term, contribution in sorted(self.contributions.items(), key=lambda c: -abs(c[1])):
            raw, gate = (f"{d[term]:.3f}" if term in d else "" for d in (self.raw, self.gate))
            table.add_row(term, f"{self.terms[term]:.3f}", raw, gate, f"{self.coefficients[term]:+.4f}", f"{contribution:+.4f}")
        yield table
