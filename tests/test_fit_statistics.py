"""Statistics of rows: merged shards are one pass, irregular labels cost no more than one matrix per objective."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from armorm.errors import FitError, ObjectiveMismatch
from armorm.fit import triangles
from armorm.fit.statistics import RidgeStatistics
from armorm.fit.triangles import add_rows, in_precision, new_triangle, symmetric


def rows(n=90, d=6, seed=0, dtype=np.float64):
    """Three sources that label {0, 1}, {1, 2} and nothing."""
    rng = np.random.default_rng(seed)
    features, ratings = rng.normal(size=(n, d)).astype(dtype), rng.uniform(size=(n, 3))
    ratings[: n // 3, 2] = np.nan
    ratings[n // 3 : n - 5, 0] = np.nan
    ratings[n - 5 :] = np.nan
    return features, ratings


def irregular_rows(n=200, d=4, k=3, seed=1):
    rng = np.random.default_rng(seed)
    features, ratings = rng.normal(size=(n, d)), rng.uniform(size=(n, k))
    ratings[rng.uniform(size=(n, k)) < 0.5] = np.nan
    return features, ratings


def assert_statistics_of(statistics, features, ratings):
    for i in range(ratings.shape[1]):
        labelled = ~np.isnan(ratings[:, i])
        X, y = features[labelled].astype(np.float64), ratings[labelled, i]
        one = statistics.shared((i,))
        assert one.n == labelled.sum() == statistics.n[i]
        np.testing.assert_allclose(one.gram, X.T @ X, atol=1e-9)
        np.testing.assert_allclose(one.feature_sum, X.sum(axis=0), atol=1e-9)
        np.testing.assert_allclose(one.moment[:, 0], X.T @ y, atol=1e-9)
        np.testing.assert_allclose(one.label_sum[0], y.sum(), atol=1e-9)
        np.testing.assert_allclose(one.label_square_sum[0], y @ y, atol=1e-9)


@pytest.mark.parametrize("make", [rows, irregular_rows])
def test_each_objective_has_the_sums_over_its_own_rows(make):
    features, ratings = make()
    assert_statistics_of(RidgeStatistics.from_rows(features, ratings), features, ratings)


@pytest.mark.parametrize("make", [rows, irregular_rows])
@pytest.mark.parametrize("cuts", [[0, 45, 90], [0, 1, 10, 10, 70, 90]])
def test_merged_shards_are_one_pass(make, cuts):
    features, ratings = make(n=90)
    shards = [RidgeStatistics.from_rows(features[a:b], ratings[a:b]) for a, b in pairwise(cuts)]
    merged = shards[0]
    for shard in shards[1:]:
        merged += shard
    whole = RidgeStatistics.from_rows(features, ratings)
    assert (merged.rows, merged.unlabelled, merged.n) == (whole.rows, whole.unlabelled, whole.n)
    assert merged.sharing() == whole.sharing()
    assert_statistics_of(merged, features, ratings)


def test_regular_labels_make_a_part_per_pattern_and_count_rows_without_any():
    statistics = RidgeStatistics.from_rows(*rows())
    assert sorted(part.columns for part in statistics.parts) == [(0, 1), (1, 2)]
    assert (statistics.rows, statistics.unlabelled) == (90, 5)


def test_irregular_labels_never_cost_more_matrices_than_objectives():
    features, ratings = irregular_rows()
    assert len(np.unique(~np.isnan(ratings), axis=0)) == 8
    statistics = RidgeStatistics.from_rows(features, ratings)
    assert len(statistics.parts) == 3
    for part in statistics.parts:
        assert part.triangle().shape == (4 * 5 // 2,)
        assert part.moment.shape == (4, len(part.columns))
        assert len(part.label_sum) == len(part.label_square_sum) == len(part.columns)


def test_objectives_with_the_same_rows_are_taken_together():
    features, ratings = rows()
    ratings[:, 1] = np.where(np.isnan(ratings[:, 0]), np.nan, 0.5)
    statistics = RidgeStatistics.from_rows(features, ratings)
    assert statistics.sharing() == ((0, 1), (2,)) or statistics.sharing() == ((2,), (0, 1))
    np.testing.assert_array_equal(statistics.shared((0, 1)).gram, statistics.shared((1,)).gram)
    with pytest.raises(FitError, match="not labelled on the same rows"):
        statistics.shared((0, 2))


def test_half_precision_features_are_summed_in_double_precision():
    features, ratings = rows(dtype=np.float16)
    statistics = RidgeStatistics.from_rows(features, ratings)
    assert statistics.parts[0].triangle().dtype == np.float64
    assert_statistics_of(statistics, features, ratings)


def test_no_rows_are_statistics_too():
    nothing = RidgeStatistics.from_rows(np.zeros((0, 6)), np.zeros((0, 3)))
    assert nothing.n == (0, 0, 0)
    assert nothing.sharing() == ()
    assert_statistics_of(nothing + RidgeStatistics.from_rows(*rows()), *rows())
    assert nothing.d == 6


def test_bad_rows_are_counted_and_mismatches_named():
    features, ratings = rows()
    features[[3, 7], 0] = [np.nan, np.inf]
    with pytest.raises(FitError, match="2 of 90 rows"):
        RidgeStatistics.from_rows(features, ratings)
    features, ratings = rows()
    ratings[0, 0] = np.inf
    with pytest.raises(FitError, match="1 of 90 rows have infinite ratings"):
        RidgeStatistics.from_rows(features, ratings)
    statistics = RidgeStatistics.from_rows(*rows())
    with pytest.raises(FitError, match="width 6 and 5"):
        statistics + RidgeStatistics.from_rows(*rows(d=5))
    with pytest.raises(ObjectiveMismatch, match="3 and 2"):
        statistics + RidgeStatistics.from_rows(rows()[0], rows()[1][:, :2])


# -- triangles --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 5, 512, 700])
def test_a_triangle_is_half_of_the_matrix(d):
    X = np.random.default_rng(0).normal(size=(9, d))
    triangle = new_triangle(d)
    add_rows(triangle, in_precision(X, None))
    whole = symmetric(triangle, d)
    np.testing.assert_array_equal(whole, whole.T)
    np.testing.assert_allclose(whole, X.T @ X, rtol=1e-12, atol=1e-12)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch):
    """Six columns count as wide."""
    monkeypatch.setattr(triangles, "NARROW", 4)
    monkeypatch.setattr(triangles, "ROWS", 256)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_wide_features_are_summed_in_single_precision_within_a_millionth(wide, dtype):
    features, ratings = rows(n=9000, dtype=dtype)
    features[:, 2] *= 300  # one column dwarfs the others, as in language models
    one = RidgeStatistics.from_rows(features, ratings).shared((1,))
    X = features[~np.isnan(ratings[:, 1])].astype(np.float64)
    exact = X.T @ X
    size = np.sqrt(np.diag(exact))
    off = np.abs(one.gram - exact) / np.outer(size, size)
    assert 0 < off.max() < 1e-6
    y = ratings[~np.isnan(ratings[:, 1]), 1]
    assert (np.abs(one.moment[:, 0] - X.T @ y) < 1e-6 * size * np.linalg.norm(y)).all()


def test_wide_features_of_few_rows_are_summed_in_double_precision(wide):
    for n, single in ((23, False), (24, True)):
        features, _ = rows(n=n, dtype=np.float32)
        ratings = np.full((n, 1), 0.5)
        X = features.astype(np.float64)
        gram = RidgeStatistics.from_rows(features, ratings).shared((0,)).gram
        assert (np.abs(gram - X.T @ X).max() > 1e-12 * np.abs(gram).max()) == single


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_wide_features_whose_squares_leave_single_precision_are_summed_in_double(wide, size):
    features, ratings = rows()
    one = RidgeStatistics.from_rows(features * size, ratings).shared((1,))
    exact = RidgeStatistics.from_rows(features, ratings).shared((1,))
    np.testing.assert_allclose(one.gram / size / size, exact.gram, rtol=1e-5, atol=1e-5)
    assert np.isfinite(one.gram).all()
    assert (np.diag(one.gram) > 0).all()


def test_wide_features_that_are_too_large_are_refused(wide):
    features, ratings = rows()
    with pytest.raises(FitError, match="too large for sums of their squares"):
        RidgeStatistics.from_rows(features * 1e160, ratings)


def test_sums_of_statistics_read_no_triangle():
    statistics = RidgeStatistics.from_rows(*rows())

    def refuse():
        raise AssertionError("read")

    unread = replace(statistics, parts=tuple(replace(part, triangle=refuse) for part in statistics.parts))
    both = unread + unread
    assert both.n == tuple(2 * n for n in statistics.n)
    assert both.sharing() == statistics.sharing()
    with pytest.raises(AssertionError, match="read"):
        both.shared((0,))
