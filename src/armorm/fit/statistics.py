"""Sufficient statistics of the probe: everything that ridge regression with missing labels needs to know about the rows.

In: features [n d] and ratings [n k] (NaN = no label), shard after shard.  Out: `RidgeStatistics`, added up across shards.
Cost: one pass over the rows; one d x d float64 matrix per distinct label pattern, and never more than k of them.

Rows are gathered into parts. A part is a set of objectives, and an objective's own statistics are the sum over the parts
that hold it. Usually a part is a label pattern (the set of labels a row has). Where labels are missing so irregularly that
there are more patterns than objectives with rows of their own, a part is a set of objectives that always come together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from armorm.errors import FitError, ObjectiveMismatch

BLOCK = 8192
"""Rows that are held in float64 at a time."""


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
        return SharedStatistics(
            self.columns,
            self.n - other.n,
            self.gram - other.gram,
            self.feature_sum - other.feature_sum,
            self.moment - other.moment,
            self.label_sum - other.label_sum,
            self.label_square_sum - other.label_square_sum,
        )


@dataclass(frozen=True, eq=False)
class RidgeStatistics:
    """Sums over rows, part by part (s parts, see the module's docstring).

    `rows` counts all rows, `unlabelled` those without any label.
    Columns of `moments`, `label_sums` and `label_square_sums` that a part does not hold are 0.
    """

    parts: Bool[np.ndarray, "s k"]
    counts: tuple[int, ...]
    grams: tuple[Float[np.ndarray, "d d"], ...]
    feature_sums: Float[np.ndarray, "s d"]
    moments: Float[np.ndarray, "s d k"]
    label_sums: Float[np.ndarray, "s k"]
    label_square_sums: Float[np.ndarray, "s k"]
    rows: int
    unlabelled: int
    _shared_grams: dict[bytes, Float[np.ndarray, "d d"]] = field(default_factory=dict, init=False, repr=False)

    @property
    def d(self) -> int:
        """The features' width."""
        return self.feature_sums.shape[1]

    @property
    def k(self) -> int:
        """The number of objectives."""
        return self.parts.shape[1]

    @property
    def n(self) -> tuple[int, ...]:
        """Labelled rows per objective."""
        return tuple(int(np.dot(self.parts[:, i], self.counts)) if len(self.counts) else 0 for i in range(self.k))

    @classmethod
    def from_rows(cls, features: Float[np.ndarray, "n d"], ratings: Float[np.ndarray, "n k"]) -> RidgeStatistics:
        """Statistics of some rows: features of any float type, ratings on the [0, 1] scale with NaN for a missing label.

        Raises FitError for features that are not finite, and for infinite ratings.
        """
        _check_rows(features, ratings)
        (d, k), mask = (features.shape[1], ratings.shape[1]), ~np.isnan(ratings)
        parts = list(_parts(mask))
        sums = [_sums(features, np.where(part, ratings, 0.0), np.flatnonzero(rows)) for part, rows in parts]
        labels = [np.where(part, ratings[rows], 0.0).astype(np.float64) for part, rows in parts]
        return cls(
            parts=np.array([part for part, _ in parts], dtype=bool).reshape(-1, k),
            counts=tuple(int(rows.sum()) for _, rows in parts),
            grams=tuple(gram for gram, _, _ in sums),
            feature_sums=np.array([total for _, total, _ in sums]).reshape(-1, d),
            moments=np.array([moment for _, _, moment in sums]).reshape(-1, d, k),
            label_sums=np.array([y.sum(axis=0) for y in labels]).reshape(-1, k),
            label_square_sums=np.array([(y * y).sum(axis=0) for y in labels]).reshape(-1, k),
            rows=len(features),
            unlabelled=int((~mask.any(axis=1)).sum()),
        )

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
        held = np.concatenate([self.parts, other.parts])
        chosen = [(part, np.flatnonzero(rows)) for part, rows in _parts(held)]
        counts, grams = self.counts + other.counts, self.grams + other.grams
        moments = np.concatenate([self.moments, other.moments])
        feature_sums = np.concatenate([self.feature_sums, other.feature_sums])
        label_sums = np.concatenate([self.label_sums, other.label_sums])
        squares = np.concatenate([self.label_square_sums, other.label_square_sums])
        return RidgeStatistics(
            parts=np.array([part for part, _ in chosen], dtype=bool).reshape(-1, self.k),
            counts=tuple(sum(counts[j] for j in old) for _, old in chosen),
            grams=tuple(_total([grams[j] for j in old]) for _, old in chosen),
            feature_sums=np.array([feature_sums[old].sum(axis=0) for _, old in chosen]).reshape(-1, self.d),
            moments=np.array([moments[old].sum(axis=0) * part for part, old in chosen]).reshape(-1, self.d, self.k),
            label_sums=np.array([label_sums[old].sum(axis=0) * part for part, old in chosen]).reshape(-1, self.k),
            label_square_sums=np.array([squares[old].sum(axis=0) * part for part, old in chosen]).reshape(-1, self.k),
            rows=self.rows + other.rows,
            unlabelled=self.unlabelled + other.unlabelled,
        )

    def sharing(self) -> tuple[tuple[int, ...], ...]:
        """The labelled objectives' columns, those that are labelled on the same rows together."""
        groups: dict[bytes, list[int]] = {}
        for i in range(self.k):
            if self.parts[:, i].any():
                groups.setdefault(self.parts[:, i].tobytes(), []).append(i)
        return tuple(tuple(columns) for columns in groups.values())

    def shared(self, columns: tuple[int, ...]) -> SharedStatistics:
        """The statistics of objectives that are labelled on the same rows; the gram matrix is made once per set of rows.

        Raises FitError where they are not labelled on the same rows.
        """
        holds = self.parts[:, columns[0]]
        if (self.parts[:, list(columns)] != holds[:, None]).any():
            raise FitError(f"the objectives in columns {columns} are not labelled on the same rows: ask for each alone")
        held, at = np.flatnonzero(holds), list(columns)
        return SharedStatistics(
            columns=columns,
            n=sum(self.counts[j] for j in held),
            gram=self._gram(holds),
            feature_sum=self.feature_sums[held].sum(axis=0),
            moment=self.moments[held].sum(axis=0)[:, at],
            label_sum=self.label_sums[held].sum(axis=0)[at],
            label_square_sum=self.label_square_sums[held].sum(axis=0)[at],
        )

    def _gram(self, holds: Bool[np.ndarray, " s"]) -> Float[np.ndarray, "d d"]:
        key = holds.tobytes()
        if key not in self._shared_grams:
            held = [self.grams[j] for j in np.flatnonzero(holds)]
            self._shared_grams[key] = _total(held) if held else np.zeros((self.d, self.d))
        return self._shared_grams[key]


def _parts(mask: Bool[np.ndarray, "r k"]) -> Iterator[tuple[Bool[np.ndarray, " k"], Bool[np.ndarray, " r"]]]:
    # Parts and the rows of each. Either choice lets every objective's rows be a disjoint union of parts; take the fewer.
    patterns = np.unique(mask[mask.any(axis=1)], axis=0)
    row_sets = np.unique(mask.T[mask.any(axis=0)], axis=0)
    if len(patterns) <= len(row_sets):
        yield from ((pattern, (mask == pattern).all(axis=1)) for pattern in patterns)
    else:
        yield from (((rows == mask.T).all(axis=1), rows) for rows in row_sets)


def _sums(
    features: Float[np.ndarray, "n d"], labels: Float[np.ndarray, "n k"], rows: np.ndarray
) -> tuple[Float[np.ndarray, "d d"], Float[np.ndarray, " d"], Float[np.ndarray, "d k"]]:
    # X'X, X'1, X'Y over some rows, block by block in float64
    d, k = features.shape[1], labels.shape[1]
    gram, total, moment = np.zeros((d, d)), np.zeros(d), np.zeros((d, k))
    for start in range(0, len(rows), BLOCK):
        at = rows[start : start + BLOCK]
        X, Y = features[at].astype(np.float64), labels[at].astype(np.float64)
        gram += X.T @ X
        total += X.sum(axis=0)
        moment += X.T @ Y
    return gram, total, moment


def _total(grams: list[Float[np.ndarray, "d d"]]) -> Float[np.ndarray, "d d"]:
    if len(grams) == 1:
        return grams[0]
    total = grams[0].copy()
    for gram in grams[1:]:
        total += gram
    return total


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
