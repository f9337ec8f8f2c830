"""P(right): from the margin of two scores to the probability that the answer with the higher one is the better one.

In: margins [p] of pairs that the gate did not learn from, winner minus loser; each pair's prompt.
Out: `Preference`, or the reason why there is none.  Cost: a sort and a root for each of five folds.

P(A beats B) and P(B beats A) sum to 1, so P is a curve over |margin| from ½ upwards, and its mirror image. Two curves are tried,
a logistic one and an isotonic one; the log-loss on prompts that a fit did not see chooses. The isotonic curve bends to every
chance of a few hundred pairs, so it is taken where it gains more than a standard error. n prompts can't show more than
(n + 1) / (n + 2): neither curve goes beyond, so that pairs which are all ranked right don't make a model that never errs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import GroupKFold

from armorm.errors import FitError

Form = Literal["logistic", "isotonic"]
"""The curve: 1 / (1 + exp(−slope · margin)), or steps that never fall, with straight lines between them."""
FORMS: tuple[Form, ...] = get_args(Form)
FOLDS = 5
"""Folds of prompts over which the log-loss is cross-validated."""
SMALLEST = float(np.finfo(np.float32).tiny)
"""A margin below it is none: scores are float32."""
_ALIKE = 1e-6
_STEEPEST = 1e30


@dataclass(frozen=True, eq=False)
class Preference:
    """The probability that A beats B by the margin of their scores, fitted on `pairs` pairs of `prompts` prompts.

    Logistic: `slope`, in log-odds per unit of the score. Isotonic: `probabilities` [q], from ½ upwards, at `margins` [q], from 0
    upwards; between them straight lines. Raises FitError for numbers that are no such curve.
    """

    form: Form
    pairs: int
    prompts: int
    slope: float = 0.0
    margins: Float[np.ndarray, " q"] = field(default_factory=lambda: np.zeros(0))
    probabilities: Float[np.ndarray, " q"] = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        sound = {
            "logistic": math.isfinite(self.slope) and self.slope >= 0 and not len(self.margins) and not len(self.probabilities),
            "isotonic": self.slope == 0 and _is_curve(self.margins, self.probabilities),
        }
        if not sound.get(self.form, False) or not 0 < self.prompts <= self.pairs:
            raise FitError(
                f"a {self.form} curve of slope {self.slope:g} through {len(self.margins)} margins and {len(self.probabilities)} "
                f"probabilities, of {self.pairs} pairs and {self.prompts} prompts, is no probability of being right: fit it again"
            )

    @property
    def most(self) -> float:
        """The highest probability that it gives."""
        return highest(self.prompts)

    @property
    def tells(self) -> bool:
        """Whether it ever gives another probability than ½."""
        return self.slope > 0 or bool((self.probabilities > 0.5).any())

    def of(self, margins: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """P(A beats B) for margins, score of A minus score of B: ½ for none, NaN for NaN; P(m) + P(−m) is 1 to the bit."""
        size = np.abs(margins.astype(np.float64))
        if self.form == "logistic":
            with np.errstate(over="ignore", invalid="ignore"):
                curve = expit(self.slope * size)
        else:
            curve = np.interp(size, self.margins, self.probabilities)
        right = np.where(size > 0, np.clip(curve, 0.5, self.most), np.where(size == 0, 0.5, np.nan))
        return np.where(margins < 0, 1 - right, right)


@dataclass(frozen=True, eq=False)
class PreferenceFit:
    """The `preference` that was chosen, with the cross-validated `log_loss` of each form; or None, and the `reason`."""

    preference: Preference | None
    log_loss: Mapping[Form, float] = field(default_factory=dict)
    reason: str = ""


def highest(prompts: int) -> float:
    """The highest probability that so many prompts can show: (n + 1) / (n + 2), Laplace's rule of succession."""
    return (prompts + 1) / (prompts + 2)


def fit_preference(
    margins: Float[np.ndarray, " p"], groups: Sequence[str], *, weights: Float[np.ndarray, " p"] | None = None
) -> PreferenceFit:
    """Fit both curves to pairs' margins, winner's score minus loser's, and take the one with the lower log-loss.

    `groups` [p]: the pairs' prompts; the log-loss is cross-validated over folds of them, and the isotonic curve is taken where
    its own is lower by more than a standard error. `weights`: what each pair counts (none: all alike). Nothing is fitted, and the
    reason told, without pairs, with those of one prompt, and with margins that are all 0 or all of one size, which can't tell how
    P follows the margin. Raises FitError for numbers that are not finite, negative weights, and other numbers of groups or
    weights than of pairs.
    """
    weights = np.ones(len(margins)) if weights is None else weights
    _check(margins, groups, weights)
    counted = weights > 0
    own, names = margins[counted].astype(np.float64), np.asarray(groups, dtype=str)[counted]
    _, prompt = np.unique(names, return_inverse=True)
    pairs = _Pairs(np.where(np.abs(own) < SMALLEST, 0.0, own), weights[counted] / max(weights.max(initial=0.0), SMALLEST), prompt)
    if reason := _nothing_to_fit(pairs):
        return PreferenceFit(None, reason=reason)
    losses = {form: _cross_validated(fit, pairs) for form, fit in _FITS.items()}
    gain, error = _mean_and_error(losses["logistic"] - losses["isotonic"], pairs)
    best: Form = "isotonic" if gain > error else "logistic"
    return PreferenceFit(_FITS[best](pairs), {form: _mean_and_error(loss, pairs)[0] for form, loss in losses.items()})


@dataclass(frozen=True, eq=False)
class _Pairs:
    # Margins, weights, and the place of each pair's prompt among the prompts.

    margins: Float[np.ndarray, " p"]
    weights: Float[np.ndarray, " p"]
    prompt: np.ndarray

    @property
    def prompts(self) -> int:
        return len(np.unique(self.prompt))

    def take(self, rows: np.ndarray) -> _Pairs:
        return _Pairs(self.margins[rows], self.weights[rows], self.prompt[rows])


def _nothing_to_fit(pairs: _Pairs) -> str:
    size = np.abs(pairs.margins[pairs.margins != 0])
    if not len(pairs.margins):
        return "there are no validation pairs"
    if pairs.prompts < 2:
        return f"the {len(pairs.margins)} validation pairs are of one prompt"
    if not len(size):
        return f"the margins of all {len(pairs.margins)} validation pairs are 0"
    if size.min() >= (1 - _ALIKE) * size.max():
        return f"the margins of all {len(pairs.margins)} validation pairs are of one size"
    return ""


def _cross_validated(fit: Callable[[_Pairs], Preference], pairs: _Pairs) -> Float[np.ndarray, " p"]:
    """The log-loss of each winner's probability, from the fit without its fold of prompts."""
    folds = GroupKFold(min(FOLDS, pairs.prompts)).split(pairs.margins, groups=pairs.prompt)
    losses = np.zeros(len(pairs.margins))
    for others, held in folds:
        losses[held] = -np.log(fit(pairs.take(others)).of(pairs.margins[held]))
    return losses


def _mean_and_error(values: Float[np.ndarray, " p"], pairs: _Pairs) -> tuple[float, float]:
    """The mean over pairs, and its standard error over prompts, whose pairs are not independent."""
    mean = float(np.average(values, weights=pairs.weights))
    _, prompt = np.unique(pairs.prompt, return_inverse=True)
    sums = np.bincount(prompt, weights=pairs.weights * (values - mean))
    return mean, math.sqrt(len(sums) / (len(sums) - 1) * float((sums**2).sum())) / float(pairs.weights.sum())


def _fit_logistic(pairs: _Pairs) -> Preference:
    n, prompts = len(pairs.margins), pairs.prompts
    scale = float(np.abs(pairs.margins).max(initial=0.0))
    slope = solve_slope(pairs.margins / scale, pairs.weights, highest(prompts)) / scale if scale else 0.0
    return Preference("logistic", n, prompts, slope=slope)


def _fit_isotonic(pairs: _Pairs) -> Preference:
    n, prompts = len(pairs.margins), pairs.prompts
    moved = pairs.margins != 0  # a tie is ½, whatever the fit says
    size, won, weights = np.abs(pairs.margins[moved]), pairs.margins[moved] > 0, pairs.weights[moved]
    at, curve = np.zeros(0), np.zeros(0)
    if len(size):
        # The isotonic regression of pairs taken both ways round is its own mirror image: that of |margin|, bounded below by ½.
        scale = size.max()
        fit = IsotonicRegression(y_min=0.5, y_max=highest(prompts)).fit(size / scale, won.astype(np.float64), weights)
        at, curve = fit.X_thresholds_ * scale, fit.y_thresholds_
    return Preference("isotonic", n, prompts, margins=np.append(0.0, at), probabilities=np.append(0.5, curve))


_FITS: Mapping[Form, Callable[[_Pairs], Preference]] = {"logistic": _fit_logistic, "isotonic": _fit_isotonic}


def solve_slope(x: Float[np.ndarray, " p"], weights: Float[np.ndarray, " p"], target: float) -> float:
    """The slope b ≥ 0 with the least Σ w (−t log σ(b x) − (1 − t) log σ(−b x)); x within [−1, 1], target t below 1.

    t = 1 would be maximum likelihood, which has no end where all x are positive; Platt's t, as much as the prompts can show, has.
    """

    def fall(b: float) -> float:  # the derivative, which only rises: Σ w x (σ(b x) − t)
        return float((weights * x * (expit(b * x) - target)).sum())

    if fall(0.0) >= 0:
        return 0.0
    high = 1.0
    while fall(high) < 0 and high < _STEEPEST:
        high *= 2
    return float(brentq(fall, high / 2 if high > 1 else 0.0, high)) if fall(high) > 0 else high


def _is_curve(margins: np.ndarray, probabilities: np.ndarray) -> bool:
    if not 0 < len(margins) == len(probabilities) or not (np.isfinite(margins).all() and np.isfinite(probabilities).all()):
        return False
    begins = margins[0] == 0 and probabilities[0] == 0.5 and probabilities[-1] < 1
    return bool(begins and (np.diff(margins) > 0).all() and (np.diff(probabilities) >= 0).all())


def _check(margins: np.ndarray, groups: Sequence[str], weights: np.ndarray) -> None:
    if not len(margins) == len(groups) == len(weights):
        raise FitError(
            f"there are {len(margins)} margins, {len(groups)} groups and {len(weights)} weights: give one of each per pair"
        )
    if not np.isfinite(margins).all():
        wrong = int((~np.isfinite(margins)).sum())
        raise FitError(f"{wrong} of {len(margins)} margins are NaN or infinite: leave pairs out that have no score")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise FitError("the pairs' weights must be finite and not negative")
