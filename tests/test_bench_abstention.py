"""Abstention: error rates are those of the pairs that are left, certainty that means something pays, ties are half."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armorm.bench.abstention import abstention_curve, certainty, too_close_to_call
from armorm.errors import DataError
from armorm.report.run_page import abstention_figure, coverage_figure
from armorm.report.run_results import SuiteAbstention, UncertaintyFacts
from armorm.report.run_tables import abstention_grid, uncertainty_grid


def simulated(n=2000, seed=0, *, informative=True):
    """True margins of one size, errors of very different known sizes."""
    rng = np.random.default_rng(seed)
    stds = np.exp(rng.normal(size=n))
    true = rng.choice([-1.0, 1.0], size=n)
    margins = true + stds * rng.normal(size=n)
    right = (np.sign(margins) == true).astype(float)
    shown = stds if informative else rng.permutation(stds)
    return margins, shown, right, [str(i // 2) for i in range(n)]


def test_errors_are_those_of_the_pairs_that_are_left():
    margins, stds, right, groups = simulated(200)
    curve = abstention_curve(margins, stds, right, groups, seed=0, resamples=50)
    z = np.abs(margins) / stds
    for point in curve.by_z:
        kept = np.argsort(-z, kind="stable")[: point.decided]
        assert point.decided == round(200 * (1 - point.abstained))
        assert point.error.value == pytest.approx(1 - right[kept].mean())
        assert point.threshold == pytest.approx(z[kept].min())
        assert point.error.low <= point.error.value <= point.error.high
    for point in curve.rules:
        kept = z >= point.threshold
        assert point.decided == kept.sum()
        assert point.error.value == pytest.approx(1 - right[kept].mean())
        assert point.abstained == pytest.approx(1 - kept.mean())
    sure = np.argsort(-np.abs(margins), kind="stable")
    halves = [1 - right[sure[: i + 1]].mean() for i in range(200)]
    assert curve.area_margin.value == pytest.approx(np.mean(halves))


def test_standard_deviations_help_where_they_are_right_and_only_there():
    curve = abstention_curve(*simulated(), seed=0, resamples=200)
    errors = [p.error.value for p in curve.by_z]
    assert errors[5] < errors[0] - 0.1
    assert curve.area_gain.low > 0.02
    shuffled = abstention_curve(*simulated(informative=False), seed=0, resamples=200)
    assert shuffled.area_gain.value < 0.02
    assert shuffled.area_z.value > curve.area_z.value + 0.05


def test_equal_standard_deviations_change_nothing():
    margins, _, right, groups = simulated(100)
    curve = abstention_curve(margins, np.full(100, 0.3), right, groups, seed=0, resamples=50)
    assert [p.error for p in curve.by_z] == [p.error for p in curve.by_margin]
    assert curve.area_gain.value == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.just(0.0) | st.floats(1e-6, 10)), max_size=30), st.floats(0.1, 5))
def test_the_rule_is_margin_against_std(pairs, z):
    margins, stds = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    close = too_close_to_call(margins, stds, z)
    for margin, std, one in zip(margins, stds, close, strict=True):
        assert one == (margin == 0 or abs(margin) / std < z if std else margin == 0)
    assert not (close & ~too_close_to_call(margins, stds, z + 1)).any()
    assert (certainty(margins, stds) == certainty(-margins, stds)).all()
    curve = abstention_curve(margins, stds, margins > 0, ["g"] * len(margins), seed=0, resamples=10)
    curve.to_json()


def test_ties_are_half_wrong_and_all_right_has_a_bound():
    none = abstention_curve(np.zeros(10), np.ones(10), np.full(10, 0.5), [str(i) for i in range(10)], seed=0, resamples=50)
    assert none.by_z[0].error.value == 0.5
    assert all(p.decided == 0 for p in none.rules)
    every = abstention_curve(np.ones(10), np.zeros(10), np.ones(10), [str(i) for i in range(10)], seed=0, resamples=50)
    assert (every.by_z[0].error.value, every.by_z[0].error.low) == (0.0, 0.0)
    assert every.by_z[0].error.high > 0.2  # ten prompts do not prove that errors never happen
    assert every.by_z[0].to_json()["threshold"] is None


def test_what_does_not_fit_is_refused():
    margins, stds, right, groups = simulated(10)
    with pytest.raises(DataError, match=r"10 margins, .* 9 groups"):
        abstention_curve(margins, stds, right, groups[:9], seed=0)
    with pytest.raises(DataError, match="finite"):
        abstention_curve(np.where(margins > 0, math.nan, margins), stds, right, groups, seed=0)
    with pytest.raises(DataError, match="not negative"):
        abstention_curve(margins, -stds, right, groups, seed=0)


# -- tables and pictures ----------------------------------------------------------------------------------------------------


def test_the_table_and_the_picture_show_the_curve():
    curve = abstention_curve(*simulated(100), seed=0, resamples=50).to_json()
    suite = SuiteAbstention.model_validate({"suite": "one $ suite", **curve})
    assert suite.to_json() == {"suite": "one $ suite", **curve}
    table = abstention_grid(suite)
    assert [row[0].text for row in table.rows] == [f"{10 * i} %" for i in range(10)]
    first = suite.by_z[0].error
    assert table.rows[0][3].text == f"{100 * first.value:.1f}"
    assert table.rows[0][3].small == f"{100 * first.low:.1f}–{100 * first.high:.1f}"
    assert "z = 1.96 leaves" in table.remarks[0]
    figure = abstention_figure([suite])
    assert "one $ suite" in figure.svg
    assert figure == abstention_figure([suite])


def test_objectives_that_were_not_calibrated_have_dashes():
    share = {"value": 0.94, "low": 0.9, "high": 0.97}
    row = {"name": "<b>bold</b>", "sigma": 0.2, "scale": 1.0, "inflation": 1.2, "reach": 2.01, "n": 90, "n_test": 90}
    row |= {"mean_std": 0.05, "mean_width": 0.8, "coverage": share, "coverage_cross_validated": share}
    undefined = dict.fromkeys(share)
    unfit = row | dict.fromkeys(("sigma", "reach", "mean_std", "mean_width")) | {"name": "never", "n_test": 0}
    unfit |= {"coverage": undefined, "coverage_cross_validated": undefined}
    part = {"level": 0.95, "coverage": share, "n_test": 90, "objectives": [row, unfit], "parts": [], "bytes": 1}
    facts = UncertaintyFacts.model_validate(part)
    assert facts.to_json() == part
    table = uncertainty_grid(facts)
    assert "94.0 % of 90 ratings lie inside (95 % interval: 90.0–97.0)" in table.lead
    assert [cell.text for cell in table.rows[0]] == [
        "<b>bold</b>",
        "0.200",
        "0.050",
        "1.20",
        "2.01",
        "0.80",
        "90",
        "94.0",
        "94.0",
    ]
    assert [cell.text for cell in table.rows[1]] == ["never", "–", "–", "1.20", "–", "–", "0", "–", "–"]
    assert coverage_figure(facts).svg.count("never") == 1
