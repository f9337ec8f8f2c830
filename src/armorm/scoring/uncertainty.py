"""Uncertainty that is stored with a model: standard errors of rewards, scores and differences, and intervals for ratings.

In: the calibrated posterior of the probe.  Out: `Uncertainty`, saved as a part (safetensors and sealed JSON).
Cost: r · d numbers in float32 per set of rated rows (r at most 512); r · d products per answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from armorm.disk import load_part, reading_facts, save_part
from armorm.errors import CheckpointError, FitError, ObjectiveMismatch
from armorm.fit.posterior import Directions, Posterior
from armorm.objectives import Objectives

FORMAT = 2
NAME = "uncertainty"
REMEDY = "remove its folder, and copy the model again or train it"
FILES = (f"{NAME}.safetensors", f"{NAME}.json")


@dataclass(frozen=True, eq=False)
class ScoreUncertainty:
    """Standard deviations of n scores and of their rewards ([0, 1] scale; NaN for an objective that could not be fitted).

    They say how far the predicted *mean* may be off because ratings were few, not how far a single rating strays from it. Gate
    and debiasing are taken as known.
    """

    std: Float[np.ndarray, " n"]
    reward_std: Float[np.ndarray, "n k"]


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """A probe's posterior and, per objective, the `reach` [k] of an interval that holds a new rating at `level`."""

    objectives: Objectives
    posterior: Posterior
    reach: Float[np.ndarray, " k"]
    level: float = 0.95

    def __post_init__(self) -> None:
        if not len(self.objectives) == self.posterior.k == len(self.reach):
            raise ObjectiveMismatch(
                f"an uncertainty of {len(self.objectives)} objectives has a posterior of {self.posterior.k} and reaches of "
                f"{len(self.reach)}: fit it again on this probe"
            )

    def of_score(self, response_features: Float[np.ndarray, "n w"], coefficients: Float[np.ndarray, "n q"]) -> ScoreUncertainty:
        """Uncertainty of scores. `coefficients` [n k+m]: those of the k objectives first; computed nuisances are exact."""
        std = self.posterior.score_std(response_features, self._own(coefficients))
        return ScoreUncertainty(std, self.posterior.std(response_features))

    def of_difference(
        self,
        features_a: Float[np.ndarray, "n w"],
        coefficients_a: Float[np.ndarray, "n q"],
        features_b: Float[np.ndarray, "n w"],
        coefficients_b: Float[np.ndarray, "n q"],
    ) -> Float[np.ndarray, " n"]:
        """Standard deviation of score a − score b: smaller than the two scores' own, for both err with the same weights."""
        own_a, own_b = self._own(coefficients_a), self._own(coefficients_b)
        return self.posterior.difference_std(features_a, own_a, features_b, own_b)

    def rating_interval(
        self, response_features: Float[np.ndarray, "n w"], rewards: Float[np.ndarray, "n k"]
    ) -> tuple[Float[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
        """Where a new rating lies at `level` ([0, 1] scale, cut off at the scale's ends): lower and upper ends."""
        half = self.reach * self.posterior.predictive_std(response_features)
        low, high = np.array([o.unit_ends for o in self.objectives], dtype=np.float64).T
        return np.clip(rewards - half, low, high), np.clip(rewards + half, low, high)

    def rounded(self) -> Uncertainty:
        """As it is stored: eigenvectors in float32. Saved and read back, it gives the same numbers."""
        parts = tuple(replace(part, vectors=part.vectors.astype(np.float32)) for part in self.posterior.parts)
        return replace(self, posterior=replace(self.posterior, parts=parts))

    def save(self, folder: Path) -> None:
        """Write `uncertainty.safetensors`, then `uncertainty.json`. Raises StorageError."""
        p = self.rounded().posterior
        tensors = {"sigma": p.sigma, "inflation": p.inflation, "correlation": p.correlation, "reach": self.reach}
        for i, part in enumerate(p.parts):
            tensors |= {f"parts.{i}.{name}": getattr(part, name) for name in ("vectors", "values", "alphas", "tails")}
            if p.intercept:
                tensors[f"parts.{i}.mean"] = part.mean
        if wrong := [key for key, tensor in tensors.items() if not _sound(key, tensor)]:
            raise FitError(
                f"{', '.join(wrong[:3])} of the uncertainty came out NaN or infinite: check the ratings and the features"
            )
        facts = {
            "objectives": self.objectives.to_json(),
            "width": p.width,
            "intercept": p.intercept,
            "level": self.level,
            "parts": [{"columns": list(part.columns), "n": part.n} for part in p.parts],
        }
        save_part(folder, NAME, tensors, facts, FORMAT)

    @classmethod
    def load(cls, folder: Path, objectives: Objectives | None = None) -> Uncertainty | None:
        """The uncertainty in a folder, None where there is none.

        Raises CheckpointError for files that are damaged or of another format, ObjectiveMismatch when they are about other
        objectives than the given ones.
        """
        path = folder / f"{NAME}.json"
        if not path.is_file():
            return None
        tensors, facts = load_part(folder, NAME, FORMAT, remedy=REMEDY)
        with reading_facts(path, remedy=REMEDY):
            return cls._of(tensors, facts, path, objectives)

    @classmethod
    def _of(cls, tensors: dict[str, np.ndarray], facts: dict[str, Any], path: Path, objectives: Objectives | None) -> Uncertainty:
        named = Objectives.from_json(facts["objectives"], where=str(path))
        if objectives is not None and objectives.names != named.names:
            raise ObjectiveMismatch(
                f"the model has {objectives}, {path} has {named}: copy both {NAME} files of this model, or remove them"
            )
        if wrong := [key for key, tensor in tensors.items() if not _sound(key, tensor)]:
            raise CheckpointError(
                f"{path.with_suffix('.safetensors')}: {', '.join(wrong[:3])} holds NaN or infinity: copy it again"
            )
        return cls(named, _posterior(facts, tensors), tensors["reach"], float(facts["level"]))

    def _own(self, coefficients: Float[np.ndarray, "n q"]) -> Float[np.ndarray, "n k"]:
        if coefficients.shape[1] < len(self.objectives):
            raise ObjectiveMismatch(
                f"there are coefficients of {coefficients.shape[1]} terms, but {len(self.objectives)} objectives: "
                "give one for each objective, computed nuisances after them"
            )
        return coefficients[:, : len(self.objectives)]


def _sound(key: str, tensor: np.ndarray) -> bool:
    # An objective that could not be fitted has no σ and no reach.
    return not np.isinf(tensor).any() and (key in ("sigma", "reach") or not np.isnan(tensor).any())


def _check_fits(part: Directions, width: int, k: int) -> None:
    arrays = [part.mean.shape, part.vectors.shape, part.alphas.shape, part.tails.shape]
    wanted = [(width,), (width, len(part.values)), (len(part.columns),), (len(part.columns),)]
    if arrays != wanted or not all(0 <= column < k for column in part.columns):
        raise ValueError(f"arrays of {arrays} for columns {part.columns} of {k}")


def _posterior(facts: dict[str, Any], tensors: dict[str, np.ndarray]) -> Posterior:
    width, intercept, parts = index(facts["width"]), bool(facts["intercept"]), []
    for i, part in enumerate(facts["parts"]):
        mean = tensors[f"parts.{i}.mean"] if intercept else np.zeros(width)
        numbers = (tensors[f"parts.{i}.{name}"] for name in ("vectors", "values", "alphas", "tails"))
        parts.append(Directions(tuple(map(index, part["columns"])), index(part["n"]), mean, *numbers))
        _check_fits(parts[-1], width, len(tensors["sigma"]))
    sigma, inflation, correlation = (tensors[name] for name in ("sigma", "inflation", "correlation"))
    return Posterior(width, sigma, inflation, correlation, intercept, tuple(parts))
