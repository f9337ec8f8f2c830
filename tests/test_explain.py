"""Explanations: everything adds up, shares keep their meaning when terms oppose each other, percentiles are ranks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import percentileofscore

from armorm.errors import CheckpointError, MissingExtra, ObjectiveMismatch, StorageError
from armorm.model.reward_model import RewardModel
from armorm.numbers import shorten
from armorm.scoring.explain import bar, difference, explain
from armorm.scoring.profile import Profile
from armorm.scoring.reference import Reference, draw_prompts
from armorm.scoring.score import Score

NAMES = ("helpful", "safe", "verbosity")


def score_of(coefficients: dict[str, float], terms: dict[str, float], **others: object) -> Score:
    contributions = {name: coefficients[name] * terms[name] for name in terms}
    rewards = {name: terms[name] for name in terms if name in NAMES}
    gate = others.pop("gate", dict.fromkeys(rewards, 1 / max(1, len(rewards))))
    return Score(sum(contributions.values()), rewards, rewards, gate, terms, coefficients, contributions, **others)  # type: ignore[arg-type]


SAME = {"helpful": 0.5, "safe": 0.5, "verbosity": -0.2, "length": -0.001}
A = score_of(SAME, {"helpful": 0.6, "safe": 0.9, "verbosity": 0.5, "length": 20.0})
B = score_of(SAME, {"helpful": 0.5, "safe": 0.4, "verbosity": 0.3, "length": 30.0})

numbers = st.floats(-3, 3)
vectors = st.lists(numbers, min_size=3, max_size=3)


@given(vectors, vectors)
@settings(deadline=None)
def test_terms_sum_to_the_score_and_the_sizes_of_their_shares_to_one(coefficients: list[float], terms: list[float]):
    score = score_of(dict(zip(NAMES, coefficients, strict=True)), dict(zip(NAMES, terms, strict=True)))
    found = explain(score)
    assert sum(t.contribution for t in found.terms) == pytest.approx(score.score, abs=1e-12)
    size = sum(abs(t.contribution) for t in found.terms)
    if size > 1e-300:
        assert sum(abs(t.share) for t in found.terms) == pytest.approx(1)
    assert [abs(t.contribution) for t in found.terms] == sorted((abs(t.contribution) for t in found.terms), reverse=True)
    assert found.sentence.endswith(".")
    json.dumps(found.to_json(), allow_nan=False)


@given(vectors, vectors, vectors, vectors)
@settings(deadline=None)
def test_a_difference_sums_to_the_scores_difference_and_splits_exactly(
    a: list[float], b: list[float], ta: list[float], tb: list[float]
):
    one, other = (score_of(dict(zip(NAMES, c, strict=True)), dict(zip(NAMES, t, strict=True))) for c, t in ((a, ta), (b, tb)))
    found = difference(one, other)
    assert sum(t.delta for t in found.terms) == pytest.approx(one.score - other.score, abs=1e-9)
    for term in found.terms:
        assert term.by_answers + term.by_weights == pytest.approx(term.delta, abs=1e-9)
    if found.to_speak_of:
        assert sum(t.share or 0 for t in found.terms) == pytest.approx(1, abs=1e-6)
    else:
        assert all(t.share is None for t in found.terms)
        assert "no difference to speak of" in found.sentence
    back = difference(other, one)
    assert back.delta == pytest.approx(-found.delta, abs=1e-12)
    assert found.sentence.endswith(".")
    json.dumps(found.to_json(), allow_nan=False)


def test_what_the_model_says_adds_up(tiny_model: RewardModel):
    ask = {"role": "user", "content": "how are you?"}
    a, b = tiny_model.score([[ask, {"role": "assistant", "content": text}] for text in ("fine, thank you.", "hello hello hello")])
    found = difference(a, b)
    assert found.same_weights
    assert sum(t.delta for t in found.terms) == pytest.approx(a.score - b.score, abs=1e-9)
    for term in found.terms:  # the prompt is shared: coefficient · Δ value
        assert term.delta == pytest.approx(term.coefficient_a * (term.reward_a - term.reward_b), abs=1e-6)
    assert {t.kind for t in explain(a).terms} == {"objective", "nuisance"}
    other = tiny_model.score([{"role": "user", "content": "2 + 2 is"}, {"role": "assistant", "content": "4"}])
    assert not difference(a, other).same_weights
    assert "weighed differently" in difference(a, other).sentence


def test_the_sentence_of_a_difference_names_what_speaks_for_and_against():
    found = difference(A, B, names=("the first", "the second"))
    assert [t.term for t in found.terms] == ["safe", "helpful", "verbosity", "length"]
    assert found.sentence == (
        "The first scores 0.270 higher than the second; 93 % of the difference is safe and 19 % helpful; "
        "verbosity (−15 %) speaks against it."
    )
    back = difference(B, A)
    assert back.sentence.startswith("A scores 0.270 lower than B; 93 % of the difference is safe")


def test_differences_that_nearly_cancel_are_told_in_points_not_shares():
    one = score_of(SAME, {"helpful": 1.0, "safe": 0.51, "verbosity": 0.5, "length": 1.0})
    other = score_of(SAME, {"helpful": 0.5, "safe": 1.0, "verbosity": 0.5, "length": 1.0})
    assert difference(one, other).sentence == (
        "A scores 0.005 higher than B: larger differences nearly cancel, helpful (+0.250) on one side, "
        "safe (−0.245) on the other."
    )


def test_no_difference_to_speak_of():
    found = difference(A, A)
    assert not found.to_speak_of
    assert found.sentence == "A and B score alike (0.630 and 0.630): no difference to speak of."
    assert found.same_weights


def test_scores_of_other_models_are_not_compared():
    other = score_of({"helpful": 1.0}, {"helpful": 0.5})
    with pytest.raises(ObjectiveMismatch, match="only one of the two scores has length, safe, verbosity"):
        difference(A, other)


def test_the_sentence_of_a_score():
    assert explain(A).sentence == (
        "The score is 0.630. Its largest parts are safe (52 %) and helpful (34 %); verbosity (−11 %) pulls it down."
    )
    nothing = score_of(dict.fromkeys(NAMES, 0.0), dict.fromkeys(NAMES, 1.0))
    assert explain(nothing).sentence == "The score is 0.000."


def test_a_constraint_is_told_from_a_nuisance():
    label = "safe at least 0.5"
    score = score_of({**SAME, label: -10.0}, {**A.terms, label: 0.1}, profile="careful", constraints=(label,))
    kinds = {t.term: t.kind for t in explain(score).terms}
    assert (kinds[label], kinds["length"], kinds["safe"]) == ("constraint", "nuisance", "objective")
    assert "under the profile careful" in explain(score).sentence


# -- the reference -------------------------------------------------------------------------------------------------------


def reference(n: int = 400, m: int = 30) -> Reference:
    rng = np.random.default_rng(0)
    prompts = [f"prompt  {i}\n" + "x" * (400 if i == 0 else 3) for i in range(m)]
    gates = rng.dirichlet(np.ones(3), m)
    rewards = rng.normal(size=(n, 3))
    return Reference.of(NAMES, rewards, rewards.sum(axis=1), prompts=prompts, sources=["chat"] * m, gates=gates)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60), st.floats(-4, 4, width=32))
@settings(deadline=None)
def test_a_percentile_is_the_rank_among_the_reference(values: list[int], at: float):
    column = np.array(values, dtype=np.float64)
    found = Reference.of(("one",), column[:, None], column).percentile("one", at)
    assert found is not None
    below, upto = (percentileofscore(column, at, kind=kind) for kind in ("strict", "weak"))
    step = 100 / max(1, len(column) - 1)  # quantiles are interpolated between neighbours
    assert below - step - 1 <= found <= upto + step + 1


def test_percentiles_of_many_answers():
    rewards = np.random.default_rng(1).normal(size=(5000, 1))
    found = Reference.of(("one",), rewards, rewards[:, 0])
    for at in (-2.0, -0.3, 0.0, 1.1):
        assert found.percentile("one", at) == pytest.approx(percentileofscore(rewards[:, 0], at), abs=0.6)
        assert found.percentile("score", at) == found.percentile("one", at)
    assert (found.percentile("one", -99.0), found.percentile("one", 99.0)) == (0, 100)
    binary = np.repeat([0.0, 1.0], 50)[:, None]
    assert Reference.of(("one",), binary, binary[:, 0]).percentile("one", 0.0) == pytest.approx(25, abs=1)
    assert Reference.of(("one",), np.zeros((0, 1)), np.zeros(0)).percentile("one", 0.5) is None
    with pytest.raises(ObjectiveMismatch, match="no objective 'two'"):
        found.percentile("two", 0.0)


def test_prompts_with_the_same_gate_come_first():
    known = reference()
    asked = dict(zip(NAMES, known.gates[7].tolist(), strict=True))
    found = known.alike(asked, n=4)
    assert found[0].prompt == "prompt 7 xxx"
    assert found[0].distance == pytest.approx(0, abs=1e-3)
    assert [a.distance for a in found] == sorted(a.distance for a in found)
    p, q = known.gates.astype(np.float64), known.gates[7].astype(np.float64)
    everyone = np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum(axis=1) / 2)
    assert found[3].distance == pytest.approx(np.sort(everyone)[3], abs=1e-4)
    assert known.alike({name: 5 * weight for name, weight in asked.items()})[0].prompt == found[0].prompt
    with pytest.raises(ObjectiveMismatch, match="the gate weighs helpful; the reference has"):
        known.alike({"helpful": 1.0})


def test_a_reference_cuts_its_prompts():
    known = reference()
    assert len(known.prompts) == len(known.gates) == 30
    assert len(known.prompts[0]) == 300
    assert known.prompts[0].endswith("…")
    assert shorten("a\n b", 300) == "a b"


def test_prompts_are_drawn_once_each_in_order_and_at_random():
    texts = [f"prompt {i % 40}" for i in range(100)]
    assert draw_prompts(texts) == list(range(40))  # the first place of each text
    assert draw_prompts(["a", "b", "a"]) == [0, 1]
    few = draw_prompts(iter(texts), most=10)
    assert (len(few), few) == (10, sorted(set(few)))
    assert few == draw_prompts(texts, most=10)
    assert few != draw_prompts(texts, most=10, seed=1)
    # Reference: a permutation of the distinct places, its beginning in order
    assert few == sorted(np.random.default_rng(0).permutation(40)[:10].tolist())


def test_a_reference_is_saved_and_loaded(tmp_path: Path):
    assert Reference.load(tmp_path) is None
    known = reference()
    known.save(tmp_path)
    found = Reference.load(tmp_path, NAMES)
    assert found is not None
    assert (found.objectives, found.answers, found.prompts, found.sources) == (NAMES, 400, known.prompts, known.sources)
    np.testing.assert_array_equal(found.quantiles, known.quantiles)
    np.testing.assert_array_equal(found.gates, known.gates)
    with pytest.raises(ObjectiveMismatch, match="the model of other"):
        Reference.load(tmp_path, ("other",))
    whole = (tmp_path / "reference.safetensors").read_bytes()
    (tmp_path / "reference.safetensors").write_bytes(bytes([*whole[:-1], whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="damaged"):
        Reference.load(tmp_path)
    (tmp_path / "reference.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="damaged"):
        Reference.load(tmp_path)
    (tmp_path / "reference.json").write_text('{"format": 99}')
    with pytest.raises(CheckpointError, match="format 99"):
        Reference.load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="can't be written"):
        known.save(tmp_path / "file" / "deeper")


def test_arrays_that_do_not_fit_the_names():
    with pytest.raises(ObjectiveMismatch, match="2 rewards"):
        Reference.of(NAMES, np.zeros((1, 2)), np.zeros(1))
    with pytest.raises(ObjectiveMismatch, match="1 prompts"):
        Reference.of(NAMES, np.zeros((1, 3)), np.zeros(1), prompts=["a"], gates=np.zeros((2, 3)))


def test_an_explanation_against_a_reference():
    found = explain(A, reference(), alike=2)
    assert all((t.percentile is not None) == (t.kind == "objective") for t in found.terms)
    assert "% of the 400 reference answers" in found.sentence
    assert len(found.alike) == 2
    under = explain(score_of(SAME, dict(A.terms), profile=Profile().name), reference())
    assert under.percentile is None
    assert under.alike


# -- ways to look at it --------------------------------------------------------------------------------------------------


def shown(thing: object) -> str:
    console = Console(width=160, record=True, file=sys.stderr)
    with console.capture() as captured:
        console.print(thing)
    return captured.get()


def test_the_tables_show_every_term_and_the_sentence():
    text = shown(explain(A, reference()))
    for word in ("helpful", "percentile", "contribution", "+0.4500", "52 %", "█", "The score is"):
        assert word in text
    assert "percentile" not in shown(explain(A))
    text = shown(difference(A, B, names=("[bold]one", "two")))
    for word in ("[bold]one − two: +0.2700", "93 %", "speaks against it"):
        assert word in text
    assert "[red]x" in shown(explain(score_of({"[red]x": 1.0}, {"[red]x": 1.0}, gate={})))


@given(st.floats(-1, 1))
def test_bars_are_as_wide_as_their_column(value: float):
    assert len(bar(value, 1.0).plain) == 21
    assert len(bar(value, 0.0).plain) == 21


def test_a_data_frame_and_a_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    frame = explain(A).to_frame()
    assert list(frame.term) == ["safe", "helpful", "verbosity", "length"]
    assert frame.contribution.sum() == pytest.approx(A.score)
    assert difference(A, B).to_frame().delta.sum() == pytest.approx(A.score - B.score)
    for name, thing in (("one", explain(A)), ("two", difference(A, B))):
        thing.plot().savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 3000
    for package in ("pandas", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match="pandas"):
        explain(A).to_frame()
    with pytest.raises(MissingExtra, match="matplotlib"):
        explain(A).plot()
