"""Shares of pairs ranked right, paired differences and length correlation: by hand, by law, and by repeated draws."""

import json
import math

import numpy as np
import pytest
from scipy.stats import binomtest, kstest, spearmanr

from armorm.bench.aggregate import aggregate_of, figures, paired
from armorm.bench.metrics import length_correlation
from armorm.bench.outcomes import outcomes
from armorm.data.benchmarks.benchmark import Rule
from armorm.data.rows import BenchmarkItem
from armorm.errors import DataError

NAN = math.nan


def singles(count):
    return [f"prompt {place}" for place in range(count)]


def pairs_in(groups):
    context = ({"role": "user", "content": "Q"},)
    return [BenchmarkItem(f"i{i}", group, "s", context, ("A",), ("B",)) for i, group in enumerate(groups)]


def judged(chosen, rejected, groups):
    """One cell a pair: 1 right, 0.5 tie, 0 wrong, NaN unscored."""
    return outcomes(Rule.PREFERENCES, pairs_in(groups), list(np.stack([chosen, rejected], axis=1)))


def accuracy(chosen, rejected, groups, *, seed, resamples=2000):
    items = pairs_in(groups)
    scored = outcomes(Rule.PREFERENCES, items, list(np.stack([chosen, rejected], axis=1)))
    return figures(scored, [aggregate_of(items)], seed=seed, resamples=resamples).aggregates["items"].overall


def credits(values, groups):
    """Pairs with these outcomes."""
    values = np.asarray(values, dtype=np.float64)
    return judged(values, np.where(np.isnan(values), NAN, 0.5), groups)


def difference(a, b, groups, *, seed, **more):
    aggregate = aggregate_of(pairs_in(groups))
    return paired(credits(a, groups), credits(b, groups), aggregate, seed=seed, **more)


def test_ties_and_unscored_pairs_have_their_own_counts():
    chosen = np.array([2.0, 1.0, 0.0, NAN, 1.0, math.inf])
    rejected = np.array([1.0, 1.0, 1.0, 1.0, NAN, math.inf])
    assert judged(chosen, rejected, singles(6)).credit.tolist()[:3] == [1.0, 0.5, 0.0]
    result = accuracy(chosen, rejected, singles(6), seed=0)
    assert (result.n, result.ties, result.unscored) == (4, 2, 2)
    assert result.value == result.halves == (1 + 0.5 + 0 + 0.5) / 4
    assert result.low < result.value < result.high


def test_nothing_scored_is_null_in_json():
    result = accuracy(np.array([NAN, 1.0]), np.array([0.0, NAN]), ["a", "b"], seed=0)
    written = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert written == {"value": None, "low": None, "high": None, "halves": None, "n": 0, "ties": 0, "unscored": 2}


def test_row_order_changes_nothing():
    rng = np.random.default_rng(2)
    chosen, rejected = rng.normal(0.4, 1, 60), rng.normal(0, 1, 60)
    groups = [f"prompt {place // 3}" for place in range(60)]
    order = rng.permutation(60)
    shuffled = [groups[row] for row in order]
    assert accuracy(chosen, rejected, groups, seed=3) == accuracy(chosen[order], rejected[order], shuffled, seed=3)
    other = rng.normal(0, 1, 60)
    a, b = chosen > rejected, chosen > other
    assert difference(a[order], b[order], shuffled, seed=3) == difference(a, b, groups, seed=3)


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(4)
    covered = 0
    for draw in range(200):
        gap = np.where(rng.random(120) < 0.7, 1.0, -1.0)
        result = accuracy(gap, np.zeros(120), singles(120), seed=draw, resamples=300)
        covered += result.low <= 0.7 <= result.high
    assert 180 <= covered <= 200


def test_interval_agrees_with_the_binomial_one_for_independent_pairs():
    gap = np.array([1.0] * 260 + [-1.0] * 140)
    result = accuracy(gap, np.zeros(400), singles(400), seed=5, resamples=4000)
    exact = binomtest(260, 400).proportion_ci(method="wilson")
    assert result.low == pytest.approx(exact.low, abs=0.008)
    assert result.high == pytest.approx(exact.high, abs=0.008)


def test_rows_that_repeat_a_prompt_are_not_new_evidence():
    rng = np.random.default_rng(6)
    gap = np.repeat(np.where(rng.random(60) < 0.65, 1.0, -1.0), 9)
    by_prompt = [f"prompt {place // 9}" for place in range(540)]
    grouped = accuracy(gap, np.zeros(540), by_prompt, seed=7)
    by_row = accuracy(gap, np.zeros(540), singles(540), seed=7)
    assert grouped.value == by_row.value
    assert grouped.high - grouped.low == pytest.approx(3 * (by_row.high - by_row.low), rel=0.15)


@pytest.mark.parametrize("groups", [1, 20])
def test_a_perfect_score_is_not_certainty(groups):
    gap = np.ones(40)
    result = accuracy(gap, np.zeros(40), [f"prompt {place % groups}" for place in range(40)], seed=0)
    exact = binomtest(groups, groups).proportion_ci(method="exact")
    assert (result.value, result.high) == (1.0, 1.0)
    assert result.low == pytest.approx(exact.low)
    worst = accuracy(-gap, np.zeros(40), [f"prompt {place % groups}" for place in range(40)], seed=0)
    assert (worst.low, worst.high) == pytest.approx((0.0, 1 - result.low))


def test_one_prompt_says_nothing_about_others():
    result = accuracy(np.array([1.0, -1.0]), np.zeros(2), ["same", "same"], seed=0)
    assert (result.value, result.low, result.high) == (0.5, 0.0, 1.0)
    one = difference([1, 1], [0, 0], ["same", "same"], seed=0)
    assert (one.difference.value, one.difference.low, one.difference.high, one.p) == (1.0, -1.0, 1.0, 1.0)


def test_difference_is_taken_on_pairs_that_both_scored():
    result = difference([1, 1, NAN, 0.5, 0], [0, 1, 1, 0, NAN], singles(5), seed=0)
    assert result.difference.value == pytest.approx((1 + 0 + 0.5) / 3)
    nothing = difference([NAN, 1], [1, NAN], singles(2), seed=0)
    assert nothing.to_json() == {"difference": {"value": None, "low": None, "high": None}, "p": None}


def test_sign_flips_match_the_exact_sign_test():
    # 9 of 10 prompts differ in one direction: |sum| ≥ 8 in 22 of 2^10 sign assignments
    assert difference([1] * 9 + [0], [0] * 9 + [1], singles(10), seed=0).p == pytest.approx(22 / 1024, abs=0.005)


def test_a_clear_difference_has_a_small_p_and_an_interval_off_zero():
    rng = np.random.default_rng(8)
    good, poor = (rng.random(300) < 0.85).astype(float), (rng.random(300) < 0.6).astype(float)
    groups = [f"prompt {place // 2}" for place in range(300)]
    result = difference(good, poor, groups, seed=9)
    assert result.p < 0.001
    assert result.difference.low > 0.1
    back = difference(poor, good, groups, seed=9)
    assert back.p == result.p
    assert back.difference.value == -result.difference.value


def test_no_difference_is_exactly_none():
    same = [1, 0, 0.5, 1]
    result = difference(same, same, singles(4), seed=0)
    assert (result.p, result.difference.low, result.difference.high) == (1.0, 0.0, 0.0)


def test_p_is_uniform_when_there_is_no_difference_within_prompts_that_repeat():
    rng = np.random.default_rng(10)
    sizes = np.arange(96) % 8 + 1  # unequal, so that the sum takes many values and p is nearly continuous
    groups = [f"prompt {group}" for group, size in enumerate(sizes) for _ in range(size)]
    values = []
    for draw in range(200):
        a, b = (np.repeat(rng.normal(0.3, 1, 96) > 0, sizes).astype(float) for _ in range(2))
        values.append(difference(a, b, groups, seed=draw, resamples=2, permutations=400).p)
    assert kstest(values, "uniform").pvalue > 0.05
    # a test that took the rows for independent would call a third of these significant
    assert np.mean(np.array(values) < 0.05) < 0.1


def test_pooled_length_correlation_is_spearman():
    rng = np.random.default_rng(11)
    lengths = rng.integers(5, 60, size=80)
    scores = np.round(lengths / 20 + rng.normal(0, 1, 80), 1)
    prompts = [f"prompt {place // 2}" for place in range(80)]
    result = length_correlation(scores, lengths, prompts, seed=12)
    assert result.pooled.value == pytest.approx(spearmanr(scores, lengths).statistic, abs=1e-12)
    assert result.pooled.low < result.pooled.value < result.pooled.high


def test_a_resample_of_the_pooled_correlation_repeats_whole_prompts():
    rng = np.random.default_rng(13)
    scores, lengths = rng.normal(size=24), rng.integers(1, 9, size=24)
    groups = np.arange(24) // 3
    draws = []
    for row in np.random.default_rng(0).integers(8, size=(400, 8)):
        rows = np.concatenate([np.flatnonzero(groups == group) for group in row])
        draws.append(spearmanr(scores[rows], lengths[rows]).statistic)
    result = length_correlation(scores, lengths, [f"prompt {group}" for group in groups], seed=0, resamples=400)
    assert (result.pooled.low, result.pooled.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=1e-9)


def test_within_prompts_takes_away_what_prompts_ask_for():
    # scores rise with the prompt's call for length, and fall with length among answers to one prompt
    rng = np.random.default_rng(14)
    wanted = np.repeat(rng.uniform(0, 1000, 50), 2)
    extra = np.tile([0.0, 40.0], 50)
    prompts = [f"prompt {place // 2}" for place in range(100)]
    result = length_correlation(wanted - extra, wanted + extra, prompts, seed=15)
    assert result.pooled.value > 0.9
    assert result.within_prompt.value == pytest.approx(-1.0)


def test_within_two_answers_a_prompt_it_is_the_share_of_signs():
    longer_wins = np.array([1, 1, 1, -1])
    scores = np.stack([np.zeros(4), longer_wins], axis=1).ravel().astype(float)
    lengths = np.tile([10, 20], 4)
    result = length_correlation(scores, lengths, [f"prompt {place // 2}" for place in range(8)], seed=0)
    assert result.within_prompt.value == pytest.approx((3 - 1) / 4)


def test_unscored_answers_are_left_out_and_a_constant_score_is_undefined():
    lengths = np.array([1, 2, 3, 4])
    prompts = ["a", "a", "b", "b"]
    assert length_correlation(np.array([1.0, 2.0, NAN, 3.0]), lengths, prompts, seed=0).pooled.value == pytest.approx(1)
    for nothing in (np.full(4, 2.0), np.full(4, NAN)):
        result = length_correlation(nothing, lengths, prompts, seed=0)
        assert result.to_json()["pooled"] == {"value": None, "low": None, "high": None}
        assert math.isnan(result.within_prompt.value)


def test_lengths_that_differ_are_refused():
    two = np.zeros(2)
    with pytest.raises(DataError, match="one for each"):
        length_correlation(two, two, ["a"], seed=0)
