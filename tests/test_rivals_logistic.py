"""All strengths at once equal scikit-learn's regressions one by one, on well and ill conditioned pairs alike."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from armorm.features.columns import Held
from armorm.rivals import logistic
from armorm.rivals.bradley_terry import STRENGTHS
from armorm.rivals.logistic import Differences, fit_logistic

TOLERANCE = 2e-3
"""Of the largest weight; all but the weakest penalties are ten times closer."""


def planted(p: int, d: int, *, sharpness: float = 2.0, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    """Differences of correlated features, whose sign a noisy direction decides."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(p, d)) @ rng.normal(size=(d, d)) / np.sqrt(d)
    margin = x @ rng.normal(size=d)
    wins = rng.random(p) < 1 / (1 + np.exp(-sharpness * margin / margin.std()))
    return np.where(wins[:, None], x, -x).astype(dtype)


def fitted(x: np.ndarray, strengths: tuple[float, ...] = STRENGTHS, counts: np.ndarray | None = None) -> np.ndarray:
    counts = np.ones(len(x)) if counts is None else counts
    return fit_logistic(Differences(Held(x), Held(np.zeros_like(x))), np.arange(len(x)), strengths, counts)


def reference(x: np.ndarray, strength: float, counts: np.ndarray | None = None) -> np.ndarray:
    """scikit-learn to the last digit: every pair once each way makes two classes."""
    x = x.astype(np.float64)
    X, y = np.concatenate([x[::2], -x[1::2]]), np.concatenate([np.ones(len(x[::2])), np.zeros(len(x[1::2]))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the last digit need not be reached
        weights = None if counts is None else np.concatenate([counts[::2], counts[1::2]])
        return LogisticRegression(C=strength, fit_intercept=False, max_iter=5000, tol=1e-12).fit(X, y, weights).coef_[0]


@pytest.mark.parametrize(
    ("p", "d", "sharpness", "dtype"),
    [(3000, 20, 1.0, np.float32), (3000, 20, 1.0, np.float64), (300, 40, 6.0, np.float32), (60, 100, 2.0, np.float32)],
    ids=["many", "float64", "sharp", "fewer pairs than columns"],
)
def test_every_strength_is_scikit_learns(p: int, d: int, sharpness: float, dtype: type):
    x = planted(p, d, sharpness=sharpness, dtype=dtype)
    for strength, found in zip(STRENGTHS, fitted(x), strict=True):
        wanted = reference(x, strength)
        assert np.abs(found - wanted).max() < TOLERANCE * np.abs(wanted).max(), strength


def test_weights_of_pairs_are_scikit_learns():
    x = planted(600, 12, sharpness=1.0)
    counts = np.random.default_rng(1).exponential(size=len(x))
    counts /= counts.mean()
    for strength, found in zip(STRENGTHS, fitted(x, counts=counts), strict=True):
        wanted = reference(x, strength, counts)
        assert np.abs(found - wanted).max() < TOLERANCE * np.abs(wanted).max(), strength
    twice = np.concatenate([x, x[:100]])
    weighed = np.ones(len(x))
    weighed[:100] = 2
    repeated = fitted(twice, (1e-2,))
    np.testing.assert_allclose(fitted(x, (1e-2,), weighed), repeated, rtol=2e-3, atol=1e-4)


def test_strengths_together_are_those_alone():
    x = planted(500, 10)
    together = fitted(x, (1e-4, 1e-1, 10.0))
    for i, strength in enumerate((1e-4, 1e-1, 10.0)):
        np.testing.assert_allclose(together[i], fitted(x, (strength,))[0], rtol=1e-4)


def test_the_order_of_pairs_and_the_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    x = planted(500, 10)
    whole = fitted(x)
    np.testing.assert_allclose(fitted(x[::-1].copy()), whole, rtol=1e-3, atol=1e-6)
    blocks = logistic.blocks
    monkeypatch.setattr(logistic, "blocks", lambda n: blocks(n, 7))
    np.testing.assert_allclose(fitted(x), whole, rtol=1e-3, atol=1e-6)


def test_a_rough_sample_leads_to_the_same_weights(monkeypatch: pytest.MonkeyPatch):
    """Effect: the first Hessian comes from a few pairs, and only the number of passes follows it."""
    x, passes = planted(2000, 30, sharpness=1.0), [0]
    follow = logistic._follow

    def counting(*given: object) -> object:
        passes[-1] += 1
        return follow(*given)

    monkeypatch.setattr(logistic, "_follow", counting)
    whole = fitted(x)
    monkeypatch.setattr(logistic, "SAMPLE", 40)
    passes.append(0)
    rough = fitted(x)
    assert passes[0] < passes[1] < 100
    assert np.abs(rough - whole).max() < TOLERANCE * np.abs(whole).max()


def test_a_column_without_differences_weighs_nothing():
    x = planted(200, 5)
    x[:, 2] = 0
    assert (fitted(x)[:, 2] == 0).all()


@pytest.mark.parametrize("size", [1.0, 1e8])
def test_one_pair_is_fitted_whatever_its_size(size: float):
    found = fitted(np.array([[3.0, -4.0]]) * size)
    assert np.isfinite(found).all()
    assert (found @ [3.0, -4.0] > 0).all()


def test_features_that_are_too_large_give_no_weights():
    with np.errstate(over="ignore", invalid="ignore"):
        assert np.isnan(fitted(planted(20, 3, dtype=np.float64) * 1e200)).all()
