"""Two answers to one prompt compared: which is better, with what probability, and which objectives make the difference.

In: a `Difference`, the model's calibration.  Out: `Comparison`: a margin, a probability, a sentence, JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from armorm.errors import FitError
from armorm.fit.preference import Preference
from armorm.numbers import percent
from armorm.scoring.explain import Difference
from armorm.scoring.score import Score

NOT_CALIBRATED = (
    "this model keeps no calibration (it is of an earlier version or another layout, or its run had too few validation pairs; "
    "train it again)"
)
STEERED = "the calibration is of the model's own scores, not of those under the profile {name}"
OTHER_PROMPT = "the two answer different prompts, and the calibration is of two answers to one"
_whole, _tenths = (partial(percent, digits=digits) for digits in (0, 1))


@dataclass(frozen=True)
class Comparison:
    """Answer A against answer B.

    `probability`: P(A is better), calibrated on pairs that people or judges decided, as the run's report shows; None where the
    calibration says nothing about these two, and `note` says why. `difference` says which objectives make the margin.
    """

    difference: Difference
    probability: float | None = None
    note: str = ""

    @property
    def a(self) -> Score:
        """The score of A."""
        return self.difference.a

    @property
    def b(self) -> Score:
        """The score of B."""
        return self.difference.b

    @property
    def margin(self) -> float:
        """Score of A minus score of B."""
        return self.difference.delta

    def calibrated(self) -> float:
        """The probability. Raises FitError saying why there is none."""
        if self.probability is None:
            raise FitError(f"there is no probability that {self.difference.names[0]} is better: {self.note}")
        return self.probability

    @property
    def verdict(self) -> str:
        """The probability in words: "chosen is the better one with 71 %"."""
        if self.probability is None:
            return f"No probability of being right: {self.note}."
        first, second = self.difference.names
        if self.probability == 0.5:
            return f"The probability that {first} is better than {second} is 50 %: a toss of a coin."
        name, likely = (first, self.probability) if self.probability > 0.5 else (second, 1 - self.probability)
        said = _tenths(likely) if likely > 0.99 else _whole(likely)
        return f"The probability that {name} is the better one is {said}."

    @property
    def sentence(self) -> str:
        """What makes the difference, and how sure it is."""
        return f"{self.difference.sentence} {self.verdict}"

    def to_json(self) -> dict[str, Any]:
        """Margin, probability (null with a `note`), both scores, and the difference taken apart."""
        return {
            **self.facts(),
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "difference": self.difference.to_json(),
        }

    def facts(self) -> dict[str, Any]:
        """The same without scores and terms."""
        note = {"note": self.note} if self.note else {}
        return {"names": list(self.difference.names), "margin": self.margin, "probability": self.probability, **note}

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        yield self.difference
        yield Text(self.verdict)


def comparison(
    difference: Difference, preference: Preference | None, *, steered: str | None = None, one_prompt: bool = True
) -> Comparison:
    """A difference with its probability by a calibration, where the calibration is of such differences.

    `steered` names a profile that the scores are under; `one_prompt` says whether both answer the same.
    """
    if preference is None:
        return Comparison(difference, note=NOT_CALIBRATED)
    if steered is not None:
        return Comparison(difference, note=STEERED.format(name=steered))
    if not one_prompt:
        return Comparison(difference, note=OTHER_PROMPT)
    return Comparison(difference, float(preference.of(np.array([difference.delta]))[0]))
