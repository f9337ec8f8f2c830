"""The probe equals scikit-learn's Ridge column by column; its cross-validation equals the explicit one; its quality is honest."""

from __future__ import annotations

import inspect
import math
from functools import reduce
from operator import add

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score, roc_auc_score, root_mean_squared_error

from armorm.errors import FitError, ObjectiveMismatch
from armorm.fit import neighbours, ridge, triangles
from armorm.fit.probe import ProbeFit, fit_probe, refit
from armorm.fit.quality import mean_quality, probe_quality
from armorm.fit.ridge import solve_ridge_path
from armorm.fit.statistics import RidgeStatistics
from armorm.intervals import Interval, bootstrap_by_group, mean_by_group
from armorm.objectives import Objective, Objectives

ALPHAS = (0.01, 1.0, 100.0)
FOLDS = 4


def objectives(k=3):
    return Objectives([Objective(name=f"o{i}", min=0, max=4) for i in range(k)])


def rated(n=240, d=8, k=3, seed=0, noise=0.1):
    """Linear ratings around 0.5; each row lacks the labels of one source."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d)) + 0.5
    ratings = 0.5 + features @ rng.normal(size=(d, k)) * 0.05 + noise * rng.normal(size=(n, k))
    ratings[: n // 2, 0] = np.nan
    ratings[n // 2 :, 2] = np.nan
    return features, ratings, np.arange(n) % FOLDS


def folds_of(features, ratings, fold):
    return [RidgeStatistics.from_rows(features[fold == f], ratings[fold == f]) for f in range(FOLDS)]


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_probe_equals_ridge_per_column(intercept, alpha):
    features, ratings, fold = rated()
    fit = fit_probe(folds_of(features, ratings, fold), objectives(), alphas=[alpha], intercept=intercept)
    for i in range(3):
        labelled = ~np.isnan(ratings[:, i])
        ridge = Ridge(alpha=alpha, fit_intercept=intercept).fit(features[labelled], ratings[labelled, i])
        np.testing.assert_allclose(fit.probe.weights[i], ridge.coef_, atol=1e-9)
        np.testing.assert_allclose(fit.probe.intercepts[i], ridge.intercept_, atol=1e-9)
        np.testing.assert_allclose(fit.probe.predict(features)[:, i], ridge.predict(features), atol=1e-9)


@pytest.mark.parametrize("intercept", [False, True])
def test_fold_statistics_equal_explicit_cross_validation(intercept):
    features, ratings, fold = rated(noise=1.0)
    fit = fit_probe(folds_of(features, ratings, fold), objectives(), alphas=ALPHAS, intercept=intercept)
    for i in range(3):
        labelled = ~np.isnan(ratings[:, i])
        X, y, f = features[labelled], ratings[labelled, i], fold[labelled]
        held_out = np.zeros((len(ALPHAS), len(y)))
        for a, alpha in enumerate(ALPHAS):
            for out in range(FOLDS):
                ridge = Ridge(alpha=alpha, fit_intercept=intercept).fit(X[f != out], y[f != out])
                held_out[a, f == out] = ridge.predict(X[f == out])
        errors = ((held_out - y) ** 2).mean(axis=1)
        best = errors.argmin()
        np.testing.assert_allclose(fit.errors[i], errors, rtol=1e-9)
        assert fit.probe.alphas[i] == ALPHAS[best]
        np.testing.assert_allclose(fit.cv_pearson[i], pearsonr(y, held_out[best]).statistic, atol=1e-9)
    assert fit.mean_cv_pearson == pytest.approx(fit.cv_pearson.mean())


def test_strength_follows_the_noise():
    quiet = fit_probe(folds_of(*rated(n=80, noise=0.01)), objectives(), alphas=(0.1, 10.0, 1000.0), intercept=True)
    loud = fit_probe(folds_of(*rated(n=80, noise=3.0)), objectives(), alphas=(0.1, 10.0, 1000.0), intercept=True)
    assert (quiet.probe.alphas < loud.probe.alphas).all()


def test_permuted_labels_bring_the_probe_to_chance():
    features, ratings, fold = rated(n=600, noise=0.02)
    ratings = np.where(np.isnan(ratings), np.nanmean(ratings, axis=0), ratings)
    honest = fit_probe(folds_of(features, ratings, fold), objectives(), alphas=ALPHAS, intercept=True)
    permuted = ratings[np.random.default_rng(1).permutation(len(ratings))]
    chance = fit_probe(folds_of(features, permuted, fold), objectives(), alphas=ALPHAS, intercept=True)
    assert honest.mean_cv_pearson > 0.6
    assert abs(chance.mean_cv_pearson) < 0.12
    assert (1 - chance.errors.min(axis=1) / permuted.var(axis=0) < 0.02).all()  # R² of the held-out predictions


def test_solver_meets_the_normal_equations():
    rng = np.random.default_rng(3)
    X, Y = rng.normal(size=(20, 5)), rng.normal(size=(20, 2))
    for alpha, W in zip((2.0, 0.5), solve_ridge_path(X.T @ X, X.T @ Y, np.array([2.0, 0.5])), strict=True):
        np.testing.assert_allclose((X.T @ X + alpha * np.eye(5)) @ W.T, X.T @ Y, atol=1e-10)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch):
    """Eight columns count as wide, so that factors solve."""
    monkeypatch.setattr(ridge, "NARROW", 4)
    decompositions, real = [], ridge.eigen_of
    monkeypatch.setattr(ridge, "eigen_of", lambda gram: decompositions.append(len(gram)) or real(gram))
    return decompositions


@pytest.mark.parametrize("intercept", [False, True])
def test_factors_give_what_eigenvectors_give(wide, monkeypatch: pytest.MonkeyPatch, intercept):
    folds = folds_of(*rated(noise=1.0))
    by_factors = fit_probe(folds, objectives(), alphas=ALPHAS, intercept=intercept)
    assert not wide
    monkeypatch.setattr(ridge, "NARROW", 2048)
    by_eigenvectors = fit_probe(folds, objectives(), alphas=ALPHAS, intercept=intercept)
    assert wide
    np.testing.assert_array_equal(by_factors.probe.alphas, by_eigenvectors.probe.alphas)
    np.testing.assert_allclose(by_factors.probe.weights, by_eigenvectors.probe.weights, atol=1e-9)
    np.testing.assert_allclose(by_factors.errors, by_eigenvectors.errors, rtol=1e-8)
    np.testing.assert_allclose(by_factors.cv_pearson, by_eigenvectors.cv_pearson, rtol=1e-8)


def test_folds_are_solved_by_the_factors_of_all_rows_and_a_fold_that_is_unlike_them_by_its_own(
    wide, monkeypatch: pytest.MonkeyPatch
):
    factored, real = [], ridge.factor_of
    monkeypatch.setattr(ridge, "factor_of", lambda gram, alpha: factored.append(alpha) or real(gram, alpha))
    features, ratings, fold = rated(noise=1.0)
    fit_probe(folds_of(features, ratings, fold), objectives(), alphas=ALPHAS)
    assert not factored
    monkeypatch.setattr(neighbours, "STEPS", 3)
    features[fold == 1] *= np.linspace(1, 1e4, 8)
    alike = fit_probe(folds_of(features, ratings, fold), objectives(), alphas=ALPHAS)
    assert factored
    monkeypatch.setattr(ridge, "NARROW", 2048)
    expected = fit_probe(folds_of(features, ratings, fold), objectives(), alphas=ALPHAS)
    np.testing.assert_array_equal(alike.probe.alphas, expected.probe.alphas)
    np.testing.assert_allclose(alike.probe.weights, expected.probe.weights, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("intercept", [False, True])
def test_single_precision_chooses_what_double_precision_does(monkeypatch: pytest.MonkeyPatch, intercept):
    """As in language models: a spectrum that falls by four orders, answers of a prompt alike, means far from 0."""
    rng, n, d = np.random.default_rng(0), 4000, 60
    turned = np.linalg.qr(rng.normal(size=(d, d)))[0]
    features = (rng.normal(size=(n, d)) * np.exp(-np.arange(d) / 6.5)) @ turned
    features = np.repeat(features[::4], 4, axis=0) + 0.3 * features
    features[:, 3] += 100
    features[:, 7] -= 30
    features = features.astype(np.float16).astype(np.float32)
    signal = features @ (rng.normal(size=(d, 3)) / features.std(axis=0)[:, None])
    ratings = 0.5 + 0.1 * signal / signal.std(axis=0) + 0.2 * rng.normal(size=(n, 3))
    fold, alphas = np.arange(n) // 4 % FOLDS, [10.0**e for e in range(-4, 5)]
    fits = []
    for narrow in (2048, 8):
        for module in (triangles, ridge):
            monkeypatch.setattr(module, "NARROW", narrow)
        folds = folds_of(features, ratings, fold)
        fits.append(fit_probe(folds, objectives(), alphas=alphas, intercept=intercept))
    double, single = fits
    assert not np.array_equal(double.probe.weights, single.probe.weights)
    np.testing.assert_array_equal(single.probe.alphas, double.probe.alphas)
    np.testing.assert_allclose(single.errors, double.errors, rtol=1e-3)
    np.testing.assert_allclose(single.cv_pearson, double.cv_pearson, atol=1e-5)
    one, other = (fit.probe.predict(features) for fit in (single, double))
    assert (np.std(one - other, axis=0) < 1e-4 * np.std(other, axis=0)).all()


def dwarfed(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows with one direction that dwarfs what the ratings follow, a spectrum below it that falls by two orders."""
    rng = np.random.default_rng(1600)
    v, w = rng.normal(size=d), rng.normal(size=d)
    w -= v * (v @ w) / (v @ v)
    X = (100 * rng.normal(size=(n, 1)) * v + rng.normal(size=(n, d)) * np.logspace(0, -2, d)).astype(np.float32)
    return X, 1 / (1 + np.exp(-(X @ w / 8 + 0.1 * rng.normal(size=n))))[:, None]


def dwarfed_fit(n: int = 1500, d: int = 300) -> ProbeFit:
    X, Y = dwarfed(n, d)
    fold = np.arange(n) % 5
    folds = [RidgeStatistics.from_rows(X[fold == i], Y[fold == i]) for i in range(5)]
    return fit_probe(folds, Objectives([Objective(name="a", min=0, max=1)]), alphas=[10.0**e for e in range(-4, 9)])


def test_a_strength_whose_errors_are_rounding_is_not_chosen(monkeypatch: pytest.MonkeyPatch):
    exact = dwarfed_fit()
    for module in (triangles, ridge):
        monkeypatch.setattr(module, "NARROW", 16)
    few = dwarfed_fit()  # fewer than four rows a column are summed in double precision
    np.testing.assert_array_equal(few.probe.alphas, exact.probe.alphas)
    np.testing.assert_allclose(few.errors, exact.errors, rtol=1e-6)
    monkeypatch.setattr(triangles, "ROWS_PER_COLUMN", 0)
    rounded = dwarfed_fit()
    assert np.isnan(rounded.errors[0, :3]).all()
    np.testing.assert_array_equal(rounded.probe.alphas, exact.probe.alphas)
    np.testing.assert_allclose(rounded.errors[0, -6:], exact.errors[0, -6:], rtol=1e-2)
    assert rounded.mean_cv_pearson == pytest.approx(exact.mean_cv_pearson, abs=1e-2)


def test_an_exact_fit_is_not_taken_for_rounding():
    """Law: errors that are 0 but for rounding, on either side of it, are the least there are."""
    rng = np.random.default_rng(0)
    X, w = rng.normal(size=(400, 6)), rng.uniform(0, 0.1, size=6)
    Y = (X @ w)[:, None] + 0.5 * X[:, :1]
    fold = np.arange(400) % 4
    folds = [RidgeStatistics.from_rows(X[fold == i], Y[fold == i]) for i in range(4)]
    fit = fit_probe(folds, Objectives([Objective(name="a", min=0, max=1)]), alphas=[1e-6, 1e-3, 1.0])
    assert fit.probe.alphas[0] == 1e-6


def test_strengths_that_are_rounding_beside_the_matrix_are_solved_by_eigenvectors(wide, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(5, 12)) * 1e3, rng.normal(size=(5, 2))  # seven directions have no rows
    alphas = np.array([1e-12, 1e-11, 1.0, 100.0])
    found = solve_ridge_path(X.T @ X, X.T @ Y, alphas)
    assert wide == [12], "once for both"
    monkeypatch.setattr(ridge, "NARROW", 2048)
    expected = solve_ridge_path(X.T @ X, X.T @ Y, alphas)
    np.testing.assert_allclose(found[2:], expected[2:], rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-9)
    for alpha, W in zip(alphas[2:], found[2:], strict=True):
        np.testing.assert_allclose(W, Ridge(alpha=alpha, fit_intercept=False).fit(X, Y).coef_, rtol=1e-6, atol=1e-9)


def test_a_matrix_that_overflowed_is_refused_whatever_solves(wide):
    with pytest.raises(FitError, match="too large"):
        solve_ridge_path(np.full((6, 6), np.inf), np.ones((6, 1)), np.ones(1))


@pytest.mark.parametrize("intercept", [False, True])
def test_probes_without_a_fold_are_refitted_on_the_others(intercept):
    folds = folds_of(*rated())
    fit = fit_probe(folds, objectives(), alphas=ALPHAS, intercept=intercept)
    assert len(fit.without) == FOLDS
    for i, probe in enumerate(fit.without):
        rest = reduce(add, [fold for j, fold in enumerate(folds) if j != i])
        expected = refit(rest, fit.probe, intercept=intercept)
        np.testing.assert_allclose(probe.weights, expected.weights, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(probe.intercepts, expected.intercepts, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(probe.alphas, fit.probe.alphas)


def test_a_probe_without_the_only_fold_that_rates_is_zero():
    features, ratings, fold = rated()
    ratings[fold > 0, 0] = np.nan
    fit = fit_probe(folds_of(features, ratings, fold), objectives(), alphas=ALPHAS, intercept=True)
    assert fit.probe.weights[0].any()
    assert not fit.without[0].weights[0].any()
    assert fit.without[0].intercepts[0] == 0
    np.testing.assert_allclose(fit.without[1].weights[0], fit.probe.weights[0])


def test_what_cannot_be_fitted_is_zero_and_said():
    features, ratings, fold = rated()
    ratings[:, 1] = np.where(np.isnan(ratings[:, 1]), np.nan, 0.25)
    ratings[:, 2] = np.nan
    fit = fit_probe(folds_of(features, ratings, fold), objectives(), alphas=ALPHAS, intercept=True)
    assert not fit.probe.weights[1:].any()
    assert fit.probe.intercepts[1:].tolist() == [0.25, 0.0]
    assert np.isnan(fit.cv_pearson).tolist() == [False, True, True]
    assert math.isfinite(fit.mean_cv_pearson)
    told = "\n".join(fit.warnings)
    assert "o1: all 240 ratings are the same" in told
    assert "o2: no row is labelled" in told


def test_warnings_for_the_edge_few_rows_and_one_fold():
    features, ratings, fold = rated()
    ratings[fold > 0, 0] = np.nan
    fit = fit_probe(folds_of(features, ratings, fold), objectives(), alphas=(1e5, 1e6), min_rows=150)
    told = "\n".join(fit.warnings)
    assert "o0: all labelled rows lie in one fold" in told
    assert fit.probe.alphas[0] == 1e6
    assert "o1: the chosen alpha 100000 is the smallest of the grid" in told
    assert "o2: only 120 labelled rows (at least 150" in told
    assert "o1: only" not in told


def test_faults_are_errors():
    folds = folds_of(*rated())
    with pytest.raises(FitError, match="at least 2 folds"):
        fit_probe(folds[:1], objectives(), alphas=ALPHAS)
    with pytest.raises(FitError, match="positive"):
        fit_probe(folds, objectives(), alphas=[0.0])
    with pytest.raises(ObjectiveMismatch, match="3 objectives, the list names 2"):
        fit_probe(folds, objectives(2), alphas=ALPHAS)
    features, _, fold = rated()
    with pytest.raises(FitError, match="no objective can be fitted"):
        fit_probe(folds_of(features, np.full((240, 3), 0.5), fold), objectives(), alphas=ALPHAS)
    with pytest.raises(FitError, match="width 8, these have 5"):
        fit_probe(folds, objectives(), alphas=ALPHAS).probe.predict(np.zeros((2, 5)))


# Quality and intervals


def graded(n=200, seed=0):
    rng = np.random.default_rng(seed)
    asked = Objectives(
        [Objective(name="help", min=0, max=4), Objective(name="safe", min=0, max=1), Objective(name="none", min=1, max=5)]
    )
    predicted = rng.uniform(size=(n, 3))
    raw = np.stack(
        [
            np.round(4 * np.clip(predicted[:, 0] + 0.2 * rng.normal(size=n), 0, 1)),
            (predicted[:, 1] + 0.4 * rng.normal(size=n) > 0.5).astype(float),
            np.full(n, np.nan),
        ],
        axis=1,
    )
    raw[:20, 0] = np.nan
    return predicted, raw, asked, [f"g{i // 4}" for i in range(n)]


def test_quality_equals_the_reference_numbers():
    predicted, raw, asked, groups = graded()
    help_, safe, none = probe_quality(predicted, raw, asked, groups, seed=0, resamples=200)
    p, y = predicted[20:, 0], raw[20:, 0]
    assert (help_.name, help_.n, help_.auc) == ("help", 180, None)
    assert help_.pearson.value == pytest.approx(pearsonr(p, y).statistic)
    assert help_.spearman.value == pytest.approx(spearmanr(p, y).statistic)
    assert help_.r2.value == pytest.approx(r2_score(y, 4 * p))
    assert help_.rmse.value == pytest.approx(root_mean_squared_error(y, 4 * p))
    assert safe.auc is not None
    assert safe.auc.value == pytest.approx(roc_auc_score(raw[:, 1], predicted[:, 1]))
    for interval in (help_.pearson, help_.spearman, help_.r2, help_.rmse, safe.auc):
        assert interval.low < interval.value < interval.high
    assert none.n == 0
    assert none.to_json()["pearson"] == {"value": None, "low": None, "high": None}


def test_auc_counts_ties_half():
    predicted, raw, asked, groups = graded()
    predicted[:, 1] = np.round(predicted[:, 1], 1)
    auc = probe_quality(predicted, raw, asked, groups, seed=0, resamples=10)[1].auc
    assert auc is not None
    assert auc.value == pytest.approx(roc_auc_score(raw[:, 1], predicted[:, 1]))


def test_undefined_quality_is_nan_without_warnings():
    predicted, raw, asked, groups = graded()
    raw[:, 0], raw[:, 1] = 3.0, np.nan
    raw[0, 1] = 1.0
    constant, single, _ = probe_quality(predicted, raw, asked, groups, seed=0, resamples=50)
    assert all(math.isnan(i.value) for i in (constant.pearson, constant.spearman, constant.r2))
    assert constant.rmse.value == pytest.approx(root_mean_squared_error(raw[:, 0], 4 * predicted[:, 0]))
    assert single.n == 1
    assert math.isnan(single.pearson.value)
    assert math.isnan(single.rmse.low)
    with pytest.raises(ObjectiveMismatch, match="a row per response"):
        probe_quality(predicted, raw, asked, groups[1:], seed=0)
    with pytest.raises(FitError, match="NaN or infinite"):
        probe_quality(np.full_like(predicted, np.nan), raw, asked, groups, seed=0)


def test_mean_quality_sets_probes_side_by_side_on_the_same_ratings():
    predicted, raw, asked, groups = graded()
    noisy = predicted + 0.5 * np.random.default_rng(1).normal(size=predicted.shape)
    same, worse, again = mean_quality([predicted, noisy, predicted], raw, asked, groups, seed=0, resamples=200)
    by_objective = [q.pearson.value for q in probe_quality(predicted, raw, asked, groups, seed=0, resamples=10)[:2]]
    assert same.pearson.value == pytest.approx(np.mean(by_objective))
    assert same.pearson.low < same.pearson.value < same.pearson.high
    assert again.pearson == same.pearson
    assert (again.gain.value, again.gain.low, again.gain.high) == (0, 0, 0)
    assert worse.gain.value == pytest.approx(worse.pearson.value - same.pearson.value)
    assert worse.gain.high < 0, "clearly worse, on the same draws"
    # An objective that one of the probes says nothing about counts for none of them.
    silent = predicted.copy()
    silent[:, 1] = 0.5
    first, second = mean_quality([predicted, silent], raw, asked, groups, seed=0, resamples=50)
    assert first.pearson.value == second.pearson.value == pytest.approx(by_objective[0])
    # So few prompts have one objective's ratings that some resamples hold none: there the mean is over the rest.
    rare = raw.copy()
    rare[8:, 1] = np.nan
    (sparse,) = mean_quality([predicted], rare, asked, groups, seed=0, resamples=200)
    assert sparse.pearson.low < sparse.pearson.value < sparse.pearson.high
    (nothing,) = mean_quality([predicted], np.full_like(raw, np.nan), asked, groups, seed=0, resamples=50)
    assert math.isnan(nothing.pearson.value)
    # Without the shape checker: it looks at one of the list's arrays, drawn at random, and may be first to object.
    with pytest.raises(ObjectiveMismatch, match="the same rows"):
        inspect.unwrap(mean_quality)([predicted, predicted[1:]], raw, asked, groups, seed=0)


def test_interval_of_a_mean_is_that_of_its_groups():
    rng = np.random.default_rng(5)
    means = rng.normal(size=400)
    values, groups = np.repeat(means, 5), [str(i // 5) for i in range(2000)]
    by_group = mean_by_group(values, groups, seed=1)
    by_row = mean_by_group(values, [str(i) for i in range(2000)], seed=1)
    expected = 2 * 1.96 * means.std() / math.sqrt(400)
    assert by_group.value == pytest.approx(means.mean())
    assert by_group.high - by_group.low == pytest.approx(expected, rel=0.12)
    assert by_row.high - by_row.low < 0.6 * expected  # rows of a prompt are not independent
    assert mean_by_group(values, groups, seed=1) == by_group


def test_bootstrap_blocks_and_degenerate_groups(monkeypatch):
    values, groups = np.arange(12.0), [str(i % 4) for i in range(12)]

    def statistic(weights):
        assert (weights.sum(axis=1) == 12).all()
        return (weights @ values)[:, None]

    whole = bootstrap_by_group(statistic, groups, seed=3, resamples=100)
    monkeypatch.setattr("armorm.intervals.BLOCK", 12 * 7)
    assert bootstrap_by_group(statistic, groups, seed=3, resamples=100) == whole
    one = mean_by_group(values, ["only"] * 12, seed=0)
    assert (one.value, math.isnan(one.low), math.isnan(one.high)) == (5.5, True, True)
    assert math.isnan(mean_by_group(np.zeros(0), [], seed=0).value)
    assert Interval(1.0, 0.5, math.nan).to_json() == {"value": 1.0, "low": 0.5, "high": None}
