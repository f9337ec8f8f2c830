"""λ by what padding does: planted rewards whose truth is known, what is robust, what can't be told apart, what is an error."""

from __future__ import annotations

import numpy as np
import pytest

from armorm.errors import FitError, ObjectiveMismatch
from armorm.fit.debias import fit_debias, within_prompts
from armorm.fit.intervention import Changes, agreed, fit_padding
from armorm.objectives import Objective, Objectives

NAMES = ("quality", "hungry", "both", "concise")
PLANTED = Objectives([Objective(name=name, min=0, max=4) for name in NAMES])
SLOPES = np.array([-0.0005, 0.002, 0.002, -0.001])
"""What a token of padding does to each reward."""


def planted(n=3000, p=400, seed=0, outliers=0.05):
    """(rewards, tokens, quality, changes): good answers are longer, and two of four rewards pay for length itself."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=n)
    tokens = np.round(np.exp(5 + 0.4 * quality + 0.3 * rng.normal(size=n)))
    rewards = np.outer(tokens, SLOPES) + np.outer(quality, [0.6, 0.0, 0.6, 0.0]) + 0.2 * rng.normal(size=(n, 4))
    added = rng.integers(30, 150, size=p).astype(float)
    gained = np.outer(added, SLOPES) + 0.02 * rng.normal(size=(p, 4))
    gained[rng.random(size=p) < outliers] += 5.0  # copies that became something else
    return rewards, tokens[:, None], quality, Changes(gained, added[:, None])


def fit(method, **more):
    rewards, tokens, _, changes = planted()
    options = {"nuisances": ["response-tokens"], "computed_names": ["response-tokens"], "method": method, **more}
    return fit_debias(rewards, tokens, PLANTED, **{"padding": changes, **options})


def right(values, quality, seed=1):
    """Share of random pairs of answers that a reward orders by their quality."""
    a, b = np.random.default_rng(seed).integers(len(quality), size=(2, 4000))
    return float(((values[a] - values[b]) * (quality[a] - quality[b]) > 0).mean())


def test_padding_finds_what_a_token_is_worth_and_the_correlation_does_not():
    found = fit("intervention")
    np.testing.assert_allclose(found.coefficients[:, 0], SLOPES, atol=2e-4)
    np.testing.assert_array_equal(found.coefficients, found.by_padding)
    charged = found.by_correlation[:, 0]
    assert charged[0] > 0.002  # longer answers are better, so eq. 3 charges quality
    assert charged[2] > 0.004
    assert charged[[1, 3]] == pytest.approx(SLOPES[[1, 3]], abs=2e-4)


def test_agreed_charges_length_and_never_quality():
    found = fit("agreed")
    assert found.coefficients[0, 0] == 0.0
    np.testing.assert_allclose(found.coefficients[1:, 0], SLOPES[1:], atol=2e-4)
    assert (np.abs(found.coefficients) <= np.abs(found.by_correlation) + 1e-15).all()
    assert (np.abs(found.coefficients) <= np.abs(found.by_padding) + 1e-15).all()


def test_each_method_does_what_it_says_to_the_ranking():
    """In numbers: with eq. 3 the rewards lose quality, by padding and agreed they keep it; without any, padding is paid for."""
    rewards, tokens, quality, changes = planted()
    share, paid = {}, {}
    for method in ("spearman", "pearson", "intervention", "agreed"):
        debias = fit(method).debias
        share[method] = [right(column, quality) for column in debias.apply(rewards, tokens).values.T]
        gained = debias.apply(changes.rewards, changes.computed).values
        paid[method] = np.median(gained, axis=0) / rewards.std(axis=0)
    raw = [right(column, quality) for column in rewards.T]
    for method in ("spearman", "pearson"):
        assert share[method][0] < raw[0] - 0.05
        assert share[method][2] < raw[2] - 0.1
    for method in ("intervention", "agreed"):
        assert share[method][0] > raw[0] - 0.02
        assert share[method][2] > share["spearman"][2] + 0.1
        assert np.abs(paid[method][1:]).max() < 0.03  # hungry, both and concise are indifferent
    assert np.abs(np.median(changes.rewards, axis=0) / rewards.std(axis=0))[1:3].min() > 0.2
    assert paid["agreed"][0] < 0  # it falls under padding, and is left alone
    assert abs(paid["intervention"][0]) < 0.03


def test_the_correlation_methods_are_as_without_copies():
    rewards, tokens, _, _ = planted()
    for method in ("spearman", "pearson"):
        options = {"nuisances": ["response-tokens"], "computed_names": ["response-tokens"], "method": method}
        plain, beside = fit_debias(rewards, tokens, PLANTED, **options), fit(method)
        np.testing.assert_array_equal(plain.debias.matrix, beside.debias.matrix)
        assert plain.by_padding is None
        np.testing.assert_allclose(beside.by_padding[:, 0], SLOPES, atol=2e-4)
        assert np.abs(beside.after).max() < 1e-3


def test_copies_that_became_something_else_hardly_count():
    clean, dirty = (
        fit_padding(c.rewards, c.computed, np.ones(1), ["u"]).coefficients for c in (planted(outliers=o)[3] for o in (0, 0.1))
    )
    np.testing.assert_allclose(dirty, clean, atol=3e-4)
    rewards, tokens = planted(outliers=0.1)[3].rewards, planted(outliers=0.1)[3].computed
    squares = np.linalg.lstsq(tokens, rewards, rcond=None)[0].T
    assert np.abs(squares[:, 0] - SLOPES).min() > 10 * np.abs(dirty[:, 0] - SLOPES).max()


def test_without_noise_it_is_the_regression_to_the_last_digit():
    rng = np.random.default_rng(0)
    moved, slopes = rng.normal(size=(50, 3)) * [1, 100, 0.01], rng.normal(size=(4, 3)) / [1, 100, 0.01]
    found = fit_padding(moved @ slopes.T, moved, np.ones(3) * 1e-3, ["a", "b", "c"])
    np.testing.assert_allclose(found.coefficients, slopes, rtol=1e-9)
    assert found.warnings == ()


def test_several_nuisances_are_told_apart():
    rng = np.random.default_rng(3)
    tokens = rng.integers(20, 120, size=500)
    marks = rng.integers(0, 4, size=(500, 2)) * (rng.random(size=(500, 2)) < 0.4)
    moved = np.column_stack([tokens, marks]).astype(float)
    slopes = np.array([[0.001, 0.05, 0.0], [0.0, 0.0, -0.1]])
    gained = moved @ slopes.T + 0.05 * rng.standard_t(2, size=(500, 2))
    found = fit_padding(gained, moved, moved.std(axis=0), ["response-tokens", "bold-spans", "emoji"])
    np.testing.assert_allclose(found.coefficients, slopes, atol=0.01)
    assert found.warnings == ()


def test_nuisances_that_change_together_are_named_and_shared():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(100, 1)) + 2
    other = rng.normal(size=(100, 1))
    moved = np.column_stack([one, 3 * one, other])
    found = fit_padding(one * 2 + other, moved, np.ones(3), ["a", "b", "c"])
    (warning,) = found.warnings
    assert warning.startswith("a, b: change together under padding")
    np.testing.assert_allclose(moved @ found.coefficients[0], (one * 2 + other)[:, 0], atol=1e-6)
    assert found.coefficients[0, 2] == pytest.approx(1)


def test_a_nuisance_that_padding_does_not_move_is_not_charged():
    rng = np.random.default_rng(0)
    moved = np.column_stack([rng.normal(size=60) + 3, np.zeros(60), 0.001 * rng.normal(size=60)])
    found = fit_padding(moved[:, :1], moved, np.array([1.0, 1.0, 1.0]), ["a", "never", "hardly"])
    assert found.coefficients[0, 0] == pytest.approx(1)
    assert found.coefficients[0, 1:].tolist() == [0.0, 0.0]
    assert [w.split(":")[0] for w in found.warnings] == ["never", "hardly"]
    nothing = fit_padding(moved[:, :1], moved[:, 1:2], np.ones(1), ["never"])
    assert nothing.coefficients.tolist() == [[0.0]]


def test_a_nuisance_that_never_varies_but_that_padding_adds_is_charged_by_padding_alone():
    rewards, tokens, _, changes = planted()
    flat = np.concatenate([tokens, np.zeros((3000, 1))], axis=1)
    marks = (np.arange(400) % 3 == 0).astype(float)
    both = Changes(changes.rewards + 0.3 * marks[:, None], np.column_stack([changes.computed, marks]))
    names = ["response-tokens", "emoji"]
    found = {
        m: fit_debias(rewards, flat, PLANTED, nuisances=names, computed_names=names, method=m, padding=both)
        for m in ("intervention", "agreed")
    }
    np.testing.assert_allclose(found["intervention"].coefficients[:, 1], 0.3, atol=0.02)
    assert not found["agreed"].coefficients[:, 1].any()
    assert any(w.startswith("emoji: does not vary") for w in found["agreed"].warnings)


def test_a_slope_that_only_made_up_for_another_goes_with_it():
    """Two nuisances that say nearly the same: the reward follows them as quality does, and falls under padding by either."""
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=1000)
    words = tokens + 0.3 * rng.normal(size=1000)
    reward = (1.0 * tokens - 0.6 * words + 0.3 * rng.normal(size=1000))[:, None]
    moved = np.abs(rng.normal(size=(100, 1))) * [1.0, 1.0] + 0.2 * rng.normal(size=(100, 2))
    gained = (-0.5 * moved[:, :1] - 0.2 * moved[:, 1:]) + 0.01 * rng.normal(size=(100, 1))
    help_ = Objectives([Objective(name="help", min=0, max=4)])
    options = {"nuisances": ["tokens", "words"], "computed_names": ["tokens", "words"], "padding": Changes(gained, moved)}
    found = fit_debias(reward, np.column_stack([tokens, words]), help_, method="agreed", **options)
    one, other = found.by_correlation[0], found.by_padding[0]
    assert one[1] < -0.4
    assert other[1] < -0.1  # one by one they agree on words, which alone follow the reward
    assert found.before[0, 1] > 0.1
    assert found.coefficients[0].tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(found.after, found.before)


@pytest.mark.parametrize(("one", "other", "both"), [(0.5, 0.2, 0.2), (-0.5, -0.2, -0.2), (0.5, -0.2, 0.0), (0.0, 0.3, 0.0)])
def test_agreed_is_the_smaller_of_one_sign(one, other, both):
    for a, b in ((one, other), (other, one)):
        assert agreed(np.array([a]), np.array([b])).tolist() == [both]


def test_a_nuisance_that_is_an_objective_keeps_its_own_row():
    rng = np.random.default_rng(0)
    verbosity = rng.normal(size=300)
    rewards = np.column_stack([0.5 * verbosity + 0.3 * rng.normal(size=300), verbosity])
    gained = np.column_stack([0.2 * np.ones(40), np.ones(40)]) + 0.01 * rng.normal(size=(40, 2))
    objectives = Objectives([Objective(name=name, min=0, max=4) for name in ("help", "verbosity")])
    options = {"nuisances": ["verbosity"], "computed_names": [], "padding": Changes(gained, np.zeros((40, 0)))}
    found = fit_debias(rewards, np.zeros((300, 0)), objectives, method="agreed", **options)
    assert found.coefficients[0, 0] == pytest.approx(0.2, abs=0.01)
    assert found.coefficients[1, 0] == 0.0
    assert found.debias.matrix[:, 1].tolist() == [0.0, 0.0]


def test_within_prompts_the_difference_between_prompts_is_none():
    """Long answers go to prompts that everything is rated high for; within a prompt length says nothing, or the opposite."""
    rng = np.random.default_rng(0)
    prompts = np.repeat(np.arange(200), 4)
    level = rng.normal(size=200)[prompts]
    tokens = 200 + 50 * level + 20 * rng.normal(size=800)
    rewards = np.column_stack([level + 0.1 * rng.normal(size=800), level - 0.01 * tokens + 0.1 * rng.normal(size=800)])
    objectives = Objectives([Objective(name=name, min=0, max=4) for name in ("level", "terse")])
    options = {"nuisances": ["u"], "computed_names": ["u"]}
    for method, tight in (("pearson", 1e-9), ("spearman", 2e-3)):
        pooled = fit_debias(rewards, tokens[:, None], objectives, method=method, **options)
        names = [f"p{i}" for i in prompts]
        inside = fit_debias(rewards, tokens[:, None], objectives, method=method, prompts=names, **options)
        assert pooled.coefficients[0, 0] > 0.01
        assert abs(inside.coefficients[0, 0]) < 0.001
        assert inside.coefficients[1, 0] == pytest.approx(-0.01, abs=0.001)
        assert np.abs(inside.after).max() < tight
        # by the differences of all pairs of answers to one prompt, worked out one by one
        left = inside.debias.apply(rewards, tokens[:, None]).values
        pairs = [(a, b) for a in range(800) for b in range(a - a % 4, a - a % 4 + 4) if a != b]
        a, b = np.array(pairs).T
        if method == "pearson":
            for column in left.T:
                assert abs(np.corrcoef(column[a] - column[b], tokens[a] - tokens[b])[0, 1]) < 1e-9


def test_within_prompts_leaves_single_answers_out():
    values = np.array([[1.0, 5.0], [3.0, 5.0], [9.0, 9.0], [1e9, 5.0], [1e9, 5.0]])
    assert within_prompts(values, ["a", "a", "b", "c", "c"]).tolist() == [[-1, 0], [1, 0], [0, 0], [0, 0]]
    assert within_prompts(np.empty((0, 2)), []).shape == (0, 2)
    options = {"nuisances": ["u"], "computed_names": ["u"]}
    rewards, tokens = np.random.default_rng(0).normal(size=(2, 20, 4))
    with pytest.raises(FitError, match=r"0 of 20 reference answers share .*debias.over: pooled"):
        fit_debias(rewards, tokens[:, :1], PLANTED, prompts=[str(i) for i in range(20)], **options)


def test_faults_are_errors():
    rewards, tokens, _, changes = planted(n=50, p=50)
    options = {"nuisances": ["u"], "computed_names": ["u"]}
    with pytest.raises(FitError, match=r"agreed needs answers with padded copies: set `debias.padded`"):
        fit_debias(rewards, tokens, PLANTED, method="agreed", **options)
    few = Changes(changes.rewards[:9], changes.computed[:9])
    with pytest.raises(FitError, match=r"9 padded copies are left for 1 nuisances: at least 10 are needed"):
        fit_debias(rewards, tokens, PLANTED, method="intervention", padding=few, **options)
    with pytest.raises(FitError, match="12 padded copies are left for 12"):
        fit_padding(np.zeros((12, 1)), np.zeros((12, 12)), np.ones(12), [str(i) for i in range(12)])
    broken = Changes(np.full((50, 4), np.nan), changes.computed)
    with pytest.raises(FitError, match="padded copies are NaN or infinite"):
        fit_debias(rewards, tokens, PLANTED, method="intervention", padding=broken, **options)
    with pytest.raises(ObjectiveMismatch, match="padded copies have 4 rewards and nuisances, answers 5"):
        fit_debias(rewards, tokens, PLANTED, padding=Changes(changes.rewards, np.zeros((50, 0))), **options)
    names = [f"u{i}" for i in range(5)]
    with pytest.raises(FitError, match="5 reference answers are too few for 5 nuisances"):
        fit_debias(rewards[:5], np.random.default_rng(0).normal(size=(5, 5)), PLANTED, nuisances=names, computed_names=names)
