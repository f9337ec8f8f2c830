"""An objective that is learnt from the pairs: fitted as the rival is, cross-fitted, on the others' scale, weighed like them."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_run import OBJECTIVES, _pair, read_lines, write_lines, write_recipe, write_rows

from armorm import RewardModel
from armorm.data.splits import Split
from armorm.errors import ArmormError, FitError, RecipeError
from armorm.fit.weighing import pair_weights
from armorm.model.layouts.released import save_released
from armorm.progress import Reporter
from armorm.recipe import PREFERRED, load_recipe
from armorm.rivals.bradley_terry import fit_bradley_terry
from armorm.run import unseen
from armorm.run.preferred_stage import with_preferred
from armorm.run.train import Training, train
from armorm.scoring.profile import Profile

QUIET = Reporter(quiet=True)
CONVERSATION = [{"role": "user", "content": "hello how are you"}, {"role": "assistant", "content": "fine thank you"}]


@pytest.fixture(scope="module")
def training(tmp_path_factory, tiny_folder) -> Training:
    at = tmp_path_factory.mktemp("preferred")
    write_rows(at)
    recipe = load_recipe(write_recipe(at, tiny_folder, preferred=True, gate={"weigh": "prompts"}))
    done = Training(recipe, at / "run", at / "features", QUIET)
    done.run()
    return done


def known_of(training):
    return training.pairs.take(training.pairs.at(Split.TRAIN, Split.VALIDATION))


def test_it_is_the_last_objective_of_every_part_and_of_the_model(training):
    names = [*(o["name"] for o in OBJECTIVES), "preferred"]
    parts = training.rewards.value.probe, training.debias.value, training.gates.value.debiased.gate, training.fitted.probe
    assert all(list(part.objectives.names) == names for part in parts)
    model = RewardModel.from_pretrained(training.out / "model")
    assert list(model.objectives.names) == names
    score = model.score(CONVERSATION)
    assert np.isfinite(score.rewards["preferred"])
    assert sum(score.contributions.values()) == pytest.approx(score.score, abs=1e-5)


def test_each_fold_has_the_rivals_head_without_it(training):
    known, fitted, folds = known_of(training), training.probe.value, training.recipe.probe.folds
    for fold in range(folds):
        others = known.take(known.folds != fold)
        validation = others.at(Split.VALIDATION)
        weights = pair_weights("prompts", others.groups, others.sources, validation)
        sides = (others.chosen(fitted.feature).response, others.rejected(fitted.feature).response)
        strength = training.rewards.facts["strength"]
        head = fit_bradley_terry([("x", *sides)], validation, strengths=[strength], weights=weights).weights
        found = training.rewards.value.without[fold].weights[-1]
        np.testing.assert_allclose(found, training.rewards.facts["scale"] * head, rtol=1e-6)


def test_its_differences_are_as_large_as_the_others_and_a_half_is_the_mean_answer(training):
    known, fitted = known_of(training), training.rewards.value
    rows = np.arange(len(known))
    one, other = (side(fitted.feature).response.rows(rows) for side in (known.chosen, known.rejected))
    gaps = np.full((len(known), len(fitted.probe.objectives)), np.nan)
    for fold, probe in enumerate(fitted.without):
        at = known.folds == fold
        gaps[at] = probe.predict(one[at]) - probe.predict(other[at])
    deviations = gaps.std(axis=0)
    assert deviations[-1] == pytest.approx(np.sqrt((deviations[:-1] ** 2).mean()), rel=1e-6)
    for probe in (fitted.probe, *fitted.without):
        assert probe.predict(np.concatenate([one, other]))[:, -1].mean() == pytest.approx(0.5, abs=1e-6)
    assert (gaps[:, -1] > 0).mean() > 0.7  # it orders pairs whose fold it has not seen


def test_the_other_rewards_stay_as_they_were(training):
    plain, longer = training.probe.value, training.rewards.value
    for one, other in zip((plain.probe, *plain.without), (longer.probe, *longer.without), strict=True):
        np.testing.assert_array_equal(other.weights[:-1], one.weights)
        np.testing.assert_array_equal(other.intercepts[:-1], one.intercepts)


def test_it_adds_nothing_to_standard_errors_and_has_none(training):
    model = RewardModel.from_pretrained(training.out / "model")
    assert np.isnan(model.uncertainty.posterior.sigma[-1])
    score = model.score(CONVERSATION)
    assert score.std is None or np.isfinite(score.std)


def test_results_name_its_fit_and_a_second_run_computes_nothing(training):
    results = json.loads((training.out / "report" / "results.json").read_text(encoding="utf-8"))
    assert results["preferred"]["pairs"] == len(known_of(training))
    assert set(results["seconds"]) >= {"preferred", "probe", "gate"}
    assert training._computed[:4] == ["probe", "uncertainty", "preferred", "debias"]
    again = train(training.recipe, training.out, features=training.features, reporter=QUIET)
    assert again.computed == ()


def test_a_change_of_what_pairs_count_fits_it_again_and_without_it_the_run_is_the_plain_one(training, tmp_path):
    gate = replace(training.recipe.gate, weigh="pairs")
    other = train(training.recipe.model_copy(update={"gate": gate}), training.out, features=training.features, reporter=QUIET)
    assert "preferred" in other.computed
    assert "probe" not in other.computed
    plain = train(
        training.recipe.model_copy(update={"preferred": False}), training.out, features=training.features, reporter=QUIET
    )
    assert plain.results.preferred is None
    assert "preferred" not in RewardModel.from_pretrained(training.out / "model").objectives.names
    train(training.recipe, training.out, features=training.features, reporter=QUIET)


def test_a_source_that_is_left_out_is_left_out_of_it_too(tmp_path, tiny_folder, monkeypatch):
    write_rows(tmp_path)
    rows = read_lines(tmp_path / "pairs.jsonl")
    draw = random.Random(3)
    more = [_pair(draw, 100 + i, f"q{i}") for i in range(60)]
    write_lines(tmp_path / "other.jsonl", more)
    pairs = [{"path": str(tmp_path / "pairs.jsonl")}, {"path": str(tmp_path / "other.jsonl")}]
    recipe = load_recipe(write_recipe(tmp_path, tiny_folder, preferred=True, unseen_sources=True, pairs=pairs))
    seen = []

    def watched(recipe, fitted, pairs, **more):
        seen.append(set(pairs.sources))
        return with_preferred(recipe, fitted, pairs, **more)

    monkeypatch.setattr(unseen, "with_preferred", watched)
    results = train(recipe, tmp_path / "run", reporter=QUIET).results
    assert len(rows) == 80
    assert {"other"} not in [s for s in seen if "pairs" in s]
    assert {"pairs"} in seen
    assert any(suite.name == "unseen sources" for suite in results.suites)


def test_an_objective_of_its_name_is_refused(tmp_path, tiny_folder):
    write_rows(tmp_path)
    own = [*OBJECTIVES, {"name": PREFERRED.name, "min": 0, "max": 1}]
    (tmp_path / "objectives.json").write_text(json.dumps(own), encoding="utf-8")
    with pytest.raises(RecipeError, match="preferred: is learnt from the pairs: give the objective another name"):
        load_recipe(write_recipe(tmp_path, tiny_folder, preferred=True))
    load_recipe(write_recipe(tmp_path, tiny_folder))


def test_pairs_of_equal_answers_teach_nothing(training):
    known = known_of(training)
    same = replace(training.pairs, losers=training.pairs.winners)
    assert len(known)
    with pytest.raises(FitError):
        with_preferred(training.recipe, training.probe.value, same)


def test_the_released_layout_says_that_it_has_no_place_for_it(training, tmp_path):
    model = RewardModel.from_pretrained(training.out / "model")
    with pytest.raises(ArmormError, match="intercept"):
        save_released(model, tmp_path / "released")
    assert torch.isfinite(torch.tensor(model.score(CONVERSATION).score))


def test_a_profile_weighs_it_as_any_objective(training):
    model = RewardModel.from_pretrained(training.out / "model")
    score = model.score(CONVERSATION, profile=Profile(drop=("preferred",)))
    assert score.contributions["preferred"] == 0
    assert model.score(CONVERSATION).contributions["preferred"] != 0
