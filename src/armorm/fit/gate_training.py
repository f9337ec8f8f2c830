"""The gate's training loop (eq. 5): AdamW with cosine decay on −log σ(β (R_chosen − R_rejected)), with early stopping.

In: `Pairs` (prompt features, differences of debiased rewards, which pairs validate) and `GateSettings`.  Out: `Trained`
layers with their curve.  Cost: a pass and a backward pass through the MLP per step; the validation pairs per evaluation.

No step makes β negative (`Scale`), which would teach the gate the reverse of the pairs.
Only r'_chosen − r'_rejected is kept of the rewards: a pair has one weight vector g, so R_chosen − R_rejected = g · difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from armorm.errors import FitError
from armorm.fit.gate_settings import GateSettings

EVALUATION_BATCH = 8192

Layers = list[tuple[Tensor, Tensor]]
"""Weights [out in] and biases [out] of the MLP in order."""


@dataclass(frozen=True)
class GateCurve:
    """One seed's training, an entry per evaluation; the validation lists are empty when there are no validation pairs."""

    seed: int
    steps: tuple[int, ...]
    train_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    validation_accuracy: tuple[float, ...]
    beta: tuple[float, ...]


def bradley_terry_loss(margins: Float[Tensor, " b"], scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """−log σ(β (R_chosen − R_rejected)), averaged over pairs (eq. 5)."""
    return softplus(-scale * margins).mean()


class Scale:
    """β as a number θ without bounds: β = θ from 1 on, and exp(θ − 1) below, which is above 0 and as steep where the two meet."""

    def __init__(self, initial: float) -> None:
        self.theta = torch.tensor(initial if initial >= 1 else 1 + math.log(initial), requires_grad=True)

    @property
    def value(self) -> Float[Tensor, ""]:
        return torch.where(self.theta >= 1, self.theta, torch.exp(self.theta.clamp(max=1) - 1))


class Pairs:
    """The pairs, split into training and validation, with the training prompts' means and inverse deviations.

    Features stay as they are given (a read-only map of a file, float16); a batch at a time becomes float32.
    """

    def __init__(
        self,
        prompts: Float[np.ndarray, "p d"],
        differences: Float[np.ndarray, "p k"],
        validation: Bool[np.ndarray, " p"],
        *,
        standardize: bool,
    ) -> None:
        self.prompts = prompts
        self.differences = torch.from_numpy(differences.astype(np.float32))
        self.train = torch.from_numpy(np.flatnonzero(~validation))
        self.validation = torch.from_numpy(np.flatnonzero(validation))
        if not len(self.train):
            raise FitError("no pair is left to train on: mark fewer pairs for validation")
        d = prompts.shape[1]
        self.mean, self.inverse = torch.zeros(d), torch.ones(d)
        if standardize:
            self.mean, self.inverse = _moments(prompts, self.train.numpy())

    def inputs(self, rows: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """What the MLP is trained on: some prompts, standardised."""
        return (torch.from_numpy(self.prompts[rows.numpy()].astype(np.float32)) - self.mean) * self.inverse

    def fold_standardising(self, layers: Layers) -> Layers:
        """The same MLP for features that are not standardised."""
        # W ((x − mean) / std) + b = (W / std) x + (b − (W / std) mean)
        (W, b), *rest = layers
        scaled = W.double() * self.inverse.double()
        return [(scaled.float(), (b.double() - scaled @ self.mean.double()).float()), *rest]


def _moments(prompts: Float[np.ndarray, "p d"], rows: np.ndarray) -> tuple[Tensor, Tensor]:
    # Means and inverse deviations of the training rows, in float64; a column that does not vary is left out (inverse 0).
    blocks = [rows[i : i + EVALUATION_BATCH] for i in range(0, len(rows), EVALUATION_BATCH)]
    mean = sum(prompts[at].sum(axis=0, dtype=np.float64) for at in blocks) / len(rows)
    variance = sum(((prompts[at] - mean) ** 2).sum(axis=0) for at in blocks) / len(rows)
    deviation = np.sqrt(variance)
    varies = deviation > 1e-6 * np.abs(mean)
    inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies & (deviation > 0))
    return torch.from_numpy(mean).float(), torch.from_numpy(inverse).float()


@dataclass(frozen=True, eq=False)
class Trained:
    """One seed's best layers (for inputs as `Pairs.inputs` gives them), the step they are from, and the curve."""

    layers: Layers
    scale: float
    step: int
    loss: float
    accuracy: float
    curve: GateCurve


def train_layers(
    pairs: Pairs, settings: GateSettings, *, seed: int, progress: Callable[[int, int], None] | None, done: int
) -> Trained:
    """Trains from one seed; `done` steps of earlier seeds are counted in what `progress` hears."""
    generator = torch.Generator().manual_seed(seed)
    layers = _new_layers(pairs.prompts.shape[1], pairs.differences.shape[1], settings, generator)
    with torch.no_grad():
        # An objective whose reward never differs (a zeroed nuisance) has no gradient, but could serve as a place to put weight
        # away. Its logit is −∞ from the start and stays there: its weight is exactly 0.
        layers[-1][1][(pairs.differences == 0).all(dim=0)] = -math.inf
    scale = Scale(float(settings.scale_init))
    optimizer, schedule = _optimizer(layers, scale.theta, settings)
    log, recent, everything = _Log(settings.patience), [], settings.seeds * settings.steps
    batches = _batches(len(pairs.train), settings.batch_size, generator)
    for step in range(1, settings.steps + 1):
        at = pairs.train[next(batches)]
        loss = bradley_terry_loss(_margins(layers, pairs, at, settings, generator), scale.value)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        recent.append(float(loss.detach()))
        _check_step(step, recent[-1], scale, settings)
        if step % settings.evaluate_every == 0 or step == settings.steps:
            beta = scale.value.detach()
            log.note(step, float(np.mean(recent)), layers, beta, _evaluate(layers, beta, pairs, settings))
            recent = []
            if progress:
                progress(done + step, everything)
            if log.exhausted:
                break
    if progress and step < settings.steps:
        progress(done + settings.steps, everything)
    return log.result(seed)


def _check_step(step: int, loss: float, scale: Scale, settings: GateSettings) -> None:
    beta = float(scale.value.detach())
    if not math.isfinite(loss) or not 0 < beta < math.inf:
        rates = f"`learning_rate` ({settings.learning_rate:g}) and `scale_learning_rate` ({settings.scale_learning_rate})"
        raise FitError(
            f"the gate's training diverged at step {step} (loss {loss:g}, β {beta:g}): lower {rates}, or raise `temperature` "
            f"({settings.temperature:g})"
        )


def accuracy(margins: Float[np.ndarray, " p"]) -> float:
    """The share of pairs with the chosen answer above the rejected one; ties count half."""
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())


def _new_layers(d: int, k: int, settings: GateSettings, generator: torch.Generator) -> Layers:
    # Uniform in ±1/√(inputs), torch's own default for a linear layer, from this run's generator
    widths = [d, *[settings.hidden] * settings.hidden_layers, k]
    layers = []
    for inputs, outputs in pairwise(widths):
        bound = 1 / math.sqrt(inputs)
        W = torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator)
        b = torch.empty(outputs).uniform_(-bound, bound, generator=generator)
        layers.append((W.requires_grad_(), b.requires_grad_()))
    return layers


def _optimizer(
    layers: Layers, theta: Tensor, settings: GateSettings
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    rate = settings.learning_rate if settings.scale_learning_rate is None else settings.scale_learning_rate
    optimizer = torch.optim.AdamW(
        [
            {"params": [t for layer in layers for t in layer], "weight_decay": settings.weight_decay},
            {"params": [theta], "lr": rate, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
    )
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=settings.steps)


def _batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    # Epoch after epoch in a new order; a rest smaller than a batch is left for another epoch.
    size = min(size, n)
    while True:
        order = torch.randperm(n, generator=generator)
        yield from order[: n // size * size].split(size)


def _margins(
    layers: Layers, pairs: Pairs, rows: Int[Tensor, " b"], settings: GateSettings, generator: torch.Generator | None
) -> Float[Tensor, " b"]:
    # R_chosen − R_rejected; with a generator there is dropout behind each hidden layer
    hidden = pairs.inputs(rows)
    for i, (W, b) in enumerate(layers):
        if i:
            hidden = torch.relu(hidden)
            if settings.dropout and generator is not None:
                kept = torch.rand(hidden.shape, generator=generator) >= settings.dropout
                hidden = hidden * kept / (1 - settings.dropout)
        hidden = hidden @ W.T + b
    weights = torch.softmax(hidden / settings.temperature, dim=-1)  # over k
    return (weights * pairs.differences[rows]).sum(dim=-1)


@torch.no_grad()
def _evaluate(layers: Layers, scale: Tensor, pairs: Pairs, settings: GateSettings) -> tuple[float, float] | None:
    # Loss and accuracy over the validation pairs, None where there are none
    if not len(pairs.validation):
        return None
    blocks = pairs.validation.split(EVALUATION_BATCH)
    margins = torch.cat([_margins(layers, pairs, at, settings, None) for at in blocks])
    return float(bradley_terry_loss(margins, scale)), accuracy(margins.double().numpy())


@dataclass
class _Log:
    # The curve so far, and the layers of the best evaluation (of the last one where nothing validates)
    patience: int | None
    rows: list[tuple[int, float, float]] = field(default_factory=list)  # step, training loss, β
    validation: list[tuple[float, float]] = field(default_factory=list)
    best: int = -1
    layers: Layers = field(default_factory=list)

    def note(self, step: int, train: float, layers: Layers, scale: Tensor, validation: tuple[float, float] | None) -> None:
        self.rows.append((step, train, float(scale.detach())))
        if validation is not None:
            self.validation.append(validation)
        if validation is None or self.best < 0 or validation[0] < self.validation[self.best][0]:
            self.best = len(self.rows) - 1
            self.layers = [(W.detach().clone(), b.detach().clone()) for W, b in layers]

    @property
    def exhausted(self) -> bool:
        return self.patience is not None and len(self.rows) - 1 - self.best >= self.patience

    def result(self, seed: int) -> Trained:
        losses, accuracies = (tuple(v[i] for v in self.validation) for i in (0, 1))
        steps, train, beta = zip(*self.rows, strict=True)
        curve = GateCurve(seed, steps, train, losses, accuracies, beta)
        best = (losses[self.best], accuracies[self.best]) if losses else (math.nan, math.nan)
        return Trained(self.layers, beta[self.best], steps[self.best], *best, curve)
