"""All sections alike: the mean over sections, the worst place, the paired difference, with intervals that draw prompts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from armorm.bench.aggregate import SectionSums, aggregate_of, figures
from armorm.bench.every_section import Outcome, all_sections
from armorm.bench.outcomes import outcomes
from armorm.data.benchmarks.benchmark import Aggregate, Rule, Section
from armorm.features.answers import StoredItem

LABELS = {"armorm": "Ours", "other": "Another", "bradley-terry": "Bradley–Terry"}


def suite(name, sections, right, *, groups=None):
    """A suite of pairs; `right`: method → which of its pairs are ranked right."""
    items = [StoredItem(f"{name}{i}", groups[i] if groups else f"{name}-p{i}", s, "", (1, 1)) for i, s in enumerate(sections)]
    by_method = {
        method: outcomes(Rule.PREFERENCES, items, [np.array([1.0, 0.0]) if hit else np.array([0.0, 1.0]) for hit in hits])
        for method, hits in right.items()
    }
    return Outcome(name, by_method, aggregate_of(items))


def drawn(n, share, seed):
    return (np.random.default_rng(seed).uniform(size=n) < share).tolist()


@pytest.fixture(scope="module")
def two():
    sections = ["chat"] * 90 + ["code"] * 10
    large = suite("large", sections, {m: drawn(100, s, i) for i, (m, s) in enumerate(zip(LABELS, (0.8, 0.6, 0.7), strict=True))})
    small = suite(
        "small", ["maths"] * 20, {m: drawn(20, s, 9 + i) for i, (m, s) in enumerate(zip(LABELS, (0.5, 0.9, 0.6), strict=True))}
    )
    return [large, small]


def test_every_section_counts_alike(two):
    found = all_sections(two, LABELS, rival="bradley-terry", seed=0)
    assert found.sections == ("large: chat", "large: code", "small: maths")
    table = {}
    for one in found.methods:
        credit = [
            two[0].by_method[one.method].credit[:90],
            two[0].by_method[one.method].credit[90:],
            two[1].by_method[one.method].credit,
        ]
        table[one.method] = [part.mean() for part in credit]
        assert one.mean.value == pytest.approx(np.mean(table[one.method]))
        assert one.mean.low < one.mean.value < one.mean.high
    best = np.max(list(table.values()), axis=0)
    for one in found.methods:
        gaps = best - table[one.method]
        assert one.behind == pytest.approx(gaps.max())
        assert one.worst == found.sections[int(np.argmax(gaps))]
        if one.method == "bradley-terry":
            assert one.versus_bradley_terry is None
        else:
            assert one.versus_bradley_terry.value == pytest.approx(np.mean(table[one.method]) - np.mean(table["bradley-terry"]))
            assert one.versus_bradley_terry.low < one.versus_bradley_terry.value < one.versus_bradley_terry.high
    assert [one.label for one in found.methods] == list(LABELS.values())


def test_the_interval_is_that_of_means_of_independent_sections(two):
    """Reference: sections of different prompts are independent, so their variances add up."""
    found = all_sections(two, LABELS, rival="bradley-terry", seed=0)
    ours, theirs = (
        [two[0].by_method[m].credit[:90], two[0].by_method[m].credit[90:], two[1].by_method[m].credit]
        for m in ("armorm", "bradley-terry")
    )
    variance = sum(np.var(a - b) / len(a) for a, b in zip(ours, theirs, strict=True)) / 9
    versus = found.methods[0].versus_bradley_terry
    assert (versus.high - versus.low) / 2 == pytest.approx(1.96 * np.sqrt(variance), rel=0.12)


def test_a_prompt_that_stands_twice_moves_both_sections():
    """Law: the same pairs under two names are no more evidence than once."""
    right = {m: drawn(60, s, i) for i, (m, s) in enumerate(zip(LABELS, (0.7, 0.6, 0.5), strict=True))}
    prompts = [f"p{i}" for i in range(60)]
    once, again = (suite(name, ["all"] * 60, right, groups=prompts) for name in ("once", "again"))
    alone = all_sections([once], LABELS, rival="bradley-terry", seed=0)
    both = all_sections([once, again], LABELS, rival="bradley-terry", seed=0)
    for one, two in zip(alone.methods, both.methods, strict=True):
        assert two.mean == one.mean
        assert two.versus_bradley_terry == one.versus_bradley_terry


def test_methods_that_are_alike_differ_by_nothing():
    hits = drawn(30, 0.6, 0)
    found = all_sections([suite("s", ["a"] * 30, dict.fromkeys(LABELS, hits))], LABELS, rival="bradley-terry", seed=0)
    versus = found.methods[0].versus_bradley_terry
    assert (versus.value, versus.low, versus.high) == (0, 0, 0)
    assert all(one.behind == 0 for one in found.methods)


def test_a_section_that_a_method_has_no_value_on_is_left_out(two):
    silent = two[1].by_method["other"]
    part = replace(two[1], by_method=two[1].by_method | {"other": replace(silent, credit=np.full(20, np.nan))})
    found = all_sections([two[0], part], LABELS, rival="bradley-terry", seed=0)
    assert found.sections == ("large: chat", "large: code")
    assert all_sections([part], LABELS, rival="bradley-terry", seed=0) is None
    assert all_sections([], LABELS, rival="bradley-terry", seed=0) is None


def test_one_prompt_has_no_interval():
    one = suite("s", ["a"] * 3, {method: [True, False, True] for method in LABELS}, groups=["p"] * 3)
    found = all_sections([one], LABELS, rival="bradley-terry", seed=0)
    assert found.methods[0].mean.value == pytest.approx(2 / 3)
    assert np.isnan(found.methods[0].mean.low)
    assert found.to_json()["methods"][0]["mean"]["low"] is None


def test_without_the_rival_there_is_no_difference(two):
    labels = {"armorm": "Ours", "other": "Another"}
    found = all_sections(two, labels, rival="bradley-terry", seed=0)
    assert [one.versus_bradley_terry for one in found.methods] == [None, None]


def test_a_benchmarks_sections_keep_their_weights():
    """Reference: with every group once, sections are those of the figures."""
    items = [StoredItem(str(i), f"g{i % 7}", "", ("x", "y", "z")[i % 3], (1, 1)) for i in range(30)]
    scores = [np.array([1.0, 0.0]) if hit else np.array([0.0, 1.0]) for hit in drawn(30, 0.6, 3)]
    weighed = Aggregate(
        name="official",
        sections=(Section(name="first", subsets={"x": 3.0, "y": 1.0}), Section(name="second", subsets={"z": 1.0})),
        weights={"first": 1.0, "second": 2.0},
    )
    found = outcomes(Rule.PREFERENCES, items, scores)
    sums = SectionSums.of(found, weighed)
    assert sums.groups == tuple(f"g{i}" for i in range(7))
    values = dict(zip(sums.sections, sums.values(np.ones((1, 7)))[0], strict=True))
    expected = figures(found, [weighed], seed=0, resamples=10).official.sections
    assert values == pytest.approx({name: figure.value for name, figure in expected.items()})
