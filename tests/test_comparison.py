"""Comparisons: a probability where the calibration is of such differences, a reason elsewhere; the stage that fits it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from small_run import open_stores

from armorm import Comparison
from armorm.data.splits import Split
from armorm.errors import CheckpointError, ConversationError, FitError
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.method import Fitted
from armorm.fit.parts import PREFERENCE_FILES, load_debias, load_preference
from armorm.fit.preference import Preference, PreferenceFit
from armorm.jobs.exchange import export_model
from armorm.model.reward_model import RewardModel
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.run import preference_stage
from armorm.run.context import RunContext
from armorm.run.gate_stage import Gates, cross_fit
from armorm.run.pairs import PairArrays, pair_arrays
from armorm.run.preference_stage import confidence_facts, cross_fitted_margins, fit_preference_stage, margins_of
from armorm.run.probe_stage import FittedProbe
from armorm.run.rows import read_rows
from armorm.run.train import Run, train
from armorm.scoring.comparison import comparison
from armorm.scoring.explain import difference
from armorm.scoring.profile import Profile

QUIET = Reporter(quiet=True)
CURVE = Preference("logistic", 200, 100, slope=0.2)


def talk(answer: str, prompt: str = "hello how are you") -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


GOOD, BAD = talk("fine thank you"), talk("return x")


@pytest.fixture
def model(tiny_model: RewardModel) -> Iterator[RewardModel]:
    """The tiny random model with a calibration, which it loses behind the test."""
    tiny_model.preference = CURVE
    yield tiny_model
    tiny_model.preference = None


# -- two answers ---------------------------------------------------------------------------------------------------------------


def test_a_comparison_is_the_difference_with_its_probability(model: RewardModel):
    found = model.compare(GOOD, BAD)
    gap = model.difference(GOOD, BAD)
    assert isinstance(found, Comparison)
    assert found.difference == gap
    assert (found.margin, found.a, found.b) == (gap.delta, gap.a, gap.b)
    assert found.margin == pytest.approx(found.a.score - found.b.score, abs=1e-9)
    assert found.probability == CURVE.of(np.array([found.margin]))[0] == found.calibrated()
    assert found.note == ""
    facts = found.to_json()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert (facts["margin"], facts["probability"]) == (found.margin, found.probability)
    assert (facts["a"], facts["difference"]) == (found.a.to_json(), gap.to_json())
    with pytest.raises(AttributeError):
        found.probability = 0.5  # type: ignore[misc]


def test_both_orders_sum_to_one_and_an_answer_ties_with_itself(model: RewardModel):
    one, other = model.compare(GOOD, BAD, exact=True), model.compare(BAD, GOOD, exact=True)
    assert one.calibrated() + other.calibrated() == 1
    assert one.calibrated() != 0.5
    same = model.compare(GOOD, GOOD)
    assert (same.margin, same.probability) == (0, 0.5)
    assert "50 %: a toss of a coin" in same.verdict


def test_the_sentence_names_the_likelier_answer(model: RewardModel):
    for pair, (a, b) in (
        (model.compare(GOOD, BAD, names=("ours", "theirs")), ("ours", "theirs")),
        (model.compare(BAD, GOOD), "AB"),
    ):
        p = pair.calibrated()
        better, likely = (a, p) if p > 0.5 else (b, 1 - p)
        assert pair.verdict == f"The probability that {better} is the better one is {100 * likely:.0f} %."
        assert pair.sentence == f"{pair.difference.sentence} {pair.verdict}"
        console = Console(width=200, record=True)
        console.print(pair)
        assert pair.verdict in console.export_text()
    sure = comparison(difference(model.score(GOOD), model.score(BAD)), replace(CURVE, slope=1e9))
    assert "is 99.0 %." in sure.verdict
    assert "is 99.9 %." in replace(sure, probability=0.9987).verdict  # and not 100 %


def test_lists_are_compared_one_by_one(model: RewardModel):
    pairs = [(GOOD, BAD), (BAD, GOOD), (talk("4", "2 + 2 is"), talk("5", "2 + 2 is"))]
    found = model.compare([a for a, _ in pairs], [b for _, b in pairs], exact=True)
    assert [one.probability for one in found] == [model.compare(a, b, exact=True).probability for a, b in pairs]
    assert model.compare([], []) == []
    one_by_one = model.compare(([GOOD]), ([BAD]), exact=True)
    assert [one.margin for one in one_by_one] == [found[0].margin]
    lazy = model.compare(((turn for turn in a) for a, _ in pairs), (tuple(b) for _, b in pairs), exact=True)
    assert [one.probability for one in lazy] == [one.probability for one in found]
    mapped = model.compare({"messages": iter(GOOD)}, {"messages": BAD}, exact=True)
    assert mapped.probability == found[0].probability


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (GOOD, [GOOD], "one conversation and a list of 1"),
        ([GOOD], [GOOD, BAD], "a list of 1 and a list of 2"),
        ([], GOOD, "a list of 0 and one conversation"),
        (GOOD, 3, "got an int"),
        (GOOD, None, "got nothing"),
        (GOOD, talk(" "), "conversation 2 of 2: "),
    ],
)
def test_what_cannot_be_compared(model: RewardModel, a: Any, b: Any, said: str):
    with pytest.raises(ConversationError, match=said):
        model.compare(a, b)


# -- where there is none -------------------------------------------------------------------------------------------------------


def refused(found: Comparison, why: str) -> None:
    """There is no number, a note says why, and who asks for the number is told."""
    assert found.probability is None
    assert why in found.note
    assert found.verdict == f"No probability of being right: {found.note}."
    assert found.to_json()["note"] == found.note
    assert found.to_json()["probability"] is None
    with pytest.raises(FitError, match=f"no probability that A is better: .*{why}"):
        found.calibrated()
    assert math.isfinite(found.margin)


def test_a_model_without_a_calibration_says_so(model: RewardModel):
    model.preference = None
    refused(model.compare(GOOD, BAD), "keeps no calibration")


def test_under_a_profile_the_calibration_says_nothing(model: RewardModel):
    dropped = Profile(name="careful", drop=("safe",))
    refused(model.compare(GOOD, BAD, profile=dropped), "not of those under the profile careful")
    refused(model.compare(GOOD, BAD, profile=Profile(name="", drop=("safe",))), "not of those under the profile")
    plain = model.compare(GOOD, BAD)
    assert model.compare(GOOD, BAD, profile=Profile(name="empty", description="steers nothing")).probability == plain.probability
    model.config.profile = dropped.to_json()
    try:
        refused(model.compare(GOOD, BAD), "under the profile careful")
        assert model.compare(GOOD, BAD, profile=Profile()).probability == plain.probability
    finally:
        model.config.profile = None


def test_answers_to_different_prompts_have_none(model: RewardModel):
    refused(model.compare(GOOD, talk("return x", "2 + 2 is")), "different prompts")
    longer = [{"role": "system", "content": "hello"}, *BAD]
    refused(model.compare(GOOD, longer), "different prompts")
    one, other = model.compare([GOOD, GOOD], [BAD, talk("4", "2 + 2 is")])
    assert one.probability is not None
    refused(other, "different prompts")


# -- in a folder ---------------------------------------------------------------------------------------------------------------


def test_the_calibration_is_kept_with_the_model(model: RewardModel, tmp_path: Path):
    model.save_pretrained(tmp_path / "m")
    listed = (tmp_path / "m" / "SHA256SUMS").read_text()
    assert all(f"armorm/{name}" in listed for name in PREFERENCE_FILES)
    read = RewardModel.from_pretrained(tmp_path / "m")
    assert read.compare(GOOD, BAD, exact=True).probability == model.compare(GOOD, BAD, exact=True).probability
    export_model(str(tmp_path / "m"), tmp_path / "again", layout="armorm", shard_size="1GB", dtype=None)
    one, two = (tmp_path / name / "armorm" / "preference.json" for name in ("again", "m"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("file", PREFERENCE_FILES)
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not listed"])
def test_damage_is_noticed_when_the_model_is_loaded(model: RewardModel, tmp_path: Path, file: str, listed: bool):
    model.save_pretrained(tmp_path / "m")
    if not listed:
        (tmp_path / "m" / "SHA256SUMS").unlink()
    said = file if listed or file.endswith(".json") else r"preference\.safetensors|a safetensors file"
    place = tmp_path / "m" / "armorm" / file
    whole = place.read_bytes()
    for bit in np.random.default_rng(0).integers(8 * len(whole), size=6).tolist():
        hurt = bytearray(whole)
        hurt[bit // 8] ^= 1 << bit % 8
        place.write_bytes(hurt)
        with pytest.raises(CheckpointError, match=said):
            RewardModel.from_pretrained(tmp_path / "m")
    place.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=said):
        RewardModel.from_pretrained(tmp_path / "m")


def test_a_folder_of_an_earlier_version_is_read_and_has_none(model: RewardModel, tmp_path: Path):
    model.save_pretrained(tmp_path / "m")
    for name in (*(f"armorm/{file}" for file in PREFERENCE_FILES), "SHA256SUMS"):
        (tmp_path / "m" / name).unlink()
    read = RewardModel.from_pretrained(tmp_path / "m")
    assert read.preference is None
    refused(read.compare(GOOD, BAD), "keeps no calibration")


# -- the stage, on a whole small run -------------------------------------------------------------------------------------------

Parts = tuple[FittedProbe, Debias, Gate, PairArrays]


@pytest.fixture(scope="module")
def stage(run: Run) -> Parts:
    recipe = load_recipe(run.folder / "recipe.yaml")
    context = RunContext(recipe, recipe.load_objectives(), QUIET)
    pairs = pair_arrays(context, open_stores(run.folder / "features", read_rows(recipe, context.objectives).pairs))
    gate = Gates.load(run.folder / "gate").gate
    return FittedProbe.load(run.folder / "probe", recipe.probe.folds), load_debias(run.folder / "debias"), gate, pairs


def test_the_run_keeps_what_the_validation_pairs_gave(run: Run, stage: Parts):
    *_, pairs = stage
    facts, kept = run.results.preference, load_preference(run.folder / "preference")
    assert facts is not None
    assert kept is not None
    assert (facts.form, facts.pairs, facts.prompts) == (kept.form, kept.pairs, kept.prompts)
    assert kept.pairs == pairs.at(Split.VALIDATION).sum() > 5
    assert kept.tells
    model = RewardModel.from_pretrained(run.folder / "model")
    assert model.preference is not None
    asked = np.linspace(-1, 1, 33)
    np.testing.assert_array_equal(model.preference.of(asked), kept.of(asked))
    assert any("P(right) rests on" in warning for warning in run.results.warnings)
    assert [one.suite for one in run.results.reliability] == ["held-out pairs", "small-bench"]
    assert run.results.reliability[0].n == pairs.at(Split.TEST).sum()
    for one in run.results.reliability:
        assert sum(b.n for b in one.bins) == one.n
    assert "P(right)" in run.report.read_text(encoding="utf-8")


def test_margins_are_those_of_the_model_with_cross_fitted_rewards(stage: Parts, run: Run):
    fitted, debias, gate, pairs = stage
    known = pairs.take(pairs.at(Split.VALIDATION))
    margins = cross_fitted_margins(fitted, debias, gate, known)
    weights = gate.weights_for(known.prompts.rows(np.arange(len(known))))
    for i in range(len(known)):
        chosen, rejected = (
            cross_fit(fitted, debias, side(fitted.feature), known.folds).values[i] for side in (known.chosen, known.rejected)
        )
        assert margins[i] == pytest.approx(weights[i] @ (chosen - rejected))
    whole = Fitted(fitted.probe, fitted.feature, debias, gate)
    final = margins_of(whole, known)
    assert np.corrcoef(final, margins)[0, 1] > 0.9
    assert not np.allclose(final, margins, rtol=1e-3)  # the final probe has seen these prompts
    model = RewardModel.from_pretrained(run.folder / "model")
    context, chosen, rejected = known.texts(0)
    a, b = ([*context, {"role": "assistant", "content": text}] for text in (chosen, rejected))
    assert model.compare(a, b).margin == pytest.approx(final[0], abs=1e-4)


def test_the_stage_sees_no_other_pairs(stage: Parts, tmp_path: Path):
    fitted, debias, gate, pairs = stage
    (tmp_path / "all").mkdir()
    (tmp_path / "alone").mkdir()
    one, facts = fit_preference_stage(tmp_path / "all", fitted, debias, gate, pairs)
    other, same = fit_preference_stage(tmp_path / "alone", fitted, debias, gate, pairs.take(pairs.at(Split.VALIDATION)))
    assert one is not None
    assert other is not None
    assert facts == same
    json.dumps(facts, allow_nan=False)
    assert one.slope == other.slope
    swapped = replace(pairs, winners=pairs.losers, losers=pairs.winners)
    (tmp_path / "swapped").mkdir()
    wrong, told = fit_preference_stage(tmp_path / "swapped", fitted, debias, gate, swapped)
    assert wrong is not None
    assert not wrong.tells
    assert "doesn't tell winners from losers" in told["warnings"][0]


def test_without_validation_pairs_there_is_none_and_the_report_says_so(stage: Parts, tmp_path: Path):
    fitted, debias, gate, pairs = stage
    none, facts = fit_preference_stage(tmp_path, fitted, debias, gate, pairs.take(pairs.at(Split.TRAIN)))
    assert none is None
    assert not list(tmp_path.iterdir())
    assert facts["reason"] == "there are no validation pairs"
    assert facts["warnings"] == ["P(right) could not be calibrated: there are no validation pairs"]
    whole, test = Fitted(fitted.probe, fitted.feature, debias, gate), pairs.take(pairs.at(Split.TEST))
    found = confidence_facts(None, whole, {"held out": test}, seed=0)
    assert found["reliability"] == []
    assert found["abstention"][0]["by_probability"] == []
    known = confidence_facts(CURVE, whole, {"held out": test}, seed=0)
    assert known["reliability"][0]["n"] == len(test) == known["abstention"][0]["n"]
    json.dumps(known, allow_nan=False)


def test_a_run_that_can_not_calibrate_ends_with_a_model_and_no_probability(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    why = "the 9 validation pairs are of one prompt"
    monkeypatch.setattr(preference_stage, "fit_preference", lambda *_: PreferenceFit(None, reason=why))
    recipe = load_recipe(run.folder / "recipe.yaml")
    bare = train(recipe, tmp_path / "bare", features=run.folder / "features", reporter=QUIET)
    assert not (bare.folder / "model" / "armorm" / "preference.json").exists()
    refused(RewardModel.from_pretrained(bare.folder / "model").compare(GOOD, BAD), "keeps no calibration")
    assert f"P(right) could not be calibrated: {why}" in bare.results.warnings
    assert bare.results.reliability == ()
    assert bare.results.preference is not None
    assert bare.results.preference.form is None
    for name in ("report.html", "report.md"):
        assert f"There is none: {why}" in (bare.folder / "report" / name).read_text(encoding="utf-8")
    assert train(recipe, bare.folder, features=run.folder / "features", reporter=QUIET).computed == ()
