"""The Bradley–Terry reward model on frozen features: one linear head, fitted to pairs alone.

In: features of chosen and rejected answers.  Out: `BradleyTerry`, a FeatureScorer; on disk safetensors and JSON.
Cost: one logistic regression [p d] per strength and feature; the strength is chosen on held-out prompts.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from armorm.disk import load_part, save_part
from armorm.errors import CheckpointError, FitError
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
    candidates: Iterable[tuple[str, Float[np.ndarray, "p _"], Float[np.ndarray, "p _"]]],
    validation: Bool[np.ndarray, " p"],
    *,
    strengths: Sequence[float] = STRENGTHS,
) -> BradleyTerry:
    """Fit on the pairs outside `validation`; feature and strength (scikit-learn's C) by log-loss on those inside.

    `candidates` are features by name, of chosen and of rejected answers [p w]; they are asked for one after the other.
    Differences are scaled to unit deviation per column, which the weights undo. Raises FitError without training or validation
    pairs, and where nothing finite can be found.
    """
    if not validation.any() or validation.all():
        n = int(validation.sum())
        raise FitError(f"Bradley–Terry needs training and validation pairs; {n} of {len(validation)} are for validation")
    best: tuple[float, BradleyTerry] | None = None
    for feature, chosen, rejected in candidates:
        difference = chosen.astype(np.float64) - rejected.astype(np.float64)
        if bad := int((~np.isfinite(difference)).any(axis=1).sum()):
            raise FitError(
                f"{bad} of {len(difference)} pairs have features at {feature} that are NaN or infinite: extract them again"
            )
        scale = np.maximum(difference[~validation].std(axis=0), 1e-8)
        for strength in strengths:
            w = _fit(difference[~validation] / scale, strength) / scale
            loss = float(np.logaddexp(0, -(difference[validation] @ w)).mean())
            if math.isfinite(loss) and np.isfinite(w).all() and (best is None or loss < best[0]):
                best = (loss, BradleyTerry(w, strength, feature))
    if best is None:
        raise FitError("Bradley–Terry found no finite weights at any strength: the features are too large, or there are none")
    return best[1]


def _fit(differences: Float[np.ndarray, "p w"], strength: float) -> Float[np.ndarray, " w"]:
    # −log σ(w·(c − r)): logistic regression without intercept; every pair once each way makes two classes
    if len(differences) == 1:  # which two of half its weight are, once each way
        differences, strength = np.repeat(differences, 2, axis=0), strength / 2
    X = np.concatenate([differences[::2], -differences[1::2]])
    y = np.concatenate([np.ones(len(differences[::2])), np.zeros(len(differences[1::2]))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the strongest strengths need no last digit
        return LogisticRegression(C=strength, fit_intercept=False, max_iter=300).fit(X, y).coef_[0]


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
    if not np.isfinite(tensors["weights"]).all():
        raise CheckpointError(f"{folder / PART}.safetensors: weights holds NaN or infinity: {REMEDY}")
    return BradleyTerry(tensors["weights"], facts["strength"], facts["feature"], facts["name"], facts["label"])
