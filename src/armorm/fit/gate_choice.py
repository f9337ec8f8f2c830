"""How strongly a gate is held to one weight vector, chosen by leaving out what it will meet: other sources of pairs.

In: pairs, their prompts, groups and sources.  Out: `KlChoice`: the chosen strength, and every loss that it was chosen by.
Cost: at most 8 parts × 5 strengths × 500 steps of one seed's training; k-means over at most 4,096 prompts where there are too few
sources.

Each part is left out in turn, with every pair on a prompt of it; what is trained on the rest is judged on it. A part is a
source, or several small ones together where there are more than 8; with fewer than 3 sources, or one that holds most pairs,
clusters of prompts stand for sources. The criterion is the mean log-loss −log σ(β margin) over the parts, each counting alike,
with the β that is best on the part itself: how sure one may be is another question than how answers are ordered. The strongest
penalty is taken whose loss is within one standard error of the least one, the error being that of the *paired* difference over
the parts: how hard a part is, all strengths share (docs/decisions/0030-a-gate-held-to-one-vector.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.cluster.vq import kmeans, vq

from armorm.errors import FitError
from armorm.features.columns import Held, Places, Rows, blocks, gathered
from armorm.fit.debias import DebiasedRewards
from armorm.fit.gate import best_scale, fit_gate, margins_of
from armorm.fit.gate_settings import GateSettings
from armorm.fit.gate_training import accuracy
from armorm.fit.weighing import Shares, pair_weights
from armorm.objectives import Objectives

STRENGTHS = (0.0, 0.1, 0.3, 1.0, 3.0, math.inf)
"""What is tried, from no penalty to no gate."""
STEPS = 500
"""At most so many in a training for the choice."""
MOST_PARTS = 8
FEWEST_SOURCES = 3
MOST_OF_ONE = 0.6
"""The share of the pairs above which one source can't be left out: too little would be left to learn from."""
FEWEST_PAIRS = 20
"""Of a part that is left out."""
CLUSTERS = 5
SAMPLE = 4096
"""Prompts that the clusters are found among."""
Kind = Literal["sources", "clusters"]


@dataclass(frozen=True, eq=False)
class Parts:
    """What is left out in turn: `of` [p] says which part a pair is in, −1: none, it is always trained on."""

    kind: Kind
    names: tuple[str, ...]
    of: Int[np.ndarray, " p"]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Pairs of each part."""
        return tuple(int((self.of == i).sum()) for i in range(len(self.names)))


@dataclass(frozen=True, eq=False)
class KlChoice:
    """The chosen strength. `losses` and `accuracies` [s r]: of each of the `strengths` on each part that was left out.

    Without parts nothing could be tried, and the strongest penalty is taken: the gate is one weight vector.
    """

    parts: Parts
    strengths: tuple[float, ...]
    losses: Float[np.ndarray, "s r"]
    accuracies: Float[np.ndarray, "s r"]

    @property
    def best(self) -> int:
        """The place of the strength with the least mean loss."""
        return int(np.argmin(self.losses.mean(axis=1))) if len(self.parts.names) else len(self.strengths) - 1

    @property
    def chosen(self) -> int:
        """The place of the strength that is taken."""
        within = [i for i in range(len(self.strengths)) if self._is_as_good(i)]
        return max(within, default=len(self.strengths) - 1)

    def excess(self, i: int, over: int) -> tuple[float, float]:
        """By how much the mean loss of one strength is above that of another, and the standard error of this over the parts."""
        gaps = self.losses[i] - self.losses[over]
        return float(gaps.mean()), float(gaps.std(ddof=1) / math.sqrt(len(gaps)))

    def _is_as_good(self, i: int) -> bool:
        if not len(self.parts.names):
            return False
        more, error = self.excess(i, self.best)
        return more <= error


def parts_to_leave_out(
    prompts: Float[np.ndarray, "p d"] | Rows, sources: Sequence[str], groups: Sequence[str], *, seed: int
) -> Parts:
    """Sources, or clusters of prompts where there are too few sources; parts of fewer than `FEWEST_PAIRS` pairs are none.

    Fewer than two parts are none at all. Raises FitError for prompts that are not finite.
    """
    names, which, counts = np.unique(np.array(sources, dtype=object), return_inverse=True, return_counts=True)
    if (counts >= FEWEST_PAIRS).sum() >= FEWEST_SOURCES and counts.max() <= MOST_OF_ONE * len(which):
        bins = _packed(counts)
        labels = [", ".join(names[bins == i]) for i in range(bins.max() + 1)]
        return _large("sources", labels, bins[which])
    held = Held(prompts) if isinstance(prompts, np.ndarray) else prompts
    of = _clusters(held, groups, seed)
    return _large("clusters", [f"cluster {i + 1}" for i in range(of.max(initial=-1) + 1)], of)


def choose_kl(
    prompts: Float[np.ndarray, "p d"] | Rows,
    chosen: DebiasedRewards,
    rejected: DebiasedRewards,
    validation: Bool[np.ndarray, " p"],
    objectives: Objectives,
    *,
    parts: Parts,
    sources: Sequence[str],
    groups: Sequence[str],
    settings: GateSettings,
    seed: int,
    shares: Shares = (),
    elsewhere: Rows | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> KlChoice:
    """Try `STRENGTHS` on each of the `parts`, trained without it as `settings` say, but in one seed and at most `STEPS` steps.

    A part without which there is nothing to train on is passed over. `shares` are those of `pair_weights`,
    `elsewhere` is `fit_gate`'s: prompts without any pair. `progress(done, all)`
    counts trainings. Raises as `fit_gate`.
    """
    held = Held(prompts) if isinstance(prompts, np.ndarray) else prompts
    short = replace(settings, seeds=1, combine="best", steps=min(settings.steps, STEPS), kl=0.0)
    trial = _Trial(held, chosen, rejected, validation, objectives, sources, groups, short, seed, shares, elsewhere)
    done, tried, everything = list[int](), list[list[tuple[float, float]]](), len(parts.names) * len(STRENGTHS)
    for part in range(len(parts.names)):
        if (left_out := trial.without(parts.of == part)) is not None:
            done.append(part)
            tried.append([])
            for i, strength in enumerate(STRENGTHS, start=part * len(STRENGTHS)):
                tried[-1].append(left_out.judged(strength))
                if progress:
                    progress(i + 1, everything)
    if progress and everything:
        progress(everything, everything)
    done = done if len(done) > 1 else []
    numbers = np.array(tried[: len(done)], dtype=np.float64).reshape(len(done), len(STRENGTHS), 2)
    left = replace(parts, names=tuple(parts.names[i] for i in done), of=_renumbered(parts.of, done))
    return KlChoice(left, STRENGTHS, numbers[:, :, 0].T, numbers[:, :, 1].T)


@dataclass(frozen=True, eq=False)
class _Trial:
    # Pairs of which some are left out
    prompts: Rows
    chosen: DebiasedRewards
    rejected: DebiasedRewards
    validation: Bool[np.ndarray, " p"]
    objectives: Objectives
    sources: Sequence[str]
    groups: Sequence[str]
    settings: GateSettings
    seed: int
    shares: Shares
    elsewhere: Rows | None

    @cached_property
    def prompt(self) -> Int[np.ndarray, " p"]:
        return np.unique(np.array(self.groups, dtype=object), return_inverse=True)[1].reshape(-1)

    def without(self, out: Bool[np.ndarray, " p"]) -> _LeftOut | None:
        # None where nothing can be learnt from the pairs on none of the prompts that are left out
        rest, own = np.flatnonzero(~np.isin(self.prompt, self.prompt[out])), np.flatnonzero(out)
        validation, none = self.validation[rest], np.zeros(len(own), dtype=np.bool_)
        if not (self._gaps(rest[~validation]).astype(np.float32) != 0).any():
            return None
        return _LeftOut(self, rest, own, self._gaps(own), self._weights(rest, validation), self._weights(own, none))

    def _gaps(self, at: Places) -> Float[np.ndarray, "b k"]:
        return self.chosen.values[at] - self.rejected.values[at]

    def _weights(self, at: Places, validation: Bool[np.ndarray, " b"]) -> Float[np.ndarray, " b"] | None:
        groups, sources = ([names[i] for i in at] for names in (self.groups, self.sources))
        return pair_weights(self.settings.weigh, groups, sources, validation, self.shares)


@dataclass(frozen=True, eq=False)
class _LeftOut:
    # The places of the pairs that are trained on, and of those that are judged, with their differences; what each counts
    trial: _Trial
    rest: Places
    own: Places
    gaps: Float[np.ndarray, "o k"]
    weights: Float[np.ndarray, " r"] | None
    own_weights: Float[np.ndarray, " o"] | None

    def judged(self, strength: float) -> tuple[float, float]:
        # Loss and accuracy on the pairs that are left out
        trial = self.trial
        gate = fit_gate(
            trial.prompts.take(self.rest),
            DebiasedRewards(trial.chosen.values[self.rest]),
            DebiasedRewards(trial.rejected.values[self.rest]),
            trial.validation[self.rest],
            trial.objectives,
            settings=replace(trial.settings, kl=strength),
            seed=trial.seed,
            weights=self.weights,
            elsewhere=trial.elsewhere,
        ).gate
        return _judged(margins_of(gate, trial.prompts.take(self.own), self.gaps), self.own_weights)


def _judged(margins: Float[np.ndarray, " p"], weights: Float[np.ndarray, " p"] | None) -> tuple[float, float]:
    # Log-loss at the part's own best β, and accuracy; each pair counts its weight
    counts = np.ones(len(margins)) if weights is None else weights
    loss = (counts * np.logaddexp(0, -best_scale(margins, weights) * margins)).mean()
    return float(loss), accuracy(margins)


def _packed(counts: Int[np.ndarray, " s"]) -> Int[np.ndarray, " s"]:
    # The part of each source: its own, or where there are more than MOST_PARTS the one that is smallest yet, the largest first
    if len(counts) <= MOST_PARTS:
        return np.arange(len(counts))
    bins, filled = np.zeros(len(counts), dtype=np.int64), np.zeros(MOST_PARTS, dtype=np.int64)
    for source in np.argsort(-counts, kind="stable"):
        bins[source] = int(np.argmin(filled))
        filled[bins[source]] += counts[source]
    return bins


def _clusters(prompts: Rows, groups: Sequence[str], seed: int) -> Int[np.ndarray, " p"]:
    # The cluster of each pair's prompt, by k-means on standardised features; a prompt's pairs are in one cluster
    _, first, which = np.unique(np.array(groups, dtype=object), return_index=True, return_inverse=True)
    count = min(CLUSTERS, len(groups) // FEWEST_PAIRS, len(first))
    if count < 2:
        return np.full(len(groups), -1)
    at = first[np.linspace(0, len(first) - 1, min(len(first), SAMPLE)).astype(np.int64)]
    sample = prompts.rows(at).astype(np.float64)
    if not np.isfinite(sample).all():
        raise FitError("there are prompts with features that are NaN or infinite: extract them again")
    mean, deviation = sample.mean(axis=0), sample.std(axis=0)
    inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6 * np.abs(mean))
    centres, _ = kmeans((sample - mean) * inverse, count, iter=5, seed=np.random.default_rng(seed))
    found = (vq((prompts.rows(first[rows]).astype(np.float64) - mean) * inverse, centres)[0] for rows in blocks(len(first)))
    return gathered(found, len(first)).astype(np.int64)[which]


def _large(kind: Kind, names: Sequence[str], of: Int[np.ndarray, " p"]) -> Parts:
    counts = np.bincount(of[of >= 0], minlength=len(names))
    kept = [i for i in range(len(names)) if counts[i] >= FEWEST_PAIRS]
    kept = kept if len(kept) > 1 else []
    return Parts(kind, tuple(names[i] for i in kept), _renumbered(of, kept))


def _renumbered(of: Int[np.ndarray, " p"], kept: Sequence[int]) -> Int[np.ndarray, " p"]:
    found = np.full(len(of), -1)
    for new, old in enumerate(kept):
        found[of == old] = new
    return found
