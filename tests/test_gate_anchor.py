"""A gate that starts from one weight vector starts there, is held to it as strongly as is asked, and can still leave it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_expit
from scipy.stats import entropy
from test_fit_gate import QUICK, SMALL, THREE, margins_of, planted, train

from armorm.errors import CheckpointError, FitError
from armorm.fit.anchor import LEAST_SCALE, SPREAD, Anchor, divergence
from armorm.fit.debias import DebiasedRewards
from armorm.fit.gate import Gate, GateSettings, best_scale, fit_constant_gate, mean_of_gates, stands_in_blocks
from armorm.fit.parts import load_gate, save_gate
from armorm.model.gating import GatingNetwork
from armorm.objectives import Objective, Objectives

HELD = replace(QUICK, start="one-weight")
NOWHERE = np.zeros((1, 0))


def one_vector(data):
    _, chosen, rejected, validation, _ = data
    constant = fit_constant_gate(chosen, rejected, validation, THREE)
    return constant, constant.weights_for(NOWHERE)[0]


def distance(gate, prompts, weights):
    """Mean KL of the gate's weights from some weights."""
    return float(np.mean([entropy(row, weights) for row in gate.weights_for(prompts)]))


# -- the start ---------------------------------------------------------------------------------------------------------------


def test_the_gate_starts_from_the_best_constant_weights_and_their_beta():
    data = planted(p=400)
    constant, weights = one_vector(data)
    fit = train(replace(HELD, steps=1, learning_rate=1e-9, scale_learning_rate=0.0), data=data)
    found = fit.gate.weights_for(data[0])
    np.testing.assert_allclose(found, np.tile((1 - SPREAD) * weights + SPREAD / 3, (len(found), 1)), atol=1e-6)
    assert fit.gate.scale == pytest.approx(constant.scale, rel=1e-6)
    margins = margins_of(fit.gate, *data[:3])
    curve = fit.curves[0]
    assert curve.steps == (0, 1)
    assert curve.train_loss[0] == pytest.approx(-log_expit(constant.scale * margins[~data[3]]).mean(), rel=1e-4)
    assert curve.validation_loss[0] == pytest.approx(-log_expit(constant.scale * margins[data[3]]).mean(), rel=1e-4)


def test_a_training_that_only_harms_leaves_the_start():
    prompts, _, _, validation, weights = planted(p=200)
    noise = np.random.default_rng(0).normal(size=(2, 200, 3))
    data = prompts, DebiasedRewards(noise[0]), DebiasedRewards(noise[1]), validation, weights
    fit = train(replace(HELD, learning_rate=0.5), data=data)
    assert fit.best_step == 0
    assert np.ptp(fit.gate.weights_for(prompts), axis=0).max() < 1e-6
    assert train(replace(QUICK, learning_rate=0.5), data=data).best_step > 0  # the paper's has no such place


def test_decay_draws_the_mlp_to_nothing_and_never_the_weights_to_equal_ones():
    data = planted(p=400)
    data[1].values[:, 2], data[2].values[:, 2] = np.random.default_rng(1).uniform(size=(2, 400))  # worth nothing
    _, weights = one_vector(data)
    assert weights[2] < 0.1
    decaying = replace(QUICK, weight_decay=90.0, learning_rate=1e-2, steps=100, patience=None, scale_learning_rate=0.0)
    ours, papers = (train(replace(decaying, start=start), data=data).gate for start in ("one-weight", "random"))
    assert np.abs(ours.weights_for(data[0]) - weights).max() < 0.05
    assert np.abs(papers.weights_for(data[0]) - 1 / 3).max() < 0.05


def test_an_objective_that_the_best_weights_leave_out_can_rise():
    """The third objective is worth nothing over all, and everything on some prompts."""
    rng = np.random.default_rng(0)
    prompts = rng.normal(size=(1600, 6))
    weights = np.where(prompts[:, :1] > 1.2, [0.0, 0.0, 1.0], [0.6, 0.4, 0.0])
    one, two = rng.uniform(size=(2, 1600, 3))
    one[:, 2], two[:, 2] = np.where(prompts[:, 0] > 1.2, [one[:, 2], two[:, 2]], [3 * two[:, 0], 3 * one[:, 0]])
    better = (weights * (one - two)).sum(axis=1, keepdims=True) > 0
    sides = DebiasedRewards(np.where(better, one, two)), DebiasedRewards(np.where(better, two, one))
    data = prompts, *sides, np.arange(1600) % 4 == 0, weights
    assert one_vector(data)[1][2] < 1e-6
    gate = train(replace(SMALL, start="one-weight", steps=400, learning_rate=1e-2), data=data).gate
    found = gate.weights_for(prompts)[:, 2]
    assert np.mean(found[prompts[:, 0] > 1.4]) > 0.7
    assert np.mean(found[prompts[:, 0] < 1.0]) < 0.1


def test_an_objective_that_never_differs_weighs_nothing_from_the_start():
    prompts, chosen, rejected, validation, _ = planted(p=200)
    for side in (chosen.values, rejected.values):
        side[:, 1] = 0.0
    for settings in (HELD, replace(HELD, kl=1.0), replace(QUICK, kl=1.0), replace(QUICK, kl=math.inf)):
        fit = train(settings, data=(prompts, chosen, rejected, validation, None))
        found = fit.gate.weights_for(prompts)
        assert (found[:, 1] == 0).all()
        assert np.isfinite(found).all()


def test_where_no_weights_are_better_than_chance_beta_starts_where_the_settings_say():
    prompts, chosen, rejected, validation, weights = planted(p=200)
    backwards = prompts, DebiasedRewards(rejected.values * [1, 0, 0]), DebiasedRewards(chosen.values * [1, 0, 0])
    data = (*backwards, validation, weights)
    assert fit_constant_gate(*data[1:4], THREE).scale < 1e-6
    fit = train(replace(HELD, scale_learning_rate=0.0), data=data)
    assert fit.gate.scale == pytest.approx(QUICK.scale_init)
    assert train(replace(QUICK, kl=math.inf), data=data).gate.scale == LEAST_SCALE


def test_an_anchor_keeps_every_live_objective_above_0():
    anchor = Anchor.of(np.array([1.0, 0.0, 0.0]), 5.0, np.array([True, True, False]))
    np.testing.assert_allclose(anchor.weights, [1 - SPREAD / 2, SPREAD / 2, 0.0])
    np.testing.assert_allclose(
        anchor.logits(2.0).numpy(), [2 * math.log(1 - SPREAD / 2), 2 * math.log(SPREAD / 2), 0.0], rtol=1e-6
    )
    assert Anchor.of(np.array([0.5, 0.5]), 0.0, np.ones(2, bool)).scale is None
    assert Anchor.of(np.array([0.5, 0.5]), 1e9, np.ones(2, bool)).scale == 1e6


# -- the penalty --------------------------------------------------------------------------------------------------------------


def test_the_divergence_is_that_of_scipy_and_passes_over_what_weighs_nothing():
    rng = np.random.default_rng(0)
    logits, weights = rng.normal(size=(7, 4)), np.array([0.5, 0.3, 0.2, 0.0])
    logits[:, 3] = -np.inf
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    given = torch.tensor(logits, requires_grad=True)
    found = divergence(given, torch.tensor(weights))
    np.testing.assert_allclose(found.detach().numpy(), [entropy(row[:3], weights[:3]) for row in shares])
    found.sum().backward()
    assert torch.isfinite(given.grad).all()


def test_the_stronger_the_penalty_the_nearer_the_gate_stays():
    data = planted(p=800)
    _, weights = one_vector(data)
    found = [
        distance(train(replace(SMALL, start=start, kl=kl), data=data).gate, data[0], weights + 1e-9)
        for start in ("one-weight", "random")
        for kl in (0.0, 0.3, 3.0, 1000.0)
    ]
    for gaps in (found[:4], found[4:]):
        assert gaps[0] > 2 * gaps[1] > 2 * gaps[2] > gaps[3]
    assert found[3] < 0.02


def test_each_pair_counts_its_weight_in_the_penalty():
    data = planted(p=300)
    even = np.where(np.arange(300) % 2 == 0, 2.0, 0.0)
    one = train(replace(HELD, kl=1.0), data=data, weights=even)
    assert one.curves != train(replace(HELD, kl=1.0), data=data).curves


def test_no_gate_is_the_best_constant_gate(tmp_path):
    data = planted(p=400)
    constant, weights = one_vector(data)
    for kl in (math.inf, "inf"):
        fit = train(replace(HELD, kl=kl, seeds=3, combine="mean"), data=data)
        assert fit.gate.weights_for(data[0]).tolist() == constant.weights_for(data[0]).tolist()
        assert (fit.gate.scale, fit.curves, fit.chosen_seed, fit.best_step) == (constant.scale, (), None, None)
    right = (data[1].values - data[2].values)[data[3]] @ weights > 0
    assert fit.validation_accuracies == (pytest.approx(right.mean()),)
    save_gate(tmp_path, fit.gate)
    assert load_gate(tmp_path).weights_for(data[0]).tolist() == fit.gate.weights_for(data[0]).tolist()


def test_the_same_seed_gives_the_same_gate():
    for settings in (replace(HELD, kl=0.3), replace(HELD, kl=0.3, seeds=2, combine="mean", dropout=0.2)):
        one, two = (train(settings, seed=5) for _ in range(2))
        assert one.curves == two.curves
        assert all((a == b).all() for a, b in zip(one.gate.weights, two.gate.weights, strict=True))


def test_a_strength_that_is_still_to_be_chosen_is_refused():
    with pytest.raises(FitError, match=r"`kl` is auto: choose a strength first"):
        train(replace(QUICK, kl="auto"))


@pytest.mark.parametrize("kl", [-0.1, math.nan, 2e6, True, "strong", None, -math.inf])
def test_a_strength_out_of_its_bounds_is_refused(kl):
    settings = GateSettings()
    object.__setattr__(settings, "kl", kl)  # past the tests' own type checks
    with pytest.raises(FitError, match=r"kl must be a number from 0 to 1,000,000, inf \(no gate\) or auto, got"):
        settings.__post_init__()


def test_infinity_is_kept_as_a_word():
    assert GateSettings(kl=math.inf).kl == GateSettings(kl="inf").kl == "inf"
    assert GateSettings(kl=math.inf) == GateSettings(kl="inf")
    assert GateSettings(kl="inf").strength == math.inf
    assert GateSettings(kl=1.0).kl == GateSettings(kl=1.0).strength == 1.0


# -- several seeds make one gate -----------------------------------------------------------------------------------------------


def random_gates(n, hidden, width=6, k=3, temperature=0.7):
    rng = np.random.default_rng(1)
    sizes = [width, *hidden, k]
    shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
    return [
        Gate(
            THREE,
            tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes),
            tuple(rng.normal(size=shape[0]).astype(np.float32) for shape in shapes),
            temperature,
            1.0,
        )
        for _ in range(n)
    ]


def logits_of(gate, prompts):
    weights = gate.weights_for(prompts)
    return np.log(weights) - np.log(weights).mean(axis=1, keepdims=True)


@pytest.mark.parametrize("hidden", [(), (5,), (5, 4), (5, 5, 5)])
def test_the_mean_of_gates_has_the_mean_of_their_logits(hidden):
    gates, prompts = random_gates(4, hidden), np.random.default_rng(0).normal(size=(20, 6))
    mean = mean_of_gates(gates, 9.0)
    expected = np.mean([logits_of(gate, prompts) for gate in gates], axis=0)
    np.testing.assert_allclose(logits_of(mean, prompts), expected, atol=1e-4)
    assert [w.shape[0] for w in mean.weights[:-1]] == [4 * (width + 1) for width in hidden]
    assert (mean.scale, mean.temperature, mean.blocks) == (9.0, 0.7, 4 if hidden else 1)
    if hidden:
        members = mean.members_for(prompts)
        for i, gate in enumerate(gates):
            np.testing.assert_allclose(members[:, i], gate.weights_for(prompts), atol=1e-5)
    np.testing.assert_allclose(gates[0].members_for(prompts)[:, 0], gates[0].weights_for(prompts))


def test_what_weighs_nothing_in_all_gates_weighs_nothing_in_their_mean():
    gates = random_gates(3, (5,))
    for gate in gates:
        gate.biases[-1][1] = -np.inf
    mean, prompts = mean_of_gates(gates, 1.0), np.ones((2, 6))
    assert (mean.weights_for(prompts)[:, 1] == 0).all()
    assert (mean.members_for(prompts)[:, :, 1] == 0).all()
    np.testing.assert_allclose(mean.members_for(prompts)[:, 2], gates[2].weights_for(prompts), atol=1e-5)


def test_the_torch_form_gives_the_same_weights_and_members():
    gates, prompts = random_gates(3, (5, 4)), np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    mean = mean_of_gates(gates, 1.0)
    network = GatingNetwork(6, [w.shape[0] for w in mean.weights[:-1]], 3, mean.temperature, 2.0, mean.blocks)
    with torch.no_grad():
        for layer, W, b in zip(network.layers, mean.weights, mean.biases, strict=True):
            layer.weight.copy_(torch.from_numpy(W))
            layer.bias.copy_(torch.from_numpy(b))
        x = torch.from_numpy(prompts)
        np.testing.assert_allclose(network(x).numpy(), 2 * mean.weights_for(prompts), atol=1e-5)
        np.testing.assert_allclose(network.members(x).numpy(), 2 * mean.members_for(prompts), atol=1e-5)
    assert GatingNetwork(6, [4], 3, 1.0).members(x) is None


def test_the_gates_of_several_seeds_make_one():
    data = planted(p=400)
    settings = replace(HELD, seeds=3)
    whole = train(replace(settings, combine="mean"), seed=4, data=data)
    alone = [train(HELD, seed=4 + i, data=data).gate for i in range(3)]
    np.testing.assert_allclose(
        whole.gate.members_for(data[0]), np.stack([gate.weights_for(data[0]) for gate in alone], axis=1), atol=1e-4
    )
    assert (whole.chosen_seed, whole.best_step, len(whole.curves), whole.gate.blocks) == (None, None, 3, 3)
    best = train(settings, seed=4, data=data)
    assert best.chosen_seed in (4, 5, 6)
    assert best.gate.blocks == train(replace(HELD, combine="mean"), data=data).gate.blocks == 1
    margins = margins_of(whole.gate, *data[:3])
    losses = [-log_expit(scale * margins).mean() for scale in (whole.gate.scale, *(gate.scale for gate in alone))]
    assert losses[0] == min(losses)


def test_the_best_beta_is_the_one_of_least_loss():
    margins = np.array([1.0, 2.0, -0.5, 0.7])
    found = best_scale(margins)
    losses = [-log_expit(scale * margins).mean() for scale in (found, 0.99 * found, 1.01 * found)]
    assert losses[0] == min(losses)
    assert best_scale(1000 * margins) == pytest.approx(found / 1000, rel=1e-4)
    assert best_scale(margins, np.array([1.0, 1.0, 0.0, 1.0])) > 100 * found
    assert best_scale(-np.abs(margins)) == best_scale(np.zeros(3)) == best_scale(np.zeros(0)) == LEAST_SCALE


def test_blocks_that_do_not_stand_apart_are_refused(tmp_path):
    mean = mean_of_gates(random_gates(2, (4, 4)), 1.0)
    assert stands_in_blocks(mean.weights, mean.biases, 2)
    assert not any(stands_in_blocks(mean.weights, mean.biases, count) for count in (0, -1, 3, 5))
    joined = mean.weights[1].copy()
    joined[0, -1] = 1.0
    with pytest.raises(FitError, match="are not those of 2 gates beside each other"):
        replace(mean, weights=(mean.weights[0], joined, mean.weights[2]))
    with pytest.raises(FitError, match="beside each other"):
        replace(random_gates(1, ())[0], blocks=2)
    save_gate(tmp_path, mean)
    loaded = load_gate(tmp_path)
    assert loaded.blocks == 2
    assert loaded.members_for(np.ones((1, 6))).tolist() == mean.members_for(np.ones((1, 6))).tolist()
    save_gate(tmp_path, replace(mean, blocks=1), "alone")
    assert "blocks" not in (tmp_path / "alone.json").read_text()
    text = (tmp_path / "gate.json").read_text()
    (tmp_path / "gate.json").write_text(text.replace('"blocks": 2', '"blocks": 3'))
    with pytest.raises(CheckpointError):
        load_gate(tmp_path)


def test_a_mean_that_is_too_wide_is_refused():
    with pytest.raises(FitError, match=r"mean of 100 gates of width 1,024.*fewer `seeds`"):
        GateSettings(seeds=100, combine="mean")
    assert GateSettings(seeds=100).seeds == 100


def test_two_objectives_or_one_can_be_weighed():
    one = Objectives([Objective(name="only", min=0, max=1)])
    rng = np.random.default_rng(0)
    sides = [DebiasedRewards(rng.uniform(size=(60, 1))) for _ in range(2)]
    from armorm.fit.gate import fit_gate

    settings = replace(HELD, kl=0.3, seeds=2, combine="mean")
    fit = fit_gate(rng.normal(size=(60, 4)), *sides, np.arange(60) % 4 == 0, one, settings=settings, seed=0)
    assert (fit.gate.weights_for(np.zeros((3, 4))) == 1).all()
