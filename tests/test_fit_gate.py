"""The gate equals ten lines of NumPy, learns which objective a prompt asks for, and takes only debiased rewards."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.special import log_expit
from scipy.stats import spearmanr

from armorm.errors import CheckpointError, FitError, ObjectiveMismatch
from armorm.features.columns import Column, Held, blocks, tensors_in
from armorm.fit import gate_training
from armorm.fit.debias import Debias, DebiasedRewards
from armorm.fit.gate import Gate, GateSettings, _differences, bradley_terry_loss, fit_constant_gate, fit_gate
from armorm.fit.gate_training import Pairs, accuracy, device_of
from armorm.objectives import Objective, Objectives

THREE = Objectives([Objective(name=name, min=0, max=1) for name in ("a", "b", "c")])
SMALL = GateSettings(
    hidden=24, hidden_layers=2, temperature=0.5, steps=300, batch_size=256, learning_rate=5e-3, scale_init=10.0, evaluate_every=25
)
QUICK = replace(SMALL, steps=40, evaluate_every=10)
D = 6


def planted(p=1500, seed=0, shift=0.0):
    """Pairs whose preference follows weights that a prompt's first two features decide; every fourth validates."""
    rng = np.random.default_rng(seed)
    prompts = rng.normal(size=(p, D)) + shift
    logits = 3 * np.stack([prompts[:, 0] - shift, prompts[:, 1] - shift, -prompts[:, 0] + shift], axis=1)
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    one, two = rng.uniform(size=(2, p, 3))
    better = (weights * (one - two)).sum(axis=1) > 0
    chosen, rejected = np.where(better[:, None], one, two), np.where(better[:, None], two, one)
    return prompts, DebiasedRewards(chosen), DebiasedRewards(rejected), np.arange(p) % 4 == 0, weights


def train(settings=QUICK, seed=0, data=None, **more):
    prompts, chosen, rejected, validation, _ = data or planted(p=200)
    return fit_gate(prompts, chosen, rejected, validation, THREE, settings=settings, seed=seed, **more)


def margins_of(gate, prompts, chosen, rejected):
    return (gate.weights_for(prompts) * (chosen.values - rejected.values)).sum(axis=1)


@pytest.fixture(scope="module")
def learned():
    return train(SMALL, data=planted())


def test_gate_equals_ten_lines_of_numpy():
    rng = np.random.default_rng(0)
    shapes = [(7, D), (5, 7), (3, 5)]
    weights = tuple(rng.normal(size=s).astype(np.float32) for s in shapes)
    biases = tuple(rng.normal(size=s[0]).astype(np.float32) for s in shapes)
    prompts = rng.normal(size=(11, D))
    hidden = np.maximum(prompts @ weights[0].T + biases[0], 0)
    hidden = np.maximum(hidden @ weights[1].T + biases[1], 0)
    logits = (hidden @ weights[2].T + biases[2]) / 0.7
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = Gate(THREE, weights, biases, 0.7, 100.0).weights_for(prompts)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-12)


def test_weights_are_normalised_over_objectives(learned):
    weights = learned.gate.weights_for(planted(p=50, seed=9)[0])
    assert weights.shape == (50, 3)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
    assert weights.std(axis=0).min() > 0.05


def test_a_planted_weighting_is_recovered_and_beats_one_weight_vector(learned):
    prompts, chosen, rejected, validation, weights = planted(seed=7)
    constant = fit_constant_gate(chosen, rejected, validation, THREE)
    own = accuracy(margins_of(learned.gate, prompts, chosen, rejected))
    assert own > 0.9
    assert own > accuracy(margins_of(constant, prompts, chosen, rejected)) + 0.1
    found = learned.gate.weights_for(prompts)
    assert all(spearmanr(found[:, i], weights[:, i]).statistic > 0.85 for i in range(3))
    assert learned.validation_accuracies[0] == pytest.approx(own, abs=0.06)


def test_permuted_prompts_bring_the_gate_to_one_weight_vector():
    prompts, chosen, rejected, validation, weights = planted()
    shuffled = np.random.default_rng(3).permutation(prompts)
    fit = train(SMALL, data=(shuffled, chosen, rejected, validation, weights))
    constant = fit_constant_gate(chosen, rejected, validation, THREE)
    held_out = accuracy(margins_of(constant, shuffled, chosen, rejected)[validation])
    assert fit.validation_accuracies[0] < held_out + 0.05


def test_loss_is_that_of_the_paper():
    margins = torch.tensor([0.3, -0.2, 0.05], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    loss = bradley_terry_loss(margins, scale)
    loss.backward()
    r = margins.detach().numpy()
    assert loss.item() == pytest.approx(-log_expit(7 * r).mean())
    wrong = 1 / (1 + np.exp(7 * r))
    np.testing.assert_allclose(margins.grad.numpy(), -7 * wrong / 3)
    assert scale.grad.item() == pytest.approx(-(wrong * r).mean())
    assert math.isfinite(bradley_terry_loss(torch.tensor([-1e6]), torch.tensor(100.0)).item())


def test_curves_report_the_loss_of_the_gate_that_is_kept(learned):
    prompts, chosen, rejected, validation, _ = planted()
    curve = learned.curves[0]
    at = curve.steps.index(learned.best_step)
    assert curve.validation_loss[at] == min(curve.validation_loss)
    margins = margins_of(learned.gate, prompts, chosen, rejected)[validation]
    assert curve.validation_loss[at] == pytest.approx(-log_expit(learned.gate.scale * margins).mean(), rel=1e-4)
    assert curve.validation_accuracy[at] == pytest.approx(accuracy(margins), abs=0.003)
    assert curve.beta[at] == pytest.approx(learned.gate.scale)
    assert curve.train_loss[-1] < curve.train_loss[0]


def test_standardising_is_folded_into_the_first_layer():
    prompts, chosen, rejected, validation, weights = planted(p=300)
    prompts = prompts * np.geomspace(0.1, 100, D) + 50.0
    mean, deviation = prompts[~validation].mean(axis=0), prompts[~validation].std(axis=0)
    folded = train(data=(prompts, chosen, rejected, validation, weights)).gate
    by_hand = (prompts - mean) / deviation
    explicit = train(replace(QUICK, standardize=False), data=(by_hand, chosen, rejected, validation, weights)).gate
    np.testing.assert_allclose(folded.weights_for(prompts), explicit.weights_for(by_hand), atol=2e-3)
    plain = train(replace(QUICK, standardize=False), data=(prompts, chosen, rejected, validation, weights)).gate
    assert np.abs(plain.weights_for(prompts) - folded.weights_for(prompts)).max() > 0.02


def test_a_feature_that_does_not_vary_is_left_out():
    prompts, chosen, rejected, validation, weights = planted(p=200)
    prompts[:, 2] = 1234.5
    gate = train(data=(prompts, chosen, rejected, validation, weights)).gate
    moved = prompts.copy()
    moved[:, 2] += 1.0
    assert not gate.weights[0][:, 2].any()
    assert (gate.weights_for(moved) == gate.weights_for(prompts)).all()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_same_seed_same_gate_and_the_global_state_is_untouched(dropout):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, two = (train(replace(QUICK, dropout=dropout), seed=5) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.curves == two.curves
    assert all((a == b).all() for a, b in zip(one.gate.weights, two.gate.weights, strict=True))
    other = train(replace(QUICK, dropout=dropout), seed=6)
    assert one.curves[0].train_loss != other.curves[0].train_loss


def test_dropout_changes_training_but_not_the_gate_itself():
    with_dropout = train(replace(QUICK, dropout=0.5))
    assert with_dropout.curves[0].train_loss != train().curves[0].train_loss
    prompts = planted(p=10)[0]
    assert (with_dropout.gate.weights_for(prompts) == with_dropout.gate.weights_for(prompts)).all()


def test_patience_ends_training_and_progress_reaches_the_end():
    prompts, _, _, validation, weights = planted(p=200)
    noise = np.random.default_rng(0).normal(size=(2, 200, 3))
    data = prompts, DebiasedRewards(noise[0]), DebiasedRewards(noise[1]), validation, weights
    told = []
    settings = replace(SMALL, steps=400, evaluate_every=5, patience=3, seeds=2)
    fit = train(settings, data=data, progress=lambda done, everything: told.append((done, everything)))
    stopped = fit.curves[0].steps[-1]
    assert stopped < 400
    assert stopped - 15 == fit.curves[0].steps[int(np.argmin(fit.curves[0].validation_loss))]
    assert told == sorted(told)
    assert told[-1] == (800, 800)
    endless = train(replace(settings, patience=None, steps=120, seeds=1), data=data)
    assert endless.curves[0].steps[-1] == 120
    assert endless.best_step < 120


def test_best_of_several_seeds_is_taken():
    fit = train(replace(QUICK, seeds=3), seed=11)
    best = [min(curve.validation_loss) for curve in fit.curves]
    assert [curve.seed for curve in fit.curves] == [11, 12, 13]
    assert fit.chosen_seed == 11 + int(np.argmin(best))
    assert len(fit.validation_accuracies) == 3
    alone = train(QUICK, seed=fit.chosen_seed)
    assert all((a == b).all() for a, b in zip(alone.gate.weights, fit.gate.weights, strict=True))


def test_without_validation_pairs_the_last_weights_stay():
    prompts, chosen, rejected, validation, weights = planted(p=200)
    fit = train(replace(QUICK, patience=1, seeds=2), data=(prompts, chosen, rejected, np.zeros_like(validation), weights))
    assert (fit.best_step, fit.chosen_seed) == (40, 0)
    assert fit.curves[0].validation_loss == fit.curves[0].validation_accuracy == ()
    assert all(math.isnan(a) for a in fit.validation_accuracies)


def test_beta_has_its_own_rate_and_no_decay():
    still = train(replace(QUICK, scale_learning_rate=0.0, weight_decay=0.5))
    assert still.gate.scale == 10.0
    moving = train(replace(QUICK, scale_init=1.0, scale_learning_rate=0.5, weight_decay=0.5))
    assert moving.gate.scale > 3.0
    assert abs(train().gate.scale - 10.0) < 40 * QUICK.learning_rate


def test_half_precision_and_read_only_features_are_taken_as_they_are():
    prompts, chosen, rejected, validation, weights = planted(p=200)
    half = prompts.astype(np.float16)
    half.setflags(write=False)
    gate = train(data=(half, chosen, rejected, validation, weights)).gate
    full = train(data=(half.astype(np.float64), chosen, rejected, validation, weights)).gate
    np.testing.assert_allclose(gate.weights_for(half), full.weights_for(prompts), atol=2e-2)


def test_constant_gate_is_the_best_weight_vector():
    rng = np.random.default_rng(0)
    one, two = rng.uniform(size=(2, 3000, 3))
    planted_weights = np.array([0.7, 0.3, 0.0])
    likely = 1 / (1 + np.exp(-8 * (one - two) @ planted_weights))
    better = (rng.uniform(size=3000) < likely)[:, None]
    chosen, rejected = DebiasedRewards(np.where(better, one, two)), DebiasedRewards(np.where(better, two, one))
    gate = fit_constant_gate(chosen, rejected, np.arange(3000) % 5 == 0, THREE)
    weights = gate.weights_for(np.zeros((2, D)))
    np.testing.assert_allclose(weights[0], planted_weights, atol=0.06)
    assert (weights[0] == weights[1]).all()
    assert gate.scale == pytest.approx(8, rel=0.15)
    train_margins = (chosen.values - rejected.values)[np.arange(3000) % 5 != 0]
    least = -log_expit(gate.scale * train_margins @ weights[0]).mean()
    for other in (planted_weights, [1 / 3] * 3, [0.6, 0.3, 0.1]):
        assert least <= -log_expit(8 * train_margins @ np.asarray(other)).mean()
    backwards = fit_constant_gate(rejected, chosen, np.zeros(3000, dtype=bool), THREE)
    assert backwards.scale < 0.5  # weights can't be negative


def test_constant_weights_are_exact_for_any_prompt():
    gate = Gate.constant(THREE, np.array([1.0, 0.0, 0.0]))
    assert gate.weights_for(np.ones((2, 4))).tolist() == [[1.0, 0.0, 0.0]] * 2
    assert gate.weights_for(np.ones((1, 9), dtype=np.float32)).shape == (1, 3)
    uniform = Gate.constant(THREE, np.full(3, 1 / 3), width=4, scale=5.0)
    assert (uniform.weights_for(np.ones((1, 4))) == 1 / 3).all()
    assert (uniform.width, uniform.scale) == (4, 5.0)
    for wrong in ([0.5, 0.5], [0.5, 0.6, -0.1], [0.5, 0.5, 0.5]):
        with pytest.raises(FitError, match="sum to 1"):
            Gate.constant(THREE, np.array(wrong))


def test_raw_rewards_are_a_type_error():
    prompts, chosen, rejected, validation, _ = planted(p=20)
    with pytest.raises(TypeError):
        fit_gate(prompts, chosen.values, rejected.values, validation, THREE, settings=QUICK, seed=0)
    with pytest.raises(TypeError, match=r"got ndarray and DebiasedRewards: make them with Debias\.apply"):
        _differences(chosen.values, rejected, THREE)
    made = Debias.identity(THREE).apply(chosen.values, np.zeros((20, 0)))
    assert (_differences(made, rejected, THREE) == chosen.values - rejected.values).all()


def test_faults_are_errors():
    prompts, chosen, rejected, validation, weights = planted(p=20)
    with pytest.raises(FitError, match="no pair is left"):
        train(data=(prompts, chosen, rejected, np.ones(20, dtype=bool), weights))
    with pytest.raises(FitError, match="no pair is left"):
        fit_constant_gate(chosen, rejected, np.ones(20, dtype=bool), THREE)
    with pytest.raises(FitError, match="20 prompts, 19 pairs"):
        train(data=(prompts, DebiasedRewards(chosen.values[1:]), DebiasedRewards(rejected.values[1:]), validation, weights))
    with pytest.raises(ObjectiveMismatch, match=r"\(20, 2\)"):
        train(data=(prompts, DebiasedRewards(chosen.values[:, 1:]), rejected, validation, weights))
    broken = chosen.values.copy()
    broken[4, 1] = np.nan
    with pytest.raises(FitError, match="1 of 20 pairs"):
        train(data=(prompts, DebiasedRewards(broken), rejected, validation, weights))
    prompts[2, 2] = np.inf
    with pytest.raises(FitError, match="1 of 20 prompts"):
        train(data=(prompts, chosen, rejected, validation, weights))
    with pytest.raises(FitError, match=r"hidden must be above 0, got 0; .*dropout"):
        GateSettings(hidden=0, dropout=1.0)


def test_a_gate_that_does_not_fit_together_cannot_be_made(learned):
    gate = learned.gate
    with pytest.raises(FitError, match="width 6, these have 5"):
        gate.weights_for(np.zeros((1, 5)))
    with pytest.raises(FitError, match="don't fit together"):
        Gate(THREE, gate.weights[1:] + gate.weights[:1], gate.biases[1:] + gate.biases[:1], 1.0, 1.0)
    with pytest.raises(ObjectiveMismatch, match="weighs 3 objectives, the list names 2"):
        Gate(Objectives(THREE[:2]), gate.weights, gate.biases, 1.0, 1.0)


def test_pairs_keep_the_training_moments_only():
    prompts, chosen, rejected, validation, _ = planted(p=200, shift=3.0)
    prompts[validation] += 100
    pairs = Pairs(Held(prompts), chosen.values - rejected.values, validation, standardize=True)
    inputs = pairs.inputs(pairs.read(pairs.train)).numpy()
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(inputs.std(axis=0), 1, atol=1e-5)


def test_an_objective_without_differences_gets_no_weight() -> None:
    objectives = Objectives([Objective(name=n, min=0, max=1) for n in ("a", "zeroed", "b")])
    rng = np.random.default_rng(0)
    prompts = rng.normal(size=(200, 4)).astype(np.float32)
    chosen = rng.normal(size=(200, 3)) * [1, 0, 1] + [0.3, 0, 0]
    rejected = rng.normal(size=(200, 3)) * [1, 0, 1]
    validation = np.arange(200) % 5 == 0
    settings = GateSettings(hidden=8, hidden_layers=1, steps=30, batch_size=64, evaluate_every=10, scale_init=1.0)
    args = (DebiasedRewards(chosen), DebiasedRewards(rejected), validation, objectives)
    for gate in (fit_gate(prompts, *args, settings=settings, seed=0).gate, fit_constant_gate(*args)):
        weights = gate.weights_for(prompts)
        assert np.isfinite(weights).all()
        assert (weights[:, 1] == 0).all()
        np.testing.assert_allclose(weights.sum(axis=1), 1)


# -- where prompts are, and where the gate is trained ---------------------------------------------------------------------------


def curves(data, settings=QUICK, **more):
    fit = train(settings, data=data, **more)
    return fit.curves, [*fit.gate.weights, *fit.gate.biases]


def test_prompts_on_disk_train_the_same_gate_to_the_bit(tmp_path):
    prompts, *rest = planted(p=700)
    half = prompts.astype(np.float16)
    pieces = []
    for i, part in enumerate(np.array_split(half, 9)):
        save_file({"x": torch.from_numpy(part.copy())}, tmp_path / f"{i}.safetensors")
        pieces.append((tensors_in(tmp_path / f"{i}.safetensors")["x"],))
    (one, weights), (two, same) = curves((Column(pieces, D), *rest)), curves((half, *rest))
    assert one == two
    assert all((a == b).all() for a, b in zip(weights, same, strict=True))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_prompts_are_read_ahead_and_nothing_is_drawn_earlier_for_it(monkeypatch, dropout):
    """Law: the gate is the one of a loop that reads a batch when its turn has come."""
    settings = replace(QUICK, dropout=dropout, batch_size=32)
    readers, read = set(), Pairs.read
    monkeypatch.setattr(Pairs, "read", lambda self, rows: readers.add(threading.current_thread().name) or read(self, rows))
    ahead = curves(planted(p=200), settings)
    assert all(name.startswith("prompts") for name in readers)
    assert threading.active_count() == sum(not t.name.startswith("prompts") for t in threading.enumerate())
    monkeypatch.setattr(Pairs, "reading", lambda self, batches: map(self.read, batches))
    in_turn = curves(planted(p=200), settings)
    assert ahead[0] == in_turn[0]
    assert all((a == b).all() for a, b in zip(ahead[1], in_turn[1], strict=True))


def test_what_reading_raises_comes_out_of_the_training(monkeypatch):
    read, calls = Held.stored, []

    def damaged(self, at):
        calls.append(at)
        if len(calls) > 3:
            raise CheckpointError("shard-00000.safetensors: damaged")
        return read(self, at)

    monkeypatch.setattr(Held, "stored", damaged)
    with pytest.raises(CheckpointError, match="damaged"):
        train(replace(QUICK, batch_size=32))


def test_bfloat16_rounds_the_hidden_products_of_training_alone():
    whole, rounded = (train(replace(SMALL, precision=p), data=planted()) for p in ("float32", "bfloat16"))
    assert whole.curves[0].train_loss != rounded.curves[0].train_loss
    np.testing.assert_allclose(rounded.curves[0].validation_loss, whole.curves[0].validation_loss, atol=0.02)
    prompts, chosen, rejected, validation, _ = planted()
    found = margins_of(rounded.gate, prompts, chosen, rejected)[validation]
    assert all(W.dtype == np.float32 for W in rounded.gate.weights)
    best = int(np.argmin(rounded.curves[0].validation_loss))
    assert rounded.curves[0].validation_loss[best] == pytest.approx(-log_expit(rounded.gate.scale * found).mean(), rel=1e-4)
    linear = replace(QUICK, hidden_layers=0)
    assert curves(planted(p=200), linear)[0] == curves(planted(p=200), replace(linear, precision="bfloat16"))[0]


def test_moments_and_evaluations_take_a_block_at_a_time(monkeypatch):
    """Law: validation pairs and moments over several blocks are those over one, but for rounding."""
    whole = curves(planted(p=700))[0][0]
    monkeypatch.setattr(gate_training, "EVALUATION_BATCH", 64)
    monkeypatch.setattr(gate_training, "blocks", partial(blocks, size=50))
    parts = curves(planted(p=700))[0][0]
    np.testing.assert_allclose(parts.validation_loss, whole.validation_loss, rtol=1e-5)
    assert parts.validation_accuracy == pytest.approx(whole.validation_accuracy, abs=1e-6)


def test_weights_that_are_stepped_in_slices_are_the_same_to_the_bit(monkeypatch):
    decaying = replace(QUICK, weight_decay=0.1)
    monkeypatch.setattr(gate_training, "CACHED", 50)
    sliced = curves(planted(p=200), decaying)
    monkeypatch.setattr(gate_training, "CACHED", 2**40)
    whole = curves(planted(p=200), decaying)
    assert sliced[0] == whole[0]
    assert all((a == b).all() for a, b in zip(sliced[1], whole[1], strict=True))


def test_the_device_is_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == device_of("cpu") == torch.device("cpu")
    with pytest.raises(FitError, match=r"`gate\.device` is cuda.*auto or cpu"):
        train(replace(QUICK, device="cuda"))
    assert curves(planted(p=200), replace(QUICK, device="cpu"))[0] == curves(planted(p=200), replace(QUICK, device="auto"))[0]


def test_a_gpu_is_taken_where_there_is_one_unless_the_cpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("auto") == device_of("cuda") == torch.device("cuda")
    assert device_of("cpu") == torch.device("cpu")


def test_a_device_that_is_none_is_refused():
    settings = GateSettings()
    object.__setattr__(settings, "device", "tpu")  # past the tests' own type checks
    with pytest.raises(FitError, match="gate settings: device must be one of auto, cpu, cuda, got"):
        settings.__post_init__()


on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@on_a_gpu
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("spare", [0, 2**60], ids=["resident", "streamed"])
def test_a_gpu_trains_the_same_gate(dropout, spare, monkeypatch):
    monkeypatch.setattr(gate_training, "SPARE", spare)
    settings = replace(SMALL, dropout=dropout)
    cpu, gpu = (train(replace(settings, device=device), data=planted()) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(gpu.curves[0].validation_loss, cpu.curves[0].validation_loss, rtol=1e-2)
    prompts = planted(p=200, seed=3)[0]
    np.testing.assert_allclose(gpu.gate.weights_for(prompts), cpu.gate.weights_for(prompts), atol=2e-2)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_a_gpu)])
def test_the_step_at_which_training_diverged_is_named_on_any_device(device):
    prompts, chosen, rejected, *rest = planted(p=200)
    big = (DebiasedRewards(side.values * 1e37) for side in (chosen, rejected))
    with pytest.raises(FitError, match=r"diverged at step 1 "):
        train(replace(QUICK, scale_init=1e6, device=device), data=(prompts, *big, *rest))
