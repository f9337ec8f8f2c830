"""A gate is held to its one weight vector where it has no pairs to go by, and that vector to equal weights."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from small_run import read_lines, write_lines, write_recipe, write_rows
from test_fit_gate import QUICK, SMALL, THREE, margins_of, planted, train
from test_gate_anchor import NOWHERE, distance, one_vector

from armorm.data.splits import Split
from armorm.errors import FitError
from armorm.fit.debias import DebiasedRewards
from armorm.fit.gate import GateSettings, fit_constant_gate
from armorm.fit.weighing import pair_weights
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.run.pairs import prompts_elsewhere
from armorm.run.train import Training

LOOSE = replace(SMALL, start="one-weight", steps=200)
STRICT = replace(LOOSE, kl_elsewhere=30.0)


def far_away(n=300):
    """Prompts on the other side of what pairs are on."""
    return planted(p=n, seed=5)[0] - 6


@pytest.fixture(scope="module")
def data():
    return planted(p=1200, shift=3.0)


@pytest.fixture(scope="module")
def loose(data):
    return train(LOOSE, data=data).gate


@pytest.fixture(scope="module")
def strict(data):
    return train(STRICT, data=data, elsewhere=far_away()).gate


# -- prompts without pairs ---------------------------------------------------------------------------------------------------


def test_it_leaves_the_vector_where_there_are_pairs_and_keeps_to_it_elsewhere(data, loose, strict):
    _, weights = one_vector(data)
    new = far_away(500)[300:]  # the distribution alone is known
    assert distance(strict, new, weights) < 0.05 < 0.3 < distance(loose, new, weights)
    right = [(margins_of(gate, *data[:3])[data[3]] > 0).mean() for gate in (loose, strict)]
    assert right[1] > right[0] - 0.03
    assert distance(strict, data[0], weights) > 0.1


def test_the_stronger_the_nearer(data):
    _, weights = one_vector(data)
    settings = [replace(LOOSE, kl_elsewhere=strength) for strength in (0.1, 100.0)]
    found = [distance(train(one, data=data, elsewhere=far_away()).gate, far_away(), weights) for one in settings]
    assert found[1] < found[0]


@pytest.mark.parametrize(("settings", "prompts"), [(LOOSE, far_away()), (STRICT, None), (STRICT, np.zeros((0, 6)))])
def test_without_strength_or_prompts_nothing_changes(data, loose, settings, prompts):
    gate = train(settings, data=data, elsewhere=prompts).gate
    for one, other in zip((*gate.weights, *gate.biases), (*loose.weights, *loose.biases), strict=True):
        np.testing.assert_array_equal(one, other)


def test_from_random_weights_it_is_held_too(data):
    _, weights = one_vector(data)
    held = train(replace(STRICT, start="random"), data=data, elsewhere=far_away()).gate
    assert distance(held, far_away(), weights) < 0.1


def test_the_same_seed_gives_the_same_gate(data, strict):
    again = train(STRICT, data=data, elsewhere=far_away()).gate
    np.testing.assert_array_equal(again.weights[0], strict.weights[0])


def test_prompts_that_are_not_finite_are_named():
    broken = far_away(10)
    broken[3, 1] = np.nan
    with pytest.raises(FitError, match="1 of 10 prompts without pairs have features that are NaN or infinite"):
        train(replace(QUICK, kl_elsewhere=1.0), elsewhere=broken)


# -- equal weights -----------------------------------------------------------------------------------------------------------


def loss_of(weights, scale, differences, counts, strength):
    live = weights > 0
    divergence = (weights[live] * np.log(weights[live] * len(weights))).sum()
    return (counts * np.logaddexp(0, -scale * differences @ weights)).mean() + strength * divergence


@pytest.mark.parametrize("weigh", ["pairs", "prompts"])
@pytest.mark.parametrize("strength", [0.001, 0.03, 1.0])
def test_the_vector_has_the_least_loss_that_a_search_from_many_places_finds(weigh, strength):
    _, chosen, rejected, validation, _ = planted(p=240)
    chosen.values[:, 2] *= 3  # one scale is not the others'
    rejected.values[:, 2] *= 3
    groups = [str(i % 17 if i < 60 else i) for i in range(240)]
    weights = pair_weights(weigh, groups, groups, validation)
    gate = fit_constant_gate(chosen, rejected, validation, THREE, weights=weights, kl_equal=strength)
    differences = (chosen.values - rejected.values)[~validation]
    counts = np.ones(len(differences)) if weights is None else weights[~validation]

    def loss(at):
        w = np.exp(at[:3] - at[:3].max())
        return loss_of(w / w.sum(), math.exp(at[3]), differences, counts, strength)

    rng = np.random.default_rng(0)
    best = min(minimize(loss, rng.normal(size=4)).fun for _ in range(8))
    assert loss_of(gate.weights_for(NOWHERE)[0], gate.scale, differences, counts, strength) < best + 1e-6


def test_from_the_best_weights_to_equal_ones():
    _, chosen, rejected, validation, _ = planted(p=400)
    args = chosen, rejected, validation, THREE
    best = fit_constant_gate(*args).weights_for(NOWHERE)[0]
    little, much = (fit_constant_gate(*args, kl_equal=s).weights_for(NOWHERE)[0] for s in (1e-7, 1e5))
    np.testing.assert_allclose(little, best, atol=1e-3)
    np.testing.assert_allclose(much, 1 / 3, atol=1e-5)


def test_what_never_differs_weighs_nothing():
    _, chosen, rejected, validation, _ = planted(p=100)
    sides = DebiasedRewards(chosen.values * [1, 0, 1]), DebiasedRewards(rejected.values * [1, 0, 1])
    found = fit_constant_gate(*sides, validation, THREE, kl_equal=1e4).weights_for(NOWHERE)[0]
    np.testing.assert_allclose(found, [0.5, 0, 0.5], atol=1e-4)


@pytest.mark.parametrize("size", [1e-9, 1e9])
def test_rewards_of_any_size_are_weighed(size):
    _, chosen, rejected, validation, _ = planted(p=100)
    sides = DebiasedRewards(chosen.values * size), DebiasedRewards(rejected.values * size)
    plain = fit_constant_gate(chosen, rejected, validation, THREE, kl_equal=0.01)
    found = fit_constant_gate(*sides, validation, THREE, kl_equal=0.01)
    np.testing.assert_allclose(found.weights_for(NOWHERE), plain.weights_for(NOWHERE), atol=1e-3)
    assert found.scale == pytest.approx(plain.scale / size, rel=1e-2)


def test_where_nothing_is_better_than_chance_weights_are_equal():
    _, chosen, rejected, validation, _ = planted(p=200)
    gate = fit_constant_gate(rejected, chosen, validation, THREE, kl_equal=0.1)
    np.testing.assert_allclose(gate.weights_for(NOWHERE)[0], 1 / 3, atol=1e-3)


def test_a_gate_starts_from_the_vector_that_is_held():
    data = planted(p=200)
    gate = train(replace(QUICK, start="one-weight", kl_equal=1e4, kl=math.inf), data=data).gate
    np.testing.assert_allclose(gate.weights_for(data[0]), 1 / 3, atol=1e-4)


@pytest.mark.parametrize("name", ["kl_elsewhere", "kl_equal"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, 2e6])
def test_settings_out_of_bounds_are_named(name, value):
    with pytest.raises(FitError, match=name):
        GateSettings(**{name: value})


# -- a whole run -------------------------------------------------------------------------------------------------------------


def test_a_run_holds_its_gate_on_prompts_that_have_ratings_alone(tmp_path, tiny_folder):
    write_rows(tmp_path)
    pairs = tmp_path / "pairs.jsonl"
    write_lines(pairs, read_lines(pairs)[:20])
    gate = {"start": "one-weight", "kl_elsewhere": 3.0, "kl_equal": 0.1}
    recipe = load_recipe(write_recipe(tmp_path, tiny_folder, gate=gate))
    training = Training(recipe, tmp_path / "run", tmp_path / "features", Reporter(quiet=True))
    results = training.run().results
    assert (results.gate.kl_elsewhere, results.gate.kl_equal) == (3.0, 0.1)
    context, stores = training.context, training.stores
    rated = {group for store in stores.ratings.values() for group in store.groups}
    sides = dict(zip(rated, context.sides(list(rated)), strict=True))
    wanted = [g for g in rated - set(training.pairs.groups) if sides[g] is not Split.TEST]
    found = prompts_elsewhere(context, stores.ratings, training.pairs)
    assert found is not None
    assert len(found) == len(wanted) > 20
    none = replace(context, recipe=recipe.model_copy(update={"gate": replace(recipe.gate, kl_elsewhere=0.0)}))
    assert prompts_elsewhere(none, stores.ratings, training.pairs) is None
