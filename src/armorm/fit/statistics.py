"""Sufficient statistics of the probe: everything that ridge regression with missing labels needs to know about the rows.

In: features [n d] and ratings [n k] (NaN = no label), block after block.  Out: `RidgeStatistics`, which add up.
Cost: one pass over the rows; one triangle of d (d + 1) / 2 numbers per part, in memory or wherever it is read from when it is
asked for (`triangles` says in which precision it is summed).

Rows are gathered into parts. A part is a set of objectives, and an objective's own statistics are the sum over the parts
that hold it. Usually a part is a label pattern (the set of labels a row has). Where labels are missing so irregularly that
there are more patterns than objectives with rows of their own, a part is a set of objectives that always come together: rows that
are taken together never have more parts than objectives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from armorm.errors import FitError, ObjectiveMismatch
from armorm.fit.triangles import ROWS, add_rows, in_precision, in_single, is_finite, new_triangle, shift_back, symmetric

TOO_LARGE = (
    "the features are too large for sums of their squares: divide them by their largest value, or read them at another layer "
    "(`features.response`)"
)
SUMS = ("feature_sum", "moment", "label_sum", "label_square_sum")


@dataclass(frozen=True, eq=False)
class Part:
    """Sums over `n` rows that are labelled for the objectives `columns` (c of them).

    `triangle` gives X'X on and above its diagonal, row by row: held in memory, read from a file, or summed when it is asked for.
    """

    columns: tuple[int, ...]
    n: int
    triangle: Callable[[], Float[np.ndarray, " t"]]
    feature_sum: Float[np.ndarray, " d"]
    moment: Float[np.ndarray, "d c"]
    label_sum: Float[np.ndarray, " c"]
    label_square_sum: Float[np.ndarray, " c"]

    def only(self, columns: tuple[int, ...]) -> Part:
        """The same rows, some of the objectives."""
        at = [self.columns.index(column) for column in columns]
        labels = self.label_sum[at], self.label_square_sum[at]
        return Part(columns, self.n, self.triangle, self.feature_sum, self.moment[:, at], *labels)


class Sums:
    """A part in the making: rows are added to it block by block. `rows` is how many its source has, which decides the precision.

    What is summed in single precision is summed about a `shift` near the rows' mean, which is put back in double precision at the
    end: some features of language models lie hundreds of standard deviations from zero.
    """

    def __init__(self, d: int, columns: tuple[int, ...], rows: int) -> None:
        c, self.single = len(columns), in_single(rows, d)
        self.columns, self.n, self.triangle = columns, 0, new_triangle(d)
        self.shift: Float[np.ndarray, " d"] | None = None
        self.feature_sum, self.moment = np.zeros(d), np.zeros((d, c))
        self.label_sum, self.label_square_sum = np.zeros(c), np.zeros(c)

    def add(self, features: Float[np.ndarray, "n d"], labels: Float[np.ndarray, "n c"]) -> None:
        """Add rows that carry all labels. Raises FitError for features that are not finite or whose squares are not."""
        for start in range(0, len(features), ROWS):
            X, Y = features[start : start + ROWS], labels[start : start + ROWS].astype(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                own = X.sum(axis=0, dtype=np.float64)
                if not np.isfinite(own).all():  # so some feature is not, or is large
                    _check_features(features)
                if self.shift is None and self.single:
                    self.shift = (own / len(X)).astype(np.float32)
                self.feature_sum += own
                X = in_precision(X, self.shift)
                self.moment += X.T @ Y.astype(X.dtype)
            add_rows(self.triangle, X)
            self.label_sum += Y.sum(axis=0)
            self.label_square_sum += (Y * Y).sum(axis=0)
        self.n += len(features)
        if not is_finite(self.triangle, len(self.feature_sum)):
            raise FitError(TOO_LARGE)

    def part(self, triangle: Callable[[], Float[np.ndarray, " t"]] | None = None) -> Part:
        """The part, its triangle in memory unless it is said where to get it from. No row can be added any more."""
        if self.shift is not None:
            shift_back(self.triangle, self.feature_sum, self.shift, self.n)
            self.moment += np.outer(self.shift, self.label_sum)
            self.shift = None
        return Part(self.columns, self.n, triangle or partial(np.asarray, self.triangle), *(getattr(self, name) for name in SUMS))


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

    def __add__(self, other: SharedStatistics) -> SharedStatistics:
        """The rows of both, which have none in common."""
        sums: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in ("n", "gram", *SUMS)}
        return replace(self, **sums)

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


@dataclass(frozen=True, eq=False)
class RidgeStatistics:
    """Sums over rows, part by part (see the module's docstring), of features of width `d` and ratings of `k` objectives.

    `rows` counts all rows, `unlabelled` those without any label.
    """

    d: int
    k: int
    parts: tuple[Part, ...]
    rows: int
    unlabelled: int

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
        parts = []
        for columns, rows in parts_of(ratings):
            sums = Sums(features.shape[1], columns, len(features))
            for start in range(0, len(rows), ROWS):
                at = rows[start : start + ROWS]
                sums.add(features[at], ratings[at][:, list(columns)])
            parts.append(sums.part())
        unlabelled = int(np.isnan(ratings).all(axis=1).sum())
        return cls(features.shape[1], ratings.shape[1], tuple(parts), len(features), unlabelled)

    def __add__(self, other: RidgeStatistics) -> RidgeStatistics:
        """Statistics of the rows of both; no triangle is read.

        Raises FitError for another width, ObjectiveMismatch for another k.
        """
        if self.d != other.d:
            raise FitError(
                f"statistics of features with width {self.d} and {other.d} can't be added: take both from one backbone"
            )
        if self.k != other.k:
            raise ObjectiveMismatch(
                f"statistics of {self.k} and {other.k} objectives can't be added: label both with one list of objectives"
            )
        both = self.parts + other.parts
        return RidgeStatistics(self.d, self.k, both, self.rows + other.rows, self.unlabelled + other.unlabelled)

    def sharing(self) -> tuple[tuple[int, ...], ...]:
        """The labelled objectives' columns, those that are labelled on the same rows together."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for i in range(self.k):
            groups.setdefault(self._holding(i), []).append(i)
        return tuple(tuple(columns) for held, columns in groups.items() if held)

    def shared(self, columns: tuple[int, ...]) -> SharedStatistics:
        """The statistics of objectives that are labelled on the same rows, the gram matrix whole in memory.

        Raises FitError where they are not labelled on the same rows.
        """
        held = self._holding(columns[0])
        if any(self._holding(column) != held for column in columns):
            raise FitError(f"the objectives in columns {columns} are not labelled on the same rows: ask for each alone")
        found = [self.parts[j].only(columns) for j in held]
        c, gram = len(columns), symmetric(_total((part.triangle() for part in found), new_triangle(self.d)), self.d)
        zeros = (np.zeros(self.d), np.zeros((self.d, c)), np.zeros(c), np.zeros(c))
        sums = [_total((getattr(part, name) for part in found), zero) for name, zero in zip(SUMS, zeros, strict=True)]
        return SharedStatistics(columns, sum(part.n for part in found), gram, *sums)

    def _holding(self, column: int) -> tuple[int, ...]:
        # The parts that hold an objective.
        return tuple(j for j, part in enumerate(self.parts) if column in part.columns)


def parts_of(ratings: Float[np.ndarray, "n k"]) -> Iterator[tuple[tuple[int, ...], Int[np.ndarray, " r"]]]:
    """Objectives and rows of each part. Either choice lets every objective's rows be a disjoint union of parts; the fewer are
    taken."""
    mask = ~np.isnan(ratings)
    patterns = np.unique(mask[mask.any(axis=1)], axis=0)
    row_sets = np.unique(mask.T[mask.any(axis=0)], axis=0)
    if len(patterns) <= len(row_sets):
        yield from ((_places(pattern), np.flatnonzero((mask == pattern).all(axis=1))) for pattern in patterns)
    else:
        yield from ((_places((rows == mask.T).all(axis=1)), np.flatnonzero(rows)) for rows in row_sets)


def _places(held: Bool[np.ndarray, " k"]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(held).tolist())


def _total(arrays: Iterable[np.ndarray], nothing: np.ndarray) -> np.ndarray:
    # Never written into: what is summed may be somebody's own.
    found = iter(arrays)
    first = next(found, nothing)
    return reduce(add, found, first)


def _check_rows(features: Float[np.ndarray, "n d"], ratings: Float[np.ndarray, "n k"]) -> None:
    if len(features) != len(ratings):
        raise FitError(f"there are {len(features)} rows of features and {len(ratings)} of ratings: give one of each per row")
    if not features.shape[1] or not ratings.shape[1]:
        raise FitError(f"features are {features.shape} and ratings {ratings.shape}: there must be at least one column in each")
    _check_features(features)
    infinite = int(np.isinf(ratings).any(axis=1).sum())
    if infinite:
        raise FitError(f"{infinite} of {len(ratings)} rows have infinite ratings: use NaN where there is no label")


def _check_features(features: Float[np.ndarray, "n d"]) -> None:
    blocks = range(0, len(features), ROWS)
    bad = sum(int((~np.isfinite(features[b : b + ROWS]).all(axis=1)).sum()) for b in blocks)
    if bad:
        raise FitError(
            f"{bad} of {len(features)} rows have features that are NaN or infinite: extract them again "
            "(a backbone that overflows in float16 needs bfloat16 or float32)"
        )
