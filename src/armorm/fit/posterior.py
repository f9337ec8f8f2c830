"""Posterior of the probe: how sure ridge regression is of its weights, in closed form.

In: `RidgeStatistics` and the `Probe` that was fitted on them.  Out: `Posterior`: standard deviations of rewards and scores.
Cost: one eigendecomposition (d³) per distinct gram matrix; then r products per answer and gram.

Ridge regression is the mean of a Gaussian posterior over w with covariance σ² A⁻¹, A = X'X + αI, so a reward x·w has the
variance σ² h(x), with the leverage h(x) = x'A⁻¹x. Of A⁻¹ the first r eigenvectors are kept; what x holds outside of them is
divided by one number per objective (`tails`).

Objectives rated on the same rows err together: their residuals' correlation ρ carries over to their weights. With strengths
α_i and α_j the covariance of two rewards is ρ_ij σ_i σ_j Σ_m (v_m·x)² / √((s_m + α_i)(s_m + α_j)), exact for one α, a valid
covariance for several. Objectives rated on different rows are taken as independent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.linalg import LinAlgError, solve_triangular

from armorm.errors import FitError, ObjectiveMismatch
from armorm.fit.probe import NO_VARIANCE, Probe
from armorm.fit.ridge import eigen_of, factor_of
from armorm.fit.statistics import RidgeStatistics, SharedStatistics

BLOCK = 2048  # rows that are in float64 at one time
RANKS = (16, 32, 64, 128, 256, 512)
"""Numbers of eigenvectors that compaction tries, least first."""


@dataclass(frozen=True, eq=False)
class Directions:
    """A⁻¹ of c objectives that were rated on the same `n` rows: eigenvectors [d r] and eigenvalues [r] of their gram matrix.

    `alphas` [c] are the strengths; `tails` [c] stand for eigenvalue + α wherever x leaves the eigenvectors' span. `mean` [d] is
    what was taken off the features before (zeros without an intercept).
    """

    columns: tuple[int, ...]
    n: int
    mean: Float[np.ndarray, " d"]
    vectors: Float[np.ndarray, "d r"]
    values: Float[np.ndarray, " r"]
    alphas: Float[np.ndarray, " c"]
    tails: Float[np.ndarray, " c"]

    @property
    def inverses(self) -> Float[np.ndarray, "c r1"]:
        """1 / (s + α) for each eigenvector, and 1 / tail for the rest."""
        return np.concatenate([1 / (self.values + self.alphas[:, None]), 1 / self.tails[:, None]], axis=1)

    @property
    def freedom(self) -> Float[np.ndarray, " c"]:
        """Effective degrees of freedom, the trace of the hat matrix."""
        return (self.values / (self.values + self.alphas[:, None])).sum(axis=1)

    def squares(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n r1"]:
        """Squared length of each row (centred already) along each eigenvector, and outside of them."""
        return self.products(x, x)

    def products(self, x: Float[np.ndarray, "n d"], z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n r1"]:
        """What each eigenvector, and the rest, adds to the inner products of the rows of x and z."""
        V = self.vectors.astype(np.float64)
        along_x, along_z = x @ V, z @ V
        rest_x, rest_z = x - along_x @ V.T, z - along_z @ V.T  # a difference of squares would lose what is small beside them
        return np.concatenate([along_x * along_z, (rest_x * rest_z).sum(axis=1)[:, None]], axis=1)


@dataclass(frozen=True, eq=False)
class Posterior:
    """Uncertainty of a probe's rewards, on the [0, 1] scale.

    `sigma` [k]: standard deviation of a rating about its reward (NaN where the probe could not be fitted). `inflation` [k], at
    least 1: how much more the weights vary than independent rows would let them (ratings of one prompt are not independent).
    `correlation` [k k]: of the residuals of objectives rated on the same rows, 0 elsewhere.
    """

    width: int
    sigma: Float[np.ndarray, " k"]
    inflation: Float[np.ndarray, " k"]
    correlation: Float[np.ndarray, "k k"]
    intercept: bool
    parts: tuple[Directions, ...]

    @property
    def k(self) -> int:
        return len(self.sigma)

    def leverage(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """h(x) = x'A⁻¹x (with an intercept: about the mean, plus 1/n); NaN for an objective that no row rates."""
        self._check(features)
        found = np.full((len(features), self.k), np.nan)
        for start in range(0, len(features), BLOCK):
            x = features[start : start + BLOCK].astype(np.float64)
            for part in self.parts:
                h = part.squares(x - part.mean) @ part.inverses.T
                found[start : start + BLOCK, list(part.columns)] = h + (1 / part.n if self.intercept else 0.0)
        return found

    def std(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Standard deviation of each reward, the mean rating that the probe predicts: σ √h, inflated."""
        return self.sigma * self.inflation * np.sqrt(self.leverage(features))

    def predictive_std(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Standard deviation of a new rating about the reward: σ √(1 + h), the leverage inflated."""
        return self.sigma * np.sqrt(1 + self.inflation**2 * self.leverage(features))

    def score_std(self, features: Float[np.ndarray, "n d"], coefficients: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
        """Standard deviation of Σ_i c_i r_i, the coefficients taken as known.

        An objective that could not be fitted adds nothing: its weights are zero whatever the rows.
        """
        return self._spread(((coefficients, features),))

    def difference_std(
        self,
        features_a: Float[np.ndarray, "n d"],
        coefficients_a: Float[np.ndarray, "n k"],
        features_b: Float[np.ndarray, "n d"],
        coefficients_b: Float[np.ndarray, "n k"],
    ) -> Float[np.ndarray, " n"]:
        """Standard deviation of a score minus another. Both come from the same weights, so what errs alike cancels.

        c_a r(a) − c_b r(b) = (c_a + c_b)/2 · r(a − b) + (c_a − c_b)/2 · r(a + b): no large terms are subtracted where the
        answers are alike.
        """
        self._check(features_b)
        a, b = features_a.astype(np.float64), features_b.astype(np.float64)
        mean, half = (coefficients_a + coefficients_b) / 2, (coefficients_a - coefficients_b) / 2
        return self._spread(((mean, a - b), (half, a + b)), constants=(0.0, 2.0))

    def _spread(
        self,
        terms: tuple[tuple[Float[np.ndarray, "n k"], Float[np.ndarray, "n d"]], ...],
        constants: tuple[float, ...] = (1.0,),
    ) -> Float[np.ndarray, " n"]:
        # Std of Σ_t Σ_i c_ti r_i(x_t): per eigenvector Σ_tu p_tu (L'S_t)·(L'S_u), S_t = c_t σ / √(s + α), ρ = L L'.
        # `constants`: how often the constant feature (and so the mean) is in x_t.
        for coefficients, features in terms:
            self._check(features)
            if coefficients.shape != (len(features), self.k):
                raise ObjectiveMismatch(
                    f"coefficients are {coefficients.shape}, the posterior has {self.k} objectives and there are "
                    f"{len(features)} answers: give a coefficient per answer and objective (without computed nuisances)"
                )
        n = len(terms[0][0])
        variance = np.zeros(n)
        for start in range(0, n, BLOCK):
            at = slice(start, start + BLOCK)
            block = [(c[at].astype(np.float64), x[at].astype(np.float64)) for c, x in terms]
            variance[at] = sum(self._variance(part, block, constants) for part in self.parts)
        return np.sqrt(np.maximum(variance, 0.0))

    def _variance(
        self,
        part: Directions,
        terms: list[tuple[Float[np.ndarray, "n k"], Float[np.ndarray, "n d"]]],
        constants: tuple[float, ...],
    ) -> Float[np.ndarray, " n"]:
        at = list(part.columns)
        scale = np.nan_to_num((self.sigma * self.inflation)[at])
        root = _root(self.correlation[np.ix_(at, at)])
        roots = np.sqrt(part.inverses)
        x = [features - times * part.mean for (_, features), times in zip(terms, constants, strict=True)]
        loaded = [np.einsum("ni,ic,im->ncm", c[:, at] * scale, root, roots) for c, _ in terms]
        flat = [(c[:, at] * scale) @ root for c, _ in terms]
        variance = np.zeros(len(x[0]))
        for t in range(len(terms)):
            for u in range(t + 1):
                twice = 1 if t == u else 2
                variance += twice * (part.products(x[t], x[u]) * (loaded[t] * loaded[u]).sum(axis=1)).sum(axis=1)
                if self.intercept:
                    variance += twice * constants[t] * constants[u] * (flat[t] * flat[u]).sum(axis=1) / part.n
        return variance

    def _check(self, features: Float[np.ndarray, "n d"]) -> None:
        if features.shape[1] != self.width:
            raise FitError(
                f"the posterior reads features of width {self.width}, these have {features.shape[1]}: "
                "use the backbone and the feature settings that the probe was fitted with"
            )


def fit_posterior(statistics: RidgeStatistics, probe: Probe, *, intercept: bool = False) -> Posterior:
    """The posterior of a probe that was fitted on these statistics, all eigenvectors kept.

    σ² is the sum of squared residuals over n − tr(2H − H²), H the hat matrix. Raises ObjectiveMismatch when the statistics
    have another number of objectives.
    """
    k = len(probe.objectives)
    if statistics.k != k:
        raise ObjectiveMismatch(f"the statistics have {statistics.k} objectives, the probe {k}: compute them with its objectives")
    sigma, parts = np.full(k, np.nan), []
    for columns in statistics.sharing():
        part, sigma[list(columns)] = fit_directions(statistics.shared(columns), probe, intercept=intercept)
        parts.append(part)
    return Posterior(statistics.d, sigma, np.ones(k), np.eye(k), intercept, tuple(parts))


def fit_directions(sums: SharedStatistics, probe: Probe, *, intercept: bool) -> tuple[Directions, Float[np.ndarray, " c"]]:
    """The part of a posterior for objectives that are rated on the same rows, all eigenvectors kept, and their σ."""
    at = list(sums.columns)
    part = directions(sums, probe.alphas[at], intercept=intercept)
    return part, _sigma(sums, part, probe.weights[at], probe.intercepts[at], intercept=intercept)


def directions(sums: SharedStatistics, alphas: Float[np.ndarray, " c"], *, intercept: bool) -> Directions:
    """All eigenvectors of the gram matrix, strongest first."""
    gram, _, mean, _ = sums.centred(intercept=intercept)
    s, V = eigen_of(gram)
    return Directions(
        sums.columns, sums.n, mean, np.ascontiguousarray(V[:, ::-1]), s[::-1].copy(), alphas, alphas.astype(np.float64)
    )


@dataclass(frozen=True, eq=False)
class Leverage:
    """Exact leverages at one strength: |R x|² with R'R = A⁻¹, asked block by block. R is L⁻¹ of A = L L', or S⁻¹ᐟ² V'."""

    matrix: Float[np.ndarray, "d d"]
    triangular: bool
    mean: Float[np.ndarray, " d"]
    constant: float

    @classmethod
    def of(cls, sums: SharedStatistics, alpha: float, *, intercept: bool) -> Leverage:
        gram, _, mean, _ = sums.centred(intercept=intercept)
        constant = 1 / sums.n if intercept else 0.0
        try:
            return cls(factor_of(gram, alpha), True, mean, constant)
        except LinAlgError:  # beside a gram matrix without full rank a small strength is rounding
            s, V = eigen_of(gram)
            return cls((V / np.sqrt(s + alpha)).T, False, mean, constant)

    def __call__(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        x = (features.astype(np.float64) - self.mean).T
        turned = solve_triangular(self.matrix, x, lower=True, check_finite=False) if self.triangular else self.matrix @ x
        return (turned**2).sum(axis=0) + self.constant


@dataclass(frozen=True)
class Compaction:
    """How a part was cut: eigenvectors kept, and the mean and largest relative error of new rows' leverages."""

    rank: int
    mean_error: float
    largest_error: float


def compact(
    whole: Directions,
    rest: Directions,
    features: Float[np.ndarray, "n d"],
    *,
    tolerance: float = 0.01,
    max_rank: int = RANKS[-1],
) -> tuple[Directions, Compaction]:
    """`whole` with as few eigenvectors as keep leverages within `tolerance` on average, at most `max_rank`.

    How many, and what stands for the others, is found on `rest`, the same fit without the rows `features`, and on these rows:
    on its own rows a gram matrix sees less outside of its first eigenvectors than on new ones. No rating is looked at.
    """
    squares = rest.squares(features.astype(np.float64) - rest.mean)
    exact = squares @ rest.inverses.T  # [n c]
    d = rest.vectors.shape[0]
    ranks = sorted({min(r, d) for r in RANKS if r <= max_rank} | {min(max_rank, d)})
    for rank in ranks:
        outside = squares[:, rank:].sum(axis=1)
        top = squares[:, :rank] @ (1 / (rest.values[:rank] + rest.alphas[:, None])).T
        short = (exact - top).sum(axis=0)
        # One number in place of s + α, so that mean leverages are exact; never below α
        tails = np.maximum(np.where(short > 0, outside.sum() / np.maximum(short, 1e-300), rest.alphas), rest.alphas)
        errors = np.abs((top + outside[:, None] / tails) / np.maximum(exact, 1e-300) - 1)
        if errors.mean(axis=0).max() <= tolerance:
            break
    # Eigenvalues grow with the rows, and as new rows feel them, with the rows that are left over: E h = d / (n − d − 1) at α = 0
    growth = np.maximum(whole.n - whole.freedom, 1) / np.maximum(rest.n - rest.freedom, 1)
    grown = whole.alphas + (tails - rest.alphas) * growth
    cut = replace(whole, vectors=whole.vectors[:, :rank], values=whole.values[:rank], tails=grown)
    return cut, Compaction(rank, float(errors.mean(axis=0).max()), float(errors.max()))


def _sigma(
    sums: SharedStatistics,
    part: Directions,
    weights: Float[np.ndarray, "c d"],
    intercepts: Float[np.ndarray, " c"],
    *,
    intercept: bool,
) -> Float[np.ndarray, " c"]:
    # Σ(y − Xw − b)² / (n − tr(2H − H²)); NaN where the ratings don't vary or are all used up
    residual = np.maximum(sums.predicted(weights, intercepts)[0], 0.0)
    shrunk = part.values / (part.values + part.alphas[:, None])
    free = sums.n - (2 * shrunk - shrunk**2).sum(axis=1) - (1 if intercept else 0)
    varies = sums.label_variance > NO_VARIANCE
    return np.sqrt(np.where(varies & (free > 0), residual / np.where(free > 0, free, 1.0), np.nan))


def _root(correlation: Float[np.ndarray, "c c"]) -> Float[np.ndarray, "c c"]:
    # L with L L' = ρ; eigenvalues that rounding made negative are zero
    s, V = np.linalg.eigh(correlation)
    return V * np.sqrt(np.maximum(s, 0.0))
