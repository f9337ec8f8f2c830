"""Rivals that weigh objectives the same for every prompt, or look at nothing but length.

In: a probe and a debiasing (or none).  Out: FeatureScorers.  Cost: none beyond the probe's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from armorm.fit.debias import Debias, DebiasedRewards
from armorm.fit.gate import Gate
from armorm.fit.probe import Probe
from armorm.scoring import AnswerFeatures


@dataclass(frozen=True)
class GatedRewards:
    """Probe, debiasing, gate on features: the method itself, and with a constant gate its fixed-weight rivals."""

    probe: Probe
    debias: Debias
    gate: Gate
    name: str
    label: str

    def score_features(self, answers: AnswerFeatures) -> Float[np.ndarray, " n"]:
        rewards = debiased_rewards(self.probe, self.debias, answers)
        return (self.gate.weights_for(answers.prompt) * rewards.values).sum(axis=1)


@dataclass(frozen=True)
class LongerWins:
    """Length in tokens is the score."""

    name: str = "length"
    label: str = "longer wins"

    def score_features(self, answers: AnswerFeatures) -> Float[np.ndarray, " n"]:
        return answers.tokens.astype(np.float64)


def debiased_rewards(probe: Probe, debias: Debias, answers: AnswerFeatures) -> DebiasedRewards:
    """r' of answers from their features."""
    computed = np.repeat(answers.tokens[:, None].astype(np.float64), len(debias.computed), axis=1)
    return debias.apply(probe.predict(answers.response), computed)


def best_single_objective(chosen: DebiasedRewards, rejected: DebiasedRewards) -> int:
    """The column whose reward alone orders most pairs right (ties count half)."""
    gap = chosen.values - rejected.values
    return int(np.argmax((gap > 0).mean(axis=0) + 0.5 * (gap == 0).mean(axis=0)))
