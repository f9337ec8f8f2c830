"""The gate (eq. 4, 5): reads the prompt, weighs the objectives; trained on preference pairs.

In: prompt features [p d], debiased rewards of both answers [p k].  Out: `GateFit` with the `Gate`, a plain ReLU MLP.
Cost: `steps` batches through the MLP for each seed, one pass over the prompts before. Prompts on disk stay there: a batch is in
memory at a time.

The mean of several gates' logits is an MLP too: first layers stacked, hidden ones block by block along the diagonal, last ones
side by side. So that each gate's own weights can still be told, every block has a unit more, which is always 1 and carries what
the gate's last bias adds to the mean one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import block_diag
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp

from armorm.bounds import COLDEST, HOTTEST, STEEPEST, finite, shown
from armorm.errors import FitError, ObjectiveMismatch
from armorm.features.columns import Held, Rows, blocks, gathered
from armorm.fit.anchor import Anchor, bounded
from armorm.fit.debias import DebiasedRewards
from armorm.fit.gate_settings import LEAST_SCALE, GateSettings
from armorm.fit.gate_training import GateCurve, Pairs, Trained, accuracy, bradley_terry_loss, device_of, train_layers
from armorm.fit.moments import broken_rows
from armorm.objectives import Objectives

_LOG_SCALES = (math.log(1e-6), math.log(1e6))
"""The bounds of log β, where differences are at most 1."""

__all__ = ["Gate", "GateCurve", "GateFit", "GateSettings", "bradley_terry_loss", "fit_constant_gate", "fit_gate"]


@dataclass(frozen=True, eq=False)
class Gate:
    """g(x) = softmax(MLP(f(x)) / temperature) over the objectives; `scale` is β, which turns score margins into log-odds.

    `weights` (each [out in]) and `biases` are the layers in order, with ReLU between them, all float32. A first layer of width
    0 makes a gate that reads no prompt. `blocks` is how many gates it is the mean of (see `mean_of_gates`).
    """

    objectives: Objectives
    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    temperature: float
    scale: float
    blocks: int = 1

    def __post_init__(self) -> None:
        widths = [w.shape for w in self.weights]
        fits = all(w.shape[0] == len(b) for w, b in zip(self.weights, self.biases, strict=True))
        if not widths or not fits or any(a[0] != b[1] for a, b in pairwise(widths)):
            raise FitError(f"the gate's layers don't fit together: weights {widths}, biases {[b.shape for b in self.biases]}")
        if widths[-1][0] != len(self.objectives):
            raise ObjectiveMismatch(
                f"the gate weighs {widths[-1][0]} objectives, the list names {len(self.objectives)}: train the gate on this list"
            )
        if not (COLDEST <= finite(self.temperature) <= HOTTEST and 0 <= finite(self.scale) <= STEEPEST):
            raise FitError(
                f"the gate's temperature is {shown(self.temperature)} and its β {shown(self.scale)}: numbers from {COLDEST:g} to "
                f"{HOTTEST:g} and from 0 to {STEEPEST:g} are wanted: train the gate again"
            )
        if not gate_is_finite(self.weights, self.biases):
            raise FitError("the gate has weights that are NaN or infinite: train it again, with a lower `learning_rate`")
        if not stands_in_blocks(self.weights, self.biases, self.blocks):
            raise FitError(f"the gate's layers {widths} are not those of {self.blocks} gates beside each other: train it again")

    @classmethod
    def constant(cls, objectives: Objectives, weights: Float[np.ndarray, " k"], *, scale: float = 1.0, width: int = 0) -> Gate:
        """The same weights for every prompt. `width` is that of the features it is to be called with (0: any).

        Raises FitError unless the weights are non-negative and sum to 1.
        """
        if len(weights) != len(objectives) or (weights < 0).any() or not math.isclose(weights.sum(), 1.0, abs_tol=1e-6):
            raise FitError(
                f"constant weights must be {len(objectives)} non-negative numbers that sum to 1, got {weights.tolist()}"
            )
        with np.errstate(divide="ignore"):  # log 0 = −∞ is a weight of exactly 0
            logits = np.log(weights.astype(np.float64)).astype(np.float32)
        return cls(objectives, (np.zeros((len(objectives), width), np.float32),), (logits,), 1.0, float(scale))

    @property
    def width(self) -> int:
        """The features' width; 0 for a gate that reads no prompt."""
        return int(self.weights[0].shape[1])

    def weights_for(self, prompts: Float[np.ndarray, "p d"]) -> Float[np.ndarray, "p k"]:
        """Weights [p k] for prompt features, non-negative, each row sums to 1 (eq. 4). Raises FitError for another width."""
        if self.width and prompts.shape[1] != self.width:
            raise FitError(
                f"the gate reads prompt features of width {self.width}, these have {prompts.shape[1]}: "
                "use the backbone and the feature settings that it was trained with"
            )
        return _softmax((self._last_inputs(prompts) @ self.weights[-1].T + self.biases[-1]).astype(np.float64) / self.temperature)

    def members_for(self, prompts: Float[np.ndarray, "p d"]) -> Float[np.ndarray, "p s k"]:
        """The weights of each of the `blocks` gates that this one is the mean of; of a gate by itself, its own."""
        if self.blocks == 1:
            return self.weights_for(prompts)[:, None]
        inputs, last = self._last_inputs(prompts), np.split(self.weights[-1], self.blocks, axis=1)
        logits = [self.blocks * (a @ W.T) + self.biases[-1] for a, W in zip(np.split(inputs, self.blocks, 1), last, strict=True)]
        return _softmax(np.stack(logits, axis=1).astype(np.float64) / self.temperature)

    def _last_inputs(self, prompts: Float[np.ndarray, "p d"]) -> Float[np.ndarray, "p h"]:
        # What the last layer reads
        hidden = prompts[:, : self.width].astype(np.float32)
        for W, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.maximum(hidden @ W.T + b, 0)
        return hidden


def _softmax(logits: Float[np.ndarray, "... k"]) -> Float[np.ndarray, "... k"]:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)  # over k


def stands_in_blocks(weights: Sequence[np.ndarray], biases: Sequence[np.ndarray], count: int) -> bool:
    """Whether layers are those of so many gates beside each other, as `mean_of_gates` puts them: equal parts of every hidden
    width, nothing between them, and a unit that is always 1 at the end of each."""
    if count == 1:
        return True
    hidden = weights[:-1]
    if count < 1 or not hidden or any(W.shape[0] % count for W in hidden):
        return False
    ends = slice(hidden[0].shape[0] // count - 1, None, hidden[0].shape[0] // count)
    if hidden[0][ends].any() or (biases[0][ends] != 1).any():
        return False
    for W in hidden[1:]:
        parts = W.reshape(count, W.shape[0] // count, count, W.shape[1] // count)
        if any(parts[i, :, j].any() for i in range(count) for j in range(count) if i != j):
            return False
    return True


def mean_of_gates(gates: Sequence[Gate], scale: float) -> Gate:
    """One gate whose logits are the mean of those of several gates of one shape, objectives and temperature.

    Its hidden layers are as wide as theirs together, and a unit more for each of them. Where they have no hidden layer, the mean
    is a single linear layer, in which they can't be told apart (`blocks` is 1).
    """
    first, n = gates[0], len(gates)
    last = [gate.biases[-1].astype(np.float64) for gate in gates]
    mean = np.mean(last, axis=0)  # −∞ where it is so in all of them
    columns = [gate.weights[-1].astype(np.float64) / n for gate in gates]
    if len(first.weights) == 1:
        layers = [(np.sum(columns, axis=0), mean)]
        return _gate_of(first, layers, scale, 1)
    own = [np.where(np.isfinite(mean), b - mean, 0.0)[:, None] / n for b in np.where(np.isfinite(last), last, 0.0)]
    layers = [
        (
            np.concatenate([np.vstack([gate.weights[0], np.zeros((1, first.width))]) for gate in gates]),
            np.concatenate([np.append(gate.biases[0], 1.0) for gate in gates]),
        )
    ]
    for i in range(1, len(first.weights) - 1):
        units = [part for gate in gates for part in (gate.weights[i], np.ones((1, 1)))]
        layers.append((block_diag(*units), np.concatenate([np.append(gate.biases[i], 0.0) for gate in gates])))
    layers.append((np.hstack([part for pair in zip(columns, own, strict=True) for part in pair]), mean))
    return _gate_of(first, layers, scale, n)


def _gate_of(like: Gate, layers: Sequence[tuple[np.ndarray, np.ndarray]], scale: float, blocks: int) -> Gate:
    weights, biases = (tuple(side.astype(np.float32) for side in sides) for sides in zip(*layers, strict=True))
    return Gate(like.objectives, weights, biases, like.temperature, scale, blocks)


def gate_is_finite(weights: Sequence[np.ndarray], biases: Sequence[np.ndarray]) -> bool:
    """Whether a gate's layers give weights for any prompt: all numbers finite but for logits of −∞, and one of those at least."""
    hidden = [*weights, *biases[:-1]]
    last = biases[-1]
    whole = all(np.isfinite(layer).all() for layer in hidden)
    return whole and bool(np.isfinite(last[~np.isneginf(last)]).all() and np.isfinite(last).any())


@dataclass(frozen=True, eq=False)
class GateFit:
    """A gate and its training.

    `chosen_seed` and `best_step` say where its weights come from, None where they are of all seeds or of no training;
    `validation_accuracies`: one per seed, at its best step, NaN without validation pairs.
    """

    gate: Gate
    curves: tuple[GateCurve, ...]
    chosen_seed: int | None
    best_step: int | None
    validation_accuracies: tuple[float, ...]


def fit_gate(
    prompts: Float[np.ndarray, "p d"] | Rows,
    chosen: DebiasedRewards,
    rejected: DebiasedRewards,
    validation: Bool[np.ndarray, " p"],
    objectives: Objectives,
    *,
    settings: GateSettings,
    seed: int,
    weights: Float[np.ndarray, " p"] | None = None,
    elsewhere: Float[np.ndarray, "m d"] | Rows | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GateFit:
    """Trains the gate on the pairs outside `validation` and keeps the weights with the best validation loss.

    Without validation pairs it trains to the end and keeps the last weights (and the first seed). With `kl: inf` nothing is
    trained: the gate is the best constant one. The same seed gives the
    same gate on a machine, and but for rounding on any device; the global random state is untouched. `weights` say what each
    pair counts in the losses (none: all alike; see `pair_weights`). `elsewhere` are prompts without pairs, for `kl_elsewhere`,
    which does nothing without them. `progress(done, all)` counts steps over all seeds.

    Raises TypeError for rewards that did not come from `Debias.apply`; FitError for no training pairs or values that are
    not finite or never differ, and for training that diverges; ObjectiveMismatch for another number of objectives. An objective
    whose reward is the same in every pair's two answers (a zeroed nuisance) gets the weight 0.
    """
    differences = _differences(chosen, rejected, objectives)
    if not len(prompts) == len(differences) == len(validation):
        raise FitError(
            f"there are {len(prompts)} prompts, {len(differences)} pairs and {len(validation)} validation marks: "
            "give one of each per pair"
        )
    _check_signal(differences[~validation], objectives)
    held = Held(prompts) if isinstance(prompts, np.ndarray) else prompts
    device, constant = device_of(settings.device), None
    if settings.anchored:
        constant = fit_constant_gate(chosen, rejected, validation, objectives, weights=weights, kl_equal=settings.kl_equal)
        if math.isinf(settings.strength):
            return _without_training(constant, differences[validation])
    anchor = None if constant is None else _anchor(constant, differences)
    pairs = Pairs(held, differences, validation, standardize=settings.standardize, device=device, weights=weights)
    others = _without_pairs(elsewhere) if settings.kl_elsewhere else None
    fits = [
        train_layers(pairs, settings, seed=seed + i, progress=progress, done=i * settings.steps, anchor=anchor, elsewhere=others)
        for i in range(settings.seeds)
    ]

    def gate_of(fit: Trained) -> Gate:
        W, b = zip(*((W.numpy(), b.numpy()) for W, b in pairs.fold_standardising(fit.layers)), strict=True)
        return Gate(objectives, W, b, settings.temperature, fit.scale)

    curves, accuracies = tuple(fit.curve for fit in fits), tuple(fit.accuracy for fit in fits)
    if settings.combine == "mean" and len(fits) > 1:
        gate = mean_of_gates([gate_of(fit) for fit in fits], 1.0)
        margins = margins_of(gate, held, differences)
        return GateFit(replace(gate, scale=best_scale(margins, weights)), curves, None, None, accuracies)
    losses = [fit.loss if math.isfinite(fit.loss) else math.inf for fit in fits]  # none without validation pairs
    best = int(np.argmin(losses))
    return GateFit(gate_of(fits[best]), curves, seed + best, fits[best].step, accuracies)


def _without_pairs(elsewhere: Float[np.ndarray, "m d"] | Rows | None) -> Rows | None:
    # Looked at once for all seeds; None where there are none
    if elsewhere is None or not len(elsewhere):
        return None
    prompts = Held(elsewhere) if isinstance(elsewhere, np.ndarray) else elsewhere
    if broken := sum(broken_rows(prompts.rows(at)) for at in blocks(len(prompts))):
        raise FitError(
            f"{broken} of {len(prompts)} prompts without pairs have features that are NaN or infinite: extract them again"
        )
    return prompts


def _anchor(constant: Gate, differences: Float[np.ndarray, "p k"]) -> Anchor:
    live = (differences.astype(np.float32) != 0).any(axis=0)
    return Anchor.of(constant.weights_for(np.zeros((1, 0)))[0], constant.scale, live)


def _without_training(constant: Gate, held_out: Float[np.ndarray, "v k"]) -> GateFit:
    # The constant gate as a gate: its β is above 0, as every trained one's is
    right = accuracy(held_out @ constant.weights_for(np.zeros((1, 0)))[0]) if len(held_out) else math.nan
    return GateFit(replace(constant, scale=max(constant.scale, LEAST_SCALE)), (), None, None, (right,))


def margins_of(gate: Gate, prompts: Rows, differences: Float[np.ndarray, "p k"]) -> Float[np.ndarray, " p"]:
    """R_chosen − R_rejected of pairs, from the prompts' features and the differences of debiased rewards; a block at a time."""
    margins = ((gate.weights_for(prompts.rows(at)) * differences[at]).sum(axis=1) for at in blocks(len(prompts)))  # over k
    return gathered(margins, len(prompts))


def best_scale(margins: Float[np.ndarray, " p"], weights: Float[np.ndarray, " p"] | None = None) -> float:
    """The β of least mean loss of eq. 5 for these margins: the smallest where 0 is, a large one where all are right."""
    size = float(np.abs(margins).max(initial=0.0))
    if not size > 0:
        return LEAST_SCALE
    unit, counts = margins / size, np.ones(len(margins)) if weights is None else weights

    def loss(log_scale: float) -> float:
        return float((counts * np.logaddexp(0, -math.exp(log_scale) * unit)).mean())

    found = minimize_scalar(loss, bounds=_LOG_SCALES, method="bounded", options={"xatol": 1e-9})
    return bounded(math.exp(float(found.x)) / size)


def fit_constant_gate(
    chosen: DebiasedRewards,
    rejected: DebiasedRewards,
    validation: Bool[np.ndarray, " p"],
    objectives: Objectives,
    *,
    weights: Float[np.ndarray, " p"] | None = None,
    kl_equal: float = 0.0,
) -> Gate:
    """The one weight vector on the simplex (and its β ≥ 0) with the least loss of eq. 5 over the pairs outside `validation`.

    It is the global optimum: in θ = β·w the loss is convex and the constraint is θ ≥ 0. `weights` say what each pair counts.
    With `kl_equal` that many times KL(w ‖ equal weights), over the objectives whose reward ever differs, is a part of the loss:
    for each β it is convex in w still, and of several β the search goes on from the best. Raises as `fit_gate` does.
    """
    differences = _differences(chosen, rejected, objectives)
    if len(validation) != len(differences):
        raise FitError(f"there are {len(differences)} pairs and {len(validation)} validation marks: give one per pair")
    train = differences[~validation]
    if not len(train):
        raise FitError("no pair is left to train on: mark fewer pairs for validation")
    _check_signal(train, objectives)
    counts = np.ones(len(train)) if weights is None else weights[~validation]
    live = (differences != 0).any(axis=0)
    if kl_equal:
        return _held_to_equal(train, counts, live, objectives, kl_equal)
    bounds = [(0, None) if alive else (0, 0) for alive in live]
    solution = minimize(_loss_and_gradient, live.astype(np.float64), args=(train, counts), jac=True, bounds=bounds)
    scale = float(solution.x.sum())
    if not math.isfinite(scale):
        raise FitError("no constant weights can be found: the rewards are too large or too small to weigh: fit the probe again")
    found = solution.x / scale if scale > 0 else np.full(len(objectives), 1 / len(objectives))
    return Gate.constant(objectives, found, scale=scale)


def _held_to_equal(
    train: Float[np.ndarray, "p k"],
    counts: Float[np.ndarray, " p"],
    live: Bool[np.ndarray, " k"],
    objectives: Objectives,
    kl_equal: float,
) -> Gate:
    # Over log w (up to a constant) and log β, from equal weights and the best β of a grid
    gaps, n = train[:, live], int(live.sum())
    size = float(np.abs(gaps).max())
    unit = gaps / size

    def loss(at: Float[np.ndarray, " n"]) -> tuple[float, Float[np.ndarray, " n"]]:
        scale, w = math.exp(at[-1]), _softmax(at[:-1])
        log_w = at[:-1] - logsumexp(at[:-1])
        margins = unit @ w
        slopes = -scale * counts * np.exp(-np.logaddexp(0, scale * margins)) / len(unit)
        divergence = float(w @ log_w) + math.log(n)
        by_weight = unit.T @ slopes + kl_equal * log_w
        gradient = np.append(w * (by_weight - w @ by_weight), slopes @ margins)
        return float((counts * np.logaddexp(0, -scale * margins)).mean()) + kl_equal * divergence, gradient

    starts = (np.append(np.zeros(n), at) for at in np.linspace(*_LOG_SCALES, 25))
    bounds = [(None, None)] * n + [_LOG_SCALES]
    found = minimize(loss, min(starts, key=lambda at: loss(at)[0]), jac=True, bounds=bounds, options={"maxiter": 2000})
    weights = np.zeros(len(objectives))
    weights[live] = _softmax(found.x[:-1])
    scale = math.exp(float(found.x[-1])) / size
    if not (np.isfinite(weights).all() and math.isfinite(scale)):
        raise FitError("no constant weights can be found: the rewards are too large or too small to weigh: fit the probe again")
    return Gate.constant(objectives, weights, scale=scale)


def _check_signal(train: Float[np.ndarray, "p k"], objectives: Objectives) -> None:
    if len(train) and not (train.astype(np.float32) != 0).any():  # the gate is trained in float32
        raise FitError(
            f"in none of the {len(train)} training pairs does a debiased reward differ between the two answers "
            f"({', '.join(objectives.names[:5])}): there is nothing to weigh. Take objectives out of `debias.nuisances` (those "
            "in it are zeroed), rate answers that differ, or choose another `features.response`"
        )


def _loss_and_gradient(
    theta: Float[np.ndarray, " k"], differences: Float[np.ndarray, "p k"], counts: Float[np.ndarray, " p"]
) -> tuple[float, Float[np.ndarray, " k"]]:
    # mean c log(1 + exp(−Δθ)) and −Δ'(c σ(−Δθ))/p
    margins = differences @ theta
    wrong = counts * np.exp(-np.logaddexp(0, margins))
    return float((counts * np.logaddexp(0, -margins)).mean()), -(wrong @ differences) / len(margins)


def _differences(chosen: object, rejected: object, objectives: Objectives) -> Float[np.ndarray, "p k"]:
    if not isinstance(chosen, DebiasedRewards) or not isinstance(rejected, DebiasedRewards):
        raise TypeError(
            f"the gate is trained on DebiasedRewards, got {type(chosen).__name__} and {type(rejected).__name__}: make them with "
            "Debias.apply (Debias.identity(objectives).apply where nothing is to be taken out)"
        )
    a, b = chosen.values, rejected.values
    if a.shape != b.shape or a.shape[1] != len(objectives):
        raise ObjectiveMismatch(
            f"chosen rewards are {a.shape}, rejected {b.shape}, and there are {len(objectives)} objectives: "
            "give both answers' rewards by the same probe"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        bad = int((~np.isfinite((a - b).astype(np.float32)).all(axis=1)).sum())
    if bad:
        raise FitError(f"{bad} of {len(a)} pairs have rewards that are NaN or infinite: leave those pairs out")
    return np.asarray(a - b, dtype=np.float64)
