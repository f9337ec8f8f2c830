"""Fixed weights: published, one's own, fitted to pairs; what they need and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from armorm.errors import FitError, ObjectiveMismatch, RecipeError
from armorm.fit.probe import Probe
from armorm.objectives import Direction, Objective, Objectives, ScaleMap
from armorm.rivals.fixed import PRESETS, FixedWeights, fit_fixed_weights, given_weights, preset_weights
from armorm.scorers import AnswerFeatures, FeatureScorer

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def five(prefix: str = "helpsteer-", scale_map: ScaleMap = ScaleMap.BIN_CENTRES) -> list[Objective]:
    return [
        Objective(
            name=f"{prefix}{a}",
            min=0,
            max=4,
            direction=Direction.NEUTRAL if a == "verbosity" else Direction.HIGHER,
            scale_map=scale_map,
        )
        for a in ATTRIBUTES
    ]


def reads_rewards(objectives: list[Objective]) -> Probe:
    """A probe whose rewards are its features, one each."""
    k = len(objectives)
    return Probe(Objectives(objectives), np.eye(k), np.zeros(k), np.ones(k))


def answers(rewards: np.ndarray) -> AnswerFeatures:
    return AnswerFeatures(rewards, np.zeros((len(rewards), 1)), np.ones(len(rewards)))


def planted(weights: np.ndarray, *, p: int = 3000, sharpness: float = 6.0, seed: int = 0):
    """Both answers' rewards; the first is preferred as Bradley–Terry says for these weights."""
    rng = np.random.default_rng(seed)
    one, two = rng.uniform(size=(2, p, len(weights)))
    first = rng.uniform(size=p) < 1 / (1 + np.exp(-sharpness * (one - two) @ weights))
    chosen, rejected = np.where(first[:, None], one, two), np.where(first[:, None], two, one)
    return chosen, rejected, rng.uniform(size=p) < 0.3


def accuracy(scorer: FeatureScorer, chosen: np.ndarray, rejected: np.ndarray) -> float:
    return float((scorer.score_features(answers(chosen)) > scorer.score_features(answers(rejected))).mean())


# -- published weights ------------------------------------------------------------------------------------------------------


def test_both_presets_weigh_the_five_attributes_and_verbosity_against():
    assert len(PRESETS) == 2
    for weights in PRESETS.values():
        assert tuple(weights) == ATTRIBUTES
        assert [w < 0 for w in weights.values()] == [False] * 4 + [True]


@pytest.mark.parametrize("scale_map", list(ScaleMap))
@pytest.mark.parametrize("prefix", ["helpsteer-", "helpsteer2-"])
def test_a_preset_is_the_weighted_sum_of_ratings_from_0_to_4(scale_map: ScaleMap, prefix: str):
    objectives = five(prefix, scale_map)
    ratings = np.random.default_rng(0).uniform(0, 4, size=(20, 5))
    scorer = preset_weights(reads_rewards(objectives), "helpsteer2", name="fixed")
    found = scorer.score_features(answers(Objectives(objectives).to_unit(ratings)))
    np.testing.assert_allclose(found, ratings @ [0.65, 0.8, 0.45, 0.55, -0.4])
    assert isinstance(scorer, FeatureScorer)
    assert (scorer.name, scorer.strength) == ("fixed", None)


def test_on_helpsteers_own_scales_the_order_is_that_of_weighted_rewards():
    rewards = np.random.default_rng(1).uniform(size=(50, 5))
    scorer = preset_weights(reads_rewards(five()), "helpsteer2", name="fixed")
    np.testing.assert_allclose(scorer.weights, 5 * np.array(list(PRESETS["helpsteer2"].values())))
    plain = rewards @ list(PRESETS["helpsteer2"].values())
    assert (np.argsort(scorer.score_features(answers(rewards))) == np.argsort(plain)).all()


def test_the_set_named_first_stands_for_the_attributes_where_both_are_there():
    scorer = preset_weights(reads_rewards(five("helpsteer2-") + five()), "helpsteer2", name="fixed")
    assert [o for o, w in zip(scorer.probe.objectives.names, scorer.weights, strict=True) if w] == [
        f"helpsteer-{a}" for a in ATTRIBUTES
    ]


def test_other_objectives_stand_for_attributes_on_scales_of_their_own():
    """A 1–10 scale, one whose low end is good, and an amount of which less is thought better: 0–4 in the weights' sense."""
    objectives = [
        *five()[:2],
        Objective(name="clear", min=1, max=10),
        Objective(name="errors", min=0, max=9, direction=Direction.LOWER, scale_map=ScaleMap.BIN_CENTRES),
        Objective(name="wordiness", min=1, max=5, direction=Direction.LOWER),
    ]
    standing = {"coherence": "clear", "complexity": "errors", "verbosity": "wordiness"}
    scorer = preset_weights(reads_rewards(objectives), "helpsteer2", standing, name="mapped")
    raw = np.array([[4, 4, 10, 0, 1], [0, 0, 1, 9, 5], [0, 0, 1, 9, 1]], dtype=float)
    found = scorer.score_features(answers(Objectives(objectives).to_unit(raw)))
    np.testing.assert_allclose(found, [4 * (0.65 + 0.8 + 0.45 + 0.55), 4 * -0.4, 0], atol=1e-12)


def test_two_attributes_on_one_objective_add_up():
    objectives = [*five(scale_map=ScaleMap.END_POINTS)[:1], *five(scale_map=ScaleMap.END_POINTS)[2:]]
    standing = {"correctness": "helpsteer-helpfulness"}
    scorer = preset_weights(reads_rewards(objectives), "helpsteer2", standing, name="mapped")
    assert scorer.weights[scorer.probe.objectives.column("helpsteer-helpfulness")] == pytest.approx(4 * (0.65 + 0.8))


def test_a_missing_objective_is_named_with_the_remedy():
    probe = reads_rewards([*five()[:3], Objective(name="overall", min=1, max=5)])
    with pytest.raises(ObjectiveMismatch) as refused:
        preset_weights(probe, "helpsteer2", name="fixed")
    said = str(refused.value)
    for words in ("complexity (helpsteer-complexity), verbosity (helpsteer-verbosity)", "overall", "{complexity: …}"):
        assert words in said
    with pytest.raises(ObjectiveMismatch, match=r"verbosity \(length\)"):
        preset_weights(probe, "helpsteer2", {"complexity": "overall", "verbosity": "length"}, name="fixed")


def test_presets_and_attributes_that_do_not_exist_are_refused():
    probe = reads_rewards(five())
    with pytest.raises(RecipeError, match=r"no preset 'helpsteer3'.*helpsteer2, helpsteer2-nemotron"):
        preset_weights(probe, "helpsteer3", name="fixed")
    with pytest.raises(RecipeError, match="has no helpfullness: its attributes are helpfulness"):
        preset_weights(probe, "helpsteer2", {"helpfullness": "helpsteer-helpfulness"}, name="fixed")


def test_the_preset_wins_where_it_is_the_truth():
    """Its own pairs: clearly better than chance and than equal weights, which reward verbosity."""
    truth = np.array(list(PRESETS["helpsteer2"].values()))
    chosen, rejected, _ = planted(truth, sharpness=20.0)
    probe = reads_rewards(five())
    preset = accuracy(preset_weights(probe, "helpsteer2", name="fixed"), chosen, rejected)
    equal = accuracy(given_weights(probe, dict.fromkeys(probe.objectives.names, 1.0), name="equal"), chosen, rejected)
    assert preset > 0.9
    assert preset > equal + 0.05


# -- one's own weights ------------------------------------------------------------------------------------------------------


def test_own_weights_are_over_rewards_and_the_rest_weigh_nothing():
    scorer = given_weights(reads_rewards(five()), {"helpsteer-verbosity": -1.0, "helpsteer-coherence": 0.5}, name="short")
    rewards = np.random.default_rng(2).uniform(size=(7, 5))
    np.testing.assert_allclose(scorer.score_features(answers(rewards)), 0.5 * rewards[:, 2] - rewards[:, 4])
    assert scorer.label == "fixed weights, short"


def test_own_weights_that_make_no_sense_are_refused():
    probe = reads_rewards(five())
    with pytest.raises(ObjectiveMismatch, match=r"weighs safety.*choose among helpsteer-helpfulness"):
        given_weights(probe, {"safety": 1.0}, name="safe")
    for weights in ({}, {"helpsteer-coherence": 0.0}, {"helpsteer-coherence": float("nan")}):
        with pytest.raises(RecipeError, match="finite numbers and not all 0"):
            given_weights(probe, weights, name="none")
    with pytest.raises(ObjectiveMismatch, match="2 weights for the probe's 5"):
        FixedWeights(probe, np.ones(2), "two", "two")


# -- fitted weights ---------------------------------------------------------------------------------------------------------


def test_fitted_weights_find_planted_signs():
    truth = np.array([1.0, 0.6, 0.0, 0.8, -1.0])
    chosen, rejected, validation = planted(truth)
    scorer = fit_fixed_weights(reads_rewards(five()), chosen, rejected, validation)
    weights = scorer.weights
    assert (np.sign(weights[[0, 1, 3, 4]]) == [1, 1, 1, -1]).all()
    assert np.corrcoef(weights, truth)[0, 1] > 0.98
    assert abs(weights[2]) < 0.2 * weights[0]
    fresh, other, _ = planted(truth, seed=1)
    equal = given_weights(scorer.probe, dict.fromkeys(scorer.probe.objectives.names, 1.0), name="equal")
    assert accuracy(scorer, fresh, other) > max(0.8, accuracy(equal, fresh, other) + 0.1)


def test_fitted_weights_are_the_logistic_regressions():
    """Reference: the minimum of the mean log-loss with scikit-learn's penalty, over columns of unit deviation."""
    chosen, rejected, validation = planted(np.array([1.0, -0.5]), p=400)
    found = fit_fixed_weights(reads_rewards(five()[:2]), chosen, rejected, validation, strengths=(0.05,))
    gap = (chosen - rejected)[~validation]
    scale = gap.std(axis=0)

    def loss(w: np.ndarray) -> float:
        return 0.05 * float(np.logaddexp(0, -(gap / scale) @ w).sum()) + float(w @ w) / 2

    np.testing.assert_allclose(found.weights, minimize(loss, np.zeros(2)).x / scale, rtol=1e-2)
    assert found.strength == 0.05


def test_the_strength_is_the_one_with_the_least_loss_on_validation_pairs():
    chosen, rejected, validation = planted(np.array([1.0, -0.5, 0.2]), p=300, sharpness=2.0)
    probe, strengths = reads_rewards(five()[:3]), (1e-5, 1e-2, 10.0)
    gap = (chosen - rejected)[validation]
    losses = {
        s: float(np.logaddexp(0, -gap @ fit_fixed_weights(probe, chosen, rejected, validation, strengths=(s,)).weights).mean())
        for s in strengths
    }
    assert len(set(losses.values())) == 3
    assert fit_fixed_weights(probe, chosen, rejected, validation, strengths=strengths).strength == min(
        losses, key=losses.__getitem__
    )


def test_a_reward_that_never_differs_weighs_nothing():
    chosen, rejected, validation = planted(np.array([1.0, -1.0]), p=400)
    same = np.full((400, 1), 0.5)
    chosen, rejected = np.hstack([chosen, same]), np.hstack([rejected, same])
    assert fit_fixed_weights(reads_rewards(five()[:3]), chosen, rejected, validation).weights[2] == 0


def test_pairs_of_another_probe_or_on_one_side_alone_are_refused():
    chosen, rejected, validation = planted(np.array([1.0, -1.0]), p=40)
    with pytest.raises(ObjectiveMismatch, match="2 and 2 rewards, the probe 3"):
        fit_fixed_weights(reads_rewards(five()[:3]), chosen, rejected, validation)
    for none in (np.zeros(40, dtype=bool), np.ones(40, dtype=bool)):
        with pytest.raises(FitError, match="needs training and validation pairs"):
            fit_fixed_weights(reads_rewards(five()[:2]), chosen, rejected, none)
