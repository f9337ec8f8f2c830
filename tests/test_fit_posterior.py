"""The posterior equals a Gaussian process with a linear kernel, holds what it promises on planted truth, survives compaction."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, WhiteKernel

from armorm.errors import FitError, ObjectiveMismatch
from armorm.fit.calibration import HeldOut, calibrate, design_effect, residual_correlation, sketch_of
from armorm.fit.posterior import Leverage, compact, directions, fit_posterior
from armorm.fit.probe import fit_probe, refit
from armorm.fit.statistics import RidgeStatistics
from armorm.objectives import Objective, Objectives

K, D, N = 4, 6, 150


def objectives(k=K):
    return Objectives([Objective(name=f"o{i}", min=0, max=1) for i in range(k)])


def rated(seed=0, n=N, d=D, noise=0.1):
    """Objectives 0 and 1 on the same rows, 2 and 3 on others; features about a mean."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d)) * np.linspace(0.3, 2, d) + 0.7
    ratings = 0.5 + features @ rng.normal(size=(d, K)) * 0.1 + noise * rng.normal(size=(n, K))
    ratings[: n // 3, :2] = np.nan
    ratings[n // 2 :, 2] = np.nan
    ratings[: n // 4, 3] = np.nan
    return features, ratings


def fitted(features, ratings, *, intercept=False, alphas=(3.0,)):
    whole = RidgeStatistics.from_rows(features, ratings)
    folds = [RidgeStatistics.from_rows(features[i::2], ratings[i::2]) for i in range(2)]
    probe = fit_probe(folds, objectives(), alphas=alphas, intercept=intercept).probe
    return whole, probe, fit_posterior(whole, probe, intercept=intercept)


@pytest.mark.parametrize("intercept", [False, True])
def test_leverages_equal_the_formula(intercept):
    features, ratings = rated()
    _, probe, posterior = fitted(features, ratings, intercept=intercept)
    new = np.random.default_rng(1).normal(size=(9, D)) * 3
    for i in range(K):
        X = features[~np.isnan(ratings[:, i])]
        mean = X.mean(axis=0) if intercept else np.zeros(D)
        A = (X - mean).T @ (X - mean) + probe.alphas[i] * np.eye(D)
        expected = np.diag((new - mean) @ np.linalg.inv(A) @ (new - mean).T) + (1 / len(X) if intercept else 0)
        np.testing.assert_allclose(posterior.leverage(new)[:, i], expected, rtol=1e-9)
        sums = RidgeStatistics.from_rows(features, ratings).shared((i,))
        np.testing.assert_allclose(Leverage.of(sums, probe.alphas[i], intercept=intercept)(new), expected, rtol=1e-9)


def test_std_equals_a_gaussian_process_with_a_linear_kernel():
    features, ratings = rated()
    _, probe, posterior = fitted(features, ratings)
    new = np.random.default_rng(1).normal(size=(9, D))
    for i in range(K):
        rows, variance = ~np.isnan(ratings[:, i]), posterior.sigma[i] ** 2
        kernel = ConstantKernel(variance / probe.alphas[i]) * DotProduct(0, "fixed") + WhiteKernel(variance)
        process = GaussianProcessRegressor(kernel, optimizer=None).fit(features[rows], ratings[rows, i])
        mean, std = process.predict(new, return_std=True)
        np.testing.assert_allclose(probe.predict(new)[:, i], mean, atol=1e-6)
        np.testing.assert_allclose(posterior.predictive_std(new)[:, i], std, rtol=1e-6)
        np.testing.assert_allclose(posterior.std(new)[:, i], np.sqrt(std**2 - variance), rtol=1e-6)


@pytest.mark.parametrize("intercept", [False, True])
def test_sigma_equals_the_residuals_over_their_degrees_of_freedom(intercept):
    features, ratings = rated()
    _, probe, posterior = fitted(features, ratings, intercept=intercept)
    for i in range(K):
        rows = ~np.isnan(ratings[:, i])
        X, y = features[rows], ratings[rows, i]
        Z = X - X.mean(axis=0) if intercept else X
        H = Z @ np.linalg.solve(Z.T @ Z + probe.alphas[i] * np.eye(D), Z.T)
        free = len(y) - np.trace(2 * H - H @ H) - intercept
        residual = y - probe.predict(X)[:, i]
        assert posterior.sigma[i] == pytest.approx(math.sqrt((residual**2).sum() / free), rel=1e-8)


def weight_covariance(posterior, features, ratings, alphas, *, intercept):
    """Cov of all weights [k d+1], objectives of one part correlated: the definition, with explicit matrices."""
    width = D + 1
    whole = np.zeros((K * width, K * width))
    for i in range(K):
        for j in range(K):
            if posterior.correlation[i, j] == 0:
                continue
            X = features[~np.isnan(ratings[:, i])]
            mean = X.mean(axis=0) if intercept else np.zeros(D)
            s, V = np.linalg.eigh((X - mean).T @ (X - mean))
            inverse = V @ np.diag(1 / np.sqrt((s + alphas[i]) * (s + alphas[j]))) @ V.T
            block = np.zeros((width, width))
            block[:D, :D] = inverse
            block[:D, D], block[D, :D] = -inverse @ mean, -mean @ inverse
            block[D, D] = mean @ inverse @ mean + (1 / len(X) if intercept else 0)
            scale = posterior.correlation[i, j] * np.prod((posterior.sigma * posterior.inflation)[[i, j]])
            whole[i * width : (i + 1) * width, j * width : (j + 1) * width] = scale * block
    return whole


def unsettled(posterior):
    """The posterior with correlated residuals and inflated weights, as calibration leaves it."""
    from dataclasses import replace

    correlation = np.eye(K)
    correlation[0, 1] = correlation[1, 0] = 0.6
    return replace(posterior, correlation=correlation, inflation=np.array([1.0, 1.3, 1.1, 2.0]))


def loaded(features, coefficients):
    x = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    return (coefficients[:, :, None] * x[:, None, :]).reshape(len(x), -1)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("alphas", [(3.0,), (0.01, 0.3, 9.0, 300.0)])
def test_scores_and_differences_equal_the_full_covariance(intercept, alphas):
    features, ratings = rated(noise=1.0)
    _, probe, posterior = fitted(features, ratings, intercept=intercept, alphas=alphas)
    posterior = unsettled(posterior)
    C = weight_covariance(posterior, features, ratings, probe.alphas, intercept=intercept)
    rng = np.random.default_rng(2)
    a, b, ca, cb = rng.normal(size=(7, D)), rng.normal(size=(7, D)), rng.normal(size=(7, K)), rng.normal(size=(7, K))
    np.testing.assert_allclose(posterior.score_std(a, ca) ** 2, np.diag(loaded(a, ca) @ C @ loaded(a, ca).T), rtol=1e-8)
    gap = loaded(a, ca) - loaded(b, cb)
    np.testing.assert_allclose(posterior.difference_std(a, ca, b, cb) ** 2, np.diag(gap @ C @ gap.T), rtol=1e-8)
    assert np.linalg.eigvalsh(C).min() > -1e-9 * np.linalg.eigvalsh(C).max()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 100), intercept=st.booleans())
def test_laws_of_scores(seed, scale, intercept):
    features, ratings = rated()
    posterior = unsettled(fitted(features, ratings, intercept=intercept)[2])
    rng = np.random.default_rng(seed)
    a, b, c = rng.normal(size=(5, D)), rng.normal(size=(5, D)), rng.normal(size=(5, K))
    std = posterior.score_std(a, c)
    np.testing.assert_allclose(posterior.score_std(a, scale * c), scale * std, rtol=1e-9)
    np.testing.assert_allclose(posterior.score_std(a[::-1], c[::-1])[::-1], std, rtol=1e-9)
    np.testing.assert_allclose(posterior.score_std(a, np.eye(K)[[1] * 5]), posterior.std(a)[:, 1], rtol=1e-9)
    np.testing.assert_allclose(posterior.difference_std(a, c, a, c), 0, atol=1e-12)
    np.testing.assert_allclose(posterior.difference_std(a, c, b, 0 * c), std, rtol=1e-8)
    one, two = posterior.difference_std(a, c, b, c), posterior.difference_std(b, c, a, c)
    np.testing.assert_allclose(one, two, rtol=1e-9)
    assert (one <= std + posterior.score_std(b, c) + 1e-12).all()


def test_more_ratings_leave_less_open():
    few, many = (fitted(*rated(n=n), intercept=True)[2] for n in (60, 600))
    new = np.random.default_rng(1).normal(size=(20, D))
    assert (many.std(new) < 0.6 * few.std(new)).all()
    assert many.sigma == pytest.approx(0.1, rel=0.15)


def test_intervals_hold_the_planted_mean_and_new_ratings():
    rng = np.random.default_rng(5)
    k, d, n, alpha, sigma = 200, 12, 60, 4.0, 0.2
    features, new = rng.normal(size=(n, d)), rng.normal(size=(40, d))
    weights = rng.normal(size=(k, d)) * sigma / math.sqrt(alpha)  # the prior that ridge regression stands for
    ratings = features @ weights.T + sigma * rng.normal(size=(n, k))
    named = objectives(k)
    folds = [RidgeStatistics.from_rows(features[i::2], ratings[i::2]) for i in range(2)]
    probe = fit_probe(folds, named, alphas=[alpha]).probe
    posterior = fit_posterior(folds[0] + folds[1], probe)
    predicted, truth = probe.predict(new), new @ weights.T
    inside = np.abs(predicted - truth) <= 1.96 * posterior.std(new)
    assert inside.mean() == pytest.approx(0.95, abs=0.015)
    again = np.abs(predicted - truth - sigma * rng.normal(size=truth.shape)) <= 1.96 * posterior.predictive_std(new)
    assert again.mean() == pytest.approx(0.95, abs=0.015)


def test_objectives_that_could_not_be_fitted_have_no_std_and_add_none():
    features, ratings = rated()
    ratings[:, 2], ratings[:, 3] = np.nan, np.where(np.isnan(ratings[:, 3]), np.nan, 0.5)
    folds = [RidgeStatistics.from_rows(features[i::2], ratings[i::2]) for i in range(2)]
    probe = fit_probe(folds, objectives(), alphas=[1.0]).probe
    posterior = fit_posterior(folds[0] + folds[1], probe)
    assert np.isnan(posterior.std(features[:3])[:, 2:]).all()
    assert np.isfinite(posterior.std(features[:3])[:, :2]).all()
    c = np.ones((3, K))
    np.testing.assert_allclose(posterior.score_std(features[:3], c), posterior.score_std(features[:3], c * [1, 1, 0, 0]))


def test_other_widths_and_objectives_are_named():
    features, ratings = rated()
    whole, _, posterior = fitted(features, ratings)
    with pytest.raises(FitError, match="width 6, these have 4"):
        posterior.std(features[:, :4])
    with pytest.raises(ObjectiveMismatch, match="4 objectives"):
        posterior.score_std(features[:2], np.ones((2, K + 1)))
    other = fit_probe([RidgeStatistics.from_rows(features, ratings[:, :2])] * 2, objectives(2), alphas=[1.0]).probe
    with pytest.raises(ObjectiveMismatch, match="statistics have 4"):
        fit_posterior(whole, other)


def compaction(decay, **settings):
    rng = np.random.default_rng(0)
    d, n = 120, 700
    features = rng.normal(size=(n, d)) * np.exp(-decay * np.arange(d)) * 10 @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    features[:, 3] += 300  # one direction dwarfs the others, as in language models
    ratings = 0.5 + 0.1 * rng.normal(size=(n, 2))
    fold = RidgeStatistics.from_rows(features[:140], ratings[:140])
    everything = fold + RidgeStatistics.from_rows(features[140:600], ratings[140:600])
    alphas = np.array([5.0, 50.0])
    whole = directions(everything.shared((0, 1)), alphas, intercept=False)
    rest = directions(everything.shared((0, 1)) - fold.shared((0, 1)), alphas, intercept=False)
    cut, how = compact(whole, rest, features[:140], **settings)
    new = features[600:]
    return whole.squares(new) @ whole.inverses.T, cut.squares(new) @ cut.inverses.T, how


def test_compaction_keeps_leverages_within_its_tolerance():
    exact, cut, how = compaction(0.1)
    assert how.rank < 120
    assert how.mean_error <= 0.01
    np.testing.assert_allclose(cut, exact, rtol=0.06)
    assert np.abs(cut / exact - 1).mean() < 0.015


def test_compaction_says_what_a_low_rank_costs():
    exact, cut, how = compaction(0.02, max_rank=16)
    assert how.rank == 16
    assert how.mean_error > 0.01
    assert cut.mean() == pytest.approx(exact.mean(), rel=0.1)  # the tails keep the average right
    error = np.abs(cut / exact - 1).mean()
    assert error == pytest.approx(how.mean_error, rel=0.5)


# -- calibration ------------------------------------------------------------------------------------------------------------


def held_out(errors, prompts=None, sketch=None, leverages=None):
    n = len(errors)
    rng = np.random.default_rng(9)
    return HeldOut(
        np.asarray(errors, dtype=np.float64),
        np.full(n, 0.2) if leverages is None else leverages,
        rng.normal(size=(n, 8)) if sketch is None else sketch,
        [str(i) for i in range(n)] if prompts is None else prompts,
    )


def test_gaussian_errors_give_the_gaussian_reach():
    rng = np.random.default_rng(0)
    h = rng.uniform(0, 2, size=8000)
    one = calibrate(held_out(0.3 * np.sqrt(1 + h) * rng.normal(size=8000), leverages=h))
    assert one.sigma == pytest.approx(0.3, rel=0.03)
    assert one.reach == pytest.approx(norm.ppf(0.975), rel=0.04)
    assert one.inflation == pytest.approx(1.0, abs=0.03)


def test_two_valued_ratings_get_the_reach_they_need():
    rng = np.random.default_rng(1)
    p = 0.85
    errors = (rng.random(size=(2, 3000)) < p) - p
    one = calibrate(held_out(errors[0]))
    inside = np.abs(errors[1]) <= one.reach * one.predictive_std(np.full(3000, 0.2))
    assert inside.mean() >= 0.95  # a Gaussian interval would leave all of the rarer value out: 0.85
    gaussian = np.abs(errors[1]) <= 1.96 * one.predictive_std(np.full(3000, 0.2))
    assert gaussian.mean() < 0.9


def test_the_reach_covers_a_further_rating_as_often_as_it_says():
    rng = np.random.default_rng(2)
    inside = []
    for _ in range(400):
        errors = rng.standard_t(3, size=61)
        one = calibrate(held_out(errors[:60], leverages=np.zeros(60)))
        inside.append(abs(errors[60]) <= one.reach * one.sigma)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)


def test_rows_of_one_prompt_count_less():
    rng = np.random.default_rng(3)
    prompts, rows = 300, 5
    names = [str(i // rows) for i in range(prompts * rows)]
    shared = np.repeat(rng.normal(size=prompts), rows)
    same = np.repeat(rng.normal(size=(prompts, 8)), rows, axis=0)
    errors = math.sqrt(0.5) * (shared + rng.normal(size=prompts * rows))
    clustered = design_effect(held_out(errors, names, same, np.zeros(len(errors))), 1.0)
    assert clustered == pytest.approx(1 + (rows - 1) * 0.5, rel=0.2)  # Kish's design effect
    alone = design_effect(held_out(errors, None, same, np.zeros(len(errors))), 1.0)
    assert alone == pytest.approx(1.0, rel=0.2)
    assert calibrate(held_out(errors, names, same)).inflation > 1.3


def test_the_inflated_std_is_the_spread_of_refitted_probes():
    """Prompts drawn anew: predictions spread by σ inflation √(x'A⁻¹GA⁻¹x), twice as far as independent rows would."""
    rng = np.random.default_rng(4)
    prompts, rows, d, alpha = 60, 6, 5, 2.0
    names = [str(i // rows) for i in range(prompts * rows)]
    X = np.repeat(rng.normal(size=(prompts, d)), rows, axis=0) + 0.1 * rng.normal(size=(prompts * rows, d))

    def noise():
        return 0.1 * (np.repeat(rng.normal(size=prompts), rows) + rng.normal(size=prompts * rows))

    named = objectives(1)
    first = RidgeStatistics.from_rows(X, noise()[:, None])
    probe = fit_probe([first, first], named, alphas=[alpha]).probe
    part = fit_posterior(first, probe).parts[0]
    inflation, predictions = [], []
    new = rng.normal(size=(30, d))
    for _ in range(200):
        y = noise()
        again = refit(RidgeStatistics.from_rows(X, y[:, None]), probe)
        predictions.append(again.predict(new)[:, 0])
        rows_out = HeldOut(y - again.predict(X)[:, 0], np.zeros(len(y)), X @ sketch_of(part, 0, seed=0), names)
        inflation.append(calibrate(rows_out).inflation)
    h = (part.squares(new)[:, :-1] * part.values / (part.values + alpha) ** 2).sum(axis=1)
    spread = np.sqrt(np.var(predictions, axis=0).mean() / h.mean()) / math.sqrt(0.02)
    assert spread > 1.7
    assert np.mean(inflation) == pytest.approx(spread, rel=0.12)


def test_sketches_stand_for_the_weights_variance():
    features, ratings = rated()
    _, probe, posterior = fitted(features, ratings)
    part = posterior.parts[0]
    S = np.concatenate([sketch_of(part, part.columns[0], seed=s) for s in range(200)], axis=1) / math.sqrt(200)
    X = features[~np.isnan(ratings[:, part.columns[0]])]
    G = X.T @ X
    A = np.linalg.inv(G + probe.alphas[0] * np.eye(D))
    np.testing.assert_allclose(S @ S.T, A @ G @ A, atol=0.05 * np.abs(A @ G @ A).max())


def test_residual_correlations():
    rng = np.random.default_rng(0)
    common = rng.normal(size=5000)
    errors = np.stack([common + rng.normal(size=5000), common + rng.normal(size=5000), np.zeros(5000)], axis=1)
    found = residual_correlation(errors)
    assert found[0, 1] == pytest.approx(0.5, abs=0.04)
    assert (np.diag(found) == 1).all()
    assert found[0, 2] == 0


def test_too_few_rows_are_refused():
    with pytest.raises(FitError, match="at least 2 held-out ratings"):
        calibrate(held_out([0.1]))


def test_perfect_predictions_have_no_noise():
    one = calibrate(held_out(np.zeros(30)))
    assert (one.sigma, one.reach) == (0.0, 0.0)
