"""Abstention: error rates are those of the pairs that are left, beside what was promised; ties are half."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from armorm.bench.abstention import abstention_curve
from armorm.errors import DataError
from armorm.report.run_page import abstention_figure, coverage_figure
from armorm.report.run_results import SuiteAbstention, UncertaintyFacts
from armorm.report.run_tables import abstention_grid, uncertainty_grid


def simulated(n=2000, seed=0):
    """Margins, the winners' probabilities, which are right, outcomes; two pairs a prompt."""
    rng = np.random.default_rng(seed)
    size = np.abs(rng.normal(size=n))
    margins = np.where(rng.random(n) < expit(2 * size), size, -size)
    return margins, expit(2 * margins), (margins > 0).astype(float), [str(i // 2) for i in range(n)]


def test_errors_are_those_of_the_pairs_that_are_left():
    margins, probabilities, right, groups = simulated(200)
    curve = abstention_curve(margins, probabilities, right, groups, seed=0, resamples=50)
    sure = np.maximum(probabilities, 1 - probabilities)
    for point in curve.by_probability:
        kept = np.argsort(-sure, kind="stable")[: point.decided]
        assert point.decided == round(200 * (1 - point.abstained))
        assert point.error.value == pytest.approx(1 - right[kept].mean())
        assert point.promised == pytest.approx(1 - sure[kept].mean())
        assert point.threshold == pytest.approx(sure[kept].min())
        assert point.error.low <= point.error.value <= point.error.high
    for point in curve.rules:
        kept = sure >= point.threshold
        assert point.decided == kept.sum()
        assert point.error.value == pytest.approx(1 - right[kept].mean())
        assert point.promised == pytest.approx(1 - sure[kept].mean())
        assert point.abstained == pytest.approx(1 - kept.mean())
    order = np.argsort(-np.abs(margins), kind="stable")
    halves = [1 - right[order[: i + 1]].mean() for i in range(200)]
    assert curve.area_margin.value == pytest.approx(np.mean(halves))
    assert all(math.isnan(point.promised) for point in curve.by_margin)


def test_leaving_unsure_pairs_open_saves_the_errors_that_were_promised():
    curve = abstention_curve(*simulated(), seed=0, resamples=200)
    errors = [p.error.value for p in curve.by_probability]
    assert errors[5] < errors[0] - 0.1
    for point in (*curve.by_probability, *curve.rules):
        assert point.error.low - 0.01 <= point.promised <= point.error.high + 0.01
    margins, _, right, groups = simulated()
    bold = abstention_curve(margins, np.clip(expit(8 * margins), 1e-9, 1 - 1e-9), right, groups, seed=0, resamples=50)
    assert bold.by_probability[0].promised < bold.by_probability[0].error.low - 0.1
    assert [p.error.value for p in bold.by_probability] == pytest.approx(errors, abs=0.01)  # the order is the margin's


def test_a_probability_that_tells_all_margins_apart_orders_pairs_as_they_do():
    curve = abstention_curve(*simulated(100), seed=0, resamples=50)
    assert [p.error for p in curve.by_probability] == [p.error for p in curve.by_margin]
    assert curve.area_gain.value == pytest.approx(0.0, abs=1e-12)


def test_pairs_of_one_probability_are_one_block_in_whatever_order_they_stand():
    margins, _, right, groups = simulated(200)
    flat = np.where(np.abs(margins) < 0.7, 0.5 + 0.1 * np.sign(margins), expit(2 * margins))
    order = np.random.default_rng(0).permutation(200)
    one = abstention_curve(margins, flat, right, groups, seed=0, resamples=50)
    other = abstention_curve(margins[order], flat[order], right[order], [groups[i] for i in order], seed=0, resamples=50)
    for mine, theirs in zip(one.by_probability, other.by_probability, strict=True):
        assert mine.error.value == pytest.approx(theirs.error.value)
    assert one.area_probability.value == pytest.approx(other.area_probability.value)
    assert one.area_gain.value < -0.001  # the margin orders them within the block
    block = np.abs(margins) < 0.7
    level = 1 - right[block].mean()
    whole = 1 - right[~block].sum() / (~block).sum()
    kept = one.by_probability[1].decided
    assert kept > (~block).sum()
    by_hand = ((~block).sum() * whole + (kept - (~block).sum()) * level) / kept
    assert one.by_probability[1].error.value == pytest.approx(by_hand)
    # What the block has in common is no knowledge: the interval is as wide as that of any half of its pairs.
    half = abstention_curve(margins, np.full(200, 0.7), right, groups, seed=0, resamples=300).by_probability[5].error
    whole = abstention_curve(margins, np.full(200, 0.7), right, groups, seed=0, resamples=300).by_probability[0].error
    assert half.high - half.low == pytest.approx(whole.high - whole.low)
    assert half.high - half.low > 0.1


def test_without_a_calibration_the_margin_decides():
    margins, probabilities, right, groups = simulated(100)
    known, none = (abstention_curve(margins, p, right, groups, seed=0, resamples=50) for p in (probabilities, None))
    assert [p.to_json() for p in none.by_margin] == [p.to_json() for p in known.by_margin]
    assert (none.by_probability, none.rules) == ((), ())
    assert math.isnan(none.area_probability.value)
    assert none.area_margin == known.area_margin
    suite = SuiteAbstention.model_validate({"suite": "s", **none.to_json()})
    table = abstention_grid(suite)
    assert [cell.text for cell in table.head][1] == "|margin| at least"
    assert {row[4].text for row in table.rows} == {"–"}
    assert "P(right) is not calibrated" in table.remarks[0]
    assert "svg" in abstention_figure([suite]).svg


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0, 1)), max_size=30))
def test_any_pairs_have_a_curve(pairs):
    margins, probabilities = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    curve = abstention_curve(margins, probabilities, margins > 0, ["g"] * len(margins), seed=0, resamples=10)
    curve.to_json()
    assert len(curve.by_probability) == 10
    assert curve.n == len(pairs)


def test_ties_are_half_wrong_and_all_right_has_a_bound():
    names = [str(i) for i in range(10)]
    none = abstention_curve(np.zeros(10), np.full(10, 0.5), np.full(10, 0.5), names, seed=0, resamples=50)
    assert none.by_probability[0].error.value == none.by_probability[0].promised == 0.5
    assert all(p.decided == 0 for p in none.rules)
    assert "No pair reaches 60 %" in abstention_grid(SuiteAbstention.model_validate({"suite": "s", **none.to_json()})).remarks[0]
    every = abstention_curve(np.ones(10), np.full(10, 0.9), np.ones(10), names, seed=0, resamples=50)
    first = every.by_probability[0]
    assert (first.error.value, first.error.low) == (0.0, 0.0)
    assert first.error.high > 0.2  # ten prompts do not prove that errors never happen
    assert first.promised == pytest.approx(0.1)
    assert every.by_margin[0].to_json()["promised"] is None


def test_what_does_not_fit_is_refused():
    margins, probabilities, right, groups = simulated(10)
    with pytest.raises(DataError, match=r"10 margins, 10 probabilities, .* 9 groups"):
        abstention_curve(margins, probabilities, right, groups[:9], seed=0)
    with pytest.raises(DataError, match=r"10 margins, no probabilities, .* 9 groups"):
        abstention_curve(margins, None, right, groups[:9], seed=0)
    with pytest.raises(DataError, match="finite"):
        abstention_curve(np.where(margins > 0, math.nan, margins), probabilities, right, groups, seed=0)
    for wrong in (1.1, math.nan):
        with pytest.raises(DataError, match="between 0 and 1"):
            abstention_curve(margins, np.where(margins > 0, wrong, probabilities), right, groups, seed=0)


# -- tables and pictures ----------------------------------------------------------------------------------------------------


def test_the_table_and_the_picture_show_the_curve():
    curve = abstention_curve(*simulated(100), seed=0, resamples=50).to_json()
    suite = SuiteAbstention.model_validate({"suite": "one $ suite", **curve})
    assert suite.to_json() == {"suite": "one $ suite", **curve}
    table = abstention_grid(suite)
    assert [row[0].text for row in table.rows] == [f"{10 * i} %" for i in range(10)]
    first = suite.by_probability[0]
    assert table.rows[0][3].text == f"{100 * first.error.value:.1f}"
    assert table.rows[0][3].small == f"{100 * first.error.low:.1f}–{100 * first.error.high:.1f}"
    assert table.rows[0][4].text == f"{100 * first.promised:.1f}"
    assert "at 80 %, " in table.remarks[0]
    assert "promised)" in table.remarks[0]
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
