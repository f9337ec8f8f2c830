"""The gate's training loop (eq. 5): AdamW with cosine decay on −log σ(β (R_chosen − R_rejected)), with early stopping.

In: `Pairs` (prompt features, differences of debiased rewards, which pairs validate) and `GateSettings`.  Out: `Trained`
layers with their curve.  Cost: a pass and a backward pass through the MLP per step; the validation pairs per evaluation. A
batch of prompts is read at a time, while the step before it is computed; a GPU keeps all of them in the type they are stored in,
where they fit.

No step makes β negative (`Scale`), which would teach the gate the reverse of the pairs.
Only r'_chosen − r'_rejected is kept of the rewards: a pair has one weight vector g, so R_chosen − R_rejected = g · difference.
First weights, batches and dropout are drawn on the CPU whatever the device, so devices differ in rounding alone.
With an `Anchor` the MLP's logits may be added to those of one weight vector, and its divergence from that be a part of the loss
that is stepped down, on the pairs' prompts and on others that have no pairs; losses that are reported, and those that stop the
training, are eq. 5's alone.
With `precision: bfloat16` the products behind hidden layers are rounded to it in training; weights, their steps and evaluations
stay in float32, so that what is chosen and saved is judged as it will be used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import linear, softplus

from armorm.errors import FitError
from armorm.features.columns import Places, Rows, blocks
from armorm.fit.anchor import Anchor, divergence
from armorm.fit.gate_settings import GateDevice, GateSettings
from armorm.fit.moments import broken_rows, moments_of

CPU = torch.device("cpu")
EVALUATION_BATCH = 8192
CACHED = 2**17
"""Numbers in a slice of the weights that an optimizer's temporaries stay in the cache with."""
SPARE = 3 * 2**30
"""Bytes of a GPU's memory that are left to the training beside the prompts."""

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


def bradley_terry_loss(
    margins: Float[Tensor, " b"], scale: Float[Tensor, ""], weights: Float[Tensor, " b"] | None = None
) -> Float[Tensor, ""]:
    """−log σ(β (R_chosen − R_rejected)), averaged over pairs (eq. 5); each counts its weight, where there are weights."""
    return _mean(softplus(-scale * margins), weights)


def _mean(values: Float[Tensor, " b"], weights: Float[Tensor, " b"] | None) -> Float[Tensor, ""]:
    return values.mean() if weights is None else (weights * values).mean()


class Scale:
    """β as a number θ without bounds: β = θ from 1 on, and exp(θ − 1) below, which is above 0 and as steep where the two meet."""

    def __init__(self, initial: float, device: torch.device = CPU) -> None:
        theta = initial if initial >= 1 else 1 + math.log(initial)
        self.theta = torch.tensor(theta, device=device, requires_grad=True)

    @property
    def value(self) -> Float[Tensor, ""]:
        return torch.where(self.theta >= 1, self.theta, torch.exp(self.theta.clamp(max=1) - 1))


class Pairs:
    """The pairs, split into training and validation, with the training prompts' means and inverse deviations.

    Prompts stay where they are (on disk), or are copied to a GPU in the type they are stored in; a batch at a time becomes
    float32. `weights` say what each pair counts (none: all alike). Raises FitError without training pairs, and for prompts that
    are not finite.
    """

    def __init__(
        self,
        prompts: Rows,
        differences: Float[np.ndarray, "p k"],
        validation: Bool[np.ndarray, " p"],
        *,
        standardize: bool,
        device: torch.device = CPU,
        weights: Float[np.ndarray, " p"] | None = None,
    ) -> None:
        self.prompts, self.device = prompts, device
        train, held_out = np.flatnonzero(~validation), np.flatnonzero(validation)
        if not len(train):
            raise FitError("no pair is left to train on: mark fewer pairs for validation")
        self.mean, self.inverse = _moments(prompts, train, held_out, standardize=standardize)
        self._here = self.mean.to(device), self.inverse.to(device)
        self._resident = _resident(prompts, device)
        where = CPU if self._resident is None else device
        self.train, self.validation = torch.from_numpy(train).to(where), torch.from_numpy(held_out).to(where)
        self.differences = torch.from_numpy(differences.astype(np.float32)).to(device)
        self._weights = None if weights is None else torch.from_numpy(weights.astype(np.float32)).to(device)

    def read(self, rows: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Some prompts in the type they are stored in. `rows` are where `train` and `validation` are."""
        return self.prompts.stored(rows.numpy()) if self._resident is None else self._resident[rows]

    def inputs(self, stored: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """What the MLP is trained on: prompts as `read` gives them, standardised."""
        mean, inverse = self._here
        return stored.to(self.device, torch.float32, copy=True).sub_(mean).mul_(inverse)

    def reading(self, batches: Sequence[Int[Tensor, "_"]]) -> Iterator[Float[Tensor, "_ d"]]:
        """The prompts of some batches, each read by a thread of its own while the one before it is used."""
        if self._resident is not None or not batches:
            yield from map(self.read, batches)
            return
        with ThreadPoolExecutor(1, "prompts") as reader:
            ahead = reader.submit(self.read, batches[0])
            for batch in batches[1:]:
                found, ahead = ahead.result(), reader.submit(self.read, batch)
                yield found
            yield ahead.result()

    def gaps(self, rows: Int[Tensor, " b"]) -> Float[Tensor, "b k"]:
        """r'_chosen − r'_rejected of the same pairs."""
        return self.differences[rows.to(self.device)]

    def loss(self, margins: Float[Tensor, " b"], scale: Float[Tensor, ""], rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """The loss of some pairs, each counted by its weight."""
        return bradley_terry_loss(margins, scale, self._counts(rows))

    def average(self, values: Float[Tensor, " b"], rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """The mean of some pairs' values, each counted by its weight."""
        return _mean(values, self._counts(rows))

    def _counts(self, rows: Int[Tensor, " b"]) -> Float[Tensor, " b"] | None:
        return None if self._weights is None else self._weights[rows.to(self.device)]

    def fold_standardising(self, layers: Layers) -> Layers:
        """The same MLP for features that are not standardised."""
        # W ((x − mean) / std) + b = (W / std) x + (b − (W / std) mean)
        (W, b), *rest = layers
        scaled = W.double() * self.inverse.double()
        return [(scaled.float(), (b.double() - scaled @ self.mean.double()).float()), *rest]


def device_of(name: GateDevice) -> torch.device:
    """Where the gate is trained. Raises FitError for a GPU that this machine does not have."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise FitError("`gate.device` is cuda, and torch finds no GPU here: set it to auto or cpu")
    return torch.device("cuda") if there and name != "cpu" else CPU


def _moments(prompts: Rows, train: Places, held_out: Places, *, standardize: bool) -> tuple[Tensor, Tensor]:
    # Means and inverse deviations of the training rows; a column that does not vary is left out (inverse 0). One pass, in which
    # every prompt is looked at.
    found = moments_of(prompts.rows(train[at]) for at in blocks(len(train)))
    broken = found.broken + sum(broken_rows(prompts.rows(held_out[at])) for at in blocks(len(held_out)))
    if broken:
        raise FitError(f"{broken} of {len(prompts)} prompts have features that are NaN or infinite: extract them again")
    if not standardize:
        return torch.zeros(prompts.shape[1]), torch.ones(prompts.shape[1])
    mean, deviation = found.mean, found.deviation
    varies = deviation > 1e-6 * np.abs(mean)
    inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies & (deviation > 0))
    return torch.from_numpy(mean).float(), torch.from_numpy(inverse).float()


def _resident(prompts: Rows, device: torch.device) -> Float[Tensor, "p d"] | None:
    # All prompts on a GPU, in the type they are stored in; None where they don't fit, and on the CPU
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    if math.prod(prompts.shape) * prompts.dtype.itemsize > free - SPARE:
        return None
    found = torch.empty(prompts.shape, dtype=prompts.dtype, device=device)
    for at in blocks(len(prompts)):
        found[int(at[0]) : int(at[-1]) + 1] = prompts.stored(at).to(device)
    return found


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
    pairs: Pairs,
    settings: GateSettings,
    *,
    seed: int,
    progress: Callable[[int, int], None] | None,
    done: int,
    anchor: Anchor | None = None,
    elsewhere: Rows | None = None,
) -> Trained:
    """Trains from one seed; `done` steps of earlier seeds are counted in what `progress` hears.

    `anchor` is needed for `start: one-weight` and for a `kl` or `kl_elsewhere` above 0; its logits are in the last layer that is
    returned. A training that starts from it has an evaluation at step 0, which is kept where no later one is better. `elsewhere`
    are the prompts of `kl_elsewhere`; it does nothing without them.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = new_layers(pairs.prompts.shape[1], pairs.differences.shape[1], settings, generator, pairs.device)
    net = _Net(layers, pairs, settings, anchor)
    others = None if elsewhere is None else _Elsewhere(elsewhere, net, settings, seed)
    with torch.no_grad():
        # An objective whose reward never differs (a zeroed nuisance) has no gradient, but could serve as a place to put weight
        # away. Its logit is −∞ from the start and stays there: its weight is exactly 0.
        layers[-1][1][(pairs.differences == 0).all(dim=0)] = -math.inf
    scale = Scale(net.first_scale, pairs.device)
    descent = _Descent(layers, scale, settings)
    log, recent, everything = _Log(settings.patience), list[Tensor](), settings.seeds * settings.steps
    if net.offset is not None:
        beta = scale.value.detach()
        log.note(0, net.first_loss(beta), layers, beta, net.evaluate(beta))
    with closing(_batches(pairs, settings, generator)) as read:
        for step, (at, stored) in enumerate(read, start=1):
            logits = net.logits(stored, generator)
            loss = pairs.loss(net.margins(logits, at), scale.value, at)
            whole = loss if net.penalty is None else loss + net.penalty(logits, at)
            descent.step(whole if others is None else whole + others.penalty())
            recent.append(torch.stack([loss.detach(), scale.value.detach()]))
            last = step == settings.steps
            if last or step % settings.evaluate_every == 0:
                beta = scale.value.detach()
                train = float(np.mean(_checked(step, recent, settings)))
                log.note(step, train, layers, beta, net.evaluate(beta))
                recent = []
                if progress:
                    progress(done + step, everything)
                if last or log.exhausted:
                    break
            elif pairs.device.type == "cpu":  # a GPU is not waited for between evaluations
                _checked(step, recent[-1:], settings)
    if progress and step < settings.steps:
        progress(done + settings.steps, everything)
    return log.result(seed, net.offset)


def _checked(step: int, recent: list[Tensor], settings: GateSettings) -> list[float]:
    # The losses of the steps up to this one. Raises FitError where one of them went astray.
    found = torch.stack(recent).tolist()
    for at, (loss, beta) in enumerate(found, start=step - len(found) + 1):
        if not math.isfinite(loss) or not 0 < beta < math.inf:
            rates = f"`learning_rate` ({settings.learning_rate:g}) and `scale_learning_rate` ({settings.scale_learning_rate})"
            raise FitError(
                f"the gate's training diverged at step {at} (loss {loss:g}, β {beta:g}): lower {rates}, or raise `temperature` "
                f"({settings.temperature:g})"
            )
    return [loss for loss, _ in found]


def accuracy(margins: Float[np.ndarray, " p"]) -> float:
    """The share of pairs with the chosen answer above the rejected one; ties count half."""
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())


def new_layers(d: int, k: int, settings: GateSettings, generator: torch.Generator, device: torch.device) -> Layers:
    # Uniform in ±1/√(inputs), torch's own default for a linear layer, from this run's generator
    widths = [d, *[settings.hidden] * settings.hidden_layers, k]
    layers = []
    for inputs, outputs in pairwise(widths):
        bound = 1 / math.sqrt(inputs)
        W = torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator)
        b = torch.empty(outputs).uniform_(-bound, bound, generator=generator)
        layers.append((W.to(device).requires_grad_(), b.to(device).requires_grad_()))
    return layers


class _Descent:
    # AdamW with cosine decay. It goes over its numbers some ten times a step: on a CPU slices that stay in the cache take a
    # quarter of the time, and are the same to the bit.

    def __init__(self, layers: Layers, scale: Scale, settings: GateSettings) -> None:
        self.whole = [tensor for layer in layers for tensor in layer]
        on_cpu = scale.theta.device.type == "cpu"
        self.rows = [max(1, CACHED * len(t) // t.numel()) if on_cpu else len(t) for t in self.whole]
        self.slices = [list(t.detach().split(n)) for t, n in zip(self.whole, self.rows, strict=True)]
        rate = settings.learning_rate if settings.scale_learning_rate is None else settings.scale_learning_rate
        self.optimizer = torch.optim.AdamW(
            [
                {
                    "params": [own.requires_grad_() for slices in self.slices for own in slices],
                    "weight_decay": settings.weight_decay,
                },
                {"params": [scale.theta], "lr": rate, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=settings.steps)

    def step(self, loss: Float[Tensor, ""]) -> None:
        self.optimizer.zero_grad()
        for tensor in self.whole:
            tensor.grad = None
        loss.backward()
        for tensor, rows, slices in zip(self.whole, self.rows, self.slices, strict=True):
            assert tensor.grad is not None
            for own, gradient in zip(slices, tensor.grad.split(rows), strict=True):
                own.grad = gradient
        self.optimizer.step()
        self.schedule.step()


def epoch(rows: Int[Tensor, " n"], settings: GateSettings, generator: torch.Generator) -> list[Int[Tensor, "_"]]:
    """All rows in a new order, in batches; a rest smaller than a batch is left for another epoch."""
    n = len(rows)
    size = min(settings.batch_size, n)
    order = torch.randperm(n, generator=generator).to(rows.device)
    return [rows[batch] for batch in order[: n // size * size].split(size)]


def _batches(pairs: Pairs, settings: GateSettings, generator: torch.Generator) -> Generator[tuple[Tensor, Tensor], None, None]:
    # Pairs and their prompts, without end. Reading ahead ends with an epoch: dropout draws from the same generator.
    while True:
        order = epoch(pairs.train, settings, generator)
        yield from zip(order, pairs.reading(order), strict=True)


class _Net:
    # The MLP on its pairs: logits, margins, losses. `offset` [k] is added to the logits, `penalty` to the loss; None: nothing is.

    def __init__(self, layers: Layers, pairs: Pairs, settings: GateSettings, anchor: Anchor | None) -> None:
        self.layers, self.pairs, self.settings = layers, pairs, settings
        self.offset: Float[Tensor, " k"] | None = None
        self.held: Float[Tensor, " k"] | None = None
        self.penalty: Callable[[Tensor, Tensor], Tensor] | None = None
        self.first_scale = float(settings.scale_init)
        if anchor is None:
            return
        if settings.start == "one-weight":
            self.offset = anchor.logits(settings.temperature).to(pairs.device)
            self.first_scale = anchor.scale or self.first_scale
            with torch.no_grad():
                for last in layers[-1]:
                    last.zero_()
        self.held = weights = torch.from_numpy(anchor.weights).float().to(pairs.device)
        if settings.strength:
            self.penalty = lambda logits, at: settings.strength * pairs.average(divergence(logits, weights), at)

    def logits(self, stored: Float[Tensor, "b d"], generator: torch.Generator | None) -> Float[Tensor, "b k"]:
        # Divided by the temperature; with a generator there is dropout behind each hidden layer, and less precision where it is
        # wanted
        settings, last = self.settings, len(self.layers) - 1
        hidden, low = self.pairs.inputs(stored), generator is not None and settings.precision == "bfloat16"
        for i, (W, b) in enumerate(self.layers):
            if i:
                hidden = torch.relu(hidden)
                if settings.dropout and generator is not None:
                    kept = torch.rand(hidden.shape, generator=generator) >= settings.dropout
                    hidden = hidden * kept.to(self.pairs.device) / (1 - settings.dropout)
            rounded = low and i < last
            hidden = linear(hidden.bfloat16(), W.bfloat16(), b.bfloat16()) if rounded else hidden.float() @ W.T + b
        return (hidden if self.offset is None else hidden + self.offset) / settings.temperature

    def margins(self, logits: Float[Tensor, "b k"], rows: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        # R_chosen − R_rejected
        weights = torch.softmax(logits, dim=-1)  # over k
        return (weights * self.pairs.gaps(rows)).sum(dim=-1)

    @torch.no_grad()
    def evaluate(self, scale: Float[Tensor, ""]) -> tuple[float, float] | None:
        # Loss and accuracy over the validation pairs, None where there are none
        pairs = self.pairs
        if not len(pairs.validation):
            return None
        blocks = pairs.validation.split(EVALUATION_BATCH)
        read = zip(blocks, pairs.reading(blocks), strict=True)
        margins = torch.cat([self.margins(self.logits(stored, None), at) for at, stored in read])
        return float(pairs.loss(margins, scale, pairs.validation)), accuracy(margins.double().cpu().numpy())

    @torch.no_grad()
    def first_loss(self, scale: Float[Tensor, ""]) -> float:
        # Over all training pairs, before the first step: there no prompt changes the weights
        train, bias = self.pairs.train, self.layers[-1][1]
        alike = (bias if self.offset is None else bias + self.offset) / self.settings.temperature
        return float(self.pairs.loss(self.margins(alike.expand(len(train), -1), train), scale, train))


class _Elsewhere:
    # Prompts without pairs, on which the gate has nothing to go by: there it is held to its anchor

    def __init__(self, prompts: Rows, net: _Net, settings: GateSettings, seed: int) -> None:
        self.prompts, self.net, self.strength = prompts, net, settings.kl_elsewhere
        self.generator = torch.Generator().manual_seed(seed)
        self.batches = self._batches(settings)

    def penalty(self) -> Float[Tensor, ""]:
        assert self.net.held is not None
        logits = self.net.logits(self.prompts.stored(next(self.batches).numpy()), self.generator)
        return self.strength * divergence(logits, self.net.held).mean()

    def _batches(self, settings: GateSettings) -> Iterator[Int[Tensor, "_"]]:
        rows = torch.arange(len(self.prompts))
        while True:
            yield from epoch(rows, settings, self.generator)


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
            self.layers = [(W.detach().clone(), b.detach().clone()) for W, b in layers]  # where they are: no wait for a GPU

    @property
    def exhausted(self) -> bool:
        return self.patience is not None and len(self.rows) - 1 - self.best >= self.patience

    def result(self, seed: int, offset: Float[Tensor, " k"] | None) -> Trained:
        losses, accuracies = (tuple(v[i] for v in self.validation) for i in (0, 1))
        steps, train, beta = zip(*self.rows, strict=True)
        curve = GateCurve(seed, steps, train, losses, accuracies, beta)
        best = (losses[self.best], accuracies[self.best]) if losses else (math.nan, math.nan)
        layers = [(W.cpu(), b.cpu()) for W, b in self.layers]
        if offset is not None:
            W, b = layers[-1]
            layers[-1] = W, b + offset.cpu()
        return Trained(layers, beta[self.best], steps[self.best], *best, curve)
