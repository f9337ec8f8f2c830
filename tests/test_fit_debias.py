"""Debiasing leaves no correlation on the reference set, whatever its direction and slope; what it does is one matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from armorm.errors import FitError, ObjectiveMismatch
from armorm.fit.debias import Debias, correlations, fit_debias, largest_by_chance
from armorm.objectives import Objective, Objectives


def objectives(*names):
    return Objectives([Objective(name=name, min=0, max=4) for name in names])


TWO = objectives("help", "verbosity")


def no_columns(n):
    return np.zeros((n, 0))


def reference(kind, n=600, seed=0):
    """(reward, nuisance) of one kind."""
    rng = np.random.default_rng(seed)
    u, noise = rng.normal(size=n), rng.normal(size=n)
    return {
        "independent": (noise, u),
        "positive": (0.4 * u + 0.3 * noise, u),
        "negative": (-0.7 * u + 0.3 * noise, u),
        "slope above 1": (3.5 * u + 0.5 * noise, u),
        "heavy-tailed": (0.5 * u**3 + rng.standard_t(1.2, size=n), u),
        "heavy-tailed nuisance": (np.tanh(np.exp(2 * u)) + 0.2 * noise, np.exp(2 * u)),
        "counts": (0.01 * np.round(np.exp(5 + u)) + noise, np.round(np.exp(5 + u))),
        "tiny and shifted": (1e-5 * (u + noise) + 0.5, 1e4 + 1e3 * u),
    }[kind]


KINDS = ["independent", "positive", "negative", "slope above 1", "heavy-tailed", "heavy-tailed nuisance", "counts"]


@pytest.mark.parametrize("kind", [*KINDS, "tiny and shifted"])
@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_no_correlation_is_left(kind, method):
    r, u = reference(kind)
    fit = fit_debias(np.stack([r, u], axis=1), no_columns(600), TWO, nuisances=["verbosity"], computed_names=[], method=method)
    left = fit.debias.apply(np.stack([r, u], axis=1), no_columns(600)).values[:, 0]
    assert abs(fit.after[0, 0]) <= (1e-12 if method == "pearson" else 1e-4)
    measured = np.corrcoef(left, u)[0, 1] if method == "pearson" else spearmanr(left, u).statistic
    assert measured == pytest.approx(fit.after[0, 0], abs=1e-9)
    assert fit.warnings == ()


@settings(max_examples=25, deadline=None)
@given(st.integers(5, 40), st.floats(-50, 50), st.integers(0, 10_000), st.booleans())
def test_spearman_stops_at_the_best_step(n, slope, seed, ties):
    rng = np.random.default_rng(seed)
    u = rng.integers(0, 5, size=n).astype(float) if ties else rng.standard_t(2, size=n)
    u[0] = u[1] + 1  # it varies
    r = slope * u + rng.normal(size=n)
    fit = fit_debias(r[:, None], u[:, None], objectives("help"), nuisances=["u"], computed_names=["u"])
    # a step's width: the pairs that change places at the root, found by walking over all of them
    roots = np.unique([(r[a] - r[b]) / (u[a] - u[b]) for a in range(n) for b in range(a) if u[a] != u[b]])
    between = np.concatenate([[roots[0] - 1], (roots[1:] + roots[:-1]) / 2, [roots[-1] + 1]])
    best = min(abs(correlations((r - c * u)[:, None], u[:, None], "spearman")[0, 0]) for c in between)
    assert abs(fit.after[0, 0]) <= best + 1e-9


def test_correlation_with_the_nuisance_only_falls_with_its_coefficient():
    r, u = reference("heavy-tailed", n=80)
    walked = [correlations((r - c * u)[:, None], u[:, None], "spearman")[0, 0] for c in np.linspace(-30, 30, 301)]
    assert (np.diff(walked) <= 1e-12).all()
    assert walked[0] > 0 > walked[-1]


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_two_nuisances_one_of_them_computed(method):
    rng = np.random.default_rng(2)
    verbosity = rng.normal(size=800)
    tokens = np.exp(0.8 * verbosity + 0.5 * rng.normal(size=800)) * 100
    rewards = np.stack([0.6 * verbosity - 0.002 * tokens + rng.standard_t(2, size=800), verbosity, 0.3 * np.log(tokens)], axis=1)
    rewards[:, 2] += 0.4 * rng.normal(size=800)
    fit = fit_debias(
        rewards,
        tokens[:, None],
        objectives("help", "verbosity", "style"),
        nuisances=["verbosity", "response-tokens"],
        computed_names=["response-tokens"],
        method=method,
    )
    assert np.abs(fit.before[[0, 2]]).max() > 0.3
    assert np.abs(fit.after[[0, 2]]).max() <= (1e-12 if method == "pearson" else 1e-3)
    assert fit.warnings == ()
    assert fit.debias.terms == ("help", "verbosity", "style", "response-tokens")


@pytest.mark.parametrize("shared", [0.9, 0.99])
def test_two_nuisances_that_say_nearly_the_same(shared):
    rng = np.random.default_rng(0)
    u, noise = rng.normal(size=(2, 3000))
    v = shared * u + np.sqrt(1 - shared**2) * noise
    rewards = (u + 0.2 * v + 0.3 * rng.normal(size=3000) ** 3)[:, None]
    both = np.stack([u, np.exp(v)], axis=1)
    fit = fit_debias(rewards, both, objectives("help"), nuisances=["u", "v"], computed_names=["u", "v"])
    assert np.abs(fit.before).min() > 0.5
    assert np.abs(fit.after).max() <= 1e-3
    assert fit.warnings == ()


def test_what_cannot_be_taken_out_is_said():
    rewards, u = np.random.default_rng(3).normal(size=(2, 7, 1))  # so few rows that every step is wide
    fit = fit_debias(rewards, u, objectives("help"), nuisances=["u"], computed_names=["u"])
    left = abs(fit.after[0, 0])
    assert left > 0.01
    assert fit.warnings == (f"help: a rank correlation of {left:.4f} with a nuisance is left",)


def test_pearson_coefficients_are_those_of_regression():
    rng = np.random.default_rng(4)
    u = rng.normal(size=(200, 2)) @ np.array([[1.0, 0.7], [0.0, 1.0]])
    r = u @ [1.5, -2.0] + rng.normal(size=200)
    fit = fit_debias(r[:, None], u, objectives("help"), nuisances=["a", "b"], computed_names=["a", "b"], method="pearson")
    design = np.column_stack([np.ones(200), u])
    np.testing.assert_allclose(fit.coefficients[0], np.linalg.solve(design.T @ design, design.T @ r)[1:], atol=1e-10)


def test_a_nuisance_given_twice_is_taken_out_once():
    r, u = reference("positive")
    both = np.stack([u, u], axis=1)
    for method in ("pearson", "spearman"):
        fit = fit_debias(r[:, None], both, objectives("help"), nuisances=["a", "b"], computed_names=["a", "b"], method=method)
        assert np.abs(fit.after).max() <= 1e-3


@pytest.mark.parametrize(("itself", "column"), [("zeroed", [0.0, 0.0]), ("kept", [0.0, 1.0])])
def test_the_nuisance_itself_is_zeroed_or_kept(itself, column):
    r, u = reference("positive")
    rewards = np.stack([r, u], axis=1)
    fit = fit_debias(rewards, no_columns(600), TWO, nuisances=["verbosity"], computed_names=[], itself=itself)
    assert fit.debias.matrix[:, 1].tolist() == column
    assert fit.debias.matrix[:, 0].tolist() == [1.0, -fit.coefficients[0, 0]]
    assert fit.coefficients[1].tolist() == [0.0]
    assert np.isnan(fit.after[1, 0]) == (itself == "zeroed")


def test_coefficients_make_the_same_score_as_the_debiased_rewards():
    rng = np.random.default_rng(6)
    rewards, computed, gate = rng.normal(size=(50, 3)), rng.normal(size=(50, 2)), rng.dirichlet(np.ones(3), size=50)
    names = objectives("a", "b", "c")
    debias = fit_debias(rewards, computed, names, nuisances=["b", "y"], computed_names=["x", "y"]).debias
    scores = (gate * debias.apply(rewards, computed).values).sum(axis=1)
    contributions = debias.coefficients(gate) * np.concatenate([rewards, computed], axis=1)
    np.testing.assert_allclose(contributions.sum(axis=1), scores, atol=1e-12)
    assert not contributions[:, 3].any()  # x is computed, but no nuisance


def test_identity_takes_nothing_out():
    rewards = np.random.default_rng(0).normal(size=(4, 2))
    assert (Debias.identity(TWO).apply(rewards, no_columns(4)).values == rewards).all()
    with_tokens = Debias.identity(TWO, ("response-tokens",))
    assert (with_tokens.apply(rewards, np.ones((4, 1))).values == rewards).all()
    off = fit_debias(rewards, no_columns(4), TWO, nuisances=[], computed_names=[])
    assert (off.debias.matrix == np.eye(2)).all()


def test_what_does_not_vary_is_left_alone_and_said():
    r, u = reference("positive")
    rewards = np.stack([r, np.full(600, 0.3), u], axis=1)
    fit = fit_debias(
        rewards, np.full((600, 1), 7.0), objectives("help", "flat", "verbosity"),
        nuisances=["verbosity", "response-tokens"], computed_names=["response-tokens"],
    )  # fmt: skip
    assert fit.coefficients[1].tolist() == [0.0, 0.0]
    assert fit.coefficients[0, 1] == 0.0
    assert abs(fit.after[0, 0]) < 1e-4
    assert np.isnan(fit.before[:, 1]).all()
    told = "\n".join(fit.warnings)
    assert "flat: the reward does not vary" in told
    assert "response-tokens: does not vary" in told


def test_a_reward_that_is_only_the_nuisance_leaves_nothing():
    _, u = reference("positive")
    for method in ("pearson", "spearman"):
        fit = fit_debias(
            (0.3 * u + 0.5)[:, None], u[:, None], objectives("help"), nuisances=["u"], computed_names=["u"], method=method
        )
        assert fit.coefficients[0, 0] == pytest.approx(0.3)
        assert "help: is a linear function of the nuisances" in fit.warnings[0]
        assert np.isnan(fit.after).all()


def test_faults_are_errors():
    rewards = np.random.default_rng(0).normal(size=(10, 2))
    known = {"objectives": TWO, "computed_names": ["tokens"]}
    tokens = np.arange(10.0)[:, None]
    with pytest.raises(FitError, match="no nuisance length: choose among help, verbosity, tokens"):
        fit_debias(rewards, tokens, nuisances=["length"], **known)
    with pytest.raises(FitError, match="stands twice"):
        fit_debias(rewards, tokens, nuisances=["tokens", "tokens"], **known)
    with pytest.raises(FitError, match="stands twice"):
        fit_debias(rewards, tokens, objectives=TWO, nuisances=[], computed_names=["help"])
    with pytest.raises(FitError, match="at least 3 rows"):
        fit_debias(rewards[:2], tokens[:2], nuisances=["tokens"], **known)
    with pytest.raises(FitError, match="NaN or infinite"):
        fit_debias(rewards, np.full((10, 1), np.nan), nuisances=["tokens"], **known)
    with pytest.raises(ObjectiveMismatch, match="2 rewards for 1 objectives"):
        fit_debias(rewards, tokens, objectives("help"), nuisances=["tokens"], computed_names=["tokens"])
    with pytest.raises(ObjectiveMismatch, match="2 rewards and 0 computed"):
        Debias.identity(TWO).apply(rewards, tokens)
    with pytest.raises(ObjectiveMismatch, match=r"\(2, 2\)"):
        Debias(TWO, ("tokens",), np.eye(2))


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_chance_is_what_independent_columns_show(method):
    rng = np.random.default_rng(1)
    n, k = 200, 5
    mean, high = largest_by_chance(rng.normal(size=(n, k)), rng.normal(size=n), method, seed=0)
    shown = [np.abs(correlations(rng.normal(size=(n, k)), rng.normal(size=(n, 1)), method)).max() for _ in range(2000)]
    assert mean == pytest.approx(np.mean(shown), abs=0.006)
    assert high == pytest.approx(np.quantile(shown, 0.95), abs=0.012)
    u = rng.normal(size=n)  # what correlates by itself changes nothing: only the order is chance's
    assert largest_by_chance(np.stack([u, u**3], axis=1), u, method, seed=0)[1] < 0.25
    assert np.isnan(largest_by_chance(np.ones((n, 2)), u, method, seed=0)).all()
    assert np.isnan(largest_by_chance(u[:, None], np.ones(n), method, seed=0)).all()
