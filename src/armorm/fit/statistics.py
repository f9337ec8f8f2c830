"""Sufficient statistics of the probe: everything that ridge regression with missing labels needs to know about the rows.

In: features [n d] and ratings [n k] (NaN = no label), shard after shard.  Out: `RidgeStatistics`, added up across shards.
Cost: one pass over the rows; one d x d float64 matrix per distinct label pattern, and never more than k of them.

Rows are gathered into parts. A part is a set of objectives, and an objective's own statistics are the sum over the parts
that hold it. Usually a part is a label pattern (the set of labels a row has). Where labels are missing so irregularly that
there are more patterns than objectives with rows of their own, a part is a set of objectives that always come together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from armorm.errors import FitError, ObjectiveMismatch

BLOCK = 8192
"""Rows that are held in float64 at a time."""
TOO_LARGE = (
    "the features are too large for sums of their squares: divide them by their largest value, or read them at another layer "
    "(`features.response`)"
)
SUMS = ("feature_sum", "moment", "label_sum", "label_square_sum")


@dataclass(frozen=True, eq=False)
class SharedStatistics:
    """Statistics of objectives (`columns`, c of them) that are labelled on the same `n` rows."""

    columns: tuple[int, ...]
    n: int
    gram: Float[np.ndarray, "d d"]
    feature_sum: Float[np.ndarray, " d"]
    moment: Float[np.ndarray, "d c"]
    label_sum: Float[np.ndarray, " c"]
    label_square_sum: Float[np.ndarray, " c"]

    def __sub__(self, other: SharedStatistics) -> SharedStatistics:
        """The rows of this without the rows of `other` (which must be among them)."""
        sums: dict[str, Any] = {name: getattr(self, name) - getattr(other, name) for name in ("n", "gram", *SUMS)}
        return replace(self, **sums)

    @property
    def label_variance(self) -> Float[np.ndarray, " c"]:
        return (self.label_square_sum - self.label_sum**2 / self.n) / self.n

    def centred(
        self, *, intercept: bool
    ) -> tuple[Float[np.ndarray, "d d"], Float[np.ndarray, "d c"], Float[np.ndarray, " d"], Float[np.ndarray, " c"]]:
        """Gram and moment about the means (x̄, ȳ), which are zero without an intercept: X'X − n x̄x̄', X'y − n x̄ȳ."""
        if not intercept:
            return self.gram, self.moment, np.zeros_like(self.feature_sum), np.zeros_like(self.label_sum)
        x, y = self.feature_sum / self.n, self.label_sum / self.n
        return self.gram - self.n * np.outer(x, x), self.moment - self.n * np.outer(x, y), x, y

    def predicted(self, W: Float[np.ndarray, "*a c d"], b: Float[np.ndarray, "*a c"]) -> Float[np.ndarray, "4 *a c"]:
        """For ŷ = Xw + b: Σ(y − ŷ)² = Σy² − 2Σŷy + Σŷ², Σŷ = w·Σx + nb, Σŷ² = w'Gw + 2b w·Σx + nb², Σŷy = w·m + bΣy."""
        raw = W @ self.feature_sum
        square = ((W @ self.gram) * W).sum(axis=-1) + 2 * b * raw + self.n * b * b
        product = (W * self.moment.T).sum(axis=-1) + b * self.label_sum
        return np.stack([self.label_square_sum - 2 * product + square, raw + self.n * b, square, product])

    def only(self, columns: tuple[int, ...]) -> SharedStatistics:
        """The same rows, some of the objectives."""
        at = [self.columns.index(column) for column in columns]
        labels = self.label_sum[at], self.label_square_sum[at]
        return SharedStatistics(columns, self.n, self.gram, self.feature_sum, self.moment[:, at], *labels)


@dataclass(frozen=True, eq=False)
class RidgeStatistics:
    """Sums over rows, part by part (see the module's docstring), of features of width `d` and ratings of `k` objectives.

    `rows` counts all rows, `unlabelled` those without any label.
    """

    d: int
    k: int
    parts: tuple[SharedStatistics, ...]
    rows: int
    unlabelled: int
    _grams: dict[tuple[int, ...], Float[np.ndarray, "d d"]] = field(default_factory=dict, init=False, repr=False)

    @property
    def n(self) -> tuple[int, ...]:
        """Labelled rows per objective."""
        return tuple(sum(self.parts[j].n for j in self._holding(i)) for i in range(self.k))

    @classmethod
    def from_rows(cls, features: Float[np.ndarray, "n d"], ratings: Float[np.ndarray, "n k"]) -> RidgeStatistics:
        """Statistics of some rows: features of any float type, ratings on the [0, 1] scale with NaN for a missing label.

        Raises FitError for features that are not finite or whose squares are not, and for infinite ratings.
        """
        _check_rows(features, ratings)
        mask = ~np.isnan(ratings)
        parts = tuple(_sums(features, np.where(part, ratings, 0.0), part, np.flatnonzero(rows)) for part, rows in _parts(mask))
        return cls(features.shape[1], ratings.shape[1], parts, len(features), int((~mask.any(axis=1)).sum()))

    def __add__(self, other: RidgeStatistics) -> RidgeStatistics:
        """Statistics of the rows of both. Raises FitError for another width, ObjectiveMismatch for another k."""
        if self.d != other.d:
            raise FitError(
                f"statistics of features with width {self.d} and {other.d} can't be added: take both from one backbone"
            )
        if self.k != other.k:
            raise ObjectiveMismatch(
                f"statistics of {self.k} and {other.k} objectives can't be added: label both with one list of objectives"
            )
        both = self.parts + other.parts
        held = np.zeros((len(both), self.k), dtype=bool)
        for row, part in enumerate(both):
            held[row, list(part.columns)] = True
        parts = []
        for columns, rows in _parts(held):
            found = [both[j] for j in np.flatnonzero(rows)]
            parts.append(_join(found, _columns(columns), _total([part.gram for part in found], (self.d, self.d))))
        return RidgeStatistics(self.d, self.k, tuple(parts), self.rows + other.rows, self.unlabelled + other.unlabelled)

    def sharing(self) -> tuple[tuple[int, ...], ...]:
        """The labelled objectives' columns, those that are labelled on the same rows together."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for i in range(self.k):
            groups.setdefault(self._holding(i), []).append(i)
        return tuple(tuple(columns) for held, columns in groups.items() if held)

    def shared(self, columns: tuple[int, ...]) -> SharedStatistics:
        """The statistics of objectives that are labelled on the same rows; the gram matrix is made once per set of rows.

        Raises FitError where they are not labelled on the same rows.
        """
        held = self._holding(columns[0])
        if any(self._holding(column) != held for column in columns):
            raise FitError(f"the objectives in columns {columns} are not labelled on the same rows: ask for each alone")
        found = [self.parts[j] for j in held]
        if held not in self._grams:
            self._grams[held] = _total([part.gram for part in found], (self.d, self.d))
        return _join(found, columns, self._grams[held])

    def _holding(self, column: int) -> tuple[int, ...]:
        # The parts that hold an objective.
        return tuple(j for j, part in enumerate(self.parts) if column in part.columns)


def eigen_of(gram: Float[np.ndarray, "d d"]) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """Eigenvalues of a gram matrix, least first and none below 0, and its eigenvectors. Raises FitError where it overflowed."""
    try:
        if not np.isfinite(gram).all():
            raise np.linalg.LinAlgError
        s, V = np.linalg.eigh(gram)
    except np.linalg.LinAlgError:
        raise FitError(TOO_LARGE) from None
    return np.maximum(s, 0.0), V  # a gram matrix has no negative eigenvalues, rounding has


def _parts(mask: Bool[np.ndarray, "r k"]) -> Iterator[tuple[Bool[np.ndarray, " k"], Bool[np.ndarray, " r"]]]:
    # Parts and the rows of each. Either choice lets every objective's rows be a disjoint union of parts; take the fewer.
    patterns = np.unique(mask[mask.any(axis=1)], axis=0)
    row_sets = np.unique(mask.T[mask.any(axis=0)], axis=0)
    if len(patterns) <= len(row_sets):
        yield from ((pattern, (mask == pattern).all(axis=1)) for pattern in patterns)
    else:
        yield from (((rows == mask.T).all(axis=1), rows) for rows in row_sets)


def _sums(
    features: Float[np.ndarray, "n d"], labels: Float[np.ndarray, "n k"], part: Bool[np.ndarray, " k"], rows: np.ndarray
) -> SharedStatistics:
    # X'X, X'1, X'Y over some rows, block by block in float64
    d, k = features.shape[1], labels.shape[1]
    gram, total, moment = np.zeros((d, d)), np.zeros(d), np.zeros((d, k))
    for start in range(0, len(rows), BLOCK):
        at = rows[start : start + BLOCK]
        X, Y = features[at].astype(np.float64), labels[at].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            gram += X.T @ X
            total += X.sum(axis=0)
            moment += X.T @ Y
    if not np.isfinite(gram).all():
        raise FitError(TOO_LARGE)
    y = labels[rows].astype(np.float64)
    whole = SharedStatistics(tuple(range(k)), len(rows), gram, total, moment, y.sum(axis=0), (y * y).sum(axis=0))
    return whole.only(_columns(part))


def _join(parts: Sequence[SharedStatistics], columns: tuple[int, ...], gram: Float[np.ndarray, "d d"]) -> SharedStatistics:
    # Disjoint rows together; `gram` is their sum.
    d, c, found = len(gram), len(columns), [part.only(columns) for part in parts]
    shapes = ((d,), (d, c), (c,), (c,))
    sums = [_total([getattr(part, name) for part in found], shape) for name, shape in zip(SUMS, shapes, strict=True)]
    return SharedStatistics(columns, sum(part.n for part in found), gram, *sums)


def _total(arrays: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return reduce(add, arrays) if arrays else np.zeros(shape)


def _columns(part: Bool[np.ndarray, " k"]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(part).tolist())


def _check_rows(features: Float[np.ndarray, "n d"], ratings: Float[np.ndarray, "n k"]) -> None:
    if len(features) != len(ratings):
        raise FitError(f"there are {len(features)} rows of features and {len(ratings)} of ratings: give one of each per row")
    if not features.shape[1] or not ratings.shape[1]:
        raise FitError(f"features are {features.shape} and ratings {ratings.shape}: there must be at least one column in each")
    blocks = range(0, len(features), BLOCK)
    bad = sum(int((~np.isfinite(features[b : b + BLOCK]).all(axis=1)).sum()) for b in blocks)
    if bad:
        raise FitError(
            f"{bad} of {len(features)} rows have features that are NaN or infinite: extract them again "
            "(a backbone that overflows in float16 needs bfloat16 or float32)"
        )
    infinite = int(np.isinf(ratings).any(axis=1).sum())
    if infinite:
        raise FitError(f"{infinite} of {len(ratings)} rows have infinite ratings: use NaN where there is no label")
