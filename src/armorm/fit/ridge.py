"""Ridge regression from a gram matrix: the weights at every strength of a grid.

In: X'X, X'y, strengths.  Out: weights, a row per column of X'y, for each strength.
Cost: up to `NARROW` columns one eigendecomposition (about 9 d³ operations) for all strengths. Wider, a dozen products of matrices
where a near matrix is factored (`neighbours`), else a Cholesky factor (d³ / 3) for each; the eigendecomposition only for
strengths that are rounding beside the matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.linalg import LinAlgError
from scipy.linalg.lapack import dpotrf, dpotrs

from armorm.errors import FitError
from armorm.fit.neighbours import MET, Neighbour, neighbours, solve_near
from armorm.fit.statistics import TOO_LARGE, SharedStatistics
from armorm.fit.triangles import NARROW


def solve_ridge_path(
    gram: Float[np.ndarray, "d d"],
    moment: Float[np.ndarray, "d c"],
    alphas: Float[np.ndarray, " a"],
    near: Sequence[Neighbour] = (),
) -> Float[np.ndarray, "a c d"]:
    """Weights for every strength, a row per column of `moment`; `near` are factors of a matrix that is little else.

    Raises FitError where the matrix overflowed.
    """
    if len(gram) <= NARROW:
        return _by_eigenvectors(gram, moment, alphas)
    if not np.isfinite(gram).all():
        raise FitError(TOO_LARGE)
    W, met = solve_near(gram, moment, alphas, near)
    for i in np.flatnonzero(~met):
        W[i] = _by_factor(gram, moment, float(alphas[i]))
    if not met.all() and (weak := ~_meets(gram, moment, alphas, W)).any():
        W[weak] = _by_eigenvectors(gram, moment, alphas[weak])
    return W


def neighbours_of(sums: SharedStatistics, alphas: Float[np.ndarray, " a"], *, intercept: bool) -> Sequence[Neighbour]:
    """What fits on most of these rows are solved by; nothing where they are narrow."""
    if len(sums.gram) <= NARROW:
        return ()
    return neighbours(sums.centred(intercept=intercept)[0], alphas)


def fit_path(
    sums: SharedStatistics, alphas: Float[np.ndarray, " a"], *, intercept: bool, near: Sequence[Neighbour] = ()
) -> tuple[Float[np.ndarray, "a c d"], Float[np.ndarray, "a c"]]:
    """Weights and intercepts at every strength; zeros where there are no rows."""
    if not sums.n:
        a, (d, c) = len(alphas), sums.moment.shape
        return np.zeros((a, c, d)), np.zeros((a, c))
    gram, moment, x, y = sums.centred(intercept=intercept)
    W = solve_ridge_path(gram, moment, alphas, near)
    return W, y - W @ x


def fit_at(
    sums: SharedStatistics, alphas: Float[np.ndarray, " c"], *, intercept: bool, near: Sequence[Neighbour] = ()
) -> tuple[Float[np.ndarray, "c d"], Float[np.ndarray, " c"]]:
    """Weights and intercepts of each objective at its own strength."""
    distinct, which = np.unique(alphas, return_inverse=True)
    W, b = fit_path(sums, distinct, intercept=intercept, near=near)
    own = np.arange(len(alphas))
    return W[which, own], b[which, own]


def eigen_of(gram: Float[np.ndarray, "d d"]) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """Eigenvalues of a gram matrix, least first and none below 0, and its eigenvectors. Raises FitError where it overflowed."""
    try:
        if not np.isfinite(gram).all():
            raise np.linalg.LinAlgError
        s, V = np.linalg.eigh(gram)
    except np.linalg.LinAlgError:
        raise FitError(TOO_LARGE) from None
    return np.maximum(s, 0.0), V  # a gram matrix has no negative eigenvalues, rounding has


def _by_eigenvectors(
    gram: Float[np.ndarray, "d d"], moment: Float[np.ndarray, "d c"], alphas: Float[np.ndarray, " a"]
) -> Float[np.ndarray, "a c d"]:
    # X'X = V diag(s) V'  ⇒  (X'X + alpha I)⁻¹ X'y = V diag(1 / (s + alpha)) V' X'y
    s, V = eigen_of(gram)
    turned = (V.T @ moment).T  # [c d]
    return (turned / (s + alphas[:, None, None])) @ V.T


def _by_factor(gram: Float[np.ndarray, "d d"], moment: Float[np.ndarray, "d c"], alpha: float) -> Float[np.ndarray, "c d"]:
    # X'X + alpha I = L L'  ⇒  w = L'⁻¹ L⁻¹ X'y; NaN where it has no such factor
    try:
        return dpotrs(factor_of(gram, alpha), moment, lower=1)[0].T
    except LinAlgError:
        return np.full(moment.T.shape, np.nan)


def factor_of(gram: Float[np.ndarray, "d d"], alpha: float) -> Float[np.ndarray, "d d"]:
    """L of X'X + alpha I = L L' (what stands above its diagonal means nothing). Raises LinAlgError where there is none."""
    shifted = gram.T.copy(order="F")  # LAPACK's own order, so that nothing is copied again
    shifted.flat[:: len(gram) + 1] += alpha
    factor, fault = dpotrf(shifted, lower=1, clean=0, overwrite_a=1)
    if fault:
        raise LinAlgError(f"not positive definite from row {fault} on")
    return factor


def _meets(
    gram: Float[np.ndarray, "d d"],
    moment: Float[np.ndarray, "d c"],
    alphas: Float[np.ndarray, " a"],
    W: Float[np.ndarray, "a c d"],
) -> np.ndarray:
    # For which strengths (X'X + alpha I) w = X'y holds, column by column
    with np.errstate(invalid="ignore"):
        left = np.abs(W @ gram + alphas[:, None, None] * W - moment.T).max(axis=2)
    return (left <= 10 * MET * np.abs(moment).max(axis=0)).all(axis=1)
