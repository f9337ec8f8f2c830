"""The method on features: probe → nuisances → debiasing → gate → sum, the paper's formula in NumPy, once.

In: fitted parts, features of answers.  Out: `Fitted`: rewards, terms, weights, coefficients and scores; saved, a folder of parts.
Cost: one matrix product per answer for the probe, the gate's layers per prompt. `RewardModel` holds the same formula in torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from armorm.errors import FitError, ObjectiveMismatch
from armorm.features.nuisances import STYLE, places_of
from armorm.fit.debias import Debias, DebiasedRewards
from armorm.fit.gate import Gate
from armorm.fit.parts import load_debias, load_gate, load_probe, save_debias, save_gate, save_probe
from armorm.fit.probe import Probe
from armorm.scorers import AnswerFeatures


@dataclass(frozen=True, eq=False)
class Fitted:
    """The fitted parts together. `feature` names the response features that the probe reads ("24:mean")."""

    probe: Probe
    feature: str
    debias: Debias
    gate: Gate

    def __post_init__(self) -> None:
        """Raises ObjectiveMismatch when the parts were fitted on different objectives."""
        if not self.probe.objectives.names == self.debias.objectives.names == self.gate.objectives.names:
            raise ObjectiveMismatch(
                f"the probe has {self.probe.objectives}, the debiasing {self.debias.objectives}, the gate "
                f"{self.gate.objectives}: fit the later parts again on this probe"
            )

    def rewards(self, answers: AnswerFeatures) -> Float[np.ndarray, "n k"]:
        """Rewards before debiasing, [0, 1] scale (eq. 1)."""
        return self.probe.predict(answers.response)

    def terms(self, answers: AnswerFeatures) -> Float[np.ndarray, "n terms"]:
        """What a score is a sum over: rewards, then computed nuisances [n k+m]."""
        return np.concatenate([self.rewards(answers), self.computed(answers)], axis=1)

    def computed(self, answers: AnswerFeatures) -> Float[np.ndarray, "n m"]:
        """The computed nuisances that the debiasing reads."""
        return compute_nuisances(self.debias.computed, answers.tokens, answers.style)

    def debiased(self, answers: AnswerFeatures) -> DebiasedRewards:
        """Rewards r' after debiasing (eq. 2)."""
        return self.debias.apply(self.rewards(answers), self.computed(answers))

    def weights(self, answers: AnswerFeatures) -> Float[np.ndarray, "n k"]:
        """The gate's weights for the answers' prompts; a row sums to 1 (eq. 4)."""
        return self.gate.weights_for(answers.prompt)

    def coefficients(self, answers: AnswerFeatures) -> Float[np.ndarray, "n terms"]:
        """What each term is multiplied with [n k+m]: score = Σ coefficient · term."""
        return self.debias.coefficients(self.weights(answers))

    def scores(self, answers: AnswerFeatures) -> Float[np.ndarray, " n"]:
        """score = Σ weight · debiased reward."""
        return (self.weights(answers) * self.debiased(answers).values).sum(axis=1)  # over k

    def save(self, folder: Path) -> None:
        """Write all three parts into `folder`. Raises StorageError."""
        save_probe(folder, self.probe, self.feature)
        save_debias(folder, self.debias)
        save_gate(folder, self.gate)

    @classmethod
    def load(cls, folder: Path) -> Fitted:
        """The parts that `save` wrote. Raises CheckpointError where one is missing or damaged."""
        return cls(*load_probe(folder), load_debias(folder), load_gate(folder))


def compute_nuisances(
    names: Sequence[str], tokens: Float[np.ndarray, " n"], style: Int[np.ndarray, "n s"] | None = None
) -> Float[np.ndarray, "n m"]:
    """The computed nuisances of answers, one column for each name: of their lengths in tokens, and of their counts of `STYLE`.

    Raises FitError for a name that is none of `COMPUTED`, and for counts that are needed and not given.
    """
    places = places_of(names)
    if style is None and (missing := [name for name in names if name in STYLE]):
        raise FitError(f"{', '.join(missing)}: these answers' texts have not been counted: give the counts of their style")
    lengths = tokens[:, None].astype(np.float64)
    return (lengths if style is None else np.concatenate([lengths, style], axis=1))[:, places]
