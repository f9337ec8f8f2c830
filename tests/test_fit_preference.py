"""P(right): both orders of a pair sum to 1, planted curves are found, nothing is told where nothing can be known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from armorm.disk import load_part, save_part
from armorm.errors import CheckpointError, FitError, ObjectiveMismatch
from armorm.fit.parts import FORMAT, PREFERENCE_FILES, load_preference, save_preference
from armorm.fit.preference import FOLDS, Preference, fit_preference, highest, solve_slope
from armorm.objectives import Objective, Objectives

TWO = Objectives([Objective(name=name, min=0, max=1) for name in ("one", "two")])


def planted(n=4000, *, curve=lambda m: expit(3 * m), seed=0, per_prompt=2):
    """Margins of winners minus losers, where an answer wins with a probability that its margin tells."""
    rng = np.random.default_rng(seed)
    margins = rng.normal(size=n)
    won = rng.random(n) < curve(margins)
    return np.where(won, margins, -margins), [str(i // per_prompt) for i in range(n)]


def stepped(margins):
    """A curve that no logistic one is near: certain signs for a small part of the margins, a coin's for all others."""
    return np.where(np.abs(margins) > 1, 0.5 + 0.45 * np.sign(margins), 0.5)


# -- what is fitted ----------------------------------------------------------------------------------------------------------


def test_the_slope_is_that_of_a_logistic_regression_of_both_orders():
    margins, groups = planted()
    found = fit_preference(margins, groups).preference
    assert found is not None
    assert (found.form, found.pairs, found.prompts) == ("logistic", 4000, 2000)
    both = np.concatenate([margins, -margins])[:, None]
    theirs = LogisticRegression(fit_intercept=False, C=np.inf, tol=1e-10).fit(both, np.repeat([1, 0], 4000))
    assert found.slope == pytest.approx(float(theirs.coef_[0, 0]), rel=0.01)  # Platt's target is 2001 of 2002
    assert found.slope == pytest.approx(3, rel=0.05)  # what was planted
    x, w = margins / np.abs(margins).max(), np.random.default_rng(1).random(4000)
    assert solve_slope(x, w, 1 - 1e-9) == pytest.approx(
        float(
            LogisticRegression(fit_intercept=False, C=np.inf, tol=1e-10)
            .fit(np.concatenate([x, -x])[:, None], np.repeat([1, 0], 4000), sample_weight=np.tile(w, 2))
            .coef_[0, 0]
        ),
        rel=1e-3,
    )


def test_the_isotonic_curve_is_that_of_both_orders():
    margins, groups = planted(curve=stepped)
    found = fit_preference(margins, groups).preference
    assert found is not None
    assert found.form == "isotonic"
    asked = np.linspace(-3, 3, 601)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(np.concatenate([margins, -margins]), np.repeat([1.0, 0.0], 4000))
    np.testing.assert_allclose(found.of(margins), np.clip(theirs.predict(margins), 1 - found.most, found.most), atol=1e-9)
    far = np.abs(asked) > 1.1
    np.testing.assert_allclose(found.of(asked)[far], stepped(asked)[far], atol=0.06)


def test_the_form_is_the_one_with_the_lower_log_loss_on_prompts_that_were_left_out():
    for curve, form in ((lambda m: expit(3 * m), "logistic"), (stepped, "isotonic")):
        fit = fit_preference(*planted(curve=curve))
        assert fit.preference is not None
        assert fit.preference.form == form
        assert min(fit.log_loss, key=lambda one: fit.log_loss[one]) == form
        assert fit.log_loss["isotonic"] != fit.log_loss["logistic"]
        assert fit_preference(*planted(600, curve=curve)).preference.form == form  # type: ignore[union-attr]
        own = -np.log(fit.preference.of(planted(curve=curve, seed=1)[0])).mean()
        assert fit.log_loss[form] == pytest.approx(own, abs=0.02)


def test_an_isotonic_curve_that_gains_by_chance_is_not_taken():
    """Of a hundred planted logistic curves on 100 pairs it has the lower log-loss in some, and is taken in fewer."""
    fits = [fit_preference(*planted(100, seed=seed)) for seed in range(100)]
    lower = sum(fit.log_loss["isotonic"] < fit.log_loss["logistic"] for fit in fits)
    taken = sum(fit.preference is not None and fit.preference.form == "isotonic" for fit in fits)
    assert taken <= 10
    assert taken < lower


def test_a_prompt_is_in_one_fold_alone():
    """Pairs that come fifty times under one prompt teach nothing about others: an isotonic fit would learn them by heart."""
    rng = np.random.default_rng(0)
    margins = np.repeat(rng.normal(size=40) * np.where(rng.random(40) < 0.6, 1, -1), 50)
    together = fit_preference(margins, [str(i // 50) for i in range(2000)])
    apart = fit_preference(margins, [str(i) for i in range(2000)])
    assert apart.log_loss["isotonic"] < together.log_loss["isotonic"] - 0.05
    assert apart.preference is not None
    assert apart.preference.form == "isotonic"


def test_weights_are_repetitions():
    margins, groups = planted(300, curve=stepped)
    times = np.random.default_rng(3).integers(0, 4, size=300)
    weighed, repeated = (
        fit_preference(margins, groups, weights=times.astype(float)),
        fit_preference(np.repeat(margins, times), np.repeat(groups, times).tolist()),
    )
    asked = np.linspace(-2, 2, 41)
    assert weighed.preference is not None
    assert repeated.preference is not None
    assert weighed.preference.prompts == repeated.preference.prompts < 150
    np.testing.assert_allclose(weighed.preference.of(asked), repeated.preference.of(asked), atol=1e-6)
    doubled = fit_preference(margins, groups, weights=2e9 * times.astype(float)).preference
    assert doubled is not None
    np.testing.assert_allclose(doubled.of(asked), weighed.preference.of(asked), atol=1e-9)


# -- laws --------------------------------------------------------------------------------------------------------------------

FORMS = [
    Preference("logistic", 40, 20, slope=2.5),
    Preference("logistic", 40, 20, slope=0.0),
    Preference("isotonic", 40, 20, margins=np.array([0, 0.3, 0.3001, 2.0]), probabilities=np.array([0.5, 0.5, 0.8, 0.95])),
]


@pytest.mark.parametrize("one", FORMS, ids=["logistic", "flat", "isotonic"])
@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e300, 1e300), max_size=20))
def test_both_orders_sum_to_one_and_a_larger_margin_is_never_less_likely(one, margins):
    asked = np.sort(np.array([*margins, 0.0, 1e-300, -1e-300]))
    found = one.of(asked)
    assert (found + one.of(-asked) == 1).all()
    assert (found[asked == 0] == 0.5).all()
    assert (np.diff(found) >= 0).all()
    assert (found >= 1 - one.most).all()
    assert (found <= one.most).all()


def test_what_has_no_margin_has_no_probability():
    for one in FORMS:
        assert np.isnan(one.of(np.array([math.nan]))).all()
        assert one.of(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("curve", [lambda m: expit(3 * m), stepped], ids=["logistic", "isotonic"])
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e3, 1e30])
def test_the_scores_scale_changes_nothing(curve, size):
    margins, groups = planted(600, curve=curve)
    one, other = fit_preference(margins, groups).preference, fit_preference(size * margins, groups).preference
    assert one is not None
    assert other is not None
    assert one.form == other.form
    asked = np.linspace(-2, 2, 41)
    np.testing.assert_allclose(other.of(size * asked), one.of(asked), atol=1e-6)


def test_the_order_of_the_pairs_changes_nothing():
    margins, groups = planted(600, curve=stepped)
    order = np.random.default_rng(0).permutation(600)
    one, other = fit_preference(margins, groups), fit_preference(margins[order], [groups[i] for i in order])
    assert one.log_loss == pytest.approx(other.log_loss)
    assert one.preference is not None
    assert other.preference is not None
    np.testing.assert_allclose(other.preference.of(margins), one.preference.of(margins), atol=1e-9)


def test_pairs_that_are_all_right_promise_no_more_than_their_prompts_show():
    rng = np.random.default_rng(0)
    for prompts in (2, 10, 200):
        margins = rng.uniform(0.1, 1, size=3 * prompts)
        found = fit_preference(margins, [str(i % prompts) for i in range(3 * prompts)]).preference
        assert found is not None
        assert found.prompts == prompts
        assert found.most == highest(prompts) == (prompts + 1) / (prompts + 2)
        assert math.isfinite(found.slope)
        assert found.of(np.array([1e9]))[0] == found.most < 1
        assert found.of(np.array([0.5]))[0] > 0.6


def test_a_score_that_is_wrong_says_fifty_per_cent_and_never_less():
    margins, groups = planted()
    fit = fit_preference(-margins, groups)
    assert fit.preference is not None
    assert not fit.preference.tells
    assert (fit.preference.of(margins) == 0.5).all()
    assert fit.log_loss["logistic"] == pytest.approx(math.log(2))
    noise = np.random.default_rng(0).normal(size=4000)
    found = fit_preference(noise, groups).preference
    assert found is not None
    np.testing.assert_allclose(found.of(np.linspace(-1, 1, 11)), 0.5, atol=0.03)


def test_ties_say_nothing():
    margins, groups = planted(600)
    known = fit_preference(margins, groups).preference
    tied = fit_preference(np.concatenate([margins, np.zeros(50)]), [*groups, *groups[:50]]).preference
    assert known is not None
    assert tied is not None
    assert tied.slope == pytest.approx(known.slope)


# -- where nothing can be known ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("margins", "groups", "reason"),
    [
        ([], [], "there are no validation pairs"),
        ([0.1, 0.2, 0.3], ["a", "a", "a"], "the 3 validation pairs are of one prompt"),
        ([0.0, 0.0, 0.0], ["a", "b", "c"], "the margins of all 3 validation pairs are 0"),
        ([1e-40, -1e-40, 0.0], ["a", "b", "c"], "the margins of all 3 validation pairs are 0"),
        ([0.3, -0.3, 0.3], ["a", "b", "c"], "the margins of all 3 validation pairs are of one size"),
        ([0.3, 0.0, 0.3], ["a", "b", "c"], "the margins of all 3 validation pairs are of one size"),
    ],
)
def test_where_nothing_can_be_fitted_there_is_a_reason_and_no_number(margins, groups, reason):
    fit = fit_preference(np.array(margins, dtype=np.float64), groups)
    assert (fit.preference, fit.log_loss) == (None, {})
    assert fit.reason == reason


def test_pairs_that_count_nothing_are_none():
    fit = fit_preference(np.array([0.1, 0.4]), ["a", "b"], weights=np.zeros(2))
    assert (fit.preference, fit.reason) == (None, "there are no validation pairs")
    assert fit_preference(np.array([0.1, 0.4]), ["a", "b"], weights=np.array([1.0, 0.0])).reason.endswith("of one prompt")


@pytest.mark.parametrize("prompts", [2, 3, FOLDS, FOLDS + 1])
def test_few_prompts_are_enough(prompts):
    margins, groups = np.linspace(-0.2, 1, prompts), [str(i) for i in range(prompts)]
    fit = fit_preference(margins, groups)
    assert fit.preference is not None
    assert all(map(math.isfinite, fit.log_loss.values()))
    assert 0 < fit.preference.of(np.array([-5.0]))[0] <= 0.5


def test_what_is_no_number_is_refused():
    margins, groups = planted(10)
    for wrong in (math.nan, math.inf):
        with pytest.raises(FitError, match="1 of 10 margins are NaN or infinite"):
            fit_preference(np.where(np.arange(10) == 3, wrong, margins), groups)
    with pytest.raises(FitError, match="10 margins, 9 groups and 10 weights"):
        fit_preference(margins, groups[:9])
    for weights in (np.full(10, -1.0), np.full(10, math.nan)):
        with pytest.raises(FitError, match="weights must be finite"):
            fit_preference(margins, groups, weights=weights)


# -- on disk -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", FORMS, ids=["logistic", "flat", "isotonic"])
def test_what_is_saved_is_read_back_to_the_bit(tmp_path: Path, one: Preference):
    save_preference(tmp_path, one, TWO)
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted(PREFERENCE_FILES)
    read = load_preference(tmp_path, TWO)
    assert read is not None
    assert (read.form, read.slope, read.pairs, read.prompts) == (one.form, one.slope, one.pairs, one.prompts)
    asked = np.linspace(-3, 3, 99)
    np.testing.assert_array_equal(read.of(asked), one.of(asked))


def test_none_is_none_and_anothers_is_refused(tmp_path: Path):
    assert load_preference(tmp_path, TWO) is None
    save_preference(tmp_path, FORMS[0], TWO)
    with pytest.raises(ObjectiveMismatch, match="copy both preference files"):
        load_preference(tmp_path, Objectives([Objective(name="else", min=0, max=1)]))
    (tmp_path / "preference.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"preference\.safetensors: can't be read.*copy both preference files"):
        load_preference(tmp_path, TWO)


@pytest.mark.parametrize(
    "wrong",
    [
        {"slope": -1.0},
        {"slope": math.inf},
        {"prompts": 0},
        {"prompts": 50},
        {"margins": np.array([0.0, 1.0]), "probabilities": np.array([0.5, 0.6])},  # a logistic curve with knots
        {"form": "isotonic", "slope": 0.0},
        {"form": "isotonic", "slope": 0.0, "margins": np.array([0.0, 1, 2]), "probabilities": np.array([0.5, 0.8, 0.7])},
        {"form": "isotonic", "slope": 0.0, "margins": np.array([0.0, 1, 1]), "probabilities": np.array([0.5, 0.6, 0.7])},
        {"form": "isotonic", "slope": 0.0, "margins": np.array([0.0, 1]), "probabilities": np.array([0.5, 1.0])},
        {"form": "isotonic", "slope": 0.0, "margins": np.array([0.0, 1]), "probabilities": np.array([0.4, 0.6])},
        {"form": "isotonic", "slope": 0.0, "margins": np.array([0.0, math.nan]), "probabilities": np.array([0.5, 0.6])},
    ],
)
def test_numbers_that_are_no_such_curve_are_refused(wrong):
    whole = {"form": "logistic", "pairs": 40, "prompts": 20, "slope": 1.0}
    with pytest.raises(FitError, match="no probability of being right"):
        Preference(**{**whole, **wrong})


@pytest.mark.parametrize(
    ("facts", "tensors"),
    [
        ({"form": "cubic"}, {}),
        ({"form": None}, {}),
        ({"form": "isotonic"}, {}),
        ({}, {"slope": np.array([-1.0])}),
        ({}, {"slope": np.array([math.inf])}),
        ({}, {"slope": np.zeros(0)}),
        ({"prompts": 0}, {}),
        ({"prompts": 1.5}, {}),
        ({}, {"margins": np.array([0.0, 1.0])}),
        ({}, {"margins": np.zeros((0, 2))}),
        ({}, {"margins": np.array([math.nan]), "probabilities": np.array([0.5])}),
    ],
)
def test_sealed_facts_that_are_no_such_curve_are_named(tmp_path: Path, facts, tensors):
    save_preference(tmp_path, FORMS[0], TWO)
    arrays, sealed = load_part(tmp_path, "preference", FORMAT, remedy="")
    sealed = {key: value for key, value in sealed.items() if key not in ("sha256", "tensors", "format")}
    save_part(tmp_path, "preference", {**arrays, **tensors}, {**sealed, **facts}, FORMAT)
    with pytest.raises(CheckpointError, match=r"preference\.(json|safetensors)"):
        load_preference(tmp_path, TWO)
