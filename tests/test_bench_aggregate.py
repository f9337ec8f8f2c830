"""Credit and figures: by hand, against slow independent versions of the official scripts, and by law."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from armorm.bench.aggregate import aggregate_of, figures, paired
from armorm.bench.outcomes import outcomes, subset_names
from armorm.data.benchmarks.benchmark import Aggregate, Rule, Section
from armorm.data.benchmarks.registry import benchmark, benchmark_items
from armorm.data.rows import BenchmarkItem
from armorm.errors import DataError
from armorm.intervals import mean_by_group

NAN = math.nan
DATA = os.environ.get("ARMORM_DATA", "")


def item(name, chosen=1, rejected=1, *, subset="a", section="", group=None):
    context = ({"role": "user", "content": name},)
    sides = tuple(f"c{i}" for i in range(chosen)), tuple(f"r{i}" for i in range(rejected))
    return BenchmarkItem(name, group or name, "s", context, *sides, section, subset)


def scores(*rows):
    return [np.asarray(row, dtype=np.float64) for row in rows]


def judged(rule, shape, *rows, subset="a"):
    return outcomes(rule, [item(f"i{i}", *shape, subset=subset) for i in range(len(rows))], scores(*rows))


def same(a, b):
    return np.allclose(a, b, rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize(
    ("rule", "credit", "halves", "tied"),
    [
        (Rule.BEST_OF, [1, 0, 1 / 2, 1 / 4, 0, NAN], [1, 0, 1 / 2, 1 / 4, 0, NAN], [0, 0, 1, 1, 0, 0]),
        (Rule.BEATS_ALL, [1, 0, 0, 0, 0, NAN], [1, 0, 1 / 2, 1 / 4, 0, NAN], [0, 0, 1, 1, 0, 0]),
        (Rule.PAIRS, [1, 0, 2 / 3, 0, 1 / 3, NAN], [1, 0, 5 / 6, 1 / 2, 1 / 2, NAN], [0, 0, 1, 1, 1, 0]),
    ],
)
def test_credit_by_hand(rule, credit, halves, tied):
    rows = [[4, 1, 2, 3], [0, 1, 2, 3], [3, 1, 2, 3], [2, 2, 2, 2], [1, 0, 1, 2], [5, 1, NAN, 0]]
    found = judged(rule, (1, 3), *rows)
    assert same(found.credit, credit)
    assert same(found.halves, halves)
    assert found.tied.tolist() == [bool(t) for t in tied]
    assert found.item.tolist() == list(range(6))
    assert found.scored.tolist() == [True] * 5 + [False]


def test_a_tied_pair_is_wrong_officially_and_a_half_beside_that():
    found = judged(Rule.PAIRS, (1, 1), [1, 0], [1, 1], [0, 1], [NAN, 1], [math.inf, math.inf])
    assert same(found.credit, [1, 0, 0, NAN, 0])
    assert same(found.halves, [1, 0.5, 0, NAN, 0.5])


def test_several_right_answers_share_the_best_place():
    found = judged(Rule.BEST_OF, (2, 2), [3, 1, 2, 0], [3, 3, 2, 0], [3, 3, 3, 0], [1, 2, 3, 0])
    assert same(found.credit, [1, 1, 2 / 3, 0])
    found = judged(Rule.BEATS_ALL, (2, 2), [3, 1, 2, 0], [3, 3, 2, 0], [3, 3, 3, 0], [1, 2, 3, 0])
    assert same(found.credit, [0, 1, 0, 0])


def test_scores_must_fit_the_items():
    with pytest.raises(DataError, match="1 items but scores for 2"):
        outcomes(Rule.PAIRS, [item("a")], scores([1, 0], [1, 0]))
    with pytest.raises(DataError, match="has 2 answers but 3 scores"):
        outcomes(Rule.PAIRS, [item("a")], scores([1, 0, 2]))
    with pytest.raises(DataError, match="needs 3 of each"):
        outcomes(Rule.STYLE_MATRIX, [item("a")], scores([1, 0]))
    with pytest.raises(DataError, match="ref:n or tied:n"):
        outcomes(Rule.REWARDBENCH_2, [item("Ties/7", subset="Ties")], scores([1, 0]))


def test_subset_names_are_told_apart_where_sections_share_them():
    items = [
        item("1", subset="easy", section="chat"),
        item("2", subset="easy", section="code"),
        item("3", subset="b", section="chat"),
    ]
    items += [item("4", subset="", section="chat"), item("5", subset="", section="")]
    assert subset_names(items) == ["chat/easy", "code/easy", "b", "chat", "all"]


# RM-Bench


def slow_matrix(rows):
    wins = [[0, 0, 0] for _ in range(3)]
    for row in rows:
        for i, j in product(range(3), range(3)):
            wins[i][j] += row[i] > row[3 + j]
    acc = [[w / len(rows) for w in line] for line in wins]
    hard = (acc[0][1] + acc[0][2] + acc[1][2]) / 3
    normal = (acc[0][0] + acc[1][1] + acc[2][2]) / 3
    easy = (acc[1][0] + acc[2][0] + acc[2][1]) / 3
    return {"easy": easy, "normal": normal, "hard": hard}


def test_rm_bench_equals_the_matrix_worked_out_slowly():
    rng = np.random.default_rng(0)
    domains = ["chat"] * 40 + ["code"] * 30 + ["math"] * 50 + ["safety-refuse"] * 20 + ["safety-response"] * 35
    items = [item(f"i{i}", 3, 3, subset=d) for i, d in enumerate(domains)]
    rows = [rng.integers(0, 6, size=6).astype(np.float64) for _ in items]  # many ties
    one = benchmark("rm-bench")
    found = figures(outcomes(one.rule, items, rows), one.aggregates, seed=0, resamples=50)
    values = {}
    for domain in ("chat", "code", "math", "safety"):
        mine = [row for d, row in zip(domains, rows, strict=True) if d.split("-")[0] == domain]
        values[domain] = slow_matrix(mine)
        assert found.aggregates["official"].sections[domain].value == pytest.approx(sum(values[domain].values()) / 3)
        assert found.aggregates["official"].sections[domain].n == len(mine)
        for part in ("easy", "normal", "hard"):
            assert found.subsets[f"{domain}/{part}"].value == pytest.approx(values[domain][part])
    for part in ("easy", "normal", "hard"):
        mean = sum(v[part] for v in values.values()) / 4
        assert found.aggregates[part].overall.value == pytest.approx(mean)
    assert found.aggregates["official"].overall.value == pytest.approx(sum(sum(v.values()) / 3 for v in values.values()) / 4)
    assert found.aggregates["official"].overall.n == len(items)
    assert not found.aggregates["official"].missing


def test_rm_bench_by_hand():
    # A method that likes rich style above all: it wins where the right answer is richer, loses where it is plainer.
    found = judged(Rule.STYLE_MATRIX, (3, 3), [1, 2, 3, 0.5, 1.5, 2.5], [NAN, 2, 3, 0, 1, 2], subset="chat")
    assert found.subset[:3] == ("chat/easy", "chat/normal", "chat/hard")
    assert same(found.credit, [1, 1, 0, NAN, NAN, NAN])
    tied = judged(Rule.STYLE_MATRIX, (3, 3), [1, 2, 3, 1, 2, 3], subset="safety-refuse")
    assert tied.subset[1] == "safety/normal"
    assert same(tied.credit, [1, 0, 0])
    assert same(tied.halves, [1, 0.5, 0])
    assert tied.tied.tolist() == [False, True, False]


# RewardBench 2


def slow_ties(ref, tied):
    """The published score; ref and tied map n to (right scores, wrong scores)."""

    def stats(right, wrong):
        return min(right) > max(wrong), max(right) - min(right), min(right) - max(wrong)

    refs, tieds = ({n: stats(*x) for n, x in kind.items()} for kind in (ref, tied))
    total = 0.3 * (sum(s[0] for s in tieds.values()) / len(tieds) if tieds else 0)
    total += 0.3 * (sum(s[0] for s in refs.values()) / len(refs) if refs else 0)
    both = set(refs) & set(tieds)
    for n in both:
        spread, gap = tieds[n][1], tieds[n][2]
        hard = min(gap, refs[n][2])
        margin = math.tanh(hard / spread - 1) if spread else float(np.sign(hard))
        total += (0.2 * (gap > spread) + 0.2 * (hard > spread) + 0.01 * margin) / len(both)
    return total


def ties(ref, tied):
    items, rows = [], []
    for kind, found in (("ref", ref), ("tied", tied)):
        for n, (right, wrong) in found.items():
            items.append(item(f"Ties/{kind}:{n}", len(right), len(wrong), subset="Ties"))
            rows.append([*right, *wrong])
    return items, scores(*rows)


def ties_value(ref, tied):
    found = outcomes(Rule.REWARDBENCH_2, *ties(ref, tied))
    return np.mean(found.credit)


@pytest.mark.parametrize("lost", [(), ("ref",), ("tied",), ("ref", "tied")])
def test_the_ties_score_is_the_mean_over_items_whoever_is_missing(lost):
    rng = np.random.default_rng(1)

    def numbers(size):
        return rng.integers(0, 9, size=size).tolist()

    ref = {n: ([rng.integers(4, 12)], numbers(3)) for n in range(30)}
    tied = {n: ((rng.integers(4, 12, size=rng.integers(2, 5))).tolist(), numbers(4)) for n in range(30)}
    if "ref" in lost:
        ref = {n: x for n, x in ref.items() if n % 3}
    if "tied" in lost:
        tied = {n: x for n, x in tied.items() if n % 4}
    assert 0.2 < slow_ties(ref, tied) < 1
    assert ties_value(ref, tied) == pytest.approx(slow_ties(ref, tied), abs=1e-12)


def test_the_ties_score_by_hand():
    # gap 2 > spread 1 on both sides: everything right, and tanh(2/1 - 1)
    ref, tied = {0: ([5], [3])}, {0: ([6, 5], [3, 1])}
    assert ties_value(ref, tied) == pytest.approx(1.0 + 0.01 * math.tanh(1))
    # right but the spread is larger than the gap
    assert ties_value({0: ([5], [3])}, {0: ([9, 5], [3])}) == pytest.approx(0.6 + 0.01 * math.tanh(2 / 4 - 1))
    # 0/0 counts nothing
    assert ties_value({0: ([1], [1])}, {0: ([1, 1], [1, 1])}) == 0
    # no spread at all: tanh(inf)
    assert ties_value({0: ([2], [1])}, {0: ([2, 2], [1])}) == pytest.approx(1.01)
    # only one kind of item
    assert ties_value({0: ([2], [1]), 1: ([1], [2])}, {}) == pytest.approx(0.15)
    # ties as halves: a right answer level with a wrong one
    found = outcomes(Rule.REWARDBENCH_2, *ties({0: ([1], [1])}, {0: ([1, 1], [1, 1])}))
    assert np.mean(found.halves) == pytest.approx(0.5)
    assert found.tied.all()


def test_partners_are_one_group_and_an_unscored_one_takes_the_margin_along():
    items, rows = ties({0: ([5], [3]), 1: ([5], [3])}, {0: ([6, 5], [3, 1]), 1: ([6, 5], [3, 1])})
    rows[1][0] = NAN
    found = outcomes(Rule.REWARDBENCH_2, items, rows)
    assert found.group[0] == found.group[2]
    assert found.group[0] != found.group[1]
    assert np.isnan(found.credit).tolist() == [False, True, False, False]
    expected = slow_ties({0: ([5], [3])}, {0: ([6, 5], [3, 1]), 1: ([6, 5], [3, 1])})
    assert np.nanmean(found.credit) == pytest.approx(expected)


def test_rewardbench_2_is_the_plain_mean_of_six():
    rng = np.random.default_rng(2)
    one = benchmark("rewardbench-2")
    items, rows = ties({n: ([3], [1]) for n in range(4)}, {n: ([3, 2], [1]) for n in range(4)})
    expected = [slow_ties({n: ([3], [1]) for n in range(4)}, {n: ([3, 2], [1]) for n in range(4)})]
    for subset in ("Factuality", "Precise IF", "Math", "Safety", "Focus"):
        own = [rng.integers(0, 3, size=4).astype(np.float64) for _ in range(20)]
        items += [item(f"{subset}/{i}", 1, 3, subset=subset) for i in range(20)]
        rows += own
        expected.append(np.mean([(s[0] == max(s)) / sum(s == max(s)) for s in own]))
    found = figures(outcomes(one.rule, items, rows), one.aggregates, seed=0, resamples=50)
    assert found.aggregates["official"].overall.value == pytest.approx(np.mean(expected))
    assert found.aggregates["official"].sections["Ties"].n == 8


# Figures


def rewardbench_like(seed=0, n=400):
    rng = np.random.default_rng(seed)
    subsets = rng.choice(["alpacaeval-easy", "mt-bench-med", "math-prm", "hep-cpp", "donotanswer"], size=n)
    items = [item(f"i{i}", subset=str(s), group=f"g{rng.integers(n // 2)}") for i, s in enumerate(subsets)]
    rows = [rng.integers(0, 5, size=2) + np.array([0.7, 0.0]) * rng.integers(2) for _ in items]
    rows[3][0] = NAN
    return items, rows


def test_values_are_the_plain_weighted_means():
    items, rows = rewardbench_like()
    one = benchmark("rewardbench")
    found = figures(outcomes(one.rule, items, rows), one.aggregates, seed=0, resamples=200)

    def mean(subset):
        return np.mean([s[0] > s[1] for i, s in zip(items, rows, strict=True) if i.subset == subset and not np.isnan(s).any()])

    official = found.aggregates["official"]
    for subset, figure in found.subsets.items():
        assert figure.value == pytest.approx(mean(subset))
        assert figure.low < figure.value < figure.high
    chat = (100 * mean("alpacaeval-easy") + 40 * mean("mt-bench-med")) / 140
    reasoning = (984 * mean("math-prm") + 164 * mean("hep-cpp")) / 1148
    assert official.sections["Chat"].value == pytest.approx(chat)
    assert official.sections["Reasoning"].value == pytest.approx(reasoning)
    assert official.overall.value == pytest.approx((chat + reasoning + mean("donotanswer")) / 3)
    assert official.missing_sections == ("Chat Hard",)
    assert len(official.missing) == 18
    assert "llmbar-natural" in official.missing
    assert official.overall.n == len(items) - 1
    assert (official.overall.unscored, official.unlisted) == (1, ())
    ties_held = sum(s[0] == s[1] for s in rows)
    assert official.overall.ties == ties_held > 10
    assert official.overall.halves > official.overall.value
    assert found.aggregates["swapped-xstest"].note


def test_one_section_has_the_interval_of_plain_accuracy():
    items, rows = rewardbench_like()
    subsets = {name: size for section in aggregate_of(items).sections for name, size in section.subsets.items()}
    whole = Aggregate(name="plain", sections=(Section(name="all", subsets=subsets, by_items=True),), weights=None)
    found = figures(outcomes(Rule.PAIRS, items, rows), [whole], seed=7)
    scored = [i for i, s in enumerate(rows) if not np.isnan(s).any()]
    right, tied = (np.array([np.sign(rows[i][0] - rows[i][1]) == sign for i in scored], dtype=float) for sign in (1, 0))
    plain = mean_by_group(right, [items[i].group for i in scored], seed=7, resamples=2000)
    overall = found.aggregates["plain"].overall
    assert overall.halves == pytest.approx((right + tied / 2).mean())
    assert (overall.value, overall.low, overall.high) == pytest.approx((plain.value, plain.low, plain.high))
    assert overall == found.aggregates["plain"].sections["all"]


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(5)
    aggregate = Aggregate(name="x", sections=(Section(name="s", subsets={"a": 3.0, "b": 1.0}),), weights={"s": 1.0})
    covered = 0
    for seed in range(100):
        items = [item(f"{i}", subset="ab"[i % 2]) for i in range(200)]
        rows = [np.array([float(rng.random() < (0.6, 0.9)[i % 2]), 0.5]) for i in range(200)]
        one = figures(outcomes(Rule.PAIRS, items, rows), [aggregate], seed=seed, resamples=300).aggregates["x"].overall
        covered += one.low <= 0.75 * 0.6 + 0.25 * 0.9 <= one.high
    assert 88 <= covered <= 100


def test_the_order_of_the_items_changes_nothing():
    items, rows = rewardbench_like()
    one = benchmark("rewardbench")
    order = np.random.default_rng(1).permutation(len(items))
    a = figures(outcomes(one.rule, items, rows), one.aggregates, seed=0, resamples=100)
    b = figures(outcomes(one.rule, [items[i] for i in order], [rows[i] for i in order]), one.aggregates, seed=0, resamples=100)
    for name, figure in a.aggregates["official"].sections.items():
        other = b.aggregates["official"].sections[name]
        assert (figure.n, figure.ties, figure.unscored) == (other.n, other.ties, other.unscored)
        assert np.allclose([figure.value, figure.low, figure.high], [other.value, other.low, other.high])


def test_a_perfect_score_has_the_binomial_bound():
    items = [item(f"i{i}", subset=("math-prm", "hep-cpp")[i % 2]) for i in range(30)]
    one = benchmark("rewardbench")
    found = figures(outcomes(one.rule, items, scores(*[[1, 0]] * 30)), one.aggregates, seed=0, resamples=50)
    assert found.subsets["math-prm"].low == pytest.approx(0.025 ** (1 / 15))
    official = found.aggregates["official"]
    for figure in (official.sections["Reasoning"], official.overall):
        assert (figure.value, figure.high) == (1.0, 1.0)
        assert figure.low == pytest.approx(0.025 ** (1 / 30))
    wrong = figures(outcomes(one.rule, items, scores(*[[0, 1]] * 30)), one.aggregates, seed=0, resamples=50)
    assert (wrong.aggregates["official"].overall.value, wrong.aggregates["official"].overall.low) == (0.0, 0.0)
    single = figures(outcomes(one.rule, items[:1], scores([1, 0])), one.aggregates, seed=0, resamples=50)
    assert (single.subsets["math-prm"].low, single.subsets["math-prm"].high) == (pytest.approx(0.025), 1.0)


def test_nothing_scored_is_null_and_unlisted_subsets_are_named():
    items = [item("a", subset="math-prm"), item("b", subset="hep-cpp"), item("c", subset="mine")]
    one = benchmark("rewardbench")
    found = figures(outcomes(one.rule, items, scores([NAN, 0], [1, 0], [1, 0])), one.aggregates, seed=0, resamples=50)
    official = found.aggregates["official"]
    assert official.unlisted == ("mine",)
    assert "math-prm" in official.missing
    assert (found.subsets["math-prm"].n, found.subsets["math-prm"].unscored) == (0, 1)
    assert (official.sections["Reasoning"].n, official.sections["Reasoning"].unscored) == (1, 1)
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written["subsets"]["math-prm"]["value"] is None
    assert written["aggregates"]["official"]["sections"]["Reasoning"]["value"] == 1
    empty = figures(outcomes(one.rule, items, scores(*[[NAN, 0]] * 3)), one.aggregates, seed=0, resamples=50)
    assert math.isnan(empty.aggregates["official"].overall.value)
    assert empty.aggregates["official"].overall.unscored == 2
    nothing = figures(outcomes(one.rule, [], []), one.aggregates, seed=0, resamples=50)
    assert (nothing.subsets, nothing.aggregates["official"].overall.n) == ({}, 0)
    with pytest.raises(DataError, match="share a name"):
        figures(outcomes(one.rule, [], []), [one.aggregates[0]] * 2, seed=0)


def test_an_aggregate_of_ones_own_items():
    names = [("easy", "chat"), ("easy", "code"), ("hep-cpp", ""), ("hep-js", ""), ("", "chat"), ("", "")]
    items = [item(f"i{i}", subset=subset, section=section) for i, (subset, section) in enumerate(names)]
    plain = aggregate_of(items)
    assert {s.name: dict(s.subsets) for s in plain.sections} == {
        "chat": {"chat/easy": 1.0, "chat": 1.0},
        "code": {"code/easy": 1.0},
        "hep-cpp": {"hep-cpp": 1.0},
        "hep-js": {"hep-js": 1.0},
        "all": {"all": 1.0},
    }
    found = figures(outcomes(Rule.PAIRS, items, scores([1, 0], [0, 1], [1, 0], [0, 1], [1, 0], [1, 0])), [plain], seed=0)
    values = {name: figure.value for name, figure in found.aggregates["items"].sections.items()}
    assert values == {"chat": 1.0, "code": 0.0, "hep-cpp": 1.0, "hep-js": 0.0, "all": 1.0}
    assert found.aggregates["items"].overall.value == pytest.approx(4 / 6)
    assert not found.aggregates["items"].unlisted


def test_a_mean_over_items_heeds_those_that_are_scored():
    items = [item(f"i{i}", subset="ab"[i > 2], section="s") for i in range(6)]
    found = figures(
        outcomes(Rule.PAIRS, items, scores([1, 0], [NAN, 0], [NAN, 0], [0, 1], [0, 1], [0, 1])), [aggregate_of(items)], seed=0
    )
    assert found.aggregates["items"].sections["s"].value == pytest.approx(1 / 4)


# Paired


def test_paired_is_the_difference_of_the_overall_values():
    items, rows = rewardbench_like()
    _, others = rewardbench_like(seed=3)
    one = benchmark("rewardbench")
    a, b = (outcomes(one.rule, items, s) for s in (rows, others[: len(items)]))
    both = a.scored & b.scored
    values = [
        figures(replace(x, credit=np.where(both, x.credit, NAN)), one.aggregates, seed=0, resamples=20)
        .aggregates["official"]
        .overall
        for x in (a, b)
    ]
    found = paired(a, b, one.aggregates[0], seed=0, resamples=300, permutations=500)
    assert found.difference.value == pytest.approx(values[0].value - values[1].value)
    assert found.difference.low < found.difference.value < found.difference.high
    back = paired(b, a, one.aggregates[0], seed=0, resamples=300, permutations=500)
    assert back.difference.value == pytest.approx(-found.difference.value)
    assert back.p == pytest.approx(found.p)
    itself = paired(a, a, one.aggregates[0], seed=0, resamples=50, permutations=50)
    assert (itself.difference.value, itself.p) == (0.0, 1.0)


def test_paired_over_items_equals_the_mean_gap_of_the_pairs_and_a_plain_sign_flip():
    items, rows = rewardbench_like()
    _, others = rewardbench_like(seed=3)
    a, b = (outcomes(Rule.PAIRS, items, s) for s in (rows, others))
    found = paired(a, b, aggregate_of(items), seed=4)
    both = np.flatnonzero(a.scored & b.scored)
    gaps, groups = (a.credit - b.credit)[both], [items[i].group for i in both]
    plain = mean_by_group(gaps, groups, seed=4, resamples=2000)
    assert found.difference.value == pytest.approx(plain.value)
    assert (found.difference.low, found.difference.high) == pytest.approx((plain.low, plain.high))
    sums = np.array([sum(gap for gap, g in zip(gaps, groups, strict=True) if g == name) for name in sorted(set(groups))])
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(10_000, len(sums)))
    assert found.p == pytest.approx(np.mean(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9), abs=0.02)


def test_paired_sees_a_difference_and_its_absence():
    rng = np.random.default_rng(0)
    one = benchmark("rewardbench")
    items = [item(f"i{i}", subset=("math-prm", "donotanswer")[i % 2]) for i in range(300)]

    def method(skill):
        return outcomes(one.rule, items, [np.array([float(rng.random() < skill), 0.5]) for _ in items])

    assert paired(method(0.9), method(0.6), one.aggregates[0], seed=0, permutations=2000).p < 0.01
    assert (
        np.mean(
            [
                paired(method(0.7), method(0.7), one.aggregates[0], seed=s, resamples=20, permutations=200).p > 0.05
                for s in range(40)
            ]
        )
        > 0.8
    )


def test_paired_weighs_a_small_section_as_the_overall_value_does():
    # Eight items that all speak for a make one section; 200 that speak for neither make the other.
    items = [item(f"i{i}", subset="donotanswer" if i < 8 else "hep-cpp") for i in range(208)]
    a, b = (
        [np.array([1.0 if i < 8 else float(i % 2 == side), 0.5]) * (1 if side or i >= 8 else -1) for i in range(208)]
        for side in (1, 0)
    )
    one = benchmark("rewardbench")
    found = paired(outcomes(one.rule, items, a), outcomes(one.rule, items, b), one.aggregates[0], seed=0, resamples=50)
    assert found.difference.value == pytest.approx(0.5)
    assert found.p < 0.03  # about 2 / 2^8


def test_paired_refuses_other_items_and_knows_nothing_of_unscored_ones():
    a = judged(Rule.PAIRS, (1, 1), [1, 0], [1, 0])
    aggregate = aggregate_of([item("i0"), item("i1")])
    with pytest.raises(DataError, match="different items"):
        paired(a, judged(Rule.PAIRS, (1, 1), [1, 0], [1, 0], subset="b"), aggregate, seed=0)
    with pytest.raises(DataError, match="in the same order"):
        paired(a, judged(Rule.PAIRS, (1, 1), [1, 0]), aggregate, seed=0)
    none = paired(a, judged(Rule.PAIRS, (1, 1), [NAN, 0], [NAN, 0]), aggregate, seed=0)
    assert math.isnan(none.difference.value)
    assert math.isnan(none.p)


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="ARMORM_DATA is not set")
def test_the_rebuilt_part_of_rewardbench_lists_what_is_missing():
    one = benchmark("rewardbench")
    items = benchmark_items(one, path=str(Path(DATA) / "bench" / "rewardbench-partial.jsonl.gz")).read().rows
    rows = [np.array([float(len(c)) for c in i.answers]) for i in items]
    found = figures(outcomes(one.rule, items, rows), one.aggregates, seed=0, resamples=200)
    official = found.aggregates["official"]
    assert {s: f.n for s, f in found.subsets.items()} == {
        "math-prm": 447,
        "hep-python": 164,
        "hep-js": 164,
        "hep-java": 164,
        "llmbar-natural": 100,
    }
    assert len(official.missing) == 18
    assert official.missing_sections == ("Chat", "Safety")
    weights = {"math-prm": 984, "hep-python": 164, "hep-js": 164, "hep-java": 164}
    by_hand = sum(w * found.subsets[s].value for s, w in weights.items()) / sum(weights.values())
    assert official.sections["Reasoning"].value == pytest.approx(by_hand)
