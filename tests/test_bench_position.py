"""Comparing a benchmark's answers two by two, whole and after a stop, and the position bias in the verdicts."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from armorm.bench.outcomes import outcomes
from armorm.bench.position import position_bias
from armorm.bench.run import Compared, compare_items, score_items
from armorm.data.benchmarks.benchmark import Rule
from armorm.data.rows import BenchmarkItem
from armorm.errors import DataError, StorageError
from armorm.scorers import PairScorer, Preferences


def item(i: int, chosen: int = 1, rejected: int = 1) -> BenchmarkItem:
    context = ({"role": "user", "content": f"question {i}"},)
    answers = [tuple(f"{side} {i}-{j}" + "x" * (i % 7) for j in range(n)) for side, n in (("good", chosen), ("bad", rejected))]
    return BenchmarkItem(f"{i}", f"g{i // 2}", "s", context, *answers, subset="one")


ITEMS = [item(i, chosen=1 + i % 2, rejected=1 + i % 3) for i in range(200)]


class Marked:
    """Prefers the answer that says good, by a margin that the texts decide; `first` is added to the answer shown first."""

    name = "marked"
    fingerprint = "marked-1"

    def __init__(self, *, first: float = 0.0, silent: str = "nothing", stop_after: int | None = None) -> None:
        self.first = first
        self.silent = silent
        self.stop_after = stop_after
        self.asked: list[tuple[str, str]] = []

    def prefer(self, pairs):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        texts = [(a[-1]["content"], b[-1]["content"]) for a, b in pairs]
        assert all(list(a[:-1]) == list(b[:-1]) for a, b in pairs)
        self.asked += texts
        mean = np.array([self.says(a, b) for a, b in texts])
        return Preferences(np.clip(mean + self.first, 0, 1), np.clip(mean - self.first, 0, 1))

    def says(self, a: str, b: str) -> float:
        if self.silent in (a, b):
            return float("nan")
        return 0.5 + 0.25 * (a.startswith("good") - b.startswith("good")) + 0.125 * (a > b) - 0.125 * (a < b)


def planted(forward, backward, answers=2) -> Compared:
    return Compared(answers, Preferences(np.array(forward, dtype=np.float64), np.array(backward, dtype=np.float64)))


# -- comparing ---------------------------------------------------------------------------------------------------------


def test_every_two_answers_are_compared_once_and_land_in_their_place():
    judge = Marked(first=0.0625)
    assert isinstance(judge, PairScorer)
    told: list[tuple[int, int]] = []
    found = compare_items(ITEMS, judge, progress=lambda done, total: told.append((done, total)))
    for one, compared in zip(ITEMS, found, strict=True):
        two = list(combinations(one.answers, 2))
        np.testing.assert_array_equal(compared.verdicts.forward, [judge.says(a, b) + 0.0625 for a, b in two])
        np.testing.assert_array_equal(compared.verdicts.backward, [judge.says(a, b) - 0.0625 for a, b in two])
    assert sorted(judge.asked) == sorted(two for one in ITEMS for two in combinations(one.answers, 2))
    assert (told[0], told[-1]) == ((0, 200), (200, 200))


def test_a_score_is_the_mean_win_probability_against_the_others():
    assert planted([0.75], [0.25 + 0.125]).scores.tolist() == [0.5625, 0.4375]
    three = planted([0.5, 1.0, 0.25], [0.5, 0.5, 0.75], answers=3)
    np.testing.assert_array_equal(three.scores, [(0.5 + 0.75) / 2, (0.5 + 0.5) / 2, (0.25 + 0.5) / 2])
    many = planted(np.random.default_rng(0).random(15), np.random.default_rng(1).random(15), answers=6)
    np.testing.assert_allclose(many.scores.sum(), 3.0)


def test_what_was_not_answered_is_said():
    nan = float("nan")
    assert planted([nan], [0.75]).scores.tolist() == [0.75, 0.25]  # one order is an answer
    assert np.isnan(planted([nan], [nan]).scores).all()
    three = planted([nan, 1.0, 0.25], [nan, 0.5, 0.75], answers=3).scores
    assert np.isnan(three).tolist() == [True, True, False]
    found = compare_items(ITEMS[:9], Marked(silent=ITEMS[3].chosen[0]))
    graded = outcomes(Rule.PAIRS, ITEMS[:9], [one.scores for one in found])
    assert graded.scored.tolist() == [i != 3 for i in range(9)]


@pytest.mark.parametrize("rule", [Rule.PAIRS, Rule.PREFERENCES, Rule.BEST_OF, Rule.BEATS_ALL])
def test_a_judge_that_sees_the_marker_is_right_under_every_rule(rule: Rule):
    items = [item(i, chosen=1, rejected=1 if rule in (Rule.PAIRS, Rule.PREFERENCES) else 3) for i in range(40)]
    found = outcomes(rule, items, [one.scores for one in compare_items(items, Marked())])
    assert found.credit.tolist() == [1.0] * 40
    assert not found.tied.any()


def test_equal_texts_tie_and_are_not_asked_about():
    context = ({"role": "user", "content": "q"},)
    twins = [BenchmarkItem("0", "g", "s", context, ("good same",), ("good same",))]
    judge = Marked(first=0.3)
    (found,) = compare_items([*twins], judge)
    assert judge.asked == []
    assert found.scores.tolist() == [0.5, 0.5]
    assert outcomes(Rule.PAIRS, twins, [found.scores]).tied.all()


def test_a_stopped_run_goes_on_and_gives_the_same(tmp_path: Path):
    kept = tmp_path / "deep" / "verdicts.jsonl"
    whole = compare_items(ITEMS, Marked(silent=ITEMS[8].chosen[0]))
    first = Marked(silent=ITEMS[8].chosen[0], stop_after=200)
    with pytest.raises(KeyboardInterrupt):
        compare_items(ITEMS, first, kept=kept)
    second = Marked(silent=ITEMS[8].chosen[0])
    found = compare_items(ITEMS, second, kept=kept)
    assert len(first.asked) >= 200
    assert set(first.asked).isdisjoint(second.asked)
    assert len(first.asked) + len(second.asked) == sum(len(one.verdicts.forward) for one in whole)
    third = Marked()
    again = compare_items(ITEMS, third, kept=kept)
    assert third.asked == []
    for one, *others in zip(whole, found, again, strict=True):
        for other in others:
            np.testing.assert_array_equal(one.verdicts.forward, other.verdicts.forward)
            np.testing.assert_array_equal(one.verdicts.backward, other.verdicts.backward)
    assert any(np.isnan(one.verdicts.forward).any() for one in again)


def test_verdicts_on_disk_are_plain_json_under_the_judges_fingerprint(tmp_path: Path):
    kept = tmp_path / "verdicts.jsonl"
    compare_items(ITEMS[:3], Marked(silent=ITEMS[1].chosen[0], first=0.0625), kept=kept)
    head, *rows = (json.loads(line, parse_constant=pytest.fail) for line in kept.read_text().splitlines())
    assert (head["format"], head["key"]) == (4, "marked-1")
    values = [value for row in rows for value in row["values"].values()]
    assert len(values) == 3
    assert any(None in value["forward"] and None in value["backward"] for value in values)
    other = Marked()
    other.fingerprint = "marked-2"
    compare_items(ITEMS[:3], other, kept=kept)
    assert len(other.asked) == sum(len(one.answers) * (len(one.answers) - 1) // 2 for one in ITEMS[:3])
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="choose another place"):
        compare_items(ITEMS[:1], Marked(), kept=tmp_path / "file" / "verdicts.jsonl")


def test_scores_and_comparisons_of_one_item_agree_for_a_scorer_that_is_both():
    """Win probabilities that come from scores put the answers into the scores' order."""

    class Both(Marked):
        def score(self, conversations):
            return np.array([sum(map(ord, c[-1]["content"])) / 97.0 for c in conversations])

        def says(self, a: str, b: str) -> float:
            one, two = (sum(map(ord, x)) / 97.0 for x in (a, b))
            return 1 / (1 + np.exp(two - one))

    both = Both()
    for one, compared in zip(score_items(ITEMS, both), compare_items(ITEMS, both), strict=True):
        np.testing.assert_array_equal(np.argsort(one, kind="stable"), np.argsort(compared.scores, kind="stable"))


# -- position bias -----------------------------------------------------------------------------------------------------

GROUPS = [one.group for one in ITEMS]


def test_a_judge_without_bias_shows_none():
    found = position_bias(compare_items(ITEMS, Marked()), GROUPS, seed=0)
    assert found.n == sum(len(one.answers) * (len(one.answers) - 1) // 2 for one in ITEMS)
    assert (found.first.value, found.flips.value, found.unanswered) == (0.5, 0.0, 0)
    assert found.first.low <= 0.5 <= found.first.high
    assert found.flips.low == 0.0
    assert 0.0 < found.flips.high < 0.1  # a hundred groups without a flip don't prove that there is none


@pytest.mark.parametrize(("first", "share"), [(1.0, 1.0), (-1.0, 0.0)])
def test_a_judge_that_goes_by_position_alone_always_flips(first: float, share: float):
    found = position_bias(compare_items(ITEMS, Marked(first=first)), GROUPS, seed=0)
    assert (found.first.value, found.flips.value) == (share, 1.0)
    assert found.flips.low > 0.9
    assert not found.first.low <= 0.5 <= found.first.high


def test_the_shares_are_counted_over_comparisons_and_resampled_by_group():
    nan = float("nan")
    compared = [
        planted([0.9], [0.2]),  # first, first: a flip
        planted([0.9], [0.8]),  # a wins both ways
        planted([0.1], [0.6]),  # the second both times: a flip
        planted([0.5], [0.5]),  # neither
        planted([0.5], [0.3]),  # neither, then the first: no flip
        planted([nan], [0.3]),
        planted([nan], [nan]),
        planted([0.9, 0.6, nan], [0.1, 0.4, 0.2], answers=3),  # two flips to the first
    ]
    found = position_bias(compared, list("aabbccde"), seed=0)
    assert (found.n, found.unanswered) == (7, 3)
    np.testing.assert_allclose(found.first.value, (1 + 0.5 + 0 + 0.5 + 0.75 + 1 + 1) / 7)
    np.testing.assert_allclose(found.flips.value, 4 / 7)
    assert found.first.low < found.first.value < found.first.high
    assert found.flips.low < found.flips.value < found.flips.high
    assert found == position_bias(compared, list("aabbccde"), seed=0)
    single = position_bias(compared, ["a"] * 8, seed=0)
    assert (single.flips.low, single.flips.high) == (0.0, 1.0)
    assert single.flips.value == found.flips.value


def test_bias_of_known_size_lies_in_its_interval():
    draw = np.random.default_rng(3)
    inside = []
    for seed in range(30):
        flips = draw.random(150) < 0.3
        compared = [planted([0.9], [0.1 if f else 0.9]) for f in flips]
        found = position_bias(compared, [str(i) for i in range(150)], seed=seed)
        inside.append(found.flips.low <= 0.3 <= found.flips.high and found.first.low <= 0.65 <= found.first.high)
    assert sum(inside) >= 25


def test_nothing_compared_is_undefined_and_groups_must_fit():
    for compared in ([], [planted([float("nan")], [0.5])]):
        found = position_bias(compared, ["a"] * len(compared), seed=0)
        assert (found.n, found.unanswered) == (0, len(compared))
        assert found.to_json()["first"] == {"value": None, "low": None, "high": None}
    with pytest.raises(DataError, match="1 items were compared, 2 groups"):
        position_bias([planted([0.5], [0.5])], ["a", "b"], seed=0)
    assert set(position_bias([planted([0.9], [0.9])], ["a"], seed=0).to_json()) == {"n", "unanswered", "first", "flips"}
