"""λ by what padding does: a reward that rises when an answer is padded pays for padding, whatever correlates with what.

In: changes of rewards [p k] and of nuisances [p q] from answers to their padded copies.  Out: `PaddingFit`, λ [k q].
Cost: some ten least-squares solutions of p x q per reward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from armorm.errors import FitError

FEWEST = 10
"""Padded copies that a fit needs at least."""
LEAST = 0.05
"""A nuisance that padding moves by less than this share of its own deviation is not charged: λ would be noise over noise."""
APART = 0.01
"""Directions of the changes that are shorter than this share of the longest one tell nothing apart."""
TUNING = 1.345
"""Huber's constant: residuals beyond so many deviations count by their size, not its square."""
MAX_STEPS = 50


@dataclass(frozen=True, eq=False)
class Changes:
    """What p answers' rewards and computed nuisances gained by padding: the padded copy's less the answer's own."""

    rewards: Float[np.ndarray, "p k"]
    computed: Float[np.ndarray, "p m"]

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True, eq=False)
class PaddingFit:
    """λ [k q] with which rewards gain nothing by padding, and what is to be known of them."""

    coefficients: Float[np.ndarray, "k q"]
    warnings: tuple[str, ...]


def fit_padding(
    rewards: Float[np.ndarray, "p k"],
    nuisances: Float[np.ndarray, "p q"],
    deviations: Float[np.ndarray, " q"],
    names: Sequence[str],
) -> PaddingFit:
    """Regresses each reward's change on the changes of all nuisances, without an intercept, by Huber's loss.

    `deviations` [q] are the nuisances' standard deviations over answers as they are; `names` name them. A nuisance that padding
    does not move gets λ = 0 and a warning; of such as always change together, the smallest λ are taken, with a warning.

    Raises FitError for fewer copies than `FEWEST`, or no more than nuisances, and for changes that are not finite.
    """
    count, q = nuisances.shape
    if count < (needed := max(FEWEST, q + 1)):
        raise FitError(f"{count} padded copies are left for {q} nuisances: at least {needed} are needed: raise `debias.padded`")
    if not (np.isfinite(rewards).all() and np.isfinite(nuisances).all()):
        raise FitError("some rewards or nuisances of padded copies are NaN or infinite: leave those copies out")
    moves = np.sqrt((nuisances**2).mean(axis=0))
    used = np.flatnonzero(moves > LEAST * deviations).tolist()
    still = [names[j] for j in range(q) if j not in used]
    warnings = [f"{name}: padding hardly moves it, by padding nothing is taken out for it" for name in still]
    coefficients = np.zeros((rewards.shape[1], q))
    if used:
        warnings += _moved_together(nuisances[:, used] / moves[used], [names[j] for j in used])
        for i, change in enumerate(rewards.T):
            coefficients[i, used] = slopes(change, nuisances[:, used])
    return PaddingFit(coefficients, tuple(warnings))


def slopes(reward: Float[np.ndarray, " p"], nuisances: Float[np.ndarray, "p q"]) -> Float[np.ndarray, " q"]:
    """One reward's λ: the regression of its change on the changes of nuisances, none of which is always 0."""
    moves = np.sqrt((nuisances**2).mean(axis=0))
    return _huber(reward, nuisances / moves) / moves


def agreed(one: Float[np.ndarray, " q"], other: Float[np.ndarray, " q"]) -> Float[np.ndarray, " q"]:
    """What two λ both say: the smaller where they have one sign, 0 where they have not."""
    return np.where(one * other > 0, np.sign(one) * np.minimum(np.abs(one), np.abs(other)), 0.0)


def _huber(r: Float[np.ndarray, " p"], u: Float[np.ndarray, "p q"]) -> Float[np.ndarray, " q"]:
    # Σ ρ((r − uλ) / s), by least squares with weights min(1, c s / |residual|); s from the median residual, as it is each time
    found = _solved(r, u)
    for _ in range(MAX_STEPS):
        residuals = np.abs(r - u @ found)
        limit = TUNING * 1.4826 * float(np.median(residuals))
        if limit <= 1e-12 * float(np.abs(r).max(initial=0.0)):  # most of them fit to the last digit
            break
        root = np.sqrt(np.minimum(1.0, limit / np.maximum(residuals, limit)))
        before, found = found, _solved(root * r, root[:, None] * u)
        if float(np.abs(found - before).max()) <= 1e-9 * float(np.abs(found).max()):
            break
    return found


def _solved(r: Float[np.ndarray, " p"], u: Float[np.ndarray, "p q"]) -> Float[np.ndarray, " q"]:
    found: Float[np.ndarray, " q"] = np.linalg.lstsq(u, r, rcond=APART)[0]
    return found


def _moved_together(scaled: Float[np.ndarray, "p q"], names: Sequence[str]) -> Iterator[str]:
    # The directions that tell nothing apart, by the nuisances that take part in them.
    _, lengths, directions = np.linalg.svd(scaled, full_matrices=False)
    for length, direction in zip(lengths, directions, strict=True):
        if length <= APART * lengths[0]:
            part = [name for name, share in zip(names, direction, strict=True) if abs(share) > 0.1]
            yield f"{', '.join(part)}: change together under padding, which of them is charged is not determined by it"
