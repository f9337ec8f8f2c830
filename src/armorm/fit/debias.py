"""Debiasing (eq. 2, 3): takes out of each reward what it shares with a nuisance (verbosity, length), or what padding gains it.

In: rewards [n k] and computed nuisances [n m] over a reference set, what padding changed.  Out: `DebiasFit` with the `Debias`,
one matrix T.
Cost: Pearson is a linear system; Spearman sorts the reference set some sixty times per objective.

`Debias.apply` makes `DebiasedRewards`, the only thing the gate accepts: training and scoring can't disagree about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from armorm.errors import FitError, ObjectiveMismatch
from armorm.fit.intervention import Changes, PaddingFit, agreed, fit_padding, slopes
from armorm.objectives import Objectives

Measure = Literal["pearson", "spearman"]
"""A correlation: `pearson` of the values, or `spearman`, of their ranks (the paper's)."""

Method = Literal["pearson", "spearman", "intervention", "agreed"]
"""What λ is chosen by: that a correlation becomes zero (`pearson`, `spearman`), that padding gains no reward anything
(`intervention`), or both: as far as Spearman's correlation and padding agree (`agreed`)."""

Over = Literal["pooled", "within-prompts"]
"""What is correlated: all answers, or the differences between answers to the same prompt."""

Itself = Literal["zeroed", "kept"]
"""What happens to an objective that is itself a nuisance: `zeroed` (its reward leaves the score), `kept` as it is."""

TOLERANCE = 1e-3
"""The rank correlation that counts as none where several nuisances are taken out at once."""

MAX_STEPS = 100
SHUFFLES = 1000
"""Orders by which chance is told."""


@dataclass(frozen=True, eq=False)
class DebiasedRewards:
    """Rewards r' [n k] after `Debias.apply`."""

    values: Float[np.ndarray, "n k"]


@dataclass(frozen=True, eq=False)
class Debias:
    """r' = [rewards, computed] T, with `matrix` T [k+m k]; `computed` names the m computed nuisances, in order."""

    objectives: Objectives
    computed: tuple[str, ...]
    matrix: Float[np.ndarray, "terms k"]

    def __post_init__(self) -> None:
        needed = (len(self.objectives) + len(self.computed), len(self.objectives))
        if self.matrix.shape != needed:
            raise ObjectiveMismatch(
                f"the debiasing matrix is {self.matrix.shape}; {len(self.objectives)} objectives and {len(self.computed)} "
                f"computed nuisances need {needed}: fit the debiasing again"
            )
        if not np.isfinite(self.matrix).all():
            raise FitError(
                "the debiasing has coefficients that are NaN or infinite: a nuisance varies too little beside a reward: leave it "
                "out of `debias.nuisances`"
            )

    @classmethod
    def identity(cls, objectives: Objectives, computed: tuple[str, ...] = ()) -> Debias:
        """Takes nothing out."""
        return cls(objectives, computed, np.eye(len(objectives) + len(computed), len(objectives)))

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of what a score is a sum over: objectives, then computed nuisances."""
        return (*self.objectives.names, *self.computed)

    def apply(self, rewards: Float[np.ndarray, "n k"], computed: Float[np.ndarray, "n m"]) -> DebiasedRewards:
        """Eq. 2. Raises ObjectiveMismatch for other numbers of columns."""
        if (rewards.shape[1], computed.shape[1]) != (len(self.objectives), len(self.computed)):
            raise ObjectiveMismatch(
                f"the debiasing expects {len(self.objectives)} rewards and {len(self.computed)} computed nuisances "
                f"({', '.join(self.computed) or 'none'}), got {rewards.shape[1]} and {computed.shape[1]}"
            )
        return DebiasedRewards(np.concatenate([rewards, computed], axis=1, dtype=np.float64) @ self.matrix)

    def coefficients(self, gate: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n terms"]:
        """Gate weights [n k] → what each term is multiplied with [n k+m]: g·r' = (T g) · [rewards, computed]."""
        return gate.astype(np.float64) @ self.matrix.T


@dataclass(frozen=True, eq=False)
class DebiasFit:
    """A debiasing and what it did on the reference set.

    `coefficients` [k q] are λ (r'_i = r_i − Σ_j λ_ij u_j; 0 in a nuisance objective's own row), `by_correlation` and `by_padding`
    those of either kind, whichever was taken. `before`, `after` [k q]: correlations of each reward with each nuisance, NaN where
    one of the two does not vary (a zeroed objective after).
    """

    debias: Debias
    nuisances: tuple[str, ...]
    coefficients: Float[np.ndarray, "k q"]
    before: Float[np.ndarray, "k q"]
    after: Float[np.ndarray, "k q"]
    warnings: tuple[str, ...]
    by_correlation: Float[np.ndarray, "k q"]
    by_padding: Float[np.ndarray, "k q"] | None = None


def measure_of(method: Method) -> Measure:
    """The correlation that a method is about."""
    return "pearson" if method == "pearson" else "spearman"


def fit_debias(
    rewards: Float[np.ndarray, "n k"],
    computed: Float[np.ndarray, "n m"],
    objectives: Objectives,
    *,
    nuisances: Sequence[str],
    computed_names: Sequence[str],
    method: Method = "spearman",
    itself: Itself = "zeroed",
    prompts: Sequence[str] | None = None,
    padding: Changes | None = None,
) -> DebiasFit:
    """Chooses λ so that no reward correlates with a nuisance over the reference set (eq. 3), or gains by padding.

    `nuisances` are names of objectives or of columns of `computed`. With `prompts` [n], each answer's, it is the differences
    between answers to the same prompt that are correlated. `padding` holds what padded copies gained; with it λ of both kinds are
    found, and `method` says which are taken. A reward or nuisance that does not vary gets λ = 0 and a warning. With several
    nuisances Spearman's zero is approached from Pearson's step by step; what is left is in a warning.

    Raises FitError for fewer than 3 rows or no more than nuisances, values that are not finite, unknown or repeated names,
    prompts of which none has two answers, a method that needs padded copies without any, and what `fit_padding` raises;
    ObjectiveMismatch for another number of columns.
    """
    names, measure = _check(rewards, computed, objectives, nuisances, computed_names), measure_of(method)
    k, where = len(objectives), [names.index(nuisance) for nuisance in nuisances]
    whole = np.concatenate([rewards, computed], axis=1, dtype=np.float64)
    values = whole if prompts is None else _differences(whole, prompts)
    if len(values) <= len(where):
        raise FitError(f"{len(values)} reference answers are too few for {len(where)} nuisances: give more answers")
    correlated, left, warnings = _by_correlation(values, k, where, names, measure)
    coefficients, by_padding = correlated, None
    if padding is not None:
        found = _by_padding(padding, whole, k, where, names)
        by_padding, warnings = found.coefficients, [*warnings, *found.warnings]
        by_padding[[row for row in where if row < k]] = 0.0
    if method in ("intervention", "agreed"):
        if by_padding is None or padding is None:
            raise FitError(f"{method} needs answers with padded copies: set `debias.padded`")
        coefficients = by_padding
        if method == "agreed":
            changes = np.concatenate([padding.rewards, padding.computed], axis=1, dtype=np.float64)
            both = (_Evidence(values[:, i], values[:, where], changes[:, i], changes[:, where], measure) for i in range(k))
            starts = zip(both, correlated, by_padding, strict=True)
            coefficients = np.stack([of.agreed(one, other) for of, one, other in starts])
        left = np.zeros(k)  # what is left of the correlation is meant to stay
    debias = Debias(objectives, tuple(computed_names), _matrix(coefficients, where, len(names), itself))
    debiased, nuisance = values @ debias.matrix, values[:, where]  # eq. 2
    before, after = (correlations(x, nuisance, measure) for x in (values[:, :k], debiased))
    for i in (column for column in range(k) if column not in where and _varies(values[:, column])):
        if np.ptp(debiased[:, i]) <= 1e-9 * np.ptp(values[:, i]):  # what is left is rounding
            after[i] = np.nan
            warnings.append(f"{names[i]}: is a linear function of the nuisances, nothing of it is left")
        elif left[i] > TOLERANCE:
            warnings.append(f"{names[i]}: a rank correlation of {left[i]:.4f} with a nuisance is left")
    return DebiasFit(debias, tuple(nuisances), coefficients, before, after, tuple(warnings), correlated, by_padding)


def within_prompts(values: Float[np.ndarray, "n c"], prompts: Sequence[str]) -> Float[np.ndarray, "m c"]:
    """Answers around their prompt's mean, those of prompts with one answer left out: to correlate these is to correlate the
    differences between answers to the same prompt."""
    if not len(values):
        return values
    _, of, sizes = np.unique(np.asarray(prompts, dtype=str), return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(of, column) for column in values.T], axis=1) / sizes[:, None]
    centred = values - means[of]
    centred[np.abs(centred) <= 1e-12 * np.abs(values).max(axis=0)] = 0.0  # what does not vary within prompts leaves rounding
    return centred[sizes[of] > 1]


def _differences(values: Float[np.ndarray, "n c"], prompts: Sequence[str]) -> Float[np.ndarray, "m c"]:
    found = within_prompts(values, prompts)
    if len(found) < 3:
        raise FitError(
            f"{len(found)} of {len(values)} reference answers share their prompt with another: use `debias.over: pooled`, or "
            "name sources with several answers to a prompt in `debias.reference`"
        )
    return found


def _by_correlation(
    values: Float[np.ndarray, "n c"], k: int, where: list[int], names: Sequence[str], measure: Measure
) -> tuple[Float[np.ndarray, "k q"], Float[np.ndarray, " k"], list[str]]:
    # λ, the largest correlation of each reward that could not be brought to zero, warnings
    varies = [_varies(column) for column in values.T]
    warnings = [f"{names[c]}: does not vary over the reference set, nothing is taken out for it" for c in where if not varies[c]]
    used = [j for j, column in enumerate(where) if varies[column]]
    coefficients, left, u = np.zeros((k, len(where))), np.zeros(k), values[:, [where[j] for j in used]]
    for i in (column for column in range(k) if column not in where):
        if not varies[i]:
            warnings.append(f"{names[i]}: the reward does not vary over the reference set, nothing is taken out of it")
        elif used:
            coefficients[i, used], left[i] = _zeros(values[:, i], u, measure)
    return coefficients, left, warnings


@dataclass(frozen=True, eq=False)
class _Evidence:
    # Of one reward: values and nuisances of reference answers, its change and theirs by padding.

    reward: Float[np.ndarray, " n"]
    nuisances: Float[np.ndarray, "n q"]
    change: Float[np.ndarray, " p"]
    moved: Float[np.ndarray, "p q"]
    measure: Measure

    def agreed(self, one: Float[np.ndarray, " q"], other: Float[np.ndarray, " q"]) -> Float[np.ndarray, " q"]:
        """The smaller of both λ, from those of all nuisances. Where they disagree on some, both are found again without these:
        one nuisance's λ may do no more than make up for another's."""
        found, kept = np.zeros(len(one)), np.flatnonzero((one != 0) | (other != 0))
        while len(kept):
            agree = one[kept] * other[kept] > 0
            if agree.all():
                found[kept] = agreed(one[kept], other[kept])
                break
            kept, one, other = kept[agree], np.zeros(len(one)), np.zeros(len(one))
            if len(kept):
                one[kept] = _zeros(self.reward, self.nuisances[:, kept], self.measure)[0]
                other[kept] = slopes(self.change, self.moved[:, kept])
        return found


def _by_padding(padding: Changes, whole: Float[np.ndarray, "n c"], k: int, where: list[int], names: Sequence[str]) -> PaddingFit:
    changes = np.concatenate([padding.rewards, padding.computed], axis=1, dtype=np.float64)
    if changes.shape[1] != whole.shape[1]:
        raise ObjectiveMismatch(f"padded copies have {changes.shape[1]} rewards and nuisances, answers {whole.shape[1]}")
    return fit_padding(changes[:, :k], changes[:, where], whole[:, where].std(axis=0), [names[column] for column in where])


def correlations(
    values: Float[np.ndarray, "n k"], nuisance: Float[np.ndarray, "n q"], method: Measure
) -> Float[np.ndarray, "k q"]:
    """Pearson's or Spearman's correlation of each column with each nuisance; NaN where one of them does not vary."""
    beside = [_centred(column, method) for column in nuisance.T]
    found = np.full((values.shape[1], len(beside)), np.nan)
    for i, column in enumerate(values.T):  # one at a time: of many answers, a matrix of ranks is large
        a = _centred(column, method)
        for j, b in enumerate(beside):
            if a is not None and b is not None and (spread := float(np.sqrt((a @ a) * (b @ b)))):
                found[i, j] = float(a @ b) / spread
    return found


def largest_by_chance(
    values: Float[np.ndarray, "n k"], nuisance: Float[np.ndarray, " n"], method: Measure, *, seed: int
) -> tuple[float, float]:
    """What the largest of the columns' correlations with a nuisance, sign aside, comes to where there is none.

    The mean and the 95th percentile over `SHUFFLES` orders of the nuisance among the answers; NaN where nothing varies.
    """
    columns = [a / np.sqrt(a @ a) for a in (_centred(column, method) for column in values.T) if a is not None]
    beside = _centred(nuisance, method)
    if not columns or beside is None:
        return np.nan, np.nan
    stacked, beside, draws = np.stack(columns), beside / np.sqrt(beside @ beside), np.random.default_rng(seed)
    largest = [float(np.abs(stacked @ draws.permutation(beside)).max()) for _ in range(SHUFFLES)]
    return float(np.mean(largest)), float(np.quantile(largest, 0.95))


def _centred(column: Float[np.ndarray, " n"], method: Measure) -> Float[np.ndarray, " n"] | None:
    # Values, or their ranks, around their mean; None where they don't vary.
    if not _varies(column):
        return None
    own = column.astype(np.float64)
    return _centred_ranks(own) if method == "spearman" else own - own.mean()


def _matrix(coefficients: Float[np.ndarray, "k q"], where: list[int], terms: int, itself: Itself) -> np.ndarray:
    # Column i of T: 1 at the reward itself, −λ at each nuisance
    k = len(coefficients)
    T = np.eye(terms, k)
    for j, row in enumerate(where):
        T[row] -= coefficients[:, j]
    if itself == "zeroed":
        T[:, [row for row in where if row < k]] = 0.0
    return T


def _zeros(r: Float[np.ndarray, " n"], u: Float[np.ndarray, "n q"], method: Measure) -> tuple[Float[np.ndarray, " q"], float]:
    # λ, and the largest correlation that could not be brought to zero
    found = _pearson_zero(r, u)
    if method == "pearson":
        return found, 0.0
    ranks = [_centred_ranks(column) for column in u.T]
    if len(ranks) > 1:
        return _spearman_zeros(r, u, ranks, found)
    root = _spearman_zero(r, u[:, 0], ranks[0], float(found[0]), tolerance=0.0)
    return np.array([root]), abs(_rank_correlation(r - root * u[:, 0], ranks[0]))


def _pearson_zero(r: Float[np.ndarray, " n"], u: Float[np.ndarray, "n q"]) -> Float[np.ndarray, " q"]:
    # Cov(r − uλ, u) = 0  ⇔  Cov(u, u) λ = Cov(u, r); in units of each nuisance's deviation, so that scales don't matter
    centred = u - u.mean(axis=0)
    scale = centred.std(axis=0)
    found: Float[np.ndarray, " q"] = np.linalg.lstsq(centred / scale, r - r.mean(), rcond=1e-10)[0]
    return found / scale


def _spearman_zeros(
    r: Float[np.ndarray, " n"], u: Float[np.ndarray, "n q"], ranks: list[np.ndarray], start: Float[np.ndarray, " q"]
) -> tuple[Float[np.ndarray, " q"], float]:
    # Newton's steps from Pearson's solution; where three in a row bring nothing, one root per nuisance in turn, the others
    # held, from the best so far. Returns the best λ seen and its largest |ρ|.
    R = np.stack([rank / np.linalg.norm(rank) for rank in ranks])

    def rho(coefficients: np.ndarray) -> np.ndarray:
        mine = _centred_ranks(r - u @ coefficients)
        return R @ mine / (np.linalg.norm(mine) or 1.0)

    now, best, least, idle = start, start, float(np.abs(rho(start)).max()), 0
    for _ in range(MAX_STEPS):
        if least <= TOLERANCE / 100 or idle == 8:
            break
        now = _sweep(r, u, ranks, best) if idle % 4 == 3 else _newton(rho, now, 0.02 * r.std() / u.std(axis=0))
        left = float(np.abs(rho(now)).max())
        idle = 0 if left < 0.98 * least else idle + 1
        if left < least:
            best, least = now, left
    return best, least


def _newton(
    rho: Callable[[np.ndarray], np.ndarray], at: Float[np.ndarray, " q"], widths: Float[np.ndarray, " q"]
) -> Float[np.ndarray, " q"]:
    # λ − J⁻¹ρ, with J by central differences in units of `widths` (wide enough to smooth the steps)
    moves = np.diag(widths)
    J = np.stack([(rho(at + move) - rho(at - move)) / 2 for move in moves], axis=1)
    solved: Float[np.ndarray, " q"] = np.linalg.lstsq(J, rho(at), rcond=1e-6)[0]
    return at - solved * widths


def _sweep(
    r: Float[np.ndarray, " n"], u: Float[np.ndarray, "n q"], ranks: list[np.ndarray], start: Float[np.ndarray, " q"]
) -> Float[np.ndarray, " q"]:
    now = start.copy()
    for j, rank in enumerate(ranks):
        rest = r - np.delete(u, j, axis=1) @ np.delete(now, j)
        now[j] = _spearman_zero(rest, u[:, j], rank, now[j], tolerance=TOLERANCE / 100)
    return now


def _spearman_zero(
    r: Float[np.ndarray, " n"], u: Float[np.ndarray, " n"], rank: Float[np.ndarray, " n"], start: float, *, tolerance: float
) -> float:
    # ρ(λ) = Spearman(r − λu, u) is a step function that never rises: each pair of rows changes its order at most once, in
    # the one direction. Widen a bracket around the start until the sign changes, halve it down to the step, take its better side.
    def rho(coefficient: float) -> float:
        return _rank_correlation(r - coefficient * u, rank)

    at_start = rho(start)
    if abs(at_start) <= tolerance:
        return float(start)
    step = 0.05 * float(r.std() / u.std()) or 1.0
    low = high = (float(start), at_start)
    while low[1] < 0:
        high, low = low, (low[0] - step, rho(low[0] - step))
        step *= 2
    while high[1] > 0:
        low, high = high, (high[0] + step, rho(high[0] + step))
        step *= 2
    while min(low[1], -high[1]) > tolerance:
        middle = (low[0] + high[0]) / 2
        if middle in (low[0], high[0]):
            break
        there = (middle, rho(middle))
        low, high = (there, high) if there[1] > 0 else (low, there)
    return min(low, high, key=lambda side: abs(side[1]))[0]


def _centred_ranks(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return rankdata(x) - (len(x) + 1) / 2


def _rank_correlation(values: Float[np.ndarray, " n"], rank: Float[np.ndarray, " n"]) -> float:
    mine = _centred_ranks(values)
    spread = float(np.sqrt((mine @ mine) * (rank @ rank)))
    return float(mine @ rank) / spread if spread else 0.0


def _varies(x: Float[np.ndarray, " n"]) -> bool:
    return bool(len(x)) and float(np.ptp(x)) > 1e-12 * float(np.abs(x).max())


def _check(
    rewards: Float[np.ndarray, "n k"],
    computed: Float[np.ndarray, "n m"],
    objectives: Objectives,
    nuisances: Sequence[str],
    computed_names: Sequence[str],
) -> tuple[str, ...]:
    names = (*objectives.names, *computed_names)
    if rewards.shape[1] != len(objectives) or computed.shape[1] != len(computed_names):
        raise ObjectiveMismatch(
            f"there are {rewards.shape[1]} rewards for {len(objectives)} objectives and {computed.shape[1]} computed "
            f"columns for {len(computed_names)} names: give one column per name"
        )
    if len(rewards) != len(computed) or len(rewards) < 3:
        raise FitError(
            f"the reference set has {len(rewards)} rows of rewards and {len(computed)} of computed nuisances: "
            "give at least 3 rows, the same for both"
        )
    if not (np.isfinite(rewards).all() and np.isfinite(computed).all()):
        raise FitError("some rewards or nuisances of the reference set are NaN or infinite: leave those rows out")
    if len(set(names)) < len(names) or len(set(nuisances)) < len(nuisances):
        raise FitError(f"a name stands twice among {', '.join(names)} or the nuisances {', '.join(nuisances)}: rename it")
    unknown = [name for name in nuisances if name not in names]
    if unknown:
        raise FitError(f"there is no nuisance {', '.join(unknown)}: choose among {', '.join(names)}")
    return names
