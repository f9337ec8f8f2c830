"""Ridge regressions near one whose Cholesky factor is known, by conjugate gradients that this factor preconditions.

In: X'X, X'y, strengths; factors of a gram matrix near X'X (of all rows, where X'X lacks a fold).  Out: weights that meet the
normal equations, or word that they don't.
Cost: a factor in single precision (d³ / 3) for strengths that lie near each other; then about ten products with d x d matrices
for all strengths and objectives of a fold together.

Leaving out a fold, or going to another strength that is small beside the matrix, changes A = X'X + alpha I little: the
eigenvalues of A₀⁻¹ A lie close together, and conjugate gradients take few steps. The factor's own rounding only costs steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg.lapack import spotrf, spotrs

MET = 1e-9
"""How far, as a share of X'y, the normal equations may be left unmet."""
STEPS = 30
"""A fold whose rows are unlike all others' takes more, and is better factored itself."""
NEAR = 4.0
"""How many times a step to a stronger strength may lengthen the shortest eigenvalue and still be served by the same factor."""


@dataclass(frozen=True, eq=False)
class Neighbour:
    """L of X'X + alpha I = L L' in single precision, for the strengths `alphas` near this one."""

    factor: Float[np.ndarray, "d d"]
    alphas: Float[np.ndarray, " a"]

    def solve(self, R: Float[np.ndarray, "d m"]) -> Float[np.ndarray, "d m"]:
        size = np.maximum(np.abs(R).max(axis=0), 1e-300)  # single precision has a small range
        return spotrs(self.factor, (R / size).astype(np.float32), lower=1)[0].astype(np.float64) * size


def neighbours(gram: Float[np.ndarray, "d d"], alphas: Float[np.ndarray, " a"]) -> list[Neighbour]:
    """Factors for the strengths (ascending); those that single precision can't factor have none."""
    found, left = [], np.sort(alphas)
    while len(left):
        factor = _factor(gram, float(left[0]))
        if factor is None:
            left = left[1:]
            continue
        alone = Neighbour(factor, left[:1])
        near = left - left[0] <= (NEAR - 1) * _least(alone, len(gram))
        found.append(Neighbour(factor, left[near]))
        left = left[~near]
    return found


def solve_near(
    gram: Float[np.ndarray, "d d"], moment: Float[np.ndarray, "d c"], alphas: Float[np.ndarray, " a"], known: Sequence[Neighbour]
) -> tuple[Float[np.ndarray, "a c d"], Bool[np.ndarray, " a"]]:
    """Weights at every strength, and which strengths' meet the normal equations."""
    W, met = np.full((len(alphas), *moment.T.shape), np.nan), np.zeros(len(alphas), dtype=bool)
    for neighbour in known:
        at = np.flatnonzero(np.isin(alphas, neighbour.alphas))
        if len(at):
            shifts, c = np.repeat(alphas[at], moment.shape[1]), moment.shape[1]
            X, done = _conjugate_gradients(gram, np.tile(moment, len(at)), shifts, neighbour)
            W[at], met[at] = X.T.reshape(len(at), c, -1), done.reshape(len(at), c).all(axis=1)
    return W, met


def _conjugate_gradients(
    gram: Float[np.ndarray, "d d"], B: Float[np.ndarray, "d m"], shifts: Float[np.ndarray, " m"], near: Neighbour
) -> tuple[Float[np.ndarray, "d m"], Bool[np.ndarray, " m"]]:
    # (X'X + shift I) x = b, column by column; Polak and Ribière's beta forgives a preconditioner that rounds
    X, R = np.zeros_like(B), B.copy()
    Z = near.solve(R)
    P, slope, wanted = Z, (R * Z).sum(axis=0), MET * np.abs(B).max(axis=0)
    for _ in range(STEPS):
        Q = gram @ P + shifts * P
        step = _ratio(slope, (P * Q).sum(axis=0))
        X = X + step * P
        before, R = R, R - step * Q
        if (np.abs(R).max(axis=0) <= wanted).all():
            break
        Z = near.solve(R)
        P = Z + _ratio(((R - before) * Z).sum(axis=0), slope) * P
        slope = (R * Z).sum(axis=0)
    R = B - gram @ X - shifts * X  # what is left, free of the steps' rounding
    return X, np.abs(R).max(axis=0) <= 10 * wanted


def _factor(gram: Float[np.ndarray, "d d"], alpha: float) -> Float[np.ndarray, "d d"] | None:
    shifted = gram.T.astype(np.float32, order="F")
    shifted.flat[:: len(gram) + 1] += np.float32(alpha)
    factor, fault = spotrf(shifted, lower=1, clean=0, overwrite_a=1)
    return None if fault or not np.isfinite(np.diag(factor)).all() else factor


def _least(near: Neighbour, d: int) -> float:
    # About the least eigenvalue of what was factored, by a few inverse iterations
    x = np.random.default_rng(0).standard_normal((d, 1))
    size = 1.0
    for _ in range(8):
        x = near.solve(x / np.linalg.norm(x))
        size = float(np.linalg.norm(x))
    return 1 / size if size > 0 else 0.0


def _ratio(above: Float[np.ndarray, " m"], below: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    return np.divide(above, below, out=np.zeros_like(above), where=below != 0)
