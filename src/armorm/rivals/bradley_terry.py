"""The Bradley–Terry reward model on frozen features: one linear head, fitted to pairs alone.

In: features of chosen and rejected answers.  Out: `BradleyTerry`, a FeatureScorer; on disk safetensors and JSON.
Cost: per feature what `fit_logistic` takes for all strengths together; the strength is chosen on held-out prompts. A block of
pairs is in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from armorm.disk import load_part, reading_facts, save_part
from armorm.errors import CheckpointError, FitError
from armorm.features.columns import Held, Places, Rows, blocks
from armorm.fit.moments import broken_rows, moments_of
from armorm.rivals.logistic import Differences, fit_logistic
from armorm.scorers import AnswerFeatures

FORMAT = 2
PART = "bradley-terry"
REMEDY = "remove the stage's folder and train again"
STRENGTHS = tuple(10.0**e for e in range(-6, 2))


@dataclass(frozen=True)
class BradleyTerry:
    """score = w · feature; P(chosen ≻ rejected) = σ(score difference)."""

    weights: Float[np.ndarray, " w"]
    strength: float
    feature: str
    name: str = "bradley-terry"
    label: str = "Bradley–Terry, linear"

    def score_features(self, answers: AnswerFeatures) -> Float[np.ndarray, " n"]:
        return answers.response.astype(np.float64) @ self.weights


def fit_bradley_terry(
    candidates: Iterable[tuple[str, Float[np.ndarray, "p _"] | Rows, Float[np.ndarray, "p _"] | Rows]],
    validation: Bool[np.ndarray, " p"],
    *,
    strengths: Sequence[float] = STRENGTHS,
    weights: Float[np.ndarray, " p"] | None = None,
) -> BradleyTerry:
    """Fit on the pairs outside `validation`; feature and strength (scikit-learn's C) by log-loss on those inside.

    `candidates` are features by name, of chosen and of rejected answers [p w]; they are asked for one after the other.
    `weights` say what each pair counts in the losses, their mean over the training pairs being 1 (none: all alike).
    Differences are scaled to unit deviation per column, which the model's weights undo. Raises FitError without training or
    validation pairs, and where nothing finite can be found.
    """
    if not validation.any() or validation.all():
        n = int(validation.sum())
        raise FitError(f"Bradley–Terry needs training and validation pairs; {n} of {len(validation)} are for validation")
    train, held_out = np.flatnonzero(~validation), np.flatnonzero(validation)
    counts = np.ones(len(validation)) if weights is None else weights
    best: tuple[float, BradleyTerry] | None = None
    for feature, chosen, rejected in candidates:
        sides = [Held(side) if isinstance(side, np.ndarray) else side for side in (chosen, rejected)]
        differences, broken = _scaled(Differences(sides[0], sides[1]), train, held_out)
        if broken:
            raise FitError(
                f"{broken} of {len(validation)} pairs have features at {feature} that are NaN or infinite: extract them again"
            )
        fitted = fit_logistic(differences, train, strengths, counts[train])
        losses = _losses(differences, held_out, fitted, counts)
        for strength, w, loss in zip(strengths, fitted / differences.scale, losses, strict=True):
            if math.isfinite(loss) and np.isfinite(w).all() and (best is None or loss < best[0]):
                best = (float(loss), BradleyTerry(w, strength, feature))
    if best is None:
        raise FitError("Bradley–Terry found no finite weights at any strength: the features are too large, or there are none")
    return best[1]


def _scaled(plain: Differences, train: Places, held_out: Places) -> tuple[Differences, int]:
    # Differences whose columns have unit deviation over the training pairs, and how many pairs are not finite. One pass.
    moments = moments_of(plain.rows(train[at]) for at in blocks(len(train)))
    broken = moments.broken + sum(broken_rows(plain.rows(held_out[at])) for at in blocks(len(held_out)))
    return replace(plain, scale=np.maximum(moments.deviation, 1e-8)), broken


def _losses(
    differences: Differences, at: Places, weights: Float[np.ndarray, "s w"], counts: Float[np.ndarray, " p"]
) -> Float[np.ndarray, " s"]:
    # The mean log-loss of some pairs at each strength
    total = np.zeros(len(weights))
    for rows in blocks(len(at)):
        x = differences.rows(at[rows])
        margins = x @ weights.T.astype(x.dtype)
        total += (counts[at[rows], None] * np.logaddexp(0, -margins.astype(np.float64))).sum(axis=0)
    return total / len(at)


def save_bradley_terry(folder: Path, rival: BradleyTerry) -> None:
    """Write `bradley-terry.safetensors` and `.json` into `folder`. Raises StorageError."""
    if not np.isfinite(rival.weights).all():
        raise FitError("Bradley–Terry: weights: NaN or infinity came out of the fit, and is not saved: check its features")
    facts = {name: getattr(rival, name) for name in ("strength", "feature", "name", "label")}
    save_part(folder, PART, {"weights": rival.weights}, facts, FORMAT)


def load_bradley_terry(folder: Path) -> BradleyTerry | None:
    """The rival that `save_bradley_terry` wrote; None where there is none. Raises CheckpointError when it is damaged."""
    if not (folder / f"{PART}.json").is_file():
        return None
    tensors, facts = load_part(folder, PART, FORMAT, remedy=REMEDY)
    with reading_facts(folder / f"{PART}.json", remedy=REMEDY):
        if not np.isfinite(tensors["weights"]).all():
            raise CheckpointError(f"{folder / PART}.safetensors: weights holds NaN or infinity: {REMEDY}")
        return BradleyTerry(tensors["weights"], facts["strength"], facts["feature"], facts["name"], facts["label"])
