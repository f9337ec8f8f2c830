"""Calibration of the posterior on held-out rows: noise, what rows of one prompt share, and the reach of an interval.

In: errors of predictions for rows that the fit did not see, their leverages, their prompts.  Out: `Calibration` per objective.
Cost: no matrix beyond [n q], q = 64.

Two questions, two answers. How far may the *mean* rating be from the reward? Its standard deviation is σ √h: σ is set so that
squared held-out errors are right on average, and inflated by the prompts' design effect (rows of one prompt err together, so
there are fewer independent ones than rows). Where will a *new rating* lie? Ratings are no Gaussians, two-valued ones least of
all, so the interval's reach is the 95 % quantile of held-out |error| / (σ √(1 + h)): split conformal prediction, scaled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from armorm.errors import FitError
from armorm.fit.posterior import Directions

LEVEL = 0.95
SKETCH = 64
"""Random directions in which the prompts' design effect is measured."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Rows of one objective, each predicted by a probe that did not see its prompt: errors (rating − reward) and leverages.

    `sketch` [n q]: the rows as the weights' variance sees them (`sketch_of`).
    """

    errors: Float[np.ndarray, " n"]
    leverages: Float[np.ndarray, " n"]
    sketch: Float[np.ndarray, "n q"]
    prompts: Sequence[str]

    def __len__(self) -> int:
        return len(self.errors)

    def take(self, kept: np.ndarray) -> HeldOut:
        """The rows where `kept` holds."""
        at = np.flatnonzero(kept)
        return HeldOut(self.errors[at], self.leverages[at], self.sketch[at], [self.prompts[int(i)] for i in at])


@dataclass(frozen=True)
class Calibration:
    """One objective's noise `sigma`, `inflation` of its weights' standard deviation, and `reach`: a rating lies within
    `reach` predictive standard deviations of the reward 95 times in 100 (1.96 if ratings were Gaussian)."""

    sigma: float
    inflation: float
    reach: float

    def predictive_std(self, leverages: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        return self.sigma * np.sqrt(1 + self.inflation**2 * leverages)


def calibrate(rows: HeldOut) -> Calibration:
    """Noise, inflation and reach of one objective from its held-out rows. Raises FitError for fewer than two rows."""
    n = len(rows)
    if n < 2:
        raise FitError(f"calibration needs at least 2 held-out ratings of an objective, got {n}: give more rated prompts")
    sigma, inflation = _rms(rows.errors / np.sqrt(1 + rows.leverages)), 1.0
    if sigma > 0:
        inflation = math.sqrt(max(1.0, design_effect(rows, sigma)))
        sigma = _rms(rows.errors / np.sqrt(1 + inflation**2 * rows.leverages))
    if not (math.isfinite(sigma) and math.isfinite(inflation)):
        raise FitError(f"calibration found a noise of {sigma:g}: the held-out predictions are not finite: fit the probe again")
    if sigma == 0:
        return Calibration(0.0, inflation, 0.0)
    ratios = np.sort(np.abs(rows.errors) / (sigma * np.sqrt(1 + inflation**2 * rows.leverages)))
    place = min(math.ceil((n + 1) * LEVEL), n)  # the quantile that covers a further row with this probability
    return Calibration(sigma, inflation, float(ratios[place - 1]))


def design_effect(rows: HeldOut, sigma: float) -> float:
    """How many times the weights' sampling variance exceeds that of independent rows with noise σ.

    Σ over prompts |Σ over their rows e b|² / (σ² Σ |b|²), b a row as the weights' variance sees it and e its scaled error: the
    ratio of the cluster-robust (sandwich) to the simple variance, averaged over predictions. 1 where it can't be told.
    """
    errors = rows.errors / np.sqrt(1 + rows.leverages)
    _, prompt = np.unique(np.asarray(rows.prompts, dtype=str), return_inverse=True)
    sums = np.zeros((int(prompt.max()) + 1, rows.sketch.shape[1]))
    np.add.at(sums, prompt, errors[:, None] * rows.sketch)
    simple = sigma**2 * (rows.sketch**2).sum()
    groups = len(sums)
    if simple <= 0 or groups < 2:
        return 1.0
    return float((sums**2).sum() / simple) * groups / (groups - 1)


def sketch_of(part: Directions, column: int, *, seed: int) -> Float[np.ndarray, "d q"]:
    """A matrix S such that |S'u|² is, on average, u'A⁻¹GA⁻¹u: the variance that a row's noise adds to predictions."""
    place = part.columns.index(column)
    shrunk = np.sqrt(part.values) / (part.values + part.alphas[place])
    drawn = np.random.default_rng(seed).standard_normal((len(part.values), SKETCH)) / math.sqrt(SKETCH)
    return (part.vectors * shrunk) @ drawn


def residual_correlation(errors: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "c c"]:
    """Correlation (about zero) of the held-out errors of objectives rated on the same rows; 0 where one has none."""
    joint = errors.T @ errors
    size = np.sqrt(np.diag(joint))
    scale = np.outer(size, size)
    found = np.divide(joint, scale, out=np.zeros_like(joint), where=scale > 0)
    np.fill_diagonal(found, 1.0)
    return found


def _rms(values: Float[np.ndarray, " n"]) -> float:
    return float(np.sqrt((values**2).mean()))
