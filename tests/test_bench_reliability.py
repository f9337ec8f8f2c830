"""Reliability: bins hold what they say, calibrated probabilities stay within chance, others don't, prompts are the unit."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import brier_score_loss, log_loss

from armorm.bench.reliability import BINS, bins_of, confidence, reliability
from armorm.errors import DataError
from armorm.report.markdown import render_markdown
from armorm.report.run_page import reliability_figure
from armorm.report.run_results import PreferenceFacts, SuiteReliability
from armorm.report.run_tables import bins_grid, reliability_grid
from armorm.report.tables import Report


def drawn(n=2000, *, sharper=1.0, seed=0, per_prompt=1):
    """Winners' probabilities as a model says them whose log-odds are `sharper` times the true ones."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(scale=1.5, size=n // per_prompt)
    won = (rng.random(n // per_prompt) < expit(odds)).repeat(per_prompt)
    odds = odds.repeat(per_prompt)
    return expit(sharper * np.where(won, odds, -odds)), [str(i // per_prompt) for i in range(n)]


def test_the_numbers_are_those_of_their_definitions():
    probabilities, groups = drawn(517)
    found = reliability(probabilities, groups, seed=0, resamples=50)
    sure, right = confidence(probabilities), probabilities > 0.5
    bins = np.array_split(np.argsort(sure)[::-1], BINS)[::-1]  # the larger bins are at the upper end, as quantiles have them
    apart = [abs(right[rows].mean() - sure[rows].mean()) * len(rows) / 517 for rows in bins]
    assert found.ece.value == pytest.approx(sum(apart), abs=0.01)
    exact = [abs(one.right.value - one.confidence) * one.n / 517 for one in found.bins]
    assert found.ece.value == pytest.approx(sum(exact))
    assert (found.n, found.groups, len(found.bins)) == (517, 517, BINS)
    assert sum(one.n for one in found.bins) == 517
    assert {one.n for one in found.bins} <= {51, 52}
    assert [one.confidence for one in found.bins] == sorted(one.confidence for one in found.bins)
    # Both orders of a pair are one observation told twice: the library's numbers of all orders are those of the winners.
    truth, both = np.repeat([1, 0], 517), np.concatenate([probabilities, 1 - probabilities])
    assert found.log_loss.value == pytest.approx(log_loss(truth, both))
    assert found.brier.value == pytest.approx(brier_score_loss(truth, both))
    for one in (found.ece, found.log_loss, found.brier):
        assert one.low < one.high
    json.dumps(found.to_json(), allow_nan=False)


def test_calibrated_probabilities_are_within_chance_and_others_are_not():
    within = sum(reliability(*drawn(seed=seed), seed=0, resamples=200).ece.value for seed in range(20)) / 20
    true = reliability(*drawn(), seed=0, resamples=500)
    assert true.chance == pytest.approx(within, rel=0.2)  # what chance gives is what calibrated probabilities have on average
    assert true.chance < true.chance_high < 2 * true.chance
    for sharper in (0.3, 3.0):
        found = reliability(*drawn(sharper=sharper), seed=0, resamples=200)
        assert found.ece.value > 0.08 > found.chance_high
        assert found.ece.low > found.chance_high
        assert found.log_loss.value > true.log_loss.value
        assert found.brier.value > true.brier.value


def test_a_calibrated_model_is_beyond_chance_once_in_twenty_times():
    found = [reliability(*drawn(400, seed=seed), seed=seed, resamples=300) for seed in range(60)]
    assert sum(one.ece.value > one.chance_high for one in found) <= 8


def test_prompts_are_what_counts():
    """The same outcome ten times over under one prompt is one observation: chance gives more, and the interval is wider."""
    together, apart = drawn(2000, per_prompt=10), (drawn(2000, per_prompt=10)[0], [str(i) for i in range(2000)])
    one, other = (reliability(*given, seed=0, resamples=300) for given in (together, apart))
    assert one.ece.value == other.ece.value
    assert one.groups == 200
    assert one.chance > 2 * other.chance
    assert one.log_loss.high - one.log_loss.low > 2 * (other.log_loss.high - other.log_loss.low)


def test_the_order_of_the_pairs_changes_nothing():
    probabilities, groups = drawn(300)
    probabilities[:120] = 0.8  # a plateau that no bin may cut
    order = np.random.default_rng(0).permutation(300)
    one, other = (
        reliability(probabilities, groups, seed=0, resamples=20),
        reliability(probabilities[order], [groups[i] for i in order], seed=0, resamples=20),
    )
    assert one.ece.value == pytest.approx(other.ece.value)
    assert [b.n for b in one.bins] == [b.n for b in other.bins]
    assert len(set(bins_of(confidence(probabilities))[:120])) == 1
    assert sum(b.n for b in one.bins) == 300


@pytest.mark.parametrize(("n", "bins"), [(1, 1), (19, 1), (20, 2), (99, 9), (5000, 10)])
def test_there_are_as_many_bins_as_pairs_allow(n, bins):
    assert len(np.unique(bins_of(np.random.default_rng(0).uniform(0.5, 1, n)))) == bins


def test_edges():
    none = reliability(np.zeros(0), [], seed=0)
    assert (none.n, none.groups, math.isnan(none.ece.value), math.isnan(none.chance)) == (0, 0, True, True)
    assert none.to_json()["ece"] == {"value": None, "low": None, "high": None}
    one = reliability(np.array([0.8]), ["a"], seed=0)
    assert one.ece.value == pytest.approx(0.2)
    assert math.isnan(one.ece.low)
    assert math.isnan(one.chance)
    coin = reliability(np.full(50, 0.5), [str(i) for i in range(50)], seed=0, resamples=20)
    assert (coin.ece.value, coin.log_loss.value, coin.brier.value) == (0, pytest.approx(math.log(2)), 0.25)
    assert [(b.n, b.right.value) for b in coin.bins] == [(50, 0.5)]
    for wrong in (0.0, 1.0, math.nan, -0.1):
        with pytest.raises(DataError, match="between 0 and 1"):
            reliability(np.array([0.5, wrong]), ["a", "b"], seed=0)
    with pytest.raises(DataError, match="2 probabilities and 1 groups"):
        reliability(np.array([0.5, 0.6]), ["a"], seed=0)


# -- tables and pictures -------------------------------------------------------------------------------------------------------

FACTS = {"form": "logistic", "pairs": 900, "prompts": 450, "slope": 12.5, "most": 451 / 452}
FACTS |= {"log_loss": {"logistic": 0.51, "isotonic": 0.53}, "reason": "", "warnings": []}


def test_tables_and_picture_show_the_numbers():
    found = reliability(*drawn(300), seed=0, resamples=50).to_json()
    suite = SuiteReliability.model_validate({"suite": "one $ suite", **found})
    assert suite.to_json() == {"suite": "one $ suite", **found}
    facts = PreferenceFacts.model_validate(FACTS)
    assert facts.to_json() == FACTS
    table = reliability_grid(facts, [suite])
    cells = [cell.text for cell in table.rows[0]]
    assert cells[:4] == ["one $ suite", "300", "300", f"{100 * suite.ece.value:.1f}"]
    assert table.rows[0][4].small == f"up to {100 * suite.chance_high:.1f}"
    assert "Fitted on 900 validation pairs of 450 prompts: logistic, slope 12.5" in table.remarks[0]
    assert "(logistic 0.510, isotonic 0.530)" in table.remarks[0]
    assert "99.8 %" in table.remarks[0]
    bins = bins_grid(suite)
    assert [row[1].text for row in bins.rows] == [f"{100 * one.confidence:.1f}" for one in suite.bins]
    assert "calibration error" in render_markdown(Report("", grids=[table]))
    figure = reliability_figure([suite])
    assert "one $ suite" in figure.svg
    assert figure == reliability_figure([suite])


def test_without_a_calibration_the_table_says_why():
    none = {"form": None, "slope": None, "most": None, "log_loss": {}, "reason": "there are no validation pairs"}
    facts = PreferenceFacts.model_validate({**FACTS, **none})
    table = reliability_grid(facts, [])
    assert table.rows == []
    assert table.remarks == ["There is none: there are no validation pairs."]
    steps = PreferenceFacts.model_validate({**FACTS, "form": "isotonic", "slope": None})
    assert ": isotonic, by log-loss" in reliability_grid(steps, []).remarks[0]
