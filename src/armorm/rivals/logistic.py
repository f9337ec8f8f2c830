"""Logistic regression on differences that are read from disk: all strengths at once, a few passes over the pairs.

In: `Differences` (features of both sides, scaled), which pairs to fit to and what each counts, strengths.  Out: weights [s w], a
row per strength.
Cost: a dozen or two passes, each of which serves every strength; a factor [w w] per strength. Of the pairs a block is in memory,
and s margins for each.

Every pair is a row x = chosen − rejected that should be on the right side of w·x = 0; without an intercept that is scikit-learn's
`LogisticRegression(C=strength, fit_intercept=False)` on every pair once one way. L-BFGS starts from a Hessian that is taken from
a sample of the pairs, which is close enough that few steps are left to take. Margins are linear in the weights: once a pass has
brought those of a direction, the length of the step is found without another pass.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize_scalar
from scipy.special import expit

from armorm.features.columns import Places, Rows, blocks

SAMPLE = 65_536
"""Pairs whose products make the first Hessian: 16 for each of 4,096 columns."""
REMEMBERED = 10
MOST_STEPS = 300
TOLERANCE = 1e-9
"""A strength is done where a step promises so little of what the first one promised: weights are right to some 4 digits."""
SLACK = 1e-9
"""What a loss may rise by rounding: margins come from products in float32."""


@dataclass(frozen=True, eq=False)
class Differences:
    """(chosen − rejected) / `scale`, a column's deviation; read a block at a time."""

    chosen: Rows
    rejected: Rows
    scale: Float[np.ndarray, " w"] | None = None

    @property
    def width(self) -> int:
        return self.chosen.shape[1]

    def rows(self, at: Places) -> Float[np.ndarray, "b w"]:
        """Some pairs' differences, in float32 (float64 where a side is kept so)."""
        found = self.chosen.less(self.rejected, at)
        if self.scale is not None:
            found /= self.scale.astype(found.dtype)
        return found


def fit_logistic(
    differences: Differences, at: Places, strengths: Sequence[float], counts: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "s w"]:
    """Weights for every strength (scikit-learn's C), fitted to the pairs `at`, each of which counts `counts` (its
    `sample_weight`); NaN where features are too large to multiply."""
    # F(w) = mean c log(1 + exp(−x·w)) + penalty ‖w‖²/2, where penalty = 1/(C n): scikit-learn's sum divided by C n
    penalty = 1 / (np.array(strengths, dtype=np.float64) * len(at))
    gram, mean = _sampled(differences, at, counts)
    if not np.isfinite(gram).all():
        return np.full((len(penalty), differences.width), np.nan)
    walks = [_Walk(gram, -mean / 2, one, counts) for one in penalty]
    margins = np.zeros((len(at), len(walks)))
    for _ in range(MOST_STEPS):
        steps = np.array([walk.step for walk in walks])
        moves, gradients = _follow(differences, at, steps, margins, counts)
        for i, walk in enumerate(walks):
            if walk.take(margins[:, i], moves[:, i], gradients[i]):
                margins[:, i] += moves[:, i]
        if all(walk.done for walk in walks):
            break
    return np.array([walk.weights for walk in walks])


def _sampled(
    differences: Differences, at: Places, counts: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "w w"], Float[np.ndarray, " w"]]:
    # mean c xx' and mean c x over evenly spaced pairs
    sample = np.linspace(0, len(at) - 1, min(len(at), SAMPLE)).astype(np.int64)
    gram, total = np.zeros((differences.width, differences.width)), np.zeros(differences.width)
    for rows in blocks(len(sample)):
        x, root = differences.rows(at[sample[rows]]).astype(np.float64), np.sqrt(counts[sample[rows]])[:, None]
        x *= root
        gram += x.T @ x
        total += (root * x).sum(axis=0)
    return gram / len(sample), total / len(sample)


def _follow(
    differences: Differences,
    at: Places,
    steps: Float[np.ndarray, "s w"],
    margins: Float[np.ndarray, "n s"],
    counts: Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, "n s"], Float[np.ndarray, "s w"]]:
    # One pass: what steps do to the margins, and the gradients of the mean losses behind them, −mean c σ(−m) x
    moves, gradients = np.empty_like(margins), np.zeros(steps.shape)
    for rows in blocks(len(at)):
        x = differences.rows(at[rows])
        moves[rows] = x @ steps.T.astype(x.dtype)
        wrong = counts[rows, None] * expit(-(margins[rows] + moves[rows]))
        gradients -= wrong.T.astype(x.dtype) @ x
    return moves, gradients / len(at)


class _Walk:
    # L-BFGS at one strength. `step` is the next one to follow; 0 once it is done.

    def __init__(
        self,
        gram: Float[np.ndarray, "w w"],
        gradient: Float[np.ndarray, " w"],
        penalty: float,
        counts: Float[np.ndarray, " n"],
    ) -> None:
        # mean σ(−m) σ(m) xx' + penalty I, where all m = 0; what rounding needs beside it
        hessian = gram / 4
        hessian[np.diag_indices_from(hessian)] += penalty + 1e-12 * np.trace(hessian)
        self._factor = cho_factor(hessian.T, overwrite_a=True, check_finite=False)
        self._penalty, self._counts = penalty, counts
        self._known: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=REMEMBERED)
        self._gradient: Float[np.ndarray, " w"] | None = None  # of the sample alone, so far
        self.weights, self.loss = np.zeros(len(gradient)), float(counts.mean()) * math.log(2)
        self.step = -self._solve(gradient)
        self._promise = self._first = float(gradient @ self.step)
        self.done = self._first == 0

    def take(self, margins: Float[np.ndarray, " n"], moves: Float[np.ndarray, " n"], slopes: Float[np.ndarray, " w"]) -> bool:
        """Take the step where it keeps its promise, and turn to the next one; else shorten it."""
        if self.done:
            return False
        reached = self._loss(margins, moves, 1.0)
        if not reached <= self.loss + 1e-4 * self._promise + SLACK:
            self._shorten(margins, moves)
            return False
        self.weights, self.loss = self.weights + self.step, reached
        gradient = slopes + self._penalty * self.weights
        if self._gradient is not None and (change := gradient - self._gradient) @ self.step > 0:
            self._known.append((self.step, change))
        self._gradient, self.step = gradient, self._direction(gradient)
        self._promise = float(gradient @ self.step)
        self.done = not self._promise < TOLERANCE * self._first
        if self.done:
            self.step = np.zeros_like(self.step)
        return True

    def _loss(self, margins: Float[np.ndarray, " n"], moves: Float[np.ndarray, " n"], length: float) -> float:
        # F(w + length · step)
        weights = self.weights + length * self.step
        losses = self._counts * np.logaddexp(0, -(margins + length * moves))
        return float(losses.mean() + self._penalty * (weights @ weights) / 2)

    def _shorten(self, margins: Float[np.ndarray, " n"], moves: Float[np.ndarray, " n"]) -> None:
        best = minimize_scalar(lambda a: self._loss(margins, moves, a), bounds=(0, 1), method="bounded", options={"xatol": 1e-3})
        length = float(best.x) if math.isfinite(best.fun) else 0.1
        self.step, self._promise = length * self.step, length * self._promise

    def _solve(self, vector: Float[np.ndarray, " w"]) -> Float[np.ndarray, " w"]:
        return cho_solve(self._factor, vector, check_finite=False)

    def _direction(self, gradient: Float[np.ndarray, " w"]) -> Float[np.ndarray, " w"]:
        # −H⁻¹ gradient by the two loops of L-BFGS, from the sample's Hessian in the last step's scale
        q, shares = gradient.copy(), []
        for s, y in reversed(self._known):
            shares.append((s @ q) / (s @ y))
            q -= shares[-1] * y
        r = self._solve(q)
        if self._known:
            s, y = self._known[-1]
            r *= (s @ y) / (y @ self._solve(y))
        for (s, y), share in zip(self._known, reversed(shares), strict=True):
            r += (share - (y @ r) / (s @ y)) * s
        return -r
