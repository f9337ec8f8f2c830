"""Reliability of probabilities: whether of all pairs that are called with 80 % eight in ten are right.

In: the probability of each pair's winner, prompt groups.  Out: `Reliability`: bins, expected calibration error, log-loss, Brier.
Cost: one bootstrap and as many flips of signs.

A pair is called for the answer with the higher probability, and its confidence is that probability, ½ to 1: the other half of the
scale is its mirror image. Bins hold equally many pairs (those of one confidence stay together); the expected calibration error is
the mean over pairs of |right − confidence| of their bin. It is above 0 for the best of probabilities, the more so the fewer pairs
there are, and a resample of them has more of it than they have: so beside it stands what chance alone gives. That is the error
after the sign of each prompt's deviations is flipped at random, which leaves their size and what a prompt's pairs share.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from armorm.bench.metrics import share_by_group, toss_coins
from armorm.errors import DataError
from armorm.intervals import Interval, bootstrap_by_group
from armorm.results import Estimate, Number, Result

BINS = 10
LEAST = 10
"""Pairs a bin holds on average; with fewer in all there are fewer bins."""


class ReliabilityBin(Result):
    """Pairs of about the same confidence."""

    n: int
    """How many there are."""
    confidence: Number
    """Their mean confidence: the share of them that is to be right."""
    right: Estimate
    """The share that is, ties half."""


class Reliability(Result):
    """How far probabilities hold."""

    n: int
    """Pairs."""
    groups: int
    """Their prompts."""
    ece: Estimate
    """Expected calibration error: how far confidence and share of right ones are apart, bin by bin, on average over pairs."""
    chance: Number
    """What it would be, on average, if the probabilities were right."""
    chance_high: Number
    """What it would then exceed once in twenty times."""
    log_loss: Estimate
    """Mean of −log of the winner's probability, in nats; a coin has 0.693."""
    brier: Estimate
    """Mean of (1 − the winner's probability)²; a coin has 0.25."""
    bins: tuple[ReliabilityBin, ...]
    """The least sure pairs first."""


def confidence(probabilities: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    """The probability of the likelier answer, ½ to 1."""
    return np.maximum(probabilities, 1 - probabilities)


def reliability(
    probabilities: Float[np.ndarray, " p"], groups: Sequence[str], *, seed: int, resamples: int = 1000
) -> Reliability:
    """How far the probabilities of pairs' winners hold, with 95 % intervals by prompt.

    A winner with ½ counts as half right. Raises DataError for other numbers of groups than of pairs, and for probabilities that
    are not between 0 and 1, both left out.
    """
    _check(probabilities, groups)
    n, sure, names = len(probabilities), confidence(probabilities), np.asarray(groups, dtype=str)
    right = (probabilities > 0.5) + 0.5 * (probabilities == 0.5)
    which = bins_of(sure)
    inside = (which[:, None] == np.unique(which)).astype(np.float64)  # [p b]
    off = right - sure
    single = np.stack([-np.log(probabilities), (1 - probabilities) ** 2], axis=1)

    def numbers(weights: np.ndarray) -> np.ndarray:
        apart = np.abs((weights * off) @ inside).sum(axis=1)
        return np.concatenate([apart[:, None], weights @ single], axis=1) / weights.sum(axis=1, keepdims=True)

    ece, log_loss, brier = (
        bootstrap_by_group(numbers, groups, seed=seed, resamples=resamples) if n else (Interval.undefined(),) * 3
    )
    chance, high = _by_chance(off, inside, names, seed=seed, flips=resamples)
    found = [
        ReliabilityBin(
            n=int(own.sum()),
            confidence=float(sure[own].mean()),
            right=share_by_group(right[own], names[own].tolist(), seed=seed, resamples=resamples),
        )
        for own in inside.astype(np.bool_).T
    ]
    return Reliability(
        n=n,
        groups=len(set(groups)),
        ece=ece,
        chance=chance,
        chance_high=high,
        log_loss=log_loss,
        brier=brier,
        bins=tuple(found),
    )


def bins_of(sure: Float[np.ndarray, " p"]) -> Int[np.ndarray, " p"]:
    """Each pair's bin, of at most ten that hold equally many; pairs of one confidence are in one bin."""
    count = max(1, min(BINS, len(sure) // LEAST))
    if not len(sure) or count == 1:
        return np.zeros(len(sure), dtype=np.int64)
    cuts = np.unique(np.quantile(sure, np.arange(1, count) / count, method="inverted_cdf"))
    return np.searchsorted(cuts, sure, side="left").astype(np.int64)


def _by_chance(
    off: Float[np.ndarray, " p"], inside: Float[np.ndarray, "p b"], names: np.ndarray, *, seed: int, flips: int
) -> tuple[float, float]:
    """Mean and 95 % quantile of the error when the signs of the prompts' deviations are chance; NaN without two prompts."""
    known, prompt = np.unique(names, return_inverse=True)
    if len(known) < 2:
        return float("nan"), float("nan")
    sums = np.zeros((len(known), inside.shape[1]))
    np.add.at(sums, prompt, off[:, None] * inside)
    tossed = toss_coins(flips, len(known), seed=seed)
    errors = np.concatenate([np.abs((2 * coins - 1) @ sums).sum(axis=1) / len(off) for coins in tossed])
    return float(errors.mean()), float(np.quantile(errors, 0.95))


def _check(probabilities: np.ndarray, groups: Sequence[str]) -> None:
    if len(probabilities) != len(groups):
        raise DataError(f"there are {len(probabilities)} probabilities and {len(groups)} groups: give one of each per pair")
    if not ((probabilities > 0) & (probabilities < 1)).all():
        raise DataError("a winner's probability lies between 0 and 1, both left out: leave unscored pairs out")
